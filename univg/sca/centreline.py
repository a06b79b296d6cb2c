"""The real vessels that condition a tree, as points: where their centrelines run and how wide they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
from scipy.ndimage import map_coordinates
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import cKDTree

from univg.geometry.skeleton import centreline_radius, pixel_graph, skeleton_points
from univg.sca.config import SCAConfig
from univg.sca.memory import MaskMemory
from univg.sca.noise import smooth_noise

_RING = 0.07  # of the frame: where vessels have left the optic disc
_RING_WIDTH = 3.0  # pixels
_FEWEST = 4  # vessels that leave an optic disc
_COARSE = 4  # pixels of the frame to one of a field of deformation
_OWN_WARP = 0.3  # share of the variance of a forest's deformation that the other does not share
_POINT_BYTES, _MOST_BYTES = 64, 128 << 20  # with the index; 1 MB is a centreline of a large mask
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
    return _centreline_of(mask)


def _find_centreline(mask: np.ndarray) -> Centreline:
    points = skeleton_points(mask)
    pixels = points[:, 0], points[:, 1]
    joined = cv2.dilate(mask.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_GAP, _GAP)))
    parts = cv2.connectedComponents(joined)[1][pixels].astype(np.int64)
    return Centreline(points.astype(np.float64), centreline_radius(mask, points), parts, mask.shape)


_centreline_of = MaskMemory(_find_centreline, most_bytes=_MOST_BYTES, size_of=lambda line: _POINT_BYTES * len(line))


def split_arteries_and_veins(
    line: Centreline, hub: tuple[float, float], *, rng: np.random.Generator
) -> list[Centreline]:
    """Deal out the vessels that leave the optic disc to two forests, neighbours to different ones.

    Which is which nobody annotated; but an artery and a vein that run side by side leave the disc side by side, so
    taking turns around it separates most pairs. What hangs on a vessel goes with it.

    Parameters
    ----------
    line : Centreline
        As found, not deformed.
    hub : tuple of float
        ``(row, col)`` that the vessels come from, in pixels.
    rng : numpy.random.Generator

    Returns
    -------
    list of Centreline
        Two, or `line` alone where fewer than four vessels leave the hub.
    """
    offset = line.points - np.asarray(hub)
    distance = np.hypot(*offset.T)
    ring = _RING * min(line.shape)
    leaving = np.flatnonzero((distance >= ring) & (distance < ring + _RING_WIDTH))
    graph = pixel_graph(line.points.astype(np.int64), line.shape)
    count, vessel = connected_components(graph[leaving][:, leaving], directed=False)
    if count < _FEWEST:
        return [line]
    # Angles of the vessels around the hub; two neighbours never get the same forest, but for the last and the first.
    angle = [np.arctan2(*offset[leaving[vessel == v]].mean(axis=0)) for v in range(count)]
    turn = np.empty(count, np.int64)
    turn[np.argsort(angle)] = (np.arange(count) + rng.integers(2)) % 2
    outside = distance >= ring  # ways through the disc would join every vessel with every other
    apart = graph.multiply(outside[:, None]).multiply(outside[None, :]).tocsr()
    reached, _, source = dijkstra(apart, directed=False, indices=leaving, return_predecessors=True, min_only=True)
    forest = rng.integers(2, size=line.parts.max() + 1)[line.parts]  # parts that hang on nothing go either way
    found = np.isfinite(reached)
    vessel_of = np.full(len(line), -1)
    vessel_of[leaving] = vessel
    forest[found] = turn[vessel_of[source[found]]]
    halves = [_select(line, (forest == side) | ~outside) for side in range(2)]
    return [replace(half, parts=_parts_of(half.points, line.shape)) for half in halves]


def _parts_of(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Labels of the parts that (N, 2) skeleton pixels fall into, small gaps closed."""
    pixels = tuple(points.astype(np.int64).T)
    drawn = np.zeros(shape, np.uint8)
    drawn[pixels] = 1
    joined = cv2.dilate(drawn, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_GAP, _GAP)))
    return cv2.connectedComponents(joined)[1][pixels].astype(np.int64)


def warp_centrelines(lines: Sequence[Centreline], *, config: SCAConfig, rng: np.random.Generator) -> list[Centreline]:
    """`lines` under a smooth random deformation, so that trees conditioned on them are not copies.

    Several move together for the most part and apart for the rest, so that they cross anew. Points that leave the
    frame are dropped.

    Parameters
    ----------
    lines : sequence of Centreline
        In one frame.
    config : SCAConfig
        ``warp_amplitude`` is the standard deviation of each component of the shift, in pixels.
    rng : numpy.random.Generator

    Returns
    -------
    list of Centreline
    """
    if config.warp_amplitude == 0 or not any(map(len, lines)):
        return list(lines)
    shape = lines[0].shape
    coarse = tuple(-(-side // _COARSE) + 1 for side in shape)  # far finer than the deformation varies

    def draw() -> list[np.ndarray]:
        return [smooth_noise(coarse, config.warp_sigma / _COARSE, rng) for _ in range(2)]

    shared = draw()
    warped = []
    for line in lines:
        fields = shared
        if len(lines) > 1:
            fields = [np.sqrt(1 - _OWN_WARP) * s + np.sqrt(_OWN_WARP) * o for s, o in zip(shared, draw(), strict=True)]
        at = line.points.T / _COARSE
        shift = np.stack([map_coordinates(field, at, order=1, mode="nearest") for field in fields], axis=1)
        points = line.points + config.warp_amplitude * shift
        inside = ((points >= 0) & (points <= np.asarray(shape) - 1)).all(axis=1)
        warped.append(_select(replace(line, points=points), inside))
    return warped


def _select(line: Centreline, keep: np.ndarray) -> Centreline:
    return replace(line, points=line.points[keep], radii=line.radii[keep], parts=line.parts[keep])
