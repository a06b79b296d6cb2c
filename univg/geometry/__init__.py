"""Vessel trees and their relation to masks: extraction, skeletons, exact rasterising and measurement."""

from univg.geometry.compare import DistributionDistance, compare_morphometry
from univg.geometry.fov import estimate_fov
from univg.geometry.morphometry import (
    Bifurcations,
    TreeMorphometry,
    box_counting_dimension,
    measure_bifurcations,
    measure_tree,
)
from univg.geometry.murray import mask_compliance, murray_compliance
from univg.geometry.raster import rasterize_tree, resize_mask
from univg.geometry.ridges import ridge_strength
from univg.geometry.skeleton import (
    extract_network,
    extract_tree,
    local_radius,
    nearest_centreline,
    skeleton_points,
)
from univg.geometry.swc import read_swc, write_swc
from univg.geometry.tree import VesselTree

__all__ = [
    "Bifurcations",
    "DistributionDistance",
    "TreeMorphometry",
    "VesselTree",
    "box_counting_dimension",
    "compare_morphometry",
    "estimate_fov",
    "extract_network",
    "extract_tree",
    "local_radius",
    "mask_compliance",
    "measure_bifurcations",
    "measure_tree",
    "murray_compliance",
    "nearest_centreline",
    "rasterize_tree",
    "read_swc",
    "resize_mask",
    "ridge_strength",
    "skeleton_points",
    "write_swc",
]
