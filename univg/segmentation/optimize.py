"""One optimizer step of a segmentation network."""

from __future__ import annotations

import math

import torch
from torch import nn

from univg.segmentation.config import SegmentationConfig
from univg.segmentation.losses import segmentation_loss
from univg.training.device import autocast
from univg.training.schedule import learning_rate_at


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
        group["lr"] = learning_rate_at(config, step)
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


def make_optimizer(network: nn.Module, config: SegmentationConfig) -> torch.optim.Optimizer:
    kind = torch.optim.AdamW if config.weight_decay else torch.optim.Adam
    return kind(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
