"""Masks and probabilities drawn over the image they belong to, one output pixel per image pixel.

The colours are from the palette of M. Okabe and K. Ito ("Color Universal Design", 2008), which people with
the common kinds of colour blindness can tell apart.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from univg.types import as_float, check_image

Colour = tuple[int, int, int]

PREDICTION: Colour = (86, 180, 233)
REFERENCE: Colour = (230, 159, 0)
MISSED: Colour = (213, 94, 0)
AGREEMENT: Colour = (0, 158, 115)


def overlay_mask(
    image: np.ndarray,
    mask: np.ndarray,
    *,
    colour: Colour = PREDICTION,
    opacity: float = 0.6,
    outline: bool = False,
) -> np.ndarray:
    """`image` with the pixels of `mask` tinted.

    Parameters
    ----------
    image : (H, W) or (H, W, 3) ndarray of uint8, or of float32 in [0, 1]
    mask : (H, W) ndarray of bool
    colour : tuple of int
        Red, green and blue, 0 to 255.
    opacity : float
        In [0, 1]; at 1 the tinted pixels have exactly `colour`, at 0 nothing changes.
    outline : bool
        Tint only the mask's own border pixels: those with a 4-neighbour outside it, or off the image.

    Returns
    -------
    (H, W, 3) ndarray of uint8
    """
    _check_mask("mask", mask, image)
    marked = mask & ~ndimage.binary_erosion(mask) if outline else mask
    return _tint(image, [(marked, colour)], opacity)


def overlay_agreement(
    image: np.ndarray, mask: np.ndarray, reference: np.ndarray, *, opacity: float = 0.6
) -> np.ndarray:
    """`image` with a prediction compared to a reference.

    Pixels in both are tinted `AGREEMENT`, those only in `mask` `PREDICTION`, and those only in `reference`
    `MISSED`.

    Parameters
    ----------
    image : (H, W) or (H, W, 3) ndarray of uint8, or of float32 in [0, 1]
    mask, reference : (H, W) ndarray of bool
    opacity : float
        In [0, 1].

    Returns
    -------
    (H, W, 3) ndarray of uint8
    """
    _check_mask("mask", mask, image)
    _check_mask("reference", reference, image)
    layers = [(mask & reference, AGREEMENT), (mask & ~reference, PREDICTION), (~mask & reference, MISSED)]
    return _tint(image, layers, opacity)


def colour_probability(probability: np.ndarray, image: np.ndarray | None = None, *, opacity: float = 0.6) -> np.ndarray:
    """A probability in a perceptually uniform colour map (cividis), alone or over `image`.

    Parameters
    ----------
    probability : (H, W) ndarray of float in [0, 1]
    image : (H, W) or (H, W, 3) ndarray of uint8, or of float32 in [0, 1], optional
    opacity : float
        In [0, 1], of the colours over `image`; without an image they are opaque.

    Returns
    -------
    (H, W, 3) ndarray of uint8

    References
    ----------
    J. R. Nuñez, C. R. Anderton and R. S. Renslow, PLoS ONE 13 (2018), :DOI:`10.1371/journal.pone.0199239`.
    """
    from matplotlib import colormaps

    if probability.ndim != 2 or probability.dtype.kind != "f":
        raise ValueError(f"`probability` must be a float (H, W) array, got {probability.dtype} {probability.shape}")
    if probability.size and not (probability.min() >= 0 and probability.max() <= 1):
        raise ValueError(f"`probability` must lie in [0, 1], got [{probability.min():.3g}, {probability.max():.3g}]")
    _check_opacity(opacity)
    if image is not None:
        _check_same_size("probability", probability, image)
    table = _to_bytes(colormaps["cividis"](np.arange(256))[:, :3])
    colours = table[np.minimum((probability * 256).astype(np.int16), 255)]
    if image is None:
        return colours
    share = np.float32(opacity)
    return _to_bytes((1 - share) * _as_rgb(as_float(image)) + share / 255 * colours)


def _tint(image: np.ndarray, layers: list[tuple[np.ndarray, Colour]], opacity: float) -> np.ndarray:
    """Only marked pixels are computed: a picture is drawn anew with every move of a slider."""
    _check_opacity(opacity)
    check_image(image)
    rgb, full = _as_rgb(image), 255 if image.dtype == np.uint8 else 1
    canvas = rgb.copy() if full == 255 else _to_bytes(rgb)
    for marked, colour in layers:
        canvas[marked] = _to_bytes((1 - opacity) * (rgb[marked] / full) + opacity * np.array(colour) / 255)
    return canvas


def _as_rgb(image: np.ndarray) -> np.ndarray:
    return np.repeat(image[..., np.newaxis], 3, axis=2) if image.ndim == 2 else image


def _to_bytes(canvas: np.ndarray) -> np.ndarray:
    return np.rint(canvas * 255).astype(np.uint8)


def _check_opacity(opacity: float) -> None:
    if not 0 <= opacity <= 1:
        raise ValueError(f"`opacity` must lie between 0 and 1, got {opacity}")


def _check_mask(name: str, mask: np.ndarray, image: np.ndarray) -> None:
    if mask.dtype != np.bool_:
        raise ValueError(f"`{name}` must be a bool array, got {mask.dtype}")
    _check_same_size(name, mask, image)


def _check_same_size(name: str, array: np.ndarray, image: np.ndarray) -> None:
    if array.shape != image.shape[:2]:
        raise ValueError(f"`{name}` (shape {array.shape}) must have the size of `image` (shape {image.shape[:2]})")
