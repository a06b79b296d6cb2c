"""Synthetic pairs without a generative network: inpaint the vessels out of a real image, draw new ones on it.

The look of vessels (contrast by calibre and depth, softness of the edge) is measured on the same image, so a rendered
pair has its colours, texture and field of view.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from univg.geometry import estimate_fov, local_radius, nearest_centreline, resize_mask
from univg.types import ImageMaskPair, Modality, as_float

_DEPTH_BINS = 5  # from the wall (0) to the centreline (1)
_HALO = 3  # pixels outside the mask over which vessels fade
_RADIUS_EDGES = np.array([1.1, 2.1, 3.5])  # pixels: capillary, small, middling, large
_TEXTURE_SIGMA = 6.0
_FEW_PIXELS = 200


@dataclass(frozen=True, eq=False)
class Appearance:
    """What one real image looks like, taken apart.

    Attributes
    ----------
    background : (H, W, C) ndarray of float32
        The image with its vessels inpainted.
    contrast : (R, K, C) ndarray of float32
        Mean difference between vessel and background for R classes of radius and K positions across the vessel
        (outside to inside).
    fov : (H, W) ndarray of bool
    slope : (C,) ndarray of float32
        By how much the contrast changes with the local mean of the background: -1 where vessels have one brightness
        wherever they run, above 0 where they darken or brighten by a share.
    level : (C,) ndarray of float32
        Local mean of the background at which `contrast` holds.
    texture_share : (C,) ndarray of float32
        How much of the background's texture is left inside vessels, 0 to 1.
    """

    background: np.ndarray
    contrast: np.ndarray
    fov: np.ndarray
    slope: np.ndarray
    level: np.ndarray
    texture_share: np.ndarray


def render_pairs(
    support: Sequence[ImageMaskPair], masks: Sequence[np.ndarray], *, modality: Modality, rng: np.random.Generator
) -> Iterator[ImageMaskPair]:
    """Draw each mask on the inpainted background of a randomly chosen support image.

    Parameters
    ----------
    support : sequence of ImageMaskPair
        Real pairs.
    masks : sequence of (H, W) ndarray of bool
        One synthetic pair is made of each; resized to the support image where sizes differ.
    modality : Modality
    rng : numpy.random.Generator

    Yields
    ------
    ImageMaskPair
        With ``synthetic=True``, the dtype of the support image, and the name of the background in its own.
    """
    appearances = [measure_appearance(pair, modality) for pair in support]
    for number, mask in enumerate(masks):
        chosen = int(rng.integers(len(support)))
        name = f"rendered-{number:04d}-on-{support[chosen].name}"
        pair = render_pair(support[chosen], mask, appearance=appearances[chosen], rng=rng, name=name)
        flips = tuple(slice(None, None, -1 if rng.random() < 0.5 else None) for _ in range(2))
        yield replace(
            pair,
            image=np.ascontiguousarray(pair.image[flips]),
            mask=np.ascontiguousarray(pair.mask[flips]),
            fov=None if pair.fov is None else np.ascontiguousarray(pair.fov[flips]),
        )


def render_pair(
    source: ImageMaskPair, mask: np.ndarray, *, appearance: Appearance, rng: np.random.Generator, name: str
) -> ImageMaskPair:
    """Draw `mask`, cut by the field of view, on the inpainted background of `source`, whose `appearance` this is."""
    mask = resize_mask(mask, source.shape) & appearance.fov
    image = render_vessels(appearance, mask, rng=rng)
    if source.image.ndim == 2:
        image = image[..., 0]
    if source.image.dtype == np.uint8:
        image = np.rint(image * 255).astype(np.uint8)
    return ImageMaskPair(image, mask, name, fov=source.fov, synthetic=True)


def measure_appearance(pair: ImageMaskPair, modality: Modality) -> Appearance:
    """Take `pair` apart into a vessel-free background and the contrast of its vessels."""
    image = as_float(pair.image)
    image = image[..., None] if image.ndim == 2 else image
    fov = pair.fov if pair.fov is not None else estimate_fov(pair.image, modality)
    # Vessels blur beyond the annotated edge, thick ones more.
    margin = 3 + 0.4 * nearest_centreline(pair.mask)[0] if pair.mask.any() else 0
    outside = cv2.distanceTransform((~pair.mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    hole = pair.mask | (outside <= margin)
    smooth = _mean_of_valid(image, fov & ~hole)
    background = _inpaint(image, smooth, hole=hole & fov, valid=fov & ~hole)
    drawn = pair.mask & fov
    contrast = _measure_contrast(image - smooth, drawn)
    return Appearance(background, contrast, fov, *_measure_inside(image, smooth, contrast, drawn, fov & ~hole))


def render_vessels(appearance: Appearance, mask: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """Draw `mask` on the background.

    Returns
    -------
    (H, W, C) ndarray of float32 in [0, 1]
    """
    if not mask.any():
        return appearance.background.copy()
    position, radius_class = _across_vessel(mask)
    drawn = position >= 0
    delta = np.zeros_like(appearance.background)
    delta[drawn] = appearance.contrast[radius_class[drawn], position[drawn]]
    delta = cv2.GaussianBlur(delta, (0, 0), 0.7).reshape(delta.shape)
    smooth = _mean_of_field(appearance.background, appearance.fov)
    core = appearance.contrast[:, -1].mean(axis=0)
    brightness = appearance.slope * (smooth - appearance.level) / np.where(np.abs(core) > 0.01, core, np.inf)
    delta *= np.clip(1 + brightness, 0.2, 2)
    # Contrast agent, depth and illumination vary along a vessel and between images.
    coarse = rng.normal(0, 0.3, (6, 6)).astype(np.float32)
    variation = cv2.resize(coarse, mask.shape[::-1], interpolation=cv2.INTER_CUBIC) + rng.normal(0, 0.15)
    inside = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.7)[..., None]
    texture = (appearance.background - smooth) * (1 - inside * (1 - appearance.texture_share))
    image = smooth + texture + delta * np.exp(variation).astype(np.float32)[..., None]
    return np.clip(np.where(appearance.fov[..., None], image, appearance.background), 0, 1)


def _mean_of_field(background: np.ndarray, fov: np.ndarray) -> np.ndarray:
    """Local mean within the field of view: with what surrounds it, vessels would lose their contrast near its rim."""
    near = cv2.GaussianBlur(fov.astype(np.float32), (0, 0), _TEXTURE_SIGMA)[..., None]
    mean = cv2.GaussianBlur(background * fov[..., None], (0, 0), _TEXTURE_SIGMA).reshape(background.shape)
    return mean / np.maximum(near, 1e-6)


def _mean_of_valid(image: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Local mean over valid pixels only, over a wider neighbourhood where few are near."""
    result = np.zeros_like(image)
    weight = np.zeros(valid.shape, np.float32)
    for sigma, share in ((_TEXTURE_SIGMA, 1.0), (4 * _TEXTURE_SIGMA, 1e-2), (20 * _TEXTURE_SIGMA, 1e-4)):
        near = share * cv2.GaussianBlur(valid.astype(np.float32), (0, 0), sigma)
        result += share * cv2.GaussianBlur(image * valid[..., None], (0, 0), sigma).reshape(image.shape)
        weight += near
    return result / np.maximum(weight, 1e-8)[..., None]


def _inpaint(image: np.ndarray, smooth: np.ndarray, *, hole: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Fill holes with the local mean plus texture taken from nearby, so that no smooth trace betrays a vessel."""
    texture = np.where(valid[..., None], image - smooth, 0).astype(np.float32)
    if valid.any():  # an unannotated vessel is no texture to copy
        low, high = np.percentile(texture[valid], [3, 97], axis=0).astype(np.float32)
        texture = np.clip(texture, low, high)
    missing = hole.copy()
    fill = np.zeros_like(image)
    for distance in range(6, 60, 3):
        for quarter in range(4):
            angle = (quarter + distance / 7) * np.pi / 2
            shift = (round(distance * np.sin(angle)), round(distance * np.cos(angle)))
            found = missing & np.roll(valid, shift, (0, 1))
            fill[found] = np.roll(texture, shift, (0, 1))[found]
            missing &= ~found
    # Beyond the field nothing was taken away.
    soft = cv2.GaussianBlur(hole.astype(np.float32), (0, 0), 1.0)[..., None] * (valid | hole)[..., None]
    filled = np.where(hole[..., None], smooth + fill, image * (1 - soft) + (smooth + texture) * soft)
    return np.clip(filled, 0, 1).astype(np.float32)


def _measure_contrast(difference: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean of `difference` by radius class and position across the vessel; empty classes borrow from the others."""
    classes, positions = len(_RADIUS_EDGES) + 1, _DEPTH_BINS + _HALO
    table = np.zeros((classes, positions, difference.shape[2]), np.float32)
    if not mask.any():
        return table
    position, radius_class = _across_vessel(mask)
    drawn = position >= 0
    cell = radius_class[drawn] * positions + position[drawn]
    count = np.bincount(cell, minlength=classes * positions).reshape(classes, positions)
    for channel in range(difference.shape[2]):
        total = np.bincount(cell, weights=difference[..., channel][drawn], minlength=classes * positions)
        table[..., channel] = total.reshape(classes, positions) / np.maximum(count, 1)
    overall = (table * count[..., None]).sum(0) / np.maximum(count.sum(0), 1)[:, None]
    return np.where((count >= 30)[..., None], table, overall)


def _measure_inside(
    image: np.ndarray, smooth: np.ndarray, contrast: np.ndarray, mask: np.ndarray, valid: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`slope`, `level` and `texture_share` of an `Appearance`, one value a channel."""
    channels = image.shape[2]
    slope, level, share = np.zeros(channels, np.float32), np.zeros(channels, np.float32), np.ones(channels, np.float32)
    position, radius_class = _across_vessel(mask) if mask.any() else (np.full(mask.shape, -1), None)
    core = position >= _HALO + 1
    if core.sum() < _FEW_PIXELS or valid.sum() < _FEW_PIXELS:
        return slope, level, share
    for channel in range(channels):
        found = (image - smooth)[..., channel][core]
        around = smooth[..., channel][core]
        level[channel] = around.mean()
        rest = found - contrast[radius_class[core], position[core], channel]
        off = around - level[channel]
        slope[channel] = np.clip((off * rest).sum() / max((off**2).sum(), 1e-6), -1, 1)
        outside = (image - smooth)[..., channel][valid].std()
        share[channel] = np.clip((rest - slope[channel] * off).std() / max(outside, 1e-6), 0, 1)
    return slope, level, share


def _across_vessel(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel lies across its vessel (-1 = on none, 0 = outermost halo) and the class of its radius."""
    radius, _ = nearest_centreline(mask)
    depth = local_radius(mask)
    outside = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    inner = _HALO + np.minimum((depth / np.maximum(radius, 0.5) * _DEPTH_BINS).astype(int), _DEPTH_BINS - 1)
    halo = _HALO - np.ceil(outside).astype(int)
    position = np.where(mask, inner, np.where(halo >= 0, halo, -1))
    return position, np.searchsorted(_RADIUS_EDGES, radius)
