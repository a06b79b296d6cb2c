"""Where an image shows anything."""

from __future__ import annotations

import cv2
import numpy as np

from univg.types import Modality, as_float

_DARK = 0.1  # the surround of a colour photograph, whose red channel is bright
_DARK_SHARE = 0.2  # of the bright parts of a single channel, which may be dark throughout
_COVERED = 0.98  # of a row or column that belongs to a frame
_FRAME_AT_MOST = 1 / 3  # of a side: what is wider is a dark image


def estimate_fov(image: np.ndarray, modality: Modality) -> np.ndarray:
    """Where an image shows anything.

    The round field of a fundus image within its black surround, what the dark frame of an X-ray image leaves free, and
    the whole image for other modalities.

    Parameters
    ----------
    image : (H, W) or (H, W, 3) ndarray of uint8, or float32 in [0, 1]
    modality : Modality

    Returns
    -------
    (H, W) ndarray of bool
    """
    if modality not in (Modality.FUNDUS, Modality.BRAIN_DSA, Modality.CORONARY_DSA):
        return np.ones(image.shape[:2], bool)
    image = as_float(image)
    light = image if image.ndim == 2 else image.max(axis=2)
    if modality is not Modality.FUNDUS:
        return _within_frame(light)
    light = cv2.GaussianBlur(light, (0, 0), 3)
    bright = light > _least_light(light)
    count, label, stats, _ = cv2.connectedComponentsWithStats(bright.astype(np.uint8))
    if count < 2:
        return np.ones(image.shape[:2], bool)
    field = (label == 1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])).astype(np.uint8)
    outlines, _ = cv2.findContours(field, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(field, outlines, -1, 1, cv2.FILLED)  # a dark fovea is no hole
    return cv2.erode(field, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))) > 0


def _within_frame(light: np.ndarray) -> np.ndarray:
    """What straight dark bands along the border, those of a collimator or of an export, leave free."""
    dark = light <= _least_light(light)
    field = np.ones(light.shape, bool)
    for covered, side in ((dark.mean(axis=1) >= _COVERED, field), (dark.mean(axis=0) >= _COVERED, field.T)):
        for lines, part in ((covered, side), (covered[::-1], side[::-1])):
            width = len(lines) if lines.all() else int(np.argmin(lines))
            if width > _FRAME_AT_MOST * len(lines):
                return np.ones(light.shape, bool)
            if width:
                part[: width + 1] = False  # resizing mixes one line more with the frame
    return field


def _least_light(light: np.ndarray) -> float:
    return min(_DARK, _DARK_SHARE * float(np.percentile(light, 90)))
