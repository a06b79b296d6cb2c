"""What happens to a tree once it is grown: winding, and the loops of closed venation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree

from univg.geometry.tree import VesselTree, pixels_of, smooth_tree
from univg.sca.config import SCAConfig
from univg.sca.noise import smooth_noise

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
        Where nodes may lie; one that would be moved out stays where it grew.

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
    return close_tree(shaped, reach=config.attraction_distance) if config.venation == "closed" else shaped


def wind_tree(tree: VesselTree, *, config: SCAConfig, rng: np.random.Generator) -> VesselTree:
    """Shift nodes by a smooth random field: neighbours move together, so nothing is torn or newly crossed."""
    if not len(tree):
        return tree
    # Cells of half the length in which a vessel bends to one side; the field has unit variance.
    fields = [smooth_noise(tree.shape, config.winding_length / 2, rng) for _ in range(2)]
    shift = np.stack([map_coordinates(field, tree.positions.T, order=1, mode="nearest") for field in fields], axis=1)
    amplitude = config.tortuosity * config.winding_length / 2
    return replace(tree, positions=np.rint((tree.positions + amplitude * shift) * 1024) / 1024)


def close_tree(tree: VesselTree, *, reach: float) -> VesselTree:
    """Join each tip to the nearest vessel ahead of it within `reach`, its own way to the root excepted.

    Leaf veins close in this way when two meet at one source of auxin (Runions et al. 2005, section 3.3); here the
    meeting is decided once growth has ended, so that the tree stays a tree and loops are `VesselTree.links`.

    Parameters
    ----------
    tree : VesselTree
    reach : float
        In pixels.

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
            links.append((tip, others[fitting][np.argmin(distance[fitting])]))
    return replace(tree, links=np.asarray(links, np.int64).reshape(-1, 2))


def _way_back(tree: VesselTree, node: int, length: float) -> list[int]:
    """`node` and the nodes it grew from, over `length` pixels."""
    way, done = [node], 0.0
    while tree.parents[node] >= 0 and done < length:
        parent = tree.parents[node]
        done += float(np.linalg.norm(tree.positions[node] - tree.positions[parent]))
        way.append(parent)
        node = parent
    return way
