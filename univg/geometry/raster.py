"""Drawing a vessel tree as a mask of exactly the size asked for."""

from __future__ import annotations

import cv2
import numpy as np

from univg.geometry.tree import VesselTree, pixels_of

_THINNEST = 0.5  # radius of a cone that has a pixel in each row, or in each column, that it passes
_GRID = 1024  # places to a pixel that vessels are drawn at, so that processors that differ in the last bit agree
_ASIDE = 0.25 / _GRID  # up and to the left, so that no wall meets the middle of a pixel: of two such walls one counts
_ROWS_AT_ONCE = 1 << 15  # of all cones; bounds the memory
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
    """Draw `tree` with its radii, tapering linearly along each segment: the pixels whose middle lies within a vessel.

    A vessel thinner than a pixel is drawn one pixel wide, so that it is still connected.

    Parameters
    ----------
    tree : VesselTree
    shape : tuple of int, optional
        ``(height, width)`` of the result, in pixels; the tree's own frame by default.

    Returns
    -------
    (H, W) ndarray of bool
    """
    shape = tuple(tree.shape if shape is None else shape)
    if not len(tree):
        return np.zeros(shape, bool)
    parents = np.where(tree.parents < 0, np.arange(len(tree)), tree.parents)  # a root is a cone without length
    end = np.concatenate([np.arange(len(tree)), tree.links[:, 0]])
    start = np.concatenate([parents, tree.links[:, 1]])
    radii = np.maximum(_on_grid(tree.radii), _THINNEST)
    start_radii = np.concatenate([radii[parents], radii[tree.links[:, 0]]])  # a link does not taper
    positions = _on_grid(tree.positions) - _ASIDE
    drawn = _draw_cones(positions[start], positions[end], start_radii, radii[end], shape)
    # Between the ends of two thin cones a pixel may be missing: that of the node itself.
    rows, cols = pixels_of(positions)
    inside = (rows >= 0) & (rows < shape[0]) & (cols >= 0) & (cols < shape[1])
    drawn[rows[inside], cols[inside]] = True
    return drawn


def _draw_cones(
    start: np.ndarray, end: np.ndarray, start_radii: np.ndarray, end_radii: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """The pixels whose middle lies in a cone: what two discs and the tangents to both enclose.

    A cone is convex, so it covers one stretch of each row. The ends of all stretches are counted where they lie, and
    summed along each row at last.
    """
    height, width = shape
    n = len(start)
    top = np.minimum(start[:, 0] - start_radii, end[:, 0] - end_radii)
    bottom = np.maximum(start[:, 0] + start_radii, end[:, 0] + end_radii)
    top, bottom = np.ceil(np.maximum(top, 0)), np.floor(np.minimum(bottom, height - 1))
    count = np.maximum(bottom - top + 1, 0).astype(np.int64)
    total = np.cumsum(count)
    top = top - (total - count)
    discs = [(*centre.T.copy(), radii**2) for centre, radii in ((start, start_radii), (end, end_radii))]
    tangents = _tangents(start, end, start_radii, end_radii)
    ends = np.zeros((height, width + 1), np.min_scalar_type(-n - 1))  # of at most n stretches
    for first in range(0, int(total[-1]), _ROWS_AT_ONCE):
        number = np.arange(first, min(first + _ROWS_AT_ONCE, total[-1]))
        cone = np.searchsorted(total, number, side="right")
        row = top[cone] + number
        left, right = _stretches(row, cone, discs, tangents)
        begin = np.clip(np.ceil(left), 0, width).astype(np.int64)
        stop = np.maximum(np.clip(np.floor(right) + 1, 0, width).astype(np.int64), begin)
        before = row.astype(np.int64) * (width + 1)
        np.add.at(ends.reshape(-1), before + begin, 1)
        np.add.at(ends.reshape(-1), before + stop, -1)
    return np.cumsum(ends, axis=1, dtype=ends.dtype, out=ends)[:, :-1] > 0


def _tangents(
    start: np.ndarray, end: np.ndarray, start_radii: np.ndarray, end_radii: np.ndarray
) -> list[tuple[np.ndarray, ...]]:
    """The two lines that touch both discs of each cone: first and last row, column in the first, change a row."""
    along = end - start
    length = np.sqrt(along[:, 0] ** 2 + along[:, 1] ** 2)
    narrowing = start_radii - end_radii
    apart = length > np.abs(narrowing)  # neither disc lies in the other
    length = np.where(apart, length, 1)
    along = along / length[:, None]
    sine = np.where(apart, narrowing / length, 0)
    cosine = np.sqrt(1 - sine * sine)
    lines = []
    for side in (-cosine, cosine):
        normal = np.stack([sine * along[:, 0] + side * along[:, 1], sine * along[:, 1] - side * along[:, 0]], axis=1)
        first = start + start_radii[:, None] * normal
        last = end + end_radii[:, None] * normal
        rise = last[:, 0] - first[:, 0]
        drawn = apart & (rise != 0)  # the discs reach as far as a level line
        slope = (last[:, 1] - first[:, 1]) / np.where(drawn, rise, 1)
        upper = np.where(drawn, np.minimum(first[:, 0], last[:, 0]), np.inf)
        lower = np.maximum(first[:, 0], last[:, 0])
        lines.append((upper, lower, np.where(rise > 0, first[:, 1], last[:, 1]), slope))
    return lines


def _stretches(
    row: np.ndarray, cone: np.ndarray, discs: list[tuple[np.ndarray, ...]], tangents: list[tuple[np.ndarray, ...]]
) -> tuple[np.ndarray, np.ndarray]:
    """First and last column of what a cone covers of a row that it reaches into."""
    left, right = np.inf, -np.inf
    with np.errstate(invalid="ignore"):
        for middle_row, middle, squared in discs:
            off = row - middle_row[cone]
            half = np.sqrt(squared[cone] - off * off)  # NaN where the disc does not reach
            at = middle[cone]
            left, right = np.fmin(left, at - half), np.fmax(right, at + half)
    for upper, lower, column, slope in tangents:
        met = np.flatnonzero((row >= upper[cone]) & (row <= lower[cone]))
        of = cone[met]
        at = column[of] + slope[of] * (row[met] - upper[of])
        left[met], right[met] = np.fmin(left[met], at), np.fmax(right[met], at)
    return left, right


def _on_grid(values: np.ndarray) -> np.ndarray:
    return np.rint(values * _GRID) / _GRID
