"""Vessel calibre: from the tips to the base by Murray's law, kept near what is real."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from univg.geometry.tree import VesselTree, mean_along_vessels
from univg.sca.centreline import Centreline
from univg.sca.config import SCAConfig

_THINNEST = 10  # percentile of the real radii
_SMOOTHING_PASSES = 4  # real calibre read from pixels jumps by a third from node to node


def assign_radii(
    tree: VesselTree, *, config: SCAConfig, line: Centreline | None = None, rng: np.random.Generator | None = None
) -> VesselTree:
    """Radii by Murray's law ``r_parent^k = sum r_child^k``, from ``tip_radius`` at the tips; between bifurcations
    a vessel widens by ``taper`` towards its base.

    Along `line`, the radius of a node on a real vessel stays within ``real_radius_range`` of the real local radius, and
    elsewhere it is not below what the thinnest real vessels have. Radii never grow on the way from a root to a tip.

    Parameters
    ----------
    tree : VesselTree
    config : SCAConfig
    line : Centreline, optional
        The vessels that conditioned the tree.
    rng : numpy.random.Generator, optional
        Varies each branch by ``config.calibre_noise``; without it all keep to the law.

    Returns
    -------
    VesselTree
        The same nodes with radii in pixels.
    """
    exponent = config.murray_exponent
    # Lists, because single elements of arrays are slow to get at.
    low, high = (bound.tolist() for bound in _real_bounds(tree, config, line))
    widening = ((1 + config.taper * tree.step_lengths / 100) ** exponent).tolist()
    power = np.where(tree.child_counts == 0, config.tip_radius**exponent, 0.0).tolist()
    parents = tree.parents.tolist()
    widest = [0.0] * len(tree)  # of the nodes that grew from each
    radii = [0.0] * len(tree)
    for node in range(len(tree) - 1, -1, -1):
        radius = power[node] ** (1 / exponent)
        radius = max(min(max(radius, low[node]), high[node]), widest[node])
        radii[node] = radius
        parent = parents[node]
        if parent >= 0:
            power[parent] += radius**exponent * widening[node]
            if radius > widest[parent]:
                widest[parent] = radius
    radii = np.array(radii)
    if rng is not None and config.calibre_noise:
        radii = _varied(tree, radii, config.calibre_noise, rng)
    return replace(tree, radii=radii)


def _real_bounds(tree: VesselTree, config: SCAConfig, line: Centreline | None) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest radius of each node: near its real vessel's, or the thinnest ones' between real vessels."""
    low, high = np.zeros(len(tree)), np.full(len(tree), float(max(tree.shape)))  # wider ones fill the frame as well
    if line is None or not len(line) or not len(tree):
        return low, high
    radius, distance = line.nearest(tree.positions)
    # A node farther out belongs to a branch that leaves the vessel.
    on_vessel = distance <= radius + 0.5 * config.kill_distance
    real = mean_along_vessels(tree, np.where(on_vessel, radius, 0.0), passes=_SMOOTHING_PASSES, valid=on_vessel)
    least, most = config.real_radius_range
    thinnest = np.percentile(line.radii, _THINNEST)
    low[:], high[:] = least * thinnest, most * thinnest
    low[on_vessel], high[on_vessel] = least * real[on_vessel], most * real[on_vessel]
    return low, high


def _varied(tree: VesselTree, radii: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """`radii` times a random factor for each branch, still never growing towards tips."""
    starts = (tree.parents < 0) | (tree.child_counts[tree.parents] > 1)
    parents = tree.parents.tolist()
    branch = list(range(len(tree)))
    for node in np.flatnonzero(~starts).tolist():
        branch[node] = branch[parents[node]]
    factor = np.exp(noise * np.clip(rng.standard_normal(len(tree)), -1, 1))  # a trunk twice as wide would be a blob
    wide = (radii * factor[branch]).tolist()
    narrow = wide.copy()
    # Order is restored half by widening towards the root, half by narrowing towards the tips: no trend is left.
    for node in range(len(tree) - 1, -1, -1):
        parent = parents[node]
        if parent >= 0 and wide[node] > wide[parent]:
            wide[parent] = wide[node]
    for node, parent in enumerate(parents):
        if parent >= 0 and narrow[parent] < narrow[node]:
            narrow[node] = narrow[parent]
    return np.sqrt(np.array(wide) * np.array(narrow))
