"""Where an image shows anything."""

from __future__ import annotations

import cv2
import numpy as np

from univg.types import Modality, as_float


def estimate_fov(image: np.ndarray, modality: Modality) -> np.ndarray:
    """The round field of a fundus image, from its black surround; the whole frame for other modalities.

    Parameters
    ----------
    image : (H, W) or (H, W, 3) ndarray of uint8, or float32 in [0, 1]
    modality : Modality

    Returns
    -------
    (H, W) ndarray of bool
    """
    if modality is not Modality.FUNDUS:
        return np.ones(image.shape[:2], bool)
    image = as_float(image)
    bright = cv2.GaussianBlur(image if image.ndim == 2 else image.max(axis=2), (0, 0), 3) > 0.1
    count, label, stats, _ = cv2.connectedComponentsWithStats(bright.astype(np.uint8))
    if count < 2:
        return np.ones(image.shape[:2], bool)
    field = (label == 1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])).astype(np.uint8)
    return cv2.erode(field, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))) > 0
