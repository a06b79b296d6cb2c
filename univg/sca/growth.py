"""Space colonization (paper section 3.1, eqs. 1-7; Runions et al. 2005, 2007) without a neighbour search.

Each new node stamps its distances on a raster of the frame; an attractor then reads its nearest node from the pixel it
lies in. The cost of a node is one small patch, whatever the number of attractors.
"""

from __future__ import annotations

import numpy as np

from univg.geometry.tree import VesselTree
from univg.sca.config import SCAConfig


def grow_tree(
    attractors: np.ndarray,
    roots: np.ndarray,
    shape: tuple[int, int],
    *,
    config: SCAConfig,
    rng: np.random.Generator,
    boundary: np.ndarray | None = None,
) -> VesselTree:
    """Grow vessel trees from `roots` towards `attractors`.

    Parameters
    ----------
    attractors : (A, 2) ndarray of float
        ``(row, col)`` positions s_j in pixels.
    roots : (R, 2) ndarray of float
        ``(row, col)`` positions of the first nodes.
    shape : tuple of int
        ``(height, width)`` of the frame, in pixels.
    config : SCAConfig
    rng : numpy.random.Generator
        Only used when ``config.direction_noise`` is above 0.
    boundary : (H, W) ndarray of bool, optional
        Where nodes may lie: field of view less obstacles. The whole frame by default.

    Returns
    -------
    VesselTree
        With all radii 0; see `assign_radii`.

    Raises
    ------
    ValueError
        If a root lies outside the frame or the boundary.
    """
    allowed = np.ones(shape, bool) if boundary is None else boundary
    if allowed.shape != tuple(shape):
        raise ValueError(f"`boundary` (shape {allowed.shape}) must have the `shape` asked for ({tuple(shape)})")
    roots = np.asarray(roots, np.float64).reshape(-1, 2)
    for root in roots:
        if not _inside(root[None], allowed)[0]:
            raise ValueError(f"`roots` must lie inside the frame {tuple(shape)} and its boundary, got {tuple(root)}")

    attractors = np.asarray(attractors, np.float64).reshape(-1, 2)
    alive = attractors[_inside(attractors, allowed)]
    stamp = _NearestNode(shape, config.attraction_distance)
    positions, parents = [], []

    def add(position: np.ndarray, parent: int) -> None:
        stamp.add(position, len(positions))
        positions.append(position)
        parents.append(parent)

    for root in roots:
        add(root, -1)
    for _ in range(config.max_iterations):
        alive = alive[stamp.distance_at(alive) > config.kill_distance]  # eqs. 5, 6
        node = stamp.node_at(alive)
        felt = node >= 0
        if not felt.any() or len(positions) >= config.max_nodes:  # eq. 7
            break
        growing, direction = _mean_directions(alive[felt], node[felt], np.asarray(positions))
        if config.direction_noise:
            direction = direction + config.direction_noise * rng.standard_normal(direction.shape)
            direction /= np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-9)
        new = np.asarray(positions)[growing] + config.segment_length * direction  # eq. 4
        # A step that lands beside an existing node would be repeated for ever (attractors pulling both ways).
        free = _inside(new, allowed)
        free[free] = stamp.distance_at(new[free]) > 0.5 * config.segment_length
        for position, parent in zip(new[free], growing[free], strict=True):
            if len(positions) >= config.max_nodes:
                break
            if stamp.distance_at(position[None])[0] > 0.5 * config.segment_length:
                add(position, int(parent))
        stuck = growing[~free]
        if len(stuck):  # what a stuck node alone could feel is out of reach
            unreachable = felt & np.isin(node, stuck)
            alive = alive[~unreachable]

    n = len(positions)
    return VesselTree(
        np.asarray(positions, np.float64).reshape(-1, 2), np.asarray(parents, np.int64), np.zeros(n), tuple(shape)
    )


class _NearestNode:
    """For each pixel, the nearest node within reach and its distance, kept up to date as nodes are added."""

    def __init__(self, shape: tuple[int, int], reach: float) -> None:
        self._reach = reach
        self._half = int(np.ceil(reach))
        self._distance = np.full(shape, np.inf, np.float32)
        self._node = np.full(shape, -1, np.int32)

    def add(self, position: np.ndarray, index: int) -> None:
        row, col = int(position[0]), int(position[1])
        top, left = max(row - self._half, 0), max(col - self._half, 0)
        window = np.s_[top : row + self._half + 1, left : col + self._half + 1]
        distance, node = self._distance[window], self._node[window]
        dr = np.arange(top, top + distance.shape[0], dtype=np.float32) + np.float32(0.5 - position[0])
        dc = np.arange(left, left + distance.shape[1], dtype=np.float32) + np.float32(0.5 - position[1])
        candidate = np.sqrt((dr * dr)[:, None] + (dc * dc)[None, :])
        nearer = (candidate < distance) & (candidate <= self._reach)
        np.copyto(distance, candidate, where=nearer)
        node[nearer] = index

    def distance_at(self, points: np.ndarray) -> np.ndarray:
        pixel = points.astype(int)
        return self._distance[pixel[:, 0], pixel[:, 1]]

    def node_at(self, points: np.ndarray) -> np.ndarray:
        pixel = points.astype(int)
        return self._node[pixel[:, 0], pixel[:, 1]]


def _mean_directions(attractors: np.ndarray, node: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nodes that feel an attractor and their unit average direction (eqs. 1-3)."""
    growing, group = np.unique(node, return_inverse=True)
    towards = attractors - positions[node]
    towards /= np.maximum(np.linalg.norm(towards, axis=1, keepdims=True), 1e-9)
    total = np.stack([np.bincount(group, weights=towards[:, axis]) for axis in range(2)], axis=1)
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return growing, total / np.maximum(length, 1e-9)


def _inside(points: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    height, width = allowed.shape
    inside = (points[:, 0] >= 0) & (points[:, 0] < height) & (points[:, 1] >= 0) & (points[:, 1] < width)
    pixel = points[inside].astype(int)
    inside[inside] = allowed[pixel[:, 0], pixel[:, 1]]
    return inside
