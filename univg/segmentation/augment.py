"""Random training patches: geometry for image and mask together, appearance for the image alone."""

from __future__ import annotations

import cv2
import numpy as np


def random_patch(
    grey: np.ndarray,
    mask: np.ndarray,
    *,
    size: int,
    affine: bool = True,
    appearance: float = 1.0,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """One augmented patch.

    Parameters
    ----------
    grey : (H, W) ndarray of float32
    mask : (H, W) ndarray of float32 in {0, 1}
    size : int
        Side of the patch in pixels; smaller images are continued by reflection.
    affine : bool
        True: any rotation, scaling by up to a third, shear. False: flips and quarter turns, which leave every grey
        level as it is.
    appearance : float
        Strength of changes in illumination, contrast, sharpness and noise, 0 to 1.
    rng : numpy.random.Generator

    Returns
    -------
    grey, mask : (size, size) ndarray of float32
    """
    matrix = _random_affine(grey.shape, size, affine, rng)
    # OpenCV never returns from reflecting a side of one pixel about itself.
    border = cv2.BORDER_REFLECT_101 if min(grey.shape) > 1 else cv2.BORDER_REPLICATE
    # Cubic, since linear interpolation would blur what no image to be segmented is blurred by.
    kinds = (cv2.INTER_CUBIC, cv2.INTER_LINEAR) if affine else (cv2.INTER_NEAREST, cv2.INTER_NEAREST)
    grey_patch, mask_patch = (
        cv2.warpAffine(array, matrix, (size, size), flags=cv2.WARP_INVERSE_MAP | kind, borderMode=border)
        for array, kind in zip((grey, mask), kinds, strict=True)
    )
    if appearance:
        grey_patch = _random_appearance(grey_patch, appearance, rng)
    return grey_patch, (mask_patch > 0.5).astype(np.float32)


def _random_affine(shape: tuple[int, int], size: int, affine: bool, rng: np.random.Generator) -> np.ndarray:
    """The 2 x 3 map from patch to image coordinates (x, y)."""
    if affine:
        angle = rng.uniform(0, 2 * np.pi)
        scale = np.exp(rng.uniform(-0.3, 0.3))
        shear = rng.normal(0, 0.08)
    else:
        angle, scale, shear = rng.integers(4) * np.pi / 2, 1.0, 0.0
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    linear = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, shear], [0, 1]])
    if rng.random() < 0.5:
        linear[:, 0] *= -1
    height, width = shape
    margin_x, margin_y = (max(0.0, min(side, size * scale) / 2 - 0.1 * side) for side in (width, height))
    centre = np.array([rng.uniform(margin_x, width - margin_x), rng.uniform(margin_y, height - margin_y)])
    if not affine:
        centre = np.floor(centre) + (0.5 if size % 2 == 0 else 0.0)
    offset = centre - linear @ np.full(2, (size - 1) / 2)
    return np.column_stack([linear, offset])


def _random_appearance(grey: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    size = grey.shape[0]
    coarse = rng.normal(0, 0.12, (3, 3)).astype(np.float32) * np.float32(strength * rng.random())
    gamma, gain = np.exp(strength * rng.uniform(-0.35, 0.35, 2)).astype(np.float32)
    grey = np.clip(grey, 0, 1) ** gamma
    grey = (grey - 0.5) * gain + 0.5
    grey = grey + cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.2 * strength:
        grey = cv2.GaussianBlur(grey, (0, 0), rng.uniform(0.4, 1.2))
    if rng.random() < 0.5:
        grey = grey + rng.standard_normal(grey.shape, dtype=np.float32) * np.float32(strength * rng.uniform(0, 0.04))
    return grey
