"""Where growth starts and what it grows towards: roots, attractors, and the warp that makes them new."""

from __future__ import annotations

import cv2
import numpy as np

from univg.geometry.skeleton import local_radius, skeleton_points
from univg.sca.config import SCAConfig

_MIN_PART = 0.02  # parts with a smaller share of the centreline get no root of their own


def warp_mask(mask: np.ndarray, *, config: SCAConfig, rng: np.random.Generator) -> np.ndarray:
    """`mask` under a smooth random deformation, so that trees conditioned on it are not copies of it.

    Parameters
    ----------
    mask : (H, W) ndarray of bool
    config : SCAConfig
        ``warp_amplitude`` is the standard deviation of each component of the shift, in pixels.
    rng : numpy.random.Generator

    Returns
    -------
    (H, W) ndarray of bool
    """
    if config.warp_amplitude == 0:
        return mask.copy()
    height, width = mask.shape
    shift_row, shift_col = (smooth_noise(mask.shape, config.warp_sigma, rng) for _ in range(2))
    rows, cols = np.mgrid[:height, :width].astype(np.float32)
    warped = cv2.remap(
        mask.astype(np.float32),
        cols + config.warp_amplitude * shift_col,
        rows + config.warp_amplitude * shift_row,
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
    )
    return warped > 0.5


def sample_attraction_points(
    mask: np.ndarray | None,
    shape: tuple[int, int],
    *,
    config: SCAConfig,
    rng: np.random.Generator,
    boundary: np.ndarray | None = None,
) -> np.ndarray:
    """Attractors of R-SCA: dense on the real vessels, a jittered grid elsewhere (section 3.1.1, step 1).

    Parameters
    ----------
    mask : (H, W) ndarray of bool, or None
        The real (or warped) vessels; None places the grid everywhere.
    shape : tuple of int
        ``(height, width)``, in pixels.
    config : SCAConfig
    rng : numpy.random.Generator
    boundary : (H, W) ndarray of bool, optional
        Where attractors may lie.

    Returns
    -------
    (N, 2) ndarray of float64
        ``(row, col)`` positions in pixels, in random order.
    """
    height, width = shape
    spacing = config.grid_spacing
    rows, cols = np.mgrid[0:height:spacing, 0:width:spacing]
    grid = np.stack([rows.ravel(), cols.ravel()], axis=1)
    grid = grid + rng.uniform(0, spacing, grid.shape)
    grid = grid[(grid[:, 0] < height) & (grid[:, 1] < width)]
    grid = grid[rng.random(len(grid)) < config.grid_fraction]

    if mask is None:
        points = grid
    else:
        if mask.shape != tuple(shape):
            raise ValueError(f"`mask` (shape {mask.shape}) must have the `shape` asked for ({tuple(shape)})")
        pixel = grid.astype(int)
        distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        gap = distance[pixel[:, 0], pixel[:, 1]]
        grid = grid[(gap > config.kill_distance) & (gap <= config.grid_reach)]
        centreline = skeleton_points(mask).astype(np.float64)
        centreline = centreline[rng.random(len(centreline)) < config.vessel_fraction]
        points = np.concatenate([centreline, grid])
    if boundary is not None:
        pixel = points.astype(int)
        points = points[boundary[pixel[:, 0], pixel[:, 1]]]
    return rng.permutation(points)


def sample_roots(mask: np.ndarray, *, hub: tuple[float, float] | None = None) -> np.ndarray:
    """Roots for trees conditioned on `mask`: a centreline point of each part worth growing.

    Parameters
    ----------
    mask : (H, W) ndarray of bool
    hub : tuple of float, optional
        ``(row, col)`` that vessels come from: a part's root is its point nearest to it. By default it is the thickest.

    Returns
    -------
    (R, 2) ndarray of float64
        ``(row, col)`` in pixels; empty when the mask is.
    """
    points = skeleton_points(mask)
    if not len(points):
        return np.empty((0, 2))
    # Small gaps (crossings drawn apart, faint stretches) must not each start a tree of their own.
    joined = cv2.dilate(mask.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9)))
    part = cv2.connectedComponents(joined)[1][points[:, 0], points[:, 1]]
    if hub is None:
        rank = local_radius(mask)[points[:, 0], points[:, 1]]
    else:
        rank = -np.linalg.norm(points - np.asarray(hub), axis=1)
    roots = []
    for label in np.unique(part):
        members = np.flatnonzero(part == label)
        if len(members) >= _MIN_PART * len(points):
            roots.append(points[members[np.argmax(rank[members])]])
    return np.asarray(roots, dtype=np.float64).reshape(-1, 2)


def smooth_noise(shape: tuple[int, int], sigma: float, rng: np.random.Generator) -> np.ndarray:
    """A random field of unit variance that varies over about `sigma` pixels, interpolated from a coarse grid."""
    coarse = (int(np.ceil(shape[0] / sigma)) + 4, int(np.ceil(shape[1] / sigma)) + 4)
    field = rng.standard_normal(coarse).astype(np.float32)
    size = (round(coarse[1] * sigma), round(coarse[0] * sigma))
    field = cv2.resize(field, size, interpolation=cv2.INTER_CUBIC)
    top, left = round(1.5 * sigma), round(1.5 * sigma)
    field = field[top : top + shape[0], left : left + shape[1]]
    return (field - field.mean()) / (field.std() + 1e-6)
