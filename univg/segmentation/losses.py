"""Losses on logits."""

from __future__ import annotations

import torch
from torch.nn import functional


def segmentation_loss(
    logits: torch.Tensor, target: torch.Tensor, *, bce_weight: float, dice_weight: float
) -> torch.Tensor:
    """Binary cross-entropy (eq. 19) plus soft Dice, each averaged over the batch.

    Parameters
    ----------
    logits, target : (B, 1, H, W) tensor of float32
        `target` in [0, 1].
    bce_weight, dice_weight : float

    Returns
    -------
    () tensor
    """
    loss = logits.new_zeros(())
    if bce_weight:
        loss = loss + bce_weight * functional.binary_cross_entropy_with_logits(logits, target)
    if dice_weight:
        probability = logits.sigmoid()
        overlap = (probability * target).sum((1, 2, 3))
        total = (probability + target).sum((1, 2, 3))
        # The constant keeps a patch without vessels from dominating: one stray pixel must not cost a whole Dice.
        loss = loss + dice_weight * (1 - (2 * overlap + 50) / (total + 50)).mean()
    return loss
