"""Vessel calibre: from the tips to the base by Murray's law, kept near what is real."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from univg.geometry.skeleton import nearest_centreline
from univg.geometry.tree import VesselTree, mean_along_vessels
from univg.sca.config import SCAConfig

_SMOOTHING_PASSES = 12  # real calibre read from pixels jumps by a third from node to node


def assign_radii(tree: VesselTree, *, config: SCAConfig, mask: np.ndarray | None = None) -> VesselTree:
    """Radii by Murray's law ``r_parent^k = sum r_child^k``, from ``tip_radius`` at the tips; between bifurcations
    a vessel widens by ``taper`` towards its base.

    With `mask`, the radius of a node near a real vessel stays within ``real_radius_range`` of the real local radius.
    Radii never grow on the way from a root to a tip.

    Parameters
    ----------
    tree : VesselTree
    config : SCAConfig
    mask : (H, W) ndarray of bool, optional
        The vessels that conditioned the tree.

    Returns
    -------
    VesselTree
        The same nodes with radii in pixels.
    """
    power = np.where(tree.child_counts == 0, config.tip_radius**config.murray_exponent, 0.0)
    widening = (1 + config.taper * tree.step_lengths / 100) ** config.murray_exponent
    for node in range(len(tree) - 1, -1, -1):
        if tree.parents[node] >= 0:
            power[tree.parents[node]] += power[node] * widening[node]
    radii = power ** (1 / config.murray_exponent)

    if mask is not None and mask.any() and len(tree):
        pixel = tuple(tree.positions.astype(int).T)
        nearest_radius, distance = (field[pixel].astype(np.float64) for field in nearest_centreline(mask))
        real = np.where(distance <= nearest_radius + config.kill_distance, nearest_radius, 0.0)
        real = mean_along_vessels(tree, real, passes=_SMOOTHING_PASSES, valid=real > 0)
        low, high = config.real_radius_range
        near = real > 0
        radii[near] = np.clip(radii[near], low * real[near], high * real[near])
        # Real calibre jumps up where a twig leaves a trunk; the trunk's nodes have it, the twig's must not.
        for node in range(len(tree)):
            if tree.parents[node] >= 0:
                radii[node] = min(radii[node], radii[tree.parents[node]])
    return replace(tree, radii=radii)
