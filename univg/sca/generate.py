"""R-SCA from end to end: one call, one tree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from univg.geometry.raster import rasterize_tree
from univg.geometry.tree import VesselTree, prune_spurs, smooth_tree
from univg.sca.config import SCAConfig
from univg.sca.growth import grow_tree
from univg.sca.presets import avascular_zone, default_boundary, default_roots, preset_for
from univg.sca.radii import assign_radii
from univg.sca.seeding import sample_attraction_points, sample_roots, warp_mask
from univg.types import Modality

_REFERENCE_SIZE = 512  # the lengths of `SCAConfig` are meant for this frame


def generate_tree(
    modality: Modality,
    *,
    mask: np.ndarray | None = None,
    shape: tuple[int, int] | None = None,
    roots: np.ndarray | None = None,
    boundary: np.ndarray | None = None,
    config: SCAConfig | None = None,
    rng: np.random.Generator,
) -> VesselTree:
    """Grow one vessel tree, conditioned on a real mask or from the modality's preset alone.

    Parameters
    ----------
    modality : Modality
    mask : (H, W) ndarray of bool, optional
        Real vessels to condition on.
    shape : tuple of int, optional
        ``(height, width)`` in pixels; that of `mask` by default, else 512 x 512.
    roots : (R, 2) ndarray of float, optional
        ``(row, col)``; found on the mask or placed by the preset if not given.
    boundary : (H, W) ndarray of bool, optional
        Where vessels may lie.
    config : SCAConfig, optional
        Lengths for a 512-pixel frame, scaled to `shape`.
    rng : numpy.random.Generator
        The only source of randomness: same seed, same tree.

    Returns
    -------
    VesselTree
    """
    if mask is not None and shape is not None and mask.shape != tuple(shape):
        raise ValueError(f"`shape` ({tuple(shape)}) must be that of `mask` ({mask.shape}), or left out")
    shape = tuple(shape or (mask.shape if mask is not None else (_REFERENCE_SIZE, _REFERENCE_SIZE)))
    conditioned = mask is not None and mask.any()
    if config is None:
        config = SCAConfig() if conditioned else preset_for(modality).config
    config = scale_config(config, max(shape) / _REFERENCE_SIZE)

    if conditioned:
        mask = warp_mask(mask, config=config, rng=rng)
        found = sample_roots(mask)
    else:
        mask = None
        found = default_roots(modality, shape, rng)
        boundary = default_boundary(modality, shape) if boundary is None else boundary
        zone = avascular_zone(modality, shape, rng)
        if zone is not None:
            boundary = ~zone if boundary is None else boundary & ~zone
    if roots is None:
        roots = found
        if boundary is not None and len(roots):
            roots = roots[boundary[roots[:, 0].astype(int), roots[:, 1].astype(int)]]
    attractors = sample_attraction_points(mask, shape, config=config, rng=rng, boundary=boundary)
    tree = grow_tree(attractors, roots, shape, config=config, rng=rng, boundary=boundary)
    tree = smooth_tree(prune_spurs(tree, config.prune_length), config.smoothing)
    return assign_radii(tree, config=config, mask=mask)


def generate_mask(modality: Modality, **kwargs) -> np.ndarray:
    """`generate_tree`, drawn: a bool (H, W) mask. Takes the same arguments."""
    return rasterize_tree(generate_tree(modality, **kwargs))


def scale_config(config: SCAConfig, factor: float) -> SCAConfig:
    """`config` with its lengths multiplied, so that a tree looks the same in a larger frame."""
    lengths = (
        "attraction_distance",
        "kill_distance",
        "segment_length",
        "grid_spacing",
        "grid_reach",
        "prune_length",
        "warp_amplitude",
        "warp_sigma",
        "tip_radius",
    )
    return replace(config, **{name: getattr(config, name) * factor for name in lengths})
