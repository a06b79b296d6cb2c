"""From an image to what the network sees: one grey channel with bright vessels, then features of it.

Working on one polarity-corrected channel lets the same network, prior and recipe serve all five modalities.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from univg.geometry import resize_mask, ridge_strength
from univg.types import ImageMaskPair, Modality, SupportSet, as_float

RIDGE_SIGMAS = (1.0, 2.0, 4.0)  # pixels of the working size: thin, middling and thick vessels at 512
LOCAL_SIGMA, LOCAL_SHRINK = 20.0, 4  # pixels, and how much smaller the image is on which so wide a blur is computed


def to_grey(image: np.ndarray, modality: Modality) -> np.ndarray:
    """One channel in which vessels are bright: green of a colour image, inverted where vessels are dark.

    Parameters
    ----------
    image : (H, W) or (H, W, 3) ndarray of uint8, or float32 in [0, 1]
    modality : Modality

    Returns
    -------
    (H, W) ndarray of float32 in [0, 1]
    """
    image = as_float(image)
    grey = image if image.ndim == 2 else image[..., 1]  # green: haemoglobin absorbs it most
    return np.ascontiguousarray(1.0 - grey if modality.vessels_are_dark else grey, dtype=np.float32)


def fit_to_working_size(array: np.ndarray, working_size: int) -> np.ndarray:
    """Scale a float array so that its longer side is `working_size` pixels, keeping its proportions."""
    height, width = array.shape[:2]
    factor = working_size / max(height, width)
    if factor == 1:
        return array
    size = (max(round(width * factor), 1), max(round(height * factor), 1))
    return cv2.resize(array, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)


def shrink_pair(pair: ImageMaskPair, longest: int) -> ImageMaskPair:
    """`pair` with its longer side of at most `longest` pixels, proportions kept; a smaller one as it is."""
    if max(pair.shape) <= longest:
        return pair
    factor = longest / max(pair.shape)
    size = tuple(max(round(side * factor), 1) for side in pair.shape[::-1])
    image = cv2.resize(pair.image, size, interpolation=cv2.INTER_AREA)
    return replace(
        pair,
        image=np.clip(image, 0, 1) if image.dtype == np.float32 else image,  # resampling may exceed them by rounding
        mask=resize_mask(pair.mask, size[::-1]),
        fov=None if pair.fov is None else resize_mask(pair.fov, size[::-1]),
    )


def shrink_support(support: SupportSet, longest: int) -> SupportSet:
    """`support` with every pair as `shrink_pair` makes it; without the size of a pixel, which then differs."""
    if all(max(pair.shape) <= longest for pair in support.pairs):
        return support
    return replace(support, pairs=tuple(shrink_pair(p, longest) for p in support.pairs), pixel_spacing_mm=None)


def network_inputs(grey: np.ndarray, inputs: str) -> np.ndarray:
    """Feature channels of a grey image.

    Parameters
    ----------
    grey : (H, W) ndarray of float32
        With bright vessels.
    inputs : {'grey', 'grey+ridges'}
        The grey levels standardised over the image; with ridges also the locally normalised grey levels and the
        ridge strength at three scales.

    Returns
    -------
    (C, H, W) ndarray of float32
    """
    standard = (grey - grey.mean()) / (grey.std() + 1e-3)
    if inputs == "grey":
        return standard[None]
    local = normalize_locally(grey)
    return np.stack([standard, local, *(ridge_strength(local, sigma) for sigma in RIDGE_SIGMAS)])


def normalize_locally(grey: np.ndarray, sigma: float = LOCAL_SIGMA) -> np.ndarray:
    """Deviation from the local mean in units of the local standard deviation, clipped to [-4, 4]."""
    mean = _wide_blur(grey, sigma)
    deviation = grey - mean
    variance = _wide_blur(deviation * deviation, sigma)
    return np.clip(deviation / np.sqrt(variance + 1e-4), -4, 4)


def _wide_blur(array: np.ndarray, sigma: float, shrink: int = LOCAL_SHRINK) -> np.ndarray:
    """A Gaussian blur much wider than a pixel, computed on a smaller image: an order faster, hardly different."""
    height, width = array.shape
    size = (max(width // shrink, 1), max(height // shrink, 1))
    small = cv2.resize(array, size, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma / shrink, borderType=cv2.BORDER_REFLECT_101)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
