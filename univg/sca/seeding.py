"""Where growth starts and what it grows towards: roots and attractors."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from univg.geometry.tree import pixels_of
from univg.sca.centreline import Centreline
from univg.sca.config import SCAConfig

_MIN_PART = 0.02  # parts with a smaller share of the centreline get no root of their own
_TRUNK = 0.5  # vessels at least this share of the widest radius are trunks, from which growth starts
_WIDEST = 95  # percentile of the radii taken for the widest: a few points in crossings are wider than any vessel


def sample_attraction_points(
    line: Centreline | None,
    shape: tuple[int, int],
    *,
    config: SCAConfig,
    rng: np.random.Generator,
    boundary: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Attractors of R-SCA: dense on the real vessels, a jittered grid elsewhere (section 3.1.1, step 1).

    Parameters
    ----------
    line : Centreline, or None
        The real (or warped) vessels; None places the grid everywhere.
    shape : tuple of int
        ``(height, width)``, in pixels.
    config : SCAConfig
    rng : numpy.random.Generator
    boundary : (H, W) ndarray of bool, optional
        Where attractors may lie.

    Returns
    -------
    points : (N, 2) ndarray of float64
        ``(row, col)`` positions in pixels, in random order.
    ranks : (N,) ndarray of int64
        0 on the widest vessels, up to ``calibre_classes - 1`` on the thinnest and on the grid, see `grow_tree`.
    """
    height, width = shape
    spacing = config.grid_spacing
    rows, cols = np.mgrid[0:height:spacing, 0:width:spacing]
    grid = np.stack([rows.ravel(), cols.ravel()], axis=1)
    grid = grid + rng.uniform(-0.5, spacing - 0.5, grid.shape)
    grid = grid[((grid >= 0) & (grid <= [height - 1, width - 1])).all(axis=1)]
    points = grid[rng.random(len(grid)) < config.grid_fraction]
    ranks = np.full(len(points), config.calibre_classes - 1)
    if line is not None and len(line):
        if line.shape != tuple(shape):
            raise ValueError(f"`line` (shape {line.shape}) must have the `shape` asked for ({tuple(shape)})")
        radius, distance = line.nearest(points)
        beside = (distance - radius > config.kill_distance) & (distance - radius <= config.grid_reach)
        chosen = rng.random(len(line)) < config.vessel_fraction
        points = np.concatenate([line.points[chosen], points[beside]])
        ranks = np.concatenate([_calibre_ranks(line, config.calibre_classes)[chosen], ranks[beside]])
    if boundary is not None:
        inside = boundary[pixels_of(points)]
        points, ranks = points[inside], ranks[inside]
    order = rng.permutation(len(points))
    return points[order], ranks[order]


def bridge_gaps(points: np.ndarray, roots: np.ndarray, *, reach: float) -> np.ndarray:
    """`points` and, where none of the rest lies within `reach` of what the roots lead to, a row of them to the nearest.

    A grid with gaps may leave a root alone, or most of a field out of reach.

    Parameters
    ----------
    points : (N, 2) ndarray of float64
    roots : (R, 2) ndarray of float64
    reach : float
        In pixels.

    Returns
    -------
    (M, 2) ndarray of float64
        `points` first.
    """
    reached, left, bridges = [roots], points, []
    while len(left) and len(roots):
        near = np.isfinite(cKDTree(reached[-1]).query(left, distance_upper_bound=reach)[0])
        if near.any():
            reached.append(left[near])
            left = left[~near]
        else:
            start = np.concatenate(reached)
            gaps, nearest = cKDTree(start).query(left)
            last = np.argmin(gaps)
            count = int(np.ceil(gaps[last] / reach)) + 1
            bridges.append(np.linspace(start[nearest[last]], left[last], count)[1:-1])
            reached.append(bridges[-1])
    return np.concatenate([points, *bridges])


def sample_roots(line: Centreline, *, hub: tuple[float, float] | None = None, from_border: bool = False) -> np.ndarray:
    """Roots for trees conditioned on real vessels: a point on a trunk of each part worth growing.

    Parameters
    ----------
    line : Centreline
    hub : tuple of float, optional
        ``(row, col)`` that vessels come from: a part's root is the point of its trunks nearest to it. By default it is
        the widest.
    from_border : bool
        Whether vessels come from outside: a part's root is then the point of its trunks nearest to the border.

    Returns
    -------
    (R, 2) ndarray of float64
        ``(row, col)`` in pixels; empty when the centreline is.
    """
    roots = []
    parts, sizes = np.unique(line.parts, return_counts=True)
    least = min(_MIN_PART * len(line), sizes.max(initial=0))  # where all parts are small, the largest has a root
    for label in parts[sizes >= least]:
        members = np.flatnonzero(line.parts == label)
        radii = line.radii[members]
        trunk = members[radii >= min(_TRUNK * np.percentile(radii, _WIDEST), radii.max())]
        points = line.points[trunk]
        if from_border:
            rank = np.minimum(points, np.asarray(line.shape) - 1 - points).min(axis=1)
        elif hub is not None:
            rank = np.linalg.norm(points - np.asarray(hub), axis=1)
        else:
            rank = -line.radii[trunk]
        roots.append(points[np.argmin(rank)])
    return np.asarray(roots, dtype=np.float64).reshape(-1, 2)


def _calibre_ranks(line: Centreline, classes: int) -> np.ndarray:
    """0 for radii of at least half the widest, 1 of a quarter, and so on; the last class takes what is left."""
    share = line.radii / np.percentile(line.radii, _WIDEST)
    halvings = np.ceil(-np.log2(np.maximum(share / _TRUNK, 1e-6)))
    return np.clip(halvings, 0, classes - 1).astype(np.int64)
