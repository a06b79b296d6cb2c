"""The layer of capillaries that OCTA shows between arteries and veins: a mesh that hangs on them."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from univg.geometry.raster import rasterize_tree
from univg.geometry.tree import VesselTree
from univg.sca.config import SCAConfig
from univg.sca.growth import grow_tree
from univg.sca.seeding import sample_attraction_points
from univg.sca.shaping import close_tree

_RADIUS = 0.6  # of the radius at the tips of the vessels that they hang on


def grow_capillaries(
    vessels: VesselTree, *, config: SCAConfig, rng: np.random.Generator, boundary: np.ndarray | None = None
) -> VesselTree:
    """A mesh of capillaries of equal calibre that fills the space between `vessels`.

    It grows from the walls of the vessels towards a jittered grid and is closed into loops; the distinction of larger
    vessels and a capillary layer follows Kreitner et al. (2024).

    Parameters
    ----------
    vessels : VesselTree
        With at least one node.
    config : SCAConfig
        ``capillary_spacing`` is the mesh width, in pixels.
    rng : numpy.random.Generator
    boundary : (H, W) ndarray of bool, optional
        Where capillaries may lie: not in the foveal avascular zone.

    Returns
    -------
    VesselTree
        Of the capillaries alone; its roots lie on `vessels`.
    """
    spacing, shape = config.capillary_spacing, vessels.shape
    taken = rasterize_tree(vessels)
    gap = cv2.distanceTransform((~taken).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    free = gap > 0.5 * spacing
    mesh = replace(
        config,
        attraction_distance=2.5 * spacing,
        kill_distance=0.6 * spacing,
        segment_length=0.4 * spacing,
        follow_distance=float("inf"),
        grid_spacing=spacing,
        grid_fraction=1.0,
        max_nodes=10 * config.max_nodes,
        direction_noise=0.4,
    )
    attractors, _ = sample_attraction_points(
        None, shape, config=mesh, rng=rng, boundary=free if boundary is None else free & boundary
    )
    # One root for about each mesh along a vessel; closer ones would only grow side by side.
    order = rng.permutation(len(vessels))
    cell = (vessels.positions[order] / spacing).astype(np.int64)
    roots = vessels.positions[order[np.sort(np.unique(cell, axis=0, return_index=True)[1])]]
    grown = grow_tree(attractors, roots, shape, config=mesh, rng=rng, boundary=boundary)
    closed = close_tree(grown, reach=1.5 * spacing, allowed=boundary)
    return replace(closed, radii=np.full(len(closed), _RADIUS * config.tip_radius))
