"""Drawing a vessel tree as a mask of exactly the size asked for."""

from __future__ import annotations

import cv2
import numpy as np

from univg.geometry.tree import VesselTree

_SUBPIXEL_BITS = 4
_SUBPIXEL = 1 << _SUBPIXEL_BITS
_HALF = 0.5 - 1e-5  # but for rounding, of sums of float32


def resize_mask(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """`mask`, (H, W) bool, at ``(height, width)``: vessel where at least half of a pixel would be.

    Exactly half counts: a line of one pixel, or one of two between the pixels of half the size, is nowhere more.
    """
    if mask.shape == tuple(shape):
        return mask
    kind = cv2.INTER_AREA if shape[0] * shape[1] < mask.size else cv2.INTER_LINEAR
    return cv2.resize(mask.astype(np.float32), shape[1::-1], interpolation=kind) >= _HALF


def rasterize_tree(tree: VesselTree, shape: tuple[int, int] | None = None) -> np.ndarray:
    """Draw `tree` with its radii, tapering linearly along each segment.

    Every segment also gets a one-pixel line, so that a vessel thinner than a pixel still is connected.

    Parameters
    ----------
    tree : VesselTree
    shape : tuple of int, optional
        ``(height, width)`` of the result, in pixels; the tree's own frame by default.

    Returns
    -------
    (H, W) ndarray of bool
    """
    height, width = tree.shape if shape is None else shape
    canvas = np.zeros((height, width), np.uint8)
    if not len(tree):
        return canvas.astype(bool)

    grown = np.flatnonzero(tree.parents >= 0)
    end = np.concatenate([grown, tree.links[:, 0]])
    start = np.concatenate([tree.parents[grown], tree.links[:, 1]])
    end_radii = tree.radii[end]
    start_radii = np.concatenate([tree.radii[tree.parents[grown]], tree.radii[tree.links[:, 0]]])  # a link is no cone
    lines = np.stack([tree.positions[start, ::-1], tree.positions[end, ::-1]], axis=1)
    cv2.polylines(canvas, list(_fixed_point(lines)), False, 1, 1, cv2.LINE_8, _SUBPIXEL_BITS)

    roots = tree.roots
    centres, radii = _dense_samples(tree.positions[start], tree.positions[end], start_radii, end_radii)
    centres, radii = (
        np.concatenate([tree.positions[roots], centres])[:, ::-1],
        np.concatenate([tree.radii[roots], radii]),
    )
    # OpenCV's disc of radius 0 is one pixel wide, that of radius 1 three: half a pixel is its own.
    radii = radii - 0.5
    thick = radii > 0.25  # smaller discs add nothing to the one-pixel line
    for centre, radius in zip(_fixed_point(centres[thick]).tolist(), _fixed_point(radii[thick]).tolist(), strict=True):
        cv2.circle(canvas, centre, radius, 1, cv2.FILLED, cv2.LINE_8, _SUBPIXEL_BITS)
    return canvas.astype(bool)


def _dense_samples(p0: np.ndarray, p1: np.ndarray, r0: np.ndarray, r1: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres and radii along the segments from p0 to p1, closer together than half the radius or a pixel."""
    spacing = np.maximum(0.5 * np.minimum(r0, r1), 1.0)
    count = np.maximum(np.ceil(np.linalg.norm(p1 - p0, axis=1) / spacing).astype(int), 1)
    segment = np.repeat(np.arange(len(p0)), count)
    first = np.repeat(np.cumsum(count) - count, count)
    t = (np.arange(len(segment)) - first + 1) / count[segment]
    centres = p0[segment] * (1 - t)[:, None] + p1[segment] * t[:, None]
    return centres, r0[segment] * (1 - t) + r1[segment] * t


def _fixed_point(values: np.ndarray) -> np.ndarray:
    return np.rint(values * _SUBPIXEL).astype(np.int32)
