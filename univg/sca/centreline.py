"""The real vessels that condition a tree, as points: where their centrelines run and how wide they are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import cv2
import numpy as np
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree

from univg.geometry.skeleton import local_radius, skeleton_points
from univg.sca.config import SCAConfig
from univg.sca.noise import smooth_noise

_GAP = 9  # pixels; parts of a mask that are nearer than this count as one: crossings drawn apart, faint stretches


@dataclass(frozen=True, eq=False)
class Centreline:
    """Centreline points of a mask.

    Attributes
    ----------
    points : (N, 2) ndarray of float64
        ``(row, col)``, in pixels.
    radii : (N,) ndarray of float64
        Local vessel radius, in pixels.
    parts : (N,) ndarray of int64
        Label of the part of the mask that each point lies on; small gaps do not divide parts.
    shape : tuple of int
        ``(height, width)`` of the mask.
    """

    points: np.ndarray
    radii: np.ndarray
    parts: np.ndarray
    shape: tuple[int, int]

    def __len__(self) -> int:
        return len(self.points)

    @cached_property
    def _index(self) -> cKDTree:
        return cKDTree(self.points)

    def nearest(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Radius of the vessel nearest to each of (M, 2) positions and the distance to its centreline, in pixels."""
        distance, point = self._index.query(positions)
        return self.radii[point], distance


def find_centreline(mask: np.ndarray) -> Centreline:
    """The centreline of a mask; those of the last masks are remembered.

    Parameters
    ----------
    mask : (H, W) ndarray of bool

    Returns
    -------
    Centreline
        Empty when the mask is.
    """
    return _find_centreline(mask.shape, np.packbits(mask).tobytes())


@lru_cache(maxsize=16)
def _find_centreline(shape: tuple[int, int], packed: bytes) -> Centreline:
    mask = np.unpackbits(np.frombuffer(packed, np.uint8), count=shape[0] * shape[1]).reshape(shape).astype(bool)
    points = skeleton_points(mask)
    pixels = points[:, 0], points[:, 1]
    joined = cv2.dilate(mask.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_GAP, _GAP)))
    parts = cv2.connectedComponents(joined)[1][pixels].astype(np.int64)
    return Centreline(points.astype(np.float64), local_radius(mask)[pixels].astype(np.float64), parts, shape)


def warp_centreline(line: Centreline, *, config: SCAConfig, rng: np.random.Generator) -> Centreline:
    """`line` under a smooth random deformation, so that trees conditioned on it are not copies of it.

    Points that leave the frame are dropped.

    Parameters
    ----------
    line : Centreline
    config : SCAConfig
        ``warp_amplitude`` is the standard deviation of each component of the shift, in pixels.
    rng : numpy.random.Generator

    Returns
    -------
    Centreline
    """
    if config.warp_amplitude == 0 or not len(line):
        return line
    fields = [smooth_noise(line.shape, config.warp_sigma, rng) for _ in range(2)]
    shift = np.stack([map_coordinates(field, line.points.T, order=1, mode="nearest") for field in fields], axis=1)
    points = line.points + config.warp_amplitude * shift
    inside = ((points >= 0) & (points <= np.asarray(line.shape) - 1)).all(axis=1)
    return replace(line, points=points[inside], radii=line.radii[inside], parts=line.parts[inside])
