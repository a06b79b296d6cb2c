"""Space colonization (paper section 3.1, eqs. 1-7; Runions et al. 2005, 2007) without a search over all pairs.

Attractors never move, so they are sorted into the cells of a grid once; a new node then looks at the attractors of the
cells around it alone. Only attractors that feel a node are visited at each step.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from univg.geometry.tree import VesselTree, pixels_of
from univg.sca.config import SCAConfig

_BRIDGES_APART = 2  # attraction distances between a gap that is bridged and all other growth at the same time
_FINEST_CELL = 0.5  # pixels
_CLEARED_EVERY = 4  # steps
_MANY = 64  # points for which a tree is quicker than all pairs


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
    field = _Attractors(attractors[inside], ranks[inside], shape, config)
    nodes = _Nodes(shape, gap=0.5 * config.segment_length)  # no two nodes are closer

    def add(positions: np.ndarray, parents: np.ndarray) -> None:
        room = config.max_nodes - len(nodes)
        field.meet(positions[:room], first=len(nodes))
        nodes.append(positions[:room], parents[:room])

    add(roots, np.full(len(roots), -1))
    for _ in range(config.max_iterations):
        pulling = field.pulling()
        if not len(pulling) or len(nodes) >= config.max_nodes:  # eq. 7
            break
        aims, node = field.positions[pulling], field.node[pulling]
        growing, direction = _mean_directions(aims, node, nodes.positions)
        if config.direction_noise:
            direction = _unit(direction + config.direction_noise * rng.standard_normal(direction.shape))
        new = _on_grid(nodes.positions[growing] + config.segment_length * direction)  # eq. 4
        free = nodes.has_room(new, allowed)
        if not free.all():
            # Attractors that pull both ways, or noise, lead beside a node or outside: aim at the nearest one alone.
            stuck = np.flatnonzero(~free)
            aim = _towards_nearest(aims, node, field.squared[pulling], growing[stuck], nodes.positions)
            new[stuck] = _on_grid(nodes.positions[growing[stuck]] + config.segment_length * aim)
            free[stuck] = nodes.has_room(new[stuck], allowed)
            # What only a node can feel that cannot step towards it is out of reach.
            field.give_up(pulling[np.isin(node, growing[~free])])
        chosen = np.flatnonzero(free)
        chosen = chosen[_apart(new[chosen], nodes.gap)]
        add(new[chosen], growing[chosen])

    return VesselTree(nodes.positions.copy(), nodes.parents.copy(), np.zeros(len(nodes)), tuple(shape))


class _Nodes:
    """Positions and parents in arrays that grow by doubling, and a grid of cells so small that each holds one node."""

    def __init__(self, shape: tuple[int, int], gap: float) -> None:
        self.gap = gap
        self._count = 0
        self._positions = np.zeros((1024, 2))
        self._parents = np.empty(1024, np.int64)
        self._cell = max(gap / np.sqrt(2), _FINEST_CELL)
        rows, cols = (int(side / self._cell) + 6 for side in shape)  # two empty cells on each side, and rounding
        self._owner = np.full(rows * cols, -1, np.int32)
        self._width = cols
        self._around = (np.arange(-2, 3)[:, None] * cols + np.arange(-2, 3)).ravel()

    def __len__(self) -> int:
        return self._count

    def append(self, positions: np.ndarray, parents: np.ndarray) -> None:
        count = self._count + len(positions)
        while count > len(self._parents):
            self._positions = np.concatenate([self._positions, np.zeros_like(self._positions)])
            self._parents = np.concatenate([self._parents, np.empty_like(self._parents)])
        self._positions[self._count : count] = positions
        self._parents[self._count : count] = parents
        self._owner[self._cell_of(positions)] = np.arange(self._count, count)
        self._count = count

    def has_room(self, points: np.ndarray, allowed: np.ndarray) -> np.ndarray:
        """Whether a node may stand at each point: allowed, and not beside another, which would be repeated for ever."""
        free = _inside(points, allowed)
        inside = points[free]
        owner = self._owner[self._cell_of(inside)[:, None] + self._around]
        near = (owner >= 0) & (_squared(self._positions[owner] - inside[:, None]) <= self.gap * self.gap)
        free[free] = ~near.any(axis=1)
        return free

    def _cell_of(self, points: np.ndarray) -> np.ndarray:
        cell = ((points + 0.5) / self._cell).astype(np.int64) + 2
        return cell[:, 0] * self._width + cell[:, 1]

    @property
    def positions(self) -> np.ndarray:
        return self._positions[: self._count]

    @property
    def parents(self) -> np.ndarray:
        return self._parents[: self._count]


class _Attractors:
    """The attractors, sorted by the cells of a grid half as wide as they reach, each with its nearest node.

    Attributes
    ----------
    positions : (A, 2) ndarray of float64
    node : (A,) ndarray of int64
        The nearest node within the attraction distance; -1 for none yet.
    squared : (A,) ndarray of float64
        Squared distance to it, or the squared attraction distance.
    """

    def __init__(self, positions: np.ndarray, ranks: np.ndarray, shape: tuple[int, int], config: SCAConfig) -> None:
        self._reach = config.attraction_distance
        self._side = self._reach / 2
        rows, cols = (int(side / self._side) + 6 for side in shape)  # two empty cells on each side, and rounding
        self._width = cols
        cell = self._cell_of(positions)
        order = np.argsort(cell, kind="stable")
        self._starts = np.searchsorted(cell[order], np.arange(rows * cols + 1))
        self.positions, self._ranks = positions[order], ranks[order]
        self.node = np.full(len(order), -1)
        self.squared = np.full(len(order), np.nextafter(self._reach**2, np.inf))
        self._open = np.ones(len(order), bool)  # neither reached nor given up
        self._felt = np.empty(0, np.int64)  # those of them with a node
        self._kill, self._follow = config.kill_distance**2, config.follow_distance**2
        self._looks = 0
        self._turn, self._last_turn = 0, int(ranks.max(initial=0))
        coarse = _BRIDGES_APART * self._reach
        self._coarse_shape = tuple(int(side / coarse) + 3 for side in shape)
        row, col = ((self.positions + 0.5) / coarse).astype(np.int64).T + 1
        self._coarse_cell = row * self._coarse_shape[1] + col

    def meet(self, points: np.ndarray, first: int) -> None:
        """Take note of new nodes at `points`, numbered from `first`; what they reach is done with (eqs. 5 and 6)."""
        if not len(points):
            return
        middle = self._cell_of(points)[:, None] + self._width * np.arange(-2, 3)
        begin = self._starts[middle - 2].ravel()
        length = self._starts[middle + 3].ravel() - begin
        ends = np.cumsum(length)
        index = np.arange(ends[-1]) + np.repeat(begin - ends + length, length)
        number = np.repeat(np.arange(len(points)), length.reshape(-1, 5).sum(axis=1))
        squared = _squared(self.positions[index] - points[number])
        nearer = ((squared < self.squared[index]) & self._open[index]).nonzero()[0]
        if not len(nearer):
            return
        nearer = nearer[squared[nearer].argsort(kind="stable")[::-1]]  # the nearest is written last
        index, number, squared = index[nearer], number[nearer], squared[nearer]
        unfelt = index[self.node[index] < 0]
        self.squared[index], self.node[index] = squared, first + number
        self._open[index[squared <= self._kill]] = False
        if len(unfelt):
            self._felt = np.concatenate([self._felt, np.unique(unfelt)])

    def give_up(self, index: np.ndarray) -> None:
        self._open[index] = False

    def pulling(self) -> np.ndarray:
        """The attractors that pull at this step.

        Ranks take turns. Those within the follow distance all pull; of those farther away, single ones, far from each
        other and from all that grow.
        """
        self._felt = self._felt[self._open[self._felt]]
        if not len(self._felt):
            return self._felt
        self._looks += 1
        if self._looks % _CLEARED_EVERY == 0 and 5 * np.count_nonzero(self._open) < 4 * len(self._open):
            self._clear()
        felt = self._felt
        if self._turn < self._last_turn:
            rank = self._ranks[felt]
            self._turn = max(self._turn, int(rank.min()))
            felt = felt[rank <= self._turn]
        is_near = self.squared[felt] <= self._follow
        if is_near.all():
            return felt
        near, far = felt[is_near], felt[~is_near]
        busy = np.zeros(self._coarse_shape, bool)
        busy.ravel()[self._coarse_cell[near]] = True
        around = busy.copy()
        around[1:] |= busy[:-1]
        around[:-1] |= busy[1:]
        busy = around.copy()
        busy[:, 1:] |= around[:, :-1]
        busy[:, :-1] |= around[:, 1:]
        far = far[~busy.ravel()[self._coarse_cell[far]]]
        return np.concatenate([near, self._far_apart(far)])

    def _clear(self) -> None:
        """Forget the attractors that are done with."""
        kept = self._open
        before = np.concatenate([[0], np.cumsum(kept)])
        self._felt = before[self._felt]
        self._starts = before[self._starts]
        self.positions, self._ranks, self._coarse_cell = (
            self.positions[kept],
            self._ranks[kept],
            self._coarse_cell[kept],
        )
        self.node, self.squared, self._open = self.node[kept], self.squared[kept], self._open[kept]

    def _far_apart(self, index: np.ndarray) -> np.ndarray:
        """Of some attractors, the nearest to their nodes that lie far apart."""
        index = index[np.argsort(self.squared[index], kind="stable")]
        index = index[np.sort(np.unique(self._coarse_cell[index], return_index=True)[1])]
        return index[_apart(self.positions[index], _BRIDGES_APART * self._reach)]

    def _cell_of(self, points: np.ndarray) -> np.ndarray:
        cell = ((points + 0.5) / self._side).astype(np.int64) + 2
        return cell[:, 0] * self._width + cell[:, 1]


def _mean_directions(attractors: np.ndarray, node: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nodes that feel an attractor and their unit average direction (eqs. 1-3)."""
    order = node.argsort(kind="stable")
    node = node[order]
    first = np.concatenate([[0], (node[1:] != node[:-1]).nonzero()[0] + 1])
    towards = _unit(attractors[order] - positions[node])
    return node[first], _unit(np.add.reduceat(towards, first))


def _towards_nearest(
    attractors: np.ndarray, node: np.ndarray, squared: np.ndarray, wanted: np.ndarray, positions: np.ndarray
) -> np.ndarray:
    """Unit vectors from the nodes `wanted` to the nearest attractor each of them feels."""
    order = np.lexsort((squared, node))
    first = order[np.searchsorted(node[order], wanted)]
    gap = attractors[first] - positions[wanted]
    return gap / np.maximum(np.sqrt(squared[first]), 1e-9)[:, None]


def _apart(points: np.ndarray, gap: float) -> np.ndarray:
    """Which of `points` to keep so that none lies within `gap` of one before it."""
    keep = np.ones(len(points), bool)
    for i, j in _close_pairs(points, gap) if len(points) > 1 else ():
        keep[j] &= not keep[i]
    return keep


def _close_pairs(points: np.ndarray, gap: float) -> list[tuple[int, int]]:
    """Pairs (i, j), i before j, at most `gap` apart, in order."""
    if len(points) > _MANY:
        return sorted(cKDTree(points).query_pairs(gap))
    close = _squared(points[:, None] - points) <= gap * gap
    if np.count_nonzero(close) == len(points):  # each with itself
        return []
    return [(i, j) for i, j in np.argwhere(close).tolist() if i < j]


def _squared(vectors: np.ndarray) -> np.ndarray:
    """Squared length along the last axis, of two; numpy's sums over so short an axis are slow."""
    return vectors[..., 0] * vectors[..., 0] + vectors[..., 1] * vectors[..., 1]


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.sqrt(_squared(vectors)), 1e-9)[:, None]


def _on_grid(positions: np.ndarray) -> np.ndarray:
    """Rounded to 1/1024 pixel, so that processors that differ in the last bit of a root still grow the same tree."""
    return np.rint(positions * 1024) / 1024


def _inside(points: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    row, col = points[:, 0], points[:, 1]
    height, width = allowed.shape
    inside = (row >= 0) & (row <= height - 1) & (col >= 0) & (col <= width - 1)
    if inside.all():
        return allowed[pixels_of(points)]
    inside[inside] = allowed[pixels_of(points[inside])]
    return inside
