"""One optimizer step, its schedule and the moving average of the weights, shared by all trainings."""

from __future__ import annotations

import math

import torch
from torch import nn

from univg.segmentation.config import SegmentationConfig
from univg.segmentation.device import autocast
from univg.segmentation.losses import segmentation_loss


def optimize_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: torch.Tensor,
    masks: torch.Tensor,
    config: SegmentationConfig,
    *,
    step: int,
    parts: int = 1,
) -> float:
    """One optimizer step on a batch computed in `parts`, for a GPU that cannot hold it at once; returns the loss."""
    for group in optimizer.param_groups:
        group["lr"] = _learning_rate(config, step)
    network.train()
    optimizer.zero_grad(set_to_none=True)
    value = 0.0
    for part, target in zip(inputs.chunk(parts), masks.chunk(parts), strict=True):
        share = len(part) / len(inputs)
        with autocast(inputs.device, config.precision):
            logits = network(part)
        loss = share * segmentation_loss(
            logits.float(), target, bce_weight=config.bce_weight, dice_weight=config.dice_weight
        )
        value += loss.item()
        loss.backward()
    if not math.isfinite(value):
        raise FloatingPointError(f"The loss became {value} at step {step}; lower `learning_rate`")
    optimizer.step()
    return value


def _learning_rate(config: SegmentationConfig, step: int) -> float:
    warmup = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    decay = 0.5 * (1 + math.cos(math.pi * step / config.steps)) if config.schedule == "cosine" else 1.0
    return config.learning_rate * warmup * decay


def make_optimizer(network: nn.Module, config: SegmentationConfig) -> torch.optim.Optimizer:
    kind = torch.optim.AdamW if config.weight_decay else torch.optim.Adam
    return kind(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Exponential moving average of weights and normalisation statistics; short at first, to forget the start."""
    decay = min(decay, (1 + step) / (10 + step)) if decay else 0.0
    for kept, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, 1 - decay)
        else:
            kept.copy_(new)
