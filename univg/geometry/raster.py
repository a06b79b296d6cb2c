"""Drawing a vessel tree as a mask of exactly the size asked for."""

from __future__ import annotations

import cv2
import numpy as np

from univg.geometry.tree import VesselTree

_SUBPIXEL_BITS = 4
_SUBPIXEL = 1 << _SUBPIXEL_BITS


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

    child = np.flatnonzero(tree.parents >= 0)
    parent = tree.parents[child]
    lines = np.stack([tree.positions[parent, ::-1], tree.positions[child, ::-1]], axis=1)
    cv2.polylines(canvas, list(_fixed_point(lines)), False, 1, 1, cv2.LINE_8, _SUBPIXEL_BITS)

    centres, radii = _dense_samples(tree, child, parent)
    thick = radii >= 0.75  # smaller discs add nothing to the one-pixel line
    for (x, y), r in zip(_fixed_point(centres[thick]), _fixed_point(radii[thick]), strict=True):
        cv2.circle(canvas, (int(x), int(y)), int(r), 1, cv2.FILLED, cv2.LINE_8, _SUBPIXEL_BITS)
    return canvas.astype(bool)


def _dense_samples(tree: VesselTree, child: np.ndarray, parent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(x, y) centres and radii along the segments, closer together than half the radius or a pixel."""
    p0, p1 = tree.positions[parent], tree.positions[child]
    r0, r1 = tree.radii[parent], tree.radii[child]
    spacing = np.maximum(0.5 * np.minimum(r0, r1), 0.75)
    count = np.maximum(np.ceil(np.linalg.norm(p1 - p0, axis=1) / spacing).astype(int), 1)
    segment = np.repeat(np.arange(len(child)), count)
    start = np.repeat(np.cumsum(count) - count, count)
    t = ((np.arange(len(segment)) - start + 1) / count[segment])[:, None]
    centres = p0[segment] * (1 - t) + p1[segment] * t
    radii = r0[segment] * (1 - t[:, 0]) + r1[segment] * t[:, 0]
    roots = tree.roots
    return np.concatenate([tree.positions[roots], centres])[:, ::-1], np.concatenate([tree.radii[roots], radii])


def _fixed_point(values: np.ndarray) -> np.ndarray:
    return np.rint(values * _SUBPIXEL).astype(np.int32)
