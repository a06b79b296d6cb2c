"""Smooth random fields, for deformations and for winding."""

from __future__ import annotations

import numpy as np

_SHARPNESS = -0.75  # of cubic convolution; the value that OpenCV has
_MARGIN = 1.5  # cells of the coarse grid before the frame, over which the interpolation has all it needs


def smooth_noise(shape: tuple[int, int], sigma: float, rng: np.random.Generator) -> np.ndarray:
    """A random field of unit variance that varies over about `sigma` pixels, interpolated from a coarse grid.

    It varies over no less than a pixel. Only what lies in the frame is interpolated, whatever `sigma` is.
    """
    sigma = max(sigma, 1.0)
    coarse = tuple(int(np.ceil(side / sigma)) + 4 for side in shape)
    field = rng.standard_normal(coarse).astype(np.float32)
    for side, cells in zip(shape, coarse, strict=True):
        field = _interpolated(field, side, sigma, cells).T  # rows, then columns
    return (field - field.mean()) / (field.std() + 1e-6)


def _interpolated(field: np.ndarray, side: int, sigma: float, cells: int) -> np.ndarray:
    """`side` rows of a field of so many cells, each `sigma` pixels high, by cubic convolution (Keys 1981)."""
    height = np.rint(cells * sigma)
    at = (np.arange(side) + np.rint(_MARGIN * sigma) + 0.5) * (cells / height) - 0.5
    first = np.floor(at).astype(np.int64)
    t = (at - first).astype(np.float32)[:, None]
    rows = np.zeros((side, field.shape[1]), np.float32)
    for tap in range(-1, 3):
        gap = np.abs(t - np.float32(tap))
        near = ((_SHARPNESS + 2) * gap - (_SHARPNESS + 3)) * gap * gap + 1
        far = ((_SHARPNESS * gap - 5 * _SHARPNESS) * gap + 8 * _SHARPNESS) * gap - 4 * _SHARPNESS
        rows += np.where(gap <= 1, near, far) * field[np.clip(first + tap, 0, cells - 1)]
    return rows
