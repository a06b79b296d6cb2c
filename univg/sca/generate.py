"""R-SCA from end to end: one call, one tree."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from scipy.spatial import cKDTree

from univg.geometry.raster import rasterize_tree
from univg.geometry.tree import VesselTree, join_trees, pixels_of, prune_spurs
from univg.sca.anatomy import find_hub
from univg.sca.capillaries import grow_capillaries
from univg.sca.centreline import Centreline, find_centreline, split_arteries_and_veins, warp_centrelines
from univg.sca.config import SCAConfig, recipes_for
from univg.sca.growth import grow_tree
from univg.sca.presets import Layout, Preset, lay_out, preset_for
from univg.sca.radii import assign_radii
from univg.sca.seeding import bridge_gaps, sample_attraction_points, sample_roots
from univg.sca.shaping import shape_tree
from univg.types import Modality

_REFERENCE_SIZE = 512  # the lengths of `SCAConfig` are meant for this frame
_FROM_OUTSIDE = (Modality.OCTA, Modality.OCT)  # vessels enter these scans over the border
_FINEST_MESH = 8.0  # pixels of that frame
_APART = 1.2  # forests that may not cross keep this many kill distances apart, in which no attractor of theirs survives


def generate_tree(
    modality: Modality,
    *,
    mask: np.ndarray | None = None,
    hub: tuple[float, float] | None = None,
    shape: tuple[int, int] | None = None,
    roots: np.ndarray | None = None,
    boundary: np.ndarray | None = None,
    obstacles: np.ndarray | None = None,
    config: SCAConfig | None = None,
    preset: Preset | None = None,
    rng: np.random.Generator,
) -> VesselTree:
    """Grow one vessel tree, conditioned on a real mask or from a preset alone.

    Parameters
    ----------
    modality : Modality
    mask : (H, W) ndarray of bool, optional
        Real vessels to condition on.
    hub : tuple of float, optional
        ``(row, col)`` that the vessels of `mask` come from, in pixels; by default that of `find_hub`.
    shape : tuple of int, optional
        ``(height, width)`` in pixels; that of `mask` by default, else 512 x 512.
    roots : (R, 2) ndarray of float, optional
        ``(row, col)``; found on image and mask, or placed by the preset, if not given.
    boundary, obstacles : (H, W) ndarray of bool, optional
        Where vessels may lie, and where they may not.
    config : SCAConfig, optional
        Lengths for a 512-pixel frame, scaled to `shape`.
    preset : Preset, optional
        How to grow without a mask; the first of the modality by default.
    rng : numpy.random.Generator
        The only source of randomness: same seed, same tree.

    Returns
    -------
    VesselTree
        Nodes are in the order in which they grew, forest by forest.

    Raises
    ------
    ValueError
        If arrays differ in shape, or a given root lies outside the boundary or on an obstacle.
    """
    if mask is not None and shape is not None and mask.shape != tuple(shape):
        raise ValueError(f"`shape` ({tuple(shape)}) must be that of `mask` ({mask.shape}), or left out")
    shape = tuple(shape or (mask.shape if mask is not None else (_REFERENCE_SIZE, _REFERENCE_SIZE)))
    for name, array in (("boundary", boundary), ("obstacles", obstacles)):
        if array is not None and array.shape != shape:
            raise ValueError(f"`{name}` (shape {array.shape}) must have the shape of the frame ({shape})")
    preset = preset or preset_for(modality)
    conditioned = mask is not None and mask.any()
    if config is None:
        config = recipes_for(modality)["natural"] if conditioned else preset.config
    if 0 < config.capillary_spacing < _FINEST_MESH:
        raise ValueError(
            f"`capillary_spacing` must be 0 or at least {_FINEST_MESH:g}, got {config.capillary_spacing:g}; "
            "a finer mesh would fill the frame"
        )
    config = scale_config(config, max(shape) / _REFERENCE_SIZE)

    # 1. Where to grow from and to
    if conditioned:
        hub = hub or find_hub(modality, mask)
        real = find_centreline(mask)
        lines = [real]
        if config.arteries_and_veins and hub is not None and roots is None:
            lines = split_arteries_and_veins(real, hub, rng=rng)
        lines = warp_centrelines(lines, config=config, rng=rng)
        layout = Layout(
            [sample_roots(line, hub=hub, from_border=modality in _FROM_OUTSIDE) for line in lines],
            _round_field(real) if modality is Modality.FUNDUS else None,
        )
    else:
        layout = lay_out(preset, shape, rng)
        lines = [None] * len(layout.roots)
    # What the user draws replaces the preset's field, and obstacles hold in any case.
    allowed = layout.boundary if boundary is None else boundary
    if obstacles is not None:
        allowed = ~obstacles if allowed is None else allowed & ~obstacles
    forests = _forests(layout, roots, allowed)

    # 2. Growth, one forest after the other
    trees: list[VesselTree] = []
    for own_roots, line in zip(forests, lines, strict=True):
        free = allowed
        if trees and not preset.crossing:
            free = _apart_from(trees, own_roots, allowed, _APART * config.kill_distance)
        territory = free if layout.territory is None else _both(free, layout.territory)
        attractors, ranks = sample_attraction_points(line, shape, config=config, rng=rng, boundary=territory)
        if line is None and len(lines) == 1:  # a tree alone in its field has to reach all of it
            # A node may be as far from an attractor that it reached as the kill distance; where both are almost equal,
            # rows of attractors would have no end.
            reach = max(config.attraction_distance - config.kill_distance, config.attraction_distance / 2)
            attractors = bridge_gaps(attractors, own_roots, reach=reach)
            ranks = np.zeros(len(attractors), np.int64)
        tree = grow_tree(attractors, own_roots, shape, config=config, rng=rng, boundary=free, ranks=ranks)

        # 3. Calibre and shape; a side branch counts from the wall of the vessel that it leaves
        tree = prune_spurs(assign_radii(tree, config=config, line=line), config.prune_length)
        tree = shape_tree(tree, config=config, rng=rng, allowed=free)
        trees.append(assign_radii(tree, config=config, line=line, rng=rng))

    # 4. Capillaries between them
    if config.capillary_spacing and any(map(len, trees)):
        trees.append(grow_capillaries(join_trees(trees), config=config, rng=rng, boundary=allowed))
    return join_trees(trees)


def generate_mask(modality: Modality, **kwargs) -> np.ndarray:
    """`generate_tree`, drawn: a bool (H, W) mask. Takes the same arguments."""
    return rasterize_tree(generate_tree(modality, **kwargs))


def scale_config(config: SCAConfig, factor: float) -> SCAConfig:
    """`config` with its lengths multiplied, so that a tree looks the same in a larger frame."""
    lengths = (
        "attraction_distance",
        "kill_distance",
        "segment_length",
        "follow_distance",
        "grid_spacing",
        "grid_reach",
        "prune_length",
        "warp_amplitude",
        "warp_sigma",
        "winding_length",
        "capillary_spacing",
        "tip_radius",
    )
    scaled = {name: getattr(config, name) * factor for name in lengths}
    return replace(config, **scaled, taper=config.taper / factor)  # per 100 pixels


def _round_field(line: Centreline) -> np.ndarray:
    """The smallest disc around the real vessels, for the field of a fundus camera: they reach its rim."""
    (col, row), radius = cv2.minEnclosingCircle(line.points[:, ::-1].astype(np.float32))
    rows, cols = np.ogrid[: line.shape[0], : line.shape[1]]
    return (rows - row) ** 2 + (cols - col) ** 2 <= (radius + 1) ** 2


def _forests(layout: Layout, roots: np.ndarray | None, allowed: np.ndarray | None) -> list[np.ndarray]:
    """The roots of each forest; those the user gave are dealt out to the forests in turn."""
    if roots is None:
        return [points if allowed is None else _nearest_allowed(points, allowed) for points in layout.roots]
    roots = np.asarray(roots, np.float64).reshape(-1, 2)
    return [roots[i :: len(layout.roots)] for i in range(len(layout.roots))]


def _nearest_allowed(points: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Each point, or the middle of the allowed pixel nearest to it."""
    places = np.argwhere(allowed)
    if not len(places):
        raise ValueError("`boundary` and `obstacles` leave no place for a vessel")
    outside = ~allowed[pixels_of(points)]
    moved = points.copy()
    if outside.any():
        moved[outside] = places[cKDTree(places).query(points[outside])[1]]
    return moved


def _apart_from(trees: list[VesselTree], roots: np.ndarray, allowed: np.ndarray | None, distance: float) -> np.ndarray:
    """Where a forest with these roots may grow that must not touch those already there."""
    taken = rasterize_tree(join_trees(trees))
    free = cv2.distanceTransform((~taken).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) > distance
    reach = int(distance)
    # A root may stand near another forest, and has to get away from it.
    for row, col in zip(*pixels_of(roots), strict=True):
        free[max(row - reach, 0) : row + reach + 1, max(col - reach, 0) : col + reach + 1] = True
    return _both(allowed, free)


def _both(first: np.ndarray | None, second: np.ndarray) -> np.ndarray:
    return second if first is None else first & second
