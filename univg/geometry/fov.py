"""Where an image shows anything."""

from __future__ import annotations

import cv2
import numpy as np

from univg.types import Modality, as_float

_DARK = 0.1  # the surround of a colour photograph, whose red channel is bright
_DARK_SHARE = 0.2  # of the bright parts of a single channel, which may be dark throughout


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
    light = cv2.GaussianBlur(image if image.ndim == 2 else image.max(axis=2), (0, 0), 3)
    bright = light > min(_DARK, _DARK_SHARE * np.percentile(light, 90))
    count, label, stats, _ = cv2.connectedComponentsWithStats(bright.astype(np.uint8))
    if count < 2:
        return np.ones(image.shape[:2], bool)
    field = (label == 1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])).astype(np.uint8)
    outlines, _ = cv2.findContours(field, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(field, outlines, -1, 1, cv2.FILLED)  # a dark fovea is no hole
    return cv2.erode(field, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))) > 0
