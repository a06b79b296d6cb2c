"""Space colonization (paper section 3.1, eqs. 1-7; Runions et al. 2005, 2007) without a neighbour search.

Each new node stamps its distances on a raster of the frame; an attractor then reads its nearest node from the cell it
lies in. The cost of a node is one small patch, whatever the number of attractors.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from univg.geometry.tree import VesselTree, pixels_of
from univg.sca.config import SCAConfig

_LONG_REACH = 30.0  # pixels
_CLEARED_EVERY = 16  # iterations
_BRIDGES_APART = 4  # attraction distances between gaps that are bridged at the same time


def grow_tree(
    attractors: np.ndarray,
    roots: np.ndarray,
    shape: tuple[int, int],
    *,
    config: SCAConfig,
    rng: np.random.Generator,
    boundary: np.ndarray | None = None,
    ranks: np.ndarray | None = None,
) -> VesselTree:
    """Grow vessel trees from `roots` towards `attractors`.

    Parameters
    ----------
    attractors : (A, 2) ndarray of float
        ``(row, col)`` positions s_j in pixels; whole numbers are the middles of pixels.
    roots : (R, 2) ndarray of float
        ``(row, col)`` positions of the first nodes.
    shape : tuple of int
        ``(height, width)`` of the frame, in pixels.
    config : SCAConfig
    rng : numpy.random.Generator
        Only used when ``config.direction_noise`` is above 0.
    boundary : (H, W) ndarray of bool, optional
        Where nodes may lie: field of view less obstacles. The whole frame by default.
    ranks : (A,) ndarray of int, optional
        Attractors of a higher rank pull only once nothing grows towards those of the lower ones, so that trunks are
        there before their branches. By default all pull at once.

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
    ranks = np.zeros(len(attractors), np.int64) if ranks is None else np.asarray(ranks)
    if ranks.shape != (len(attractors),):
        raise ValueError(
            f"`ranks` (shape {ranks.shape}) must have one value for each of {len(attractors)} `attractors`"
        )
    inside = _inside(attractors, allowed)
    gap = 0.5 * config.segment_length  # no two nodes are closer
    nodes = _Nodes()
    field = _NearestNode(shape, config.attraction_distance, gap, nodes)
    alive = _Attractors(attractors[inside], ranks[inside], field, config.kill_distance)
    turn = 0

    def add(positions: np.ndarray, parents: np.ndarray) -> None:
        for position, parent in zip(positions[: config.max_nodes - len(nodes)], parents, strict=False):
            field.add(position, len(nodes))
            nodes.append(position, parent)

    add(roots, np.full(len(roots), -1))
    for iteration in range(config.max_iterations):
        alive.look()
        left = ~alive.reached  # eqs. 5, 6
        reached = left & (alive.distance <= config.attraction_distance)
        if reached.any():
            turn = max(turn, alive.rank[reached].min())
        felt = reached & (alive.rank <= turn)
        near = felt & (alive.distance <= config.follow_distance)
        felt = near if near.any() else _far_apart(alive, felt, _BRIDGES_APART * config.attraction_distance)
        if not felt.any() or len(nodes) >= config.max_nodes:  # eq. 7
            break
        pulling, node, distance = alive.positions[felt], alive.node[felt], alive.distance[felt]
        growing, direction = _mean_directions(pulling, node, nodes.positions)
        if config.direction_noise:
            direction = direction + config.direction_noise * rng.standard_normal(direction.shape)
            direction /= np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-9)
        new = _on_grid(nodes.positions[growing] + config.segment_length * direction)  # eq. 4
        free = field.is_free(new, allowed)
        if not free.all():
            # Attractors that pull both ways, or noise, lead beside a node or outside: aim at the nearest one alone.
            stuck = np.flatnonzero(~free)
            aim = _towards_nearest(pulling, node, distance, growing[stuck], nodes.positions)
            new[stuck] = _on_grid(nodes.positions[growing[stuck]] + config.segment_length * aim)
            free[stuck] = field.is_free(new[stuck], allowed)
        chosen = np.flatnonzero(free)
        chosen = chosen[_apart(new[chosen], gap)]
        add(new[chosen], growing[chosen])
        if not free.all():  # what only a node can feel that cannot step towards it is out of reach
            alive.keep(left & ~(felt & np.isin(alive.node, growing[~free])))
        elif iteration % _CLEARED_EVERY == 0:  # what is reached stays reached, so there is no hurry
            alive.keep(left)

    return VesselTree(nodes.positions.copy(), nodes.parents.copy(), np.zeros(len(nodes)), tuple(shape))


class _Nodes:
    """Positions and parents in arrays that grow by doubling."""

    def __init__(self) -> None:
        self._count = 0
        self._positions = np.empty((1024, 2))
        self._parents = np.empty(1024, np.int64)

    def __len__(self) -> int:
        return self._count

    def append(self, position: np.ndarray, parent: int) -> None:
        if self._count == len(self._parents):
            self._positions = np.concatenate([self._positions, np.empty_like(self._positions)])
            self._parents = np.concatenate([self._parents, np.empty_like(self._parents)])
        self._positions[self._count] = position
        self._parents[self._count] = parent
        self._count += 1

    @property
    def positions(self) -> np.ndarray:
        return self._positions[: self._count]

    @property
    def parents(self) -> np.ndarray:
        return self._parents[: self._count]


class _NearestNode:
    """For each cell of the frame, the nearest node within reach, kept up to date as nodes are added.

    Cells are pixels, or two pixels wide where the reach is long. Which of two almost equally near nodes is found may
    then differ; the distance is exact.
    """

    def __init__(self, shape: tuple[int, int], reach: float, gap: float, nodes: _Nodes) -> None:
        self._cell = 1 if reach <= _LONG_REACH else 2
        reach = reach / self._cell + 0.71  # a point may lie half a diagonal from its cell's centre
        self._half = int(np.ceil(reach))
        cells = tuple(-(-side // self._cell) for side in shape)
        self._squared = np.full(cells, reach * reach, np.float32)
        self._node = np.full(cells, -1, np.int32)
        self._nodes, self._gap = nodes, gap

    def add(self, position: np.ndarray, index: int) -> None:
        row, col = (position + 0.5) / self._cell  # from the corner of the frame, which is half a pixel before 0
        top, left = max(int(row) - self._half, 0), max(int(col) - self._half, 0)
        window = np.s_[top : int(row) + self._half + 1, left : int(col) + self._half + 1]
        squared, node = self._squared[window], self._node[window]
        dr = np.arange(top, top + squared.shape[0], dtype=np.float32) + np.float32(0.5 - row)
        dc = np.arange(left, left + squared.shape[1], dtype=np.float32) + np.float32(0.5 - col)
        candidate = np.add.outer(dr * dr, dc * dc)
        nearer = candidate < squared
        np.copyto(squared, candidate, where=nearer)
        np.copyto(node, index, where=nearer)

    def is_free(self, points: np.ndarray, allowed: np.ndarray) -> np.ndarray:
        """Whether a node may stand at each point: allowed, and not beside another, which would be repeated for ever."""
        free = _inside(points, allowed)
        free[free] = self.nearest(points[free])[1] > self._gap
        return free

    def nearest(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The nearest node of each point, -1 for none within reach, and its distance in pixels."""
        node = self.node_of(self.cell_of(points))
        return node, self.distance_to(points, node)

    def cell_of(self, points: np.ndarray) -> np.ndarray:
        """Flat index of the cell that each point lies in."""
        cell = ((points + 0.5) / self._cell).astype(np.int64)
        return cell[:, 0] * self._node.shape[1] + cell[:, 1]

    def node_of(self, cell: np.ndarray) -> np.ndarray:
        return self._node.ravel().take(cell)

    def distance_to(self, points: np.ndarray, node: np.ndarray) -> np.ndarray:
        if not len(self._nodes):
            return np.full(len(points), np.inf)
        gap = points - self._nodes.positions[node]
        return np.where(node >= 0, np.hypot(gap[:, 0], gap[:, 1]), np.inf)


class _Attractors:
    """The attractors that are left, each with the nearest node; distances are computed anew where that node changed."""

    def __init__(self, positions: np.ndarray, rank: np.ndarray, field: _NearestNode, kill_distance: float) -> None:
        self.positions, self.rank = positions, rank
        self.reached = np.zeros(len(positions), bool)
        self._kill_distance = kill_distance
        self.node = np.full(len(positions), -1, np.int32)
        self.distance = np.full(len(positions), np.inf)
        self._cell, self._field = field.cell_of(positions), field

    def look(self) -> None:
        node = self._field.node_of(self._cell)
        changed = np.flatnonzero(node != self.node)
        self.distance[changed] = self._field.distance_to(self.positions[changed], node[changed])
        self.node = node
        self.reached |= self.distance <= self._kill_distance

    def keep(self, kept: np.ndarray) -> None:
        if not kept.all():
            self.positions, self.rank, self.reached = self.positions[kept], self.rank[kept], self.reached[kept]
            self.node, self.distance, self._cell = self.node[kept], self.distance[kept], self._cell[kept]


def _far_apart(attractors: _Attractors, felt: np.ndarray, reach: float) -> np.ndarray:
    """Of the attractors that are felt, the nearest ones that lie more than `reach` apart."""
    index = np.flatnonzero(felt)
    index = index[np.argsort(attractors.distance[index], kind="stable")]
    cell = (attractors.positions[index] / reach).astype(np.int64)
    index = index[np.sort(np.unique(cell[:, 0] << 32 | cell[:, 1], return_index=True)[1])]
    chosen = np.zeros_like(felt)
    chosen[index[_apart(attractors.positions[index], reach)]] = True
    return chosen


def _mean_directions(attractors: np.ndarray, node: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nodes that feel an attractor and their unit average direction (eqs. 1-3)."""
    growing, group = np.unique(node, return_inverse=True)
    towards = attractors - positions[node]
    towards /= np.maximum(np.linalg.norm(towards, axis=1, keepdims=True), 1e-9)
    total = np.stack([np.bincount(group, weights=towards[:, axis]) for axis in range(2)], axis=1)
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return growing, total / np.maximum(length, 1e-9)


def _towards_nearest(
    attractors: np.ndarray, node: np.ndarray, distance: np.ndarray, wanted: np.ndarray, positions: np.ndarray
) -> np.ndarray:
    """Unit vectors from the nodes `wanted` to the nearest attractor each of them feels."""
    order = np.lexsort((distance, node))
    first = order[np.searchsorted(node[order], wanted)]
    gap = attractors[first] - positions[wanted]
    return gap / np.maximum(distance[first], 1e-9)[:, None]


def _apart(points: np.ndarray, gap: float) -> np.ndarray:
    """Which of `points` to keep so that none lies within `gap` of one before it."""
    keep = np.ones(len(points), bool)
    for i, j in sorted(cKDTree(points).query_pairs(gap)) if len(points) > 1 else ():
        keep[j] &= not keep[i]
    return keep


def _on_grid(positions: np.ndarray) -> np.ndarray:
    """Rounded to 1/1024 pixel, so that processors that differ in the last bit of a root still grow the same tree."""
    return np.rint(positions * 1024) / 1024


def _inside(points: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    inside = ((points >= 0) & (points <= np.asarray(allowed.shape) - 1)).all(axis=1)
    inside[inside] = allowed[pixels_of(points[inside])]
    return inside
