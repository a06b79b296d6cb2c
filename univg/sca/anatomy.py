"""Where vessels come from, found on a real image or mask: the optic disc and the hub of a vessel tree."""

from __future__ import annotations

import cv2
import numpy as np

from univg.geometry.skeleton import local_radius
from univg.sca.memory import MaskMemory
from univg.types import Modality, as_float

_LARGEST = 1024  # pixels of the side that is searched: the widest blur takes time with the third power of it
_DISC = 0.06  # radius of the optic disc as a share of the frame
_DARKEST_FIELD = 0.08  # grey level below which a fundus image shows the camera's surround


def find_hub(modality: Modality, mask: np.ndarray, image: np.ndarray | None = None) -> tuple[float, float] | None:
    """Where the vessels of a fundus come from; None for other modalities, which have no single place.

    Parameters
    ----------
    modality : Modality
    mask : (H, W) ndarray of bool
    image : (H, W) or (H, W, 3) ndarray of uint8, or float32 in [0, 1], optional
        The photograph that `mask` belongs to; the optic disc on it is more reliable than the hub of the mask.

    Returns
    -------
    tuple of float or None
        ``(row, col)`` in pixels.
    """
    if modality is not Modality.FUNDUS:
        return None
    return (None if image is None else find_optic_disc(image)) or vessel_hub(mask)


def find_optic_disc(image: np.ndarray) -> tuple[float, float] | None:
    """The centre of the optic disc of a fundus photograph: the blob brightest against its surroundings.

    Parameters
    ----------
    image : (H, W) or (H, W, 3) ndarray of uint8, or float32 in [0, 1]

    Returns
    -------
    tuple of float or None
        ``(row, col)`` in pixels; None when nothing stands out.
    """
    longest = max(image.shape[:2])
    if longest > _LARGEST:
        found = find_optic_disc(_reduced(image))
        return None if found is None else _at_full_size(found, longest)
    image = as_float(image)
    bright = image if image.ndim == 2 else image[..., :2].mean(axis=2)  # the disc is pale in red and green
    size = min(bright.shape)
    field = (cv2.GaussianBlur(bright, (0, 0), 2) > _DARKEST_FIELD).astype(np.uint8)
    margin = 2 * (size // 50) + 1
    inside = cv2.erode(field, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (margin, margin))) > 0
    if inside.mean() < 0.1:
        return None
    # Against its surroundings within the field, so that the dark surround makes no edge bright.
    weight = field.astype(np.float32)
    disc = _masked_blur(bright, weight, 0.6 * _DISC * size)
    around = _masked_blur(bright, weight, 3 * _DISC * size)
    contrast = np.where(inside, disc - around, -np.inf)
    row, col = np.unravel_index(np.argmax(contrast), contrast.shape)
    spread = contrast[inside].std()
    if contrast[row, col] < 2.5 * spread:
        return None
    return float(row), float(col)


def vessel_hub(mask: np.ndarray) -> tuple[float, float] | None:
    """Where thick vessels meet: the optic disc on a fundus mask, the trunk elsewhere; remembered for the last masks.

    Parameters
    ----------
    mask : (H, W) ndarray of bool

    Returns
    -------
    tuple of float or None
        ``(row, col)`` in pixels; None for an empty mask.
    """
    return _hub_of(mask)


def _find_hub_of_vessels(mask: np.ndarray) -> tuple[float, float] | None:
    if not mask.any():
        return None
    weight = local_radius(mask) ** 2
    longest = max(mask.shape)
    if longest > _LARGEST:
        weight = _reduced(weight)
    weight = cv2.GaussianBlur(weight, (0, 0), 0.5 * _DISC * min(weight.shape))
    row, col = np.unravel_index(np.argmax(weight), weight.shape)
    return _at_full_size((float(row), float(col)), longest)


_hub_of = MaskMemory(_find_hub_of_vessels, most_bytes=1 << 20)


def _reduced(image: np.ndarray) -> np.ndarray:
    factor = _LARGEST / max(image.shape[:2])
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


def _at_full_size(point: tuple[float, float], longest: int) -> tuple[float, float]:
    factor = min(_LARGEST / longest, 1)
    row, col = ((at + 0.5) / factor - 0.5 for at in point)
    return row, col


def _masked_blur(image: np.ndarray, weight: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(image * weight, (0, 0), sigma) / np.maximum(cv2.GaussianBlur(weight, (0, 0), sigma), 1e-3)
