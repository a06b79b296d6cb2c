"""The vessel tree: nodes, the node each grew from, and a radius at each node."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np


@dataclass(frozen=True, eq=False)
class VesselTree:
    """A forest of vessels in pixel coordinates.

    A node always comes after the node it grew from, so a forest without cycles is the only thing this can hold.

    Attributes
    ----------
    positions : (N, 2) ndarray of float64
        ``(row, col)`` of each node, in pixels; whole numbers are the middles of pixels.
    parents : (N,) ndarray of int64
        Index of the node it grew from; -1 for a root.
    radii : (N,) ndarray of float64
        Vessel radius at each node, in pixels.
    shape : tuple of int
        ``(height, width)`` of the frame the tree lives in.
    meta : dict
        JSON values that say where the tree comes from.
    links : (L, 2) ndarray of int64
        Pairs of nodes joined besides growth: the loops of closed venation.
    """

    positions: np.ndarray
    parents: np.ndarray
    radii: np.ndarray
    shape: tuple[int, int]
    meta: dict = field(default_factory=dict)
    links: np.ndarray = field(default_factory=lambda: np.empty((0, 2), np.int64))

    def __post_init__(self) -> None:
        n = len(self.positions)
        if self.positions.shape != (n, 2):
            raise ValueError(f"`positions` must have shape (N, 2), got {self.positions.shape}")
        for name in ("parents", "radii"):
            array = getattr(self, name)
            if array.shape != (n,):
                raise ValueError(f"`{name}` must have shape ({n},) to match `positions`, got {array.shape}")
        if n and (self.parents >= np.arange(n)).any():
            raise ValueError("`parents` must point to earlier nodes, so that the tree has no cycle")
        if n and not (np.isfinite(self.positions).all() and np.isfinite(self.radii).all() and (self.radii >= 0).all()):
            raise ValueError("`positions` and `radii` must be finite, and `radii` not negative")
        if self.links.ndim != 2 or self.links.shape[1] != 2:
            raise ValueError(f"`links` must have shape (L, 2), got {self.links.shape}")
        if len(self.links) and not ((self.links >= 0) & (self.links < n)).all():
            raise ValueError(f"`links` must name nodes from 0 to {n - 1}")

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def roots(self) -> np.ndarray:
        """Indices of the nodes that grew from nothing."""
        return np.flatnonzero(self.parents < 0)

    @property
    def child_counts(self) -> np.ndarray:
        """Number of nodes that grew from each node: 0 at tips, 2 or more at bifurcations."""
        return np.bincount(self.parents[self.parents >= 0], minlength=len(self))

    @property
    def step_lengths(self) -> np.ndarray:
        """Distance of each node to the one it grew from, in pixels; 0 for roots."""
        step = np.linalg.norm(self.positions - self.positions[self.parents], axis=1)
        return np.where(self.parents >= 0, step, 0.0)

    def to_json(self) -> str:
        """The tree as JSON text; `from_json` gives back the same numbers, bit for bit."""
        return json.dumps(
            {
                "format": "univg-tree/1",
                "shape": list(self.shape),
                "positions": self.positions.tolist(),
                "parents": self.parents.tolist(),
                "radii": self.radii.tolist(),
                "links": self.links.tolist(),
                "meta": self.meta,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> VesselTree:
        data = json.loads(text)
        if data.get("format") != "univg-tree/1":
            raise ValueError(f"Expected a tree of format 'univg-tree/1', got {data.get('format')!r}")
        return cls(
            positions=np.asarray(data["positions"], dtype=np.float64).reshape(-1, 2),
            parents=np.asarray(data["parents"], dtype=np.int64),
            radii=np.asarray(data["radii"], dtype=np.float64),
            shape=(int(data["shape"][0]), int(data["shape"][1])),
            meta=data["meta"],
            links=np.asarray(data.get("links", []), dtype=np.int64).reshape(-1, 2),
        )


def pixels_of(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pixels that (N, 2) positions lie in: a whole number is the middle of a pixel."""
    pixels = np.floor(np.asarray(points) + 0.5).astype(np.int64)
    return pixels[:, 0], pixels[:, 1]


def prune_spurs(tree: VesselTree, length: float) -> VesselTree:
    """`tree` without the side branches that end less than `length` pixels beyond the wall of the vessel they leave.

    A whole vessel is never removed, however short: only branches that leave a bifurcation.
    """
    if length <= 0 or not len(tree):
        return tree
    has_parent = tree.parents >= 0
    step = tree.step_lengths
    reach = np.zeros(len(tree))  # length of the longest way to a tip
    for node in range(len(tree) - 1, -1, -1):
        parent = tree.parents[node]
        if parent >= 0:
            reach[parent] = max(reach[parent], reach[node] + step[node])
    keep = np.ones(len(tree), bool)
    longest = np.zeros(len(tree))
    np.maximum.at(longest, tree.parents[has_parent], (reach + step)[has_parent])
    for node in np.flatnonzero(has_parent):
        parent = tree.parents[node]
        branch = reach[node] + step[node]
        keep[node] = keep[parent] and (branch >= length + tree.radii[parent] or branch == longest[parent])
    return select_nodes(tree, keep)


def select_nodes(tree: VesselTree, keep: np.ndarray) -> VesselTree:
    """The nodes where `keep` is True; a kept node must have its parent kept too."""
    index = np.cumsum(keep) - 1
    parents = tree.parents[keep]
    return replace(
        tree,
        positions=tree.positions[keep],
        parents=np.where(parents >= 0, index[parents], -1),
        radii=tree.radii[keep],
        links=index[tree.links[keep[tree.links].all(axis=1)]],
    )


def join_trees(trees: Sequence[VesselTree]) -> VesselTree:
    """One forest of several in the same frame, in their order."""
    if len({tree.shape for tree in trees}) != 1:
        raise ValueError(f"`trees` must share one frame, got {[tree.shape for tree in trees]}")
    start = np.cumsum([0, *(len(tree) for tree in trees)])
    return replace(
        trees[0],
        positions=np.concatenate([tree.positions for tree in trees]),
        parents=np.concatenate(
            [np.where(tree.parents >= 0, tree.parents + first, -1) for tree, first in zip(trees, start, strict=False)]
        ),
        radii=np.concatenate([tree.radii for tree in trees]),
        links=np.concatenate([tree.links + first for tree, first in zip(trees, start, strict=False)]),
    )


def smooth_tree(tree: VesselTree, passes: int) -> VesselTree:
    """Pull each node towards the middle of its neighbours along the vessel; roots, tips and bifurcations stay."""
    counts = tree.child_counts
    inner = np.flatnonzero((tree.parents >= 0) & (counts == 1))
    if not len(inner) or passes <= 0:
        return tree
    child_of = np.zeros(len(tree), np.int64)
    has_parent = np.flatnonzero(tree.parents >= 0)
    child_of[tree.parents[has_parent]] = has_parent
    positions = tree.positions.copy()
    for _ in range(passes):
        neighbours = positions[tree.parents[inner]] + positions[child_of[inner]]
        positions[inner] = 0.5 * positions[inner] + 0.25 * neighbours
    return replace(tree, positions=positions)


def mean_along_vessels(tree: VesselTree, values: np.ndarray, *, passes: int, valid: np.ndarray) -> np.ndarray:
    """`values` averaged with those of the neighbours along the vessels, `passes` times, among `valid` nodes only."""
    child = np.flatnonzero(tree.parents >= 0)
    child = child[valid[child] & valid[tree.parents[child]]]
    parent = tree.parents[child]
    n = len(tree)
    weight = 1 + np.bincount(child, minlength=n) + np.bincount(parent, minlength=n)
    for _ in range(passes):
        up = np.bincount(parent, weights=values[child], minlength=n)
        down = np.bincount(child, weights=values[parent], minlength=n)
        values = (values + up + down) / weight
    return values
