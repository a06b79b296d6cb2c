"""What happens to a tree once it is grown: winding, and the loops of closed venation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree

from univg.geometry.tree import VesselTree, pixels_of, smooth_tree
from univg.sca.config import SCAConfig
from univg.sca.noise import smooth_noise

_LOOKS_PER_PIXEL = 4  # at a line, so that it can cut off no more than a corner
_WIDEST_TURN = np.cos(np.deg2rad(60))  # a tip joins what lies ahead of it, not beside or behind


def shape_tree(
    tree: VesselTree, *, config: SCAConfig, rng: np.random.Generator, allowed: np.ndarray | None = None
) -> VesselTree:
    """Smooth `tree`, make it wind, and join its tips when the venation is closed.

    Parameters
    ----------
    tree : VesselTree
    config : SCAConfig
    rng : numpy.random.Generator
    allowed : (H, W) ndarray of bool, optional
        Where nodes and links may lie; a node that would be moved out stays where it grew.

    Returns
    -------
    VesselTree
    """
    shaped = smooth_tree(tree, config.smoothing)
    if config.tortuosity:
        shaped = wind_tree(shaped, config=config, rng=rng)
    positions = np.clip(shaped.positions, 0, np.asarray(tree.shape) - 1)
    if allowed is not None and len(tree):
        positions = np.where(allowed[pixels_of(positions)][:, None], positions, tree.positions)
    shaped = replace(shaped, positions=positions)
    if config.venation == "open":
        return shaped
    return close_tree(shaped, reach=config.attraction_distance, allowed=allowed)


def wind_tree(tree: VesselTree, *, config: SCAConfig, rng: np.random.Generator) -> VesselTree:
    """Shift nodes by a smooth random field: neighbours move together, so nothing is torn or newly crossed."""
    if not len(tree):
        return tree
    # Cells of half the length in which a vessel bends to one side; the field has unit variance.
    fields = [smooth_noise(tree.shape, config.winding_length / 2, rng) for _ in range(2)]
    shift = np.stack([map_coordinates(field, tree.positions.T, order=1, mode="nearest") for field in fields], axis=1)
    amplitude = config.tortuosity * config.winding_length / 2
    return replace(tree, positions=np.rint((tree.positions + amplitude * shift) * 1024) / 1024)


def close_tree(tree: VesselTree, *, reach: float, allowed: np.ndarray | None = None) -> VesselTree:
    """Join each tip to the nearest vessel ahead of it within `reach`, its own way to the root excepted.

    Where the way there leaves `allowed`, the tip stays open.

    Leaf veins close in this way when two meet at one source of auxin (Runions et al. 2005, section 3.3); here the
    meeting is decided once growth has ended, so that the tree stays a tree and loops are `VesselTree.links`.

    Parameters
    ----------
    tree : VesselTree
    reach : float
        In pixels.
    allowed : (H, W) ndarray of bool, optional
        Where links may lie; the whole frame by default.

    Returns
    -------
    VesselTree
        With one link a joined tip, tip first.
    """
    tips = np.flatnonzero((tree.child_counts == 0) & (tree.parents >= 0))
    if not len(tips):
        return tree
    near = cKDTree(tree.positions).query_ball_point(tree.positions[tips], reach)
    links = []
    for tip, candidates in zip(tips, near, strict=True):
        trunk = _way_back(tree, tip, 2 * reach)
        ahead = tree.positions[tip] - tree.positions[trunk[min(3, len(trunk) - 1)]]
        others = np.setdiff1d(candidates, trunk)
        gap = tree.positions[others] - tree.positions[tip]
        distance = np.linalg.norm(gap, axis=1)
        cosine = gap @ ahead / np.maximum(distance * np.linalg.norm(ahead), 1e-9)
        fitting = (cosine > _WIDEST_TURN) & (distance > 0)
        if fitting.any():
            other = others[fitting][np.argmin(distance[fitting])]
            if allowed is None or _lies_within(allowed, tree.positions[tip], tree.positions[other]):
                links.append((tip, other))
    return replace(tree, links=np.asarray(links, np.int64).reshape(-1, 2))


def _lies_within(allowed: np.ndarray, start: np.ndarray, end: np.ndarray) -> bool:
    """Whether the straight line between two positions stays on `allowed` pixels."""
    count = int(np.ceil(_LOOKS_PER_PIXEL * np.abs(end - start).max())) + 1
    return bool(allowed[pixels_of(np.linspace(start, end, count))].all())


def _way_back(tree: VesselTree, node: int, length: float) -> list[int]:
    """`node` and the nodes it grew from, over `length` pixels."""
    way, done = [node], 0.0
    while tree.parents[node] >= 0 and done < length:
        parent = tree.parents[node]
        done += float(np.linalg.norm(tree.positions[node] - tree.positions[parent]))
        way.append(parent)
        node = parent
    return way
