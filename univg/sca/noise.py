"""Smooth random fields, for deformations and for winding."""

from __future__ import annotations

import cv2
import numpy as np


def smooth_noise(shape: tuple[int, int], sigma: float, rng: np.random.Generator) -> np.ndarray:
    """A random field of unit variance that varies over about `sigma` pixels, interpolated from a coarse grid."""
    coarse = (int(np.ceil(shape[0] / sigma)) + 4, int(np.ceil(shape[1] / sigma)) + 4)
    field = rng.standard_normal(coarse).astype(np.float32)
    size = (round(coarse[1] * sigma), round(coarse[0] * sigma))
    field = cv2.resize(field, size, interpolation=cv2.INTER_CUBIC)
    top, left = round(1.5 * sigma), round(1.5 * sigma)
    field = field[top : top + shape[0], left : left + shape[1]]
    return (field - field.mean()) / (field.std() + 1e-6)
