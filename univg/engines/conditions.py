"""What an image engine is told to draw: pictures that a ControlNet reads (section 3.2.2)."""

from __future__ import annotations

import warnings

import cv2
import numpy as np

from univg.errors import InputError
from univg.geometry import ridge_strength
from univg.types import Modality, as_float

CONDITIONS = ("mask", "vesselness", "canny", "lineart", "shuffle")
_RIDGE_SIGMAS = (1.0, 1.5, 2.0, 3.0, 4.5)
_FULL = 99.0  # percentile of the vesselness that counts as 1


def vessel_condition(vessels: np.ndarray, fov: np.ndarray | None = None) -> np.ndarray:
    """Vessels in red and blue, the field of view in green.

    Parameters
    ----------
    vessels : (H, W) ndarray of bool, or of float32 in [0, 1]
        A mask, or a soft map of vessels.
    fov : (H, W) ndarray of bool, optional
        The whole frame without it.

    Returns
    -------
    (H, W, 3) ndarray of float32 in [0, 1]
    """
    vessels = vessels.astype(np.float32)
    field = np.ones_like(vessels) if fov is None else fov.astype(np.float32)
    return np.stack([vessels * field, field, vessels * field], axis=2)


def vesselness(image: np.ndarray, modality: Modality) -> np.ndarray:
    """How much each pixel looks like the middle of a vessel: ridge strength over five widths (Sato et al. 1998).

    Parameters
    ----------
    image : (H, W) or (H, W, 3) ndarray of uint8, or float32 in [0, 1]
    modality : Modality
        Says whether vessels are dark or bright.

    Returns
    -------
    (H, W) ndarray of float32 in [0, 1]
    """
    grey = as_float(image)
    grey = grey if grey.ndim == 2 else grey[..., 1]
    grey = np.ascontiguousarray(1 - grey if modality.vessels_are_dark else grey)
    strongest = np.max([ridge_strength(grey, sigma) for sigma in _RIDGE_SIGMAS], axis=0)
    return np.clip(strongest / max(float(np.percentile(strongest, _FULL)), 1e-6), 0, 1)


def condition_picture(
    kind: str, *, image: np.ndarray, mask: np.ndarray, modality: Modality, fov: np.ndarray | None = None
) -> np.ndarray:
    """The condition called `kind` of a pair.

    Parameters
    ----------
    kind : {'mask', 'vesselness', 'canny', 'lineart', 'shuffle'}
        The last three come from controlnet-aux, which is optional.
    image : (H, W) or (H, W, 3) ndarray of uint8, or float32 in [0, 1]
    mask : (H, W) ndarray of bool
    modality : Modality
    fov : (H, W) ndarray of bool, optional

    Returns
    -------
    (H, W, 3) ndarray of float32 in [0, 1]

    Raises
    ------
    InputError
        If controlnet-aux is needed and not installed.
    """
    if kind == "mask":
        return vessel_condition(mask, fov)
    if kind == "vesselness":
        return vessel_condition(vesselness(image, modality), fov)
    if kind not in CONDITIONS:
        raise ValueError(f"`kind` must be one of {CONDITIONS}, got {kind!r}")
    grey = np.rint(as_float(image) * 255).astype(np.uint8)
    colour = grey if grey.ndim == 3 else np.repeat(grey[..., None], 3, axis=2)
    state = np.random.get_state()
    np.random.seed(0)
    try:
        found = _detector(kind)(colour, detect_resolution=min(colour.shape[:2]), output_type="np")
    finally:
        np.random.set_state(state)
    found = cv2.resize(found, mask.shape[::-1], interpolation=cv2.INTER_AREA)
    return found.astype(np.float32) / 255


def _detector(kind: str):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of models that it registers twice
            import controlnet_aux  # loads every detector it has, for seconds
    except ImportError as error:
        raise InputError(
            f"The condition {kind!r} needs the package controlnet-aux",
            fix="Install it with pip install controlnet-aux, or use the mask.",
        ) from error
    names = {"canny": "CannyDetector", "lineart": "LineartStandardDetector", "shuffle": "ContentShuffleDetector"}
    return getattr(controlnet_aux, names[kind])()
