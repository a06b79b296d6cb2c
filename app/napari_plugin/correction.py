"""Corrections that know what a vessel is: a mask in, a mask out; nothing here knows a viewer.

Points are ``(row, col)`` in pixels. A tool that finds nothing to do raises `InputError`, or returns an equal mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import median_filter
from skimage.graph import route_through_array

from app import texts
from app.napari_plugin.branches import Branches, find_branches
from univg.errors import InputError
from univg.geometry import VesselTree, local_radius, rasterize_tree, ridge_strength, skeleton_points
from univg.geometry.skeleton import centreline_radius
from univg.segmentation.inputs import normalize_locally, to_grey
from univg.types import Modality

Point = tuple[float, float]

_LARGEST_SIDE = 1024  # of the image that ridges are looked for in
# A bar answers strongest to the scale of half its width, so the best scale is the radius.
_RADII = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_REACH = 8.0  # pixels that a click may lie beside the vessel meant
_CORRIDOR = 9.0  # pixels that a stroke may lie beside it
_MARGIN = 48  # pixels that a path may swing out beyond its ends
_FLOOR = 0.03  # of the strongest ridge: what a step over no vessel at all costs


@dataclass(frozen=True, eq=False)
class Ridges:
    """How much each pixel looks like the middle of a vessel, and of which radius; both (H, W) float32."""

    strength: np.ndarray
    radius: np.ndarray

    def part(self, window: tuple[slice, slice]) -> Ridges:
        """A copy of what is in `window`."""
        return Ridges(self.strength[window].copy(), self.radius[window].copy())


def find_ridges(image: np.ndarray, modality: Modality) -> Ridges:
    """Ridges of an image at scales from thin to thick vessels, measured in its own pixels.

    A large image is looked at reduced, since its thinnest vessels are several pixels wide.
    """
    grey = to_grey(image, modality)
    height, width = grey.shape
    enlarge = max(max(grey.shape) / _LARGEST_SIDE, 1.0)
    if enlarge > 1:
        grey = cv2.resize(grey, (round(width / enlarge), round(height / enlarge)), interpolation=cv2.INTER_AREA)
    local = normalize_locally(grey)
    strength, radius = np.zeros(local.shape, np.float32), np.ones(local.shape, np.float32)
    for scale in _RADII:
        found = ridge_strength(local, scale)
        better = found > strength
        strength[better], radius[better] = found[better], scale
    if enlarge > 1:
        strength = cv2.resize(strength, (width, height), interpolation=cv2.INTER_LINEAR)
        radius = enlarge * cv2.resize(radius, (width, height), interpolation=cv2.INTER_LINEAR)
    return Ridges(strength, radius)


def bridge_gap(mask: np.ndarray, ridges: Ridges, start: Point, end: Point, *, diameter: float = 0.0) -> np.ndarray:
    """Join two places along the ridge between them.

    Parameters
    ----------
    mask : (H, W) ndarray of bool
    ridges : Ridges
    start, end : (row, col)
        Taken to the nearest centreline, if one is close.
    diameter : float
        Of the new piece, in pixels; 0 goes from the calibre at one end to that at the other.

    Returns
    -------
    (H, W) ndarray of bool
    """
    ends = [_on_centreline(mask, _inside(point, mask.shape)) for point in (start, end)]
    places = np.array([place for place, _ in ends])
    path = _route(ridges.strength, places[0], places[1], _window(mask.shape, places, _MARGIN))
    known = [radius for _, radius in ends]
    if diameter > 0:
        radii = np.full(len(path), diameter / 2)
    elif any(known):
        first, last = (radius or next(filter(None, known)) for radius in known)
        radii = np.linspace(first, last, len(path))
    else:
        radii = _radii_along(ridges, path)
    return mask | _drawn(path, radii, mask.shape)


def snap_stroke(mask: np.ndarray, ridges: Ridges, stroke: np.ndarray, *, diameter: float = 0.0) -> np.ndarray:
    """Add the vessel that a rough stroke, (N, 2) of (row, col), runs along.

    `diameter` is that of the vessel, in pixels; 0 reads it from the image.
    """
    stroke = np.array([_inside(tuple(point), mask.shape) for point in stroke])
    if len(np.unique(np.rint(stroke), axis=0)) < 2:
        raise InputError(texts.NAPARI_STROKE_SHORT, fix=texts.NAPARI_STROKE_SHORT_FIX)
    window = _window(mask.shape, stroke, int(_CORRIDOR) + 2)
    away = np.ones(mask.shape, np.uint8)
    cv2.polylines(away, [np.rint(stroke[:, ::-1]).astype(np.int32)], False, 0, 1)
    distance = cv2.distanceTransform(np.ascontiguousarray(away[window]), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    ends = [_strongest_near(ridges.strength, point, _CORRIDOR / 2) for point in (stroke[0], stroke[-1])]
    path = _route(ridges.strength, *ends, window, allowed=distance <= _CORRIDOR)
    radii = np.full(len(path), diameter / 2) if diameter > 0 else _radii_along(ridges, path)
    return mask | _drawn(path, radii, mask.shape)


def cut_branch(mask: np.ndarray, point: Point) -> np.ndarray:
    """Remove the branch next to `point`, up to the vessels that it joins; these keep their walls."""
    branches, branch = _branch_at(mask, point)
    return mask & ~_owned(mask, branches, branches.branch_of == branch)


def set_calibre(mask: np.ndarray, point: Point, diameter: float) -> np.ndarray:
    """Draw the branch next to `point` anew, `diameter` pixels wide along all of its centreline."""
    branches, branch = _branch_at(mask, point)
    along = branches.branch_of == branch
    away = (~branches.image_of(along)).astype(np.uint8)
    distance = cv2.distanceTransform(away, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # A vessel five pixels wide reaches two pixels beyond the middle one.
    return (mask & ~_owned(mask, branches, along)) | (distance <= max(diameter / 2 - 0.5, 0) + 1e-3)


def remove_specks(mask: np.ndarray, smallest: int) -> np.ndarray:
    """`mask` without separate pieces of fewer than `smallest` pixels."""
    _, label, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    large = stats[:, cv2.CC_STAT_AREA] >= smallest
    large[0] = False
    return large[label]


def prune_spurs(mask: np.ndarray, length: float) -> np.ndarray:
    """`mask` without side branches that end less than `length` pixels beyond the wall of the vessel they leave."""
    branches = find_branches(mask)
    short = np.zeros(branches.count + 1, bool)
    radius = local_radius(mask)
    at_joints = branches.points[branches.branch_of == 0]
    for branch in np.flatnonzero(branches.terminal):
        own = branches.points[branches.branch_of == branch]
        steps = np.abs(own[:, None] - at_joints[None]).max(axis=2)
        wall = radius[tuple(at_joints[np.unravel_index(np.argmin(steps), steps.shape)[1]])]
        # The centreline ends about one radius short of the end of the vessel.
        beyond = branches.lengths[branch] + steps.min() + np.median(radius[own[:, 0], own[:, 1]]) - wall
        short[branch] = beyond < length
    for joint in np.unique(branches.joints[:, 1]):
        meeting = branches.joints[branches.joints[:, 1] == joint, 0]
        # A vessel whose end forks into spurs goes on in the longest of them.
        if np.count_nonzero(~short[meeting]) < 2 and short[meeting].any():
            spurs = meeting[short[meeting]]
            short[spurs[np.argmax(branches.lengths[spurs])]] = False
    gone = short[branches.branch_of]
    return mask & ~_owned(mask, branches, gone) if gone.any() else mask.copy()


def _branch_at(mask: np.ndarray, point: Point) -> tuple[Branches, int]:
    branches = find_branches(mask)
    branch = branches.nearest(point, reach=_REACH + float(local_radius(mask)[tuple(_pixel(point, mask.shape))]))
    if branch is None:
        raise InputError(texts.NAPARI_NO_BRANCH, fix=texts.NAPARI_NO_BRANCH_FIX)
    return branches, branch


def _owned(mask: np.ndarray, branches: Branches, gone: np.ndarray) -> np.ndarray:
    """Pixels nearer to the centreline pixels `gone` than to others, and outside the vessels of these."""
    away = np.ones(mask.shape, np.uint8)
    away[branches.points[:, 0], branches.points[:, 1]] = 0
    _, label = cv2.distanceTransformWithLabels(away, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL)
    lost = np.zeros(label.max() + 1, bool)
    rows, cols = branches.points[gone].T
    lost[label[rows, cols]] = True
    kept = branches.points[~gone]
    if not len(kept):
        return mask & lost[label]
    radii = centreline_radius(mask, kept)
    stays = VesselTree(kept.astype(np.float64), np.full(len(kept), -1), radii, mask.shape)
    return mask & lost[label] & ~rasterize_tree(stays) & ~branches.image_of(~gone)


def _route(
    strength: np.ndarray, start: np.ndarray, end: np.ndarray, window: tuple[slice, slice], *, allowed=None
) -> np.ndarray:
    """The path of least cost between two pixels: (N, 2) ndarray of int."""
    ridge = strength[window]
    cost = 1 / (_FLOOR + ridge / max(float(ridge.max()), 1e-6))
    if allowed is not None:
        cost = np.where(allowed, cost, cost.max() * 100)
    origin = np.array([window[0].start, window[1].start])
    steps, _ = route_through_array(cost, tuple(start - origin), tuple(end - origin), fully_connected=True)
    return np.array(steps) + origin


def _drawn(path: np.ndarray, radii: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return rasterize_tree(VesselTree(path.astype(np.float64), np.arange(len(path)) - 1, radii, shape))


def _radii_along(ridges: Ridges, path: np.ndarray) -> np.ndarray:
    return median_filter(ridges.radius[path[:, 0], path[:, 1]], 15, mode="nearest").astype(np.float64)


def _on_centreline(mask: np.ndarray, point: np.ndarray) -> tuple[np.ndarray, float | None]:
    """The centreline pixel next to `point` and the radius there; `point` itself when none is close."""
    window = _window(mask.shape, point[None], int(3 * _REACH))
    piece = np.ascontiguousarray(mask[window])
    points = skeleton_points(piece)
    pixel = np.rint(point).astype(np.int64)
    if not len(points):
        return pixel, None
    origin = np.array([window[0].start, window[1].start])
    distance = np.linalg.norm(points + origin - point, axis=1)
    best = int(np.argmin(distance))
    if distance[best] > _REACH:
        return pixel, None
    return points[best] + origin, float(centreline_radius(piece, points[best : best + 1])[0])


def _strongest_near(strength: np.ndarray, point: np.ndarray, reach: float) -> np.ndarray:
    window = _window(strength.shape, point[None], int(reach))
    piece = strength[window]
    origin = np.array([window[0].start, window[1].start])
    return np.array(np.unravel_index(np.argmax(piece), piece.shape)) + origin


def _window(shape: tuple[int, int], points: np.ndarray, margin: int) -> tuple[slice, slice]:
    low = np.maximum(np.floor(points.min(axis=0)).astype(int) - margin, 0)
    high = np.minimum(np.ceil(points.max(axis=0)).astype(int) + margin + 1, shape)
    return slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))


def _pixel(point: Point, shape: tuple[int, int]) -> np.ndarray:
    return np.rint(_inside(point, shape)).astype(np.int64)


def _inside(point: Point, shape: tuple[int, int]) -> np.ndarray:
    return np.clip(np.asarray(point, np.float64), 0, np.array(shape) - 1)
