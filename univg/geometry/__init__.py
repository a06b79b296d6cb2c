"""Vessel trees and their relation to masks: extraction, skeletons and exact rasterising."""

from univg.geometry.raster import rasterize_tree
from univg.geometry.skeleton import extract_tree, local_radius, nearest_centreline, skeleton_points
from univg.geometry.tree import VesselTree

__all__ = ["VesselTree", "extract_tree", "local_radius", "nearest_centreline", "rasterize_tree", "skeleton_points"]
