"""Where a model is unsure, and what is worth a look first."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from app.napari_plugin.branches import find_branches

_FAINT = 0.25  # vessels just below the threshold are looked at too
_SHORTEST = 6  # pixels of centreline
_LARGEST_SIDE = 1024  # of the frame that segments are looked for in


@dataclass(frozen=True)
class Doubt:
    """A stretch of vessel that the model is unsure about.

    Attributes
    ----------
    row, col : float
        Its middle, in pixels.
    uncertainty : float
        Mean along it, 0 to 1.
    length : int
        In pixels.
    """

    row: float
    col: float
    uncertainty: float
    length: int


def uncertainty_map(probability: np.ndarray) -> np.ndarray:
    """Entropy of the vessel probability in bits: 0 is sure, 1 is undecided; (H, W) float32."""
    p = np.clip(probability, 1e-6, 1 - 1e-6).astype(np.float32)
    return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))


def doubtful_segments(probability: np.ndarray, *, most: int = 60) -> list[Doubt]:
    """The segments between branch points, the least certain first.

    Vessels too faint to be in the mask take part, since a missed vessel is as wrong as an invented one.

    Parameters
    ----------
    probability : (H, W) ndarray of float in [0, 1]
    most : int

    Returns
    -------
    list of Doubt
    """
    factor = max(max(probability.shape) / _LARGEST_SIDE, 1.0)
    if factor > 1:
        size = (round(probability.shape[1] / factor), round(probability.shape[0] / factor))
        probability = cv2.resize(probability, size, interpolation=cv2.INTER_AREA)
    branches = find_branches(probability >= _FAINT)
    count = branches.count + 1
    unsure = uncertainty_map(probability)[branches.points[:, 0], branches.points[:, 1]]
    length = np.bincount(branches.branch_of, minlength=count)
    total = np.bincount(branches.branch_of, weights=unsure, minlength=count)
    found = []
    for branch in range(1, count):
        if length[branch] < _SHORTEST:
            continue
        points = branches.points[branches.branch_of == branch]
        middle = points[np.argmin(np.linalg.norm(points - points.mean(axis=0), axis=1))]
        row, col = (float(value) * factor for value in middle)
        found.append(Doubt(row, col, float(total[branch] / length[branch]), round(length[branch] * factor)))
    return sorted(found, key=lambda doubt: -doubt.uncertainty)[:most]
