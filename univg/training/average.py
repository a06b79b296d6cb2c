"""The moving average of the weights, which is what is evaluated and kept."""

from __future__ import annotations

import torch


@torch.no_grad()
def update_average(average: dict[str, torch.Tensor], current: dict[str, torch.Tensor], decay: float, step: int) -> None:
    """Exponential moving average, in place, of tensors by name; short at first, to forget the start.

    Tensors that are not floating point, such as counters, are copied. A `decay` of 0 copies everything.
    """
    decay = min(decay, (1 + step) / (10 + step)) if decay else 0.0
    for kept, new in zip(average.values(), current.values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, 1 - decay)
        else:
            kept.copy_(new)
