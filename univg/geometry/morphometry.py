"""What clinicians measure on a vessel tree: segments, bifurcations and the mask as a whole. All lengths in pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from univg.geometry.raster import rasterize_tree
from univg.geometry.tree import VesselTree, select_nodes
from univg.metrics import betti_numbers

_SMOOTHING = 2.0  # pixels; flattens the steps of a path of pixels and shrinks an arc of radius 20 by half a percent
_ARM_RADII, _ARM_LEAST = 4.0, 8.0  # a vessel is read over so many radii, and over no fewer pixels
_TOWARDS_ROOT = 1.05  # of vessels that differ by less, which is what pixels can tell, the one towards the root is wider


@dataclass(frozen=True, eq=False)
class Bifurcations:
    """The places where a vessel divides, and the vessels that meet there.

    Attributes
    ----------
    positions : (B, 2) ndarray of float64
        ``(row, col)``, in pixels.
    parent_radii : (B,) ndarray of float64
        In pixels.
    daughter_radii : (B, 2) ndarray of float64
        Of the two widest daughters, wider first, in pixels.
    angles : (B,) ndarray of float64
        Between these two daughters, in degrees, 0 to 180.
    """

    positions: np.ndarray
    parent_radii: np.ndarray
    daughter_radii: np.ndarray
    angles: np.ndarray


@dataclass(frozen=True, eq=False)
class TreeMorphometry:
    """Measurements of one tree and its mask; NaN where a thing cannot be computed.

    A segment runs between two of: bifurcation, tip, and root. A root with two branches ends no segment: it lies inside
    a vessel, as the thickest point does from which `extract_tree` roots one.

    Attributes
    ----------
    segment_lengths : (S,) ndarray of float64
        Along the smoothed centreline, in pixels.
    segment_diameters : (S,) ndarray of float64
        Mean along the segment, clear of the vessels it joins, in pixels.
    tortuosities : (S,) ndarray of float64
        Length divided by chord, 1 or more; NaN for a segment that ends where it began.
    bifurcations : Bifurcations
    vessel_density : float
        Share of the frame's pixels that are vessel, 0 to 1.
    vessel_length_density : float
        Length of all segments per area of the frame, in 1/pixel.
    bifurcations_per_length : float
        In 1/pixel; NaN for a tree without segments.
    fractal_dimension : float
        Of the mask, by counting boxes, 0 to 2.
    betti0, betti1 : int
        Connected parts of the mask and its holes.
    """

    segment_lengths: np.ndarray
    segment_diameters: np.ndarray
    tortuosities: np.ndarray
    bifurcations: Bifurcations
    vessel_density: float
    vessel_length_density: float
    bifurcations_per_length: float
    fractal_dimension: float
    betti0: int
    betti1: int


def measure_tree(tree: VesselTree, *, mask: np.ndarray | None = None, spur_length: float = 1.5) -> TreeMorphometry:
    """Measure `tree` and its mask.

    To compare generated with real vessels, measure `extract_network` of both masks: a path of pixels is no generated
    path, and what a drawing hides (a twig along a trunk) is then hidden in both.

    Parameters
    ----------
    tree : VesselTree
    mask : (H, W) ndarray of bool, optional
        The mask that `tree` was extracted from; `rasterize_tree` of it by default.
    spur_length : float
        As in `measure_bifurcations`.

    Returns
    -------
    TreeMorphometry
    """
    if mask is None:
        mask = rasterize_tree(tree)
    if mask.dtype != np.bool_ or mask.shape != tuple(tree.shape):
        raise ValueError(f"`mask` must be bool and of the tree's shape {tree.shape}, got {mask.dtype} {mask.shape}")
    tree = _without_spurs(tree, spur_length)
    segments = _segments(tree)
    bifurcations = _bifurcations(tree, segments)
    lengths = np.array([segment.length for segment in segments])
    chords = np.array([np.linalg.norm(segment.points[-1] - segment.points[0]) for segment in segments])
    total = float(lengths.sum())
    betti0, betti1 = betti_numbers(mask)
    return TreeMorphometry(
        segment_lengths=lengths,
        segment_diameters=np.array([2 * segment.mean_radius(*segment.clear_span) for segment in segments]),
        tortuosities=np.divide(lengths, chords, out=np.full(len(segments), np.nan), where=chords > 0),
        bifurcations=bifurcations,
        vessel_density=float(mask.mean()) if mask.size else float("nan"),
        vessel_length_density=total / mask.size if mask.size else float("nan"),
        bifurcations_per_length=len(bifurcations.angles) / total if total else float("nan"),
        fractal_dimension=box_counting_dimension(mask),
        betti0=betti0,
        betti1=betti1,
    )


def measure_bifurcations(tree: VesselTree, *, spur_length: float = 1.5) -> Bifurcations:
    """Where `tree` divides, with the radii and the angle read on the vessels and not in the joint.

    Each vessel is read from one radius of the joint outwards, over the next four radii or eight pixels, whichever is
    more, and never beyond the segment or into the joint at its other end. A segment all of which lies inside its joints
    has the radius where these meet. Branches of a closed venation count, through `VesselTree.links`.

    The parent is the vessel towards the root, unless another is wider by a twentieth: vessels do not widen on their way
    from the root, but an extracted tree also leads through crossings and the wrong way round a loop.

    Parameters
    ----------
    tree : VesselTree
    spur_length : float
        A branch that ends less than this many pixels outside the wall of the vessel it leaves is a spur of the skeleton
        and makes no bifurcation. One pixel on a wall gives a spur of 0 to 1: the default leaves those out, and with
        them all that is shorter than the local radius; ``-inf`` keeps every branch.

    Returns
    -------
    Bifurcations
    """
    tree = _without_spurs(tree, spur_length)
    return _bifurcations(tree, _segments(tree))


def box_counting_dimension(mask: np.ndarray) -> float:
    """Slope of the number of occupied boxes against their size, in logarithms: 1 for a line, 2 for a filled area.

    Boxes have sides of 2, 4, 8, ... pixels up to a quarter of the longer side of what `mask` holds, and start at its
    corner, so that frame and position do not matter. Single pixels are left out: a diagonal line has too few of them
    for its length. With so few sizes lines come out between 0.85 and 1.05, squares between 1.85 and 2.

    Parameters
    ----------
    mask : (H, W) ndarray of bool

    Returns
    -------
    float
        NaN for fewer than three sizes: an empty mask, or one shorter than 32 pixels.
    """
    if not mask.any():
        return float("nan")
    rows, cols = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    boxes = mask[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    largest = max(boxes.shape) / 4
    sizes, counts = [], []
    size = 2
    while size <= largest:
        boxes = np.pad(boxes, [(0, side % 2) for side in boxes.shape])
        boxes = boxes[::2, ::2] | boxes[1::2, ::2] | boxes[::2, 1::2] | boxes[1::2, 1::2]
        sizes.append(size)
        counts.append(np.count_nonzero(boxes))
        size *= 2
    if len(sizes) < 3:
        return float("nan")
    return float(-np.polyfit(np.log(sizes), np.log(counts), 1)[0])


@dataclass(frozen=True, eq=False)
class _Segment:
    """A vessel between two ends, resampled about every pixel.

    `nodes` are the tree's, from end to end; `along` is the distance of each of `points` to the first; `joints` holds
    the radius of the bifurcation at either end, 0 at any other end.
    """

    nodes: list[int]
    points: np.ndarray
    along: np.ndarray
    radii: np.ndarray
    joints: tuple[float, float]

    @property
    def length(self) -> float:
        return float(self.along[-1])

    @property
    def clear_span(self) -> tuple[float, float]:
        """Where the segment leaves the joints at its ends; a single place when they cover all of it."""
        first, last = self.joints
        if first + last < self.length:
            return first, self.length - last
        meet = self.length * first / (first + last) if first + last else 0.0
        return meet, meet

    def reversed(self) -> _Segment:
        return _Segment(
            self.nodes[::-1], self.points[::-1], self.length - self.along[::-1], self.radii[::-1], self.joints[::-1]
        )

    def mean_radius(self, start: float, stop: float) -> float:
        at = np.linspace(start, stop, max(int(stop - start), 1) + 1)
        return float(np.interp(at, self.along, self.radii).mean())

    def point(self, at: float) -> np.ndarray:
        return np.array([np.interp(at, self.along, self.points[:, axis]) for axis in range(2)])


def _bifurcations(tree: VesselTree, segments: list[_Segment]) -> Bifurcations:
    arms: dict[int, list[_Segment]] = {}
    for segment in segments:
        for arm in (segment, segment.reversed()):
            arms.setdefault(arm.nodes[0], []).append(arm)
    places = sorted(place for place, found in arms.items() if len(found) > 2)
    parent_radii, daughter_radii, angles = [], [], []
    for place in places:
        readings = [_read_arm(arm) for arm in arms[place]]
        radii = [radius for radius, _ in readings]
        to_root = [arm.nodes[1] == tree.parents[place] for arm in arms[place]]
        by_width = sorted(range(len(radii)), key=radii.__getitem__, reverse=True)
        parent = max(by_width, key=lambda i: (radii[i] * (_TOWARDS_ROOT if to_root[i] else 1), to_root[i]))
        wide, narrow = [i for i in by_width if i != parent][:2]
        parent_radii.append(radii[parent])
        daughter_radii.append((radii[wide], radii[narrow]))
        angles.append(_angle(readings[wide][1], readings[narrow][1]))
    return Bifurcations(
        positions=tree.positions[places],
        parent_radii=np.array(parent_radii),
        daughter_radii=np.array(daughter_radii).reshape(-1, 2),
        angles=np.array(angles),
    )


def _read_arm(arm: _Segment) -> tuple[float, np.ndarray]:
    """Radius of a vessel next to the joint it starts from, and the way it leaves."""
    start, stop = arm.clear_span
    stop = min(stop, start + max(_ARM_RADII * arm.joints[0], _ARM_LEAST))
    radius = arm.mean_radius(start, stop)
    if stop - start < 2:  # too short for a direction of its own
        start, stop = 0.0, arm.length
    return radius, arm.point(stop) - arm.point(start)


def _angle(first: np.ndarray, second: np.ndarray) -> float:
    lengths = np.linalg.norm(first) * np.linalg.norm(second)
    return float(np.degrees(np.arccos(np.clip(first @ second / lengths, -1, 1)))) if lengths else float("nan")


def _segments(tree: VesselTree) -> list[_Segment]:
    neighbours = _neighbours(tree)
    segments = []
    for nodes in _paths(neighbours, tree.roots.tolist()):
        radii = tree.radii[nodes]
        joints = [float(tree.radii[end]) if len(neighbours[end]) > 2 else 0.0 for end in (nodes[0], nodes[-1])]
        # A branch point is as wide as the widest vessel there; the others are no wider than they are next to it.
        for end, beside in ((0, 1), (-1, -2)):
            if len(neighbours[nodes[end]]) > 2:
                radii[end] = min(radii[end], radii[beside])
        segments.append(_Segment(nodes, *_smooth_path(tree.positions[nodes], radii), tuple(joints)))
    return segments


def _neighbours(tree: VesselTree) -> list[list[int]]:
    """The nodes that each node is joined to, by growth or by a link."""
    found = [set() for _ in range(len(tree))]
    grown = np.flatnonzero(tree.parents >= 0)
    for node, other in [*zip(grown.tolist(), tree.parents[grown].tolist(), strict=True), *tree.links.tolist()]:
        if node != other:
            found[node].add(other)
            found[other].add(node)
    return [sorted(others) for others in found]


def _paths(neighbours: list[list[int]], roots: list[int]) -> Iterator[list[int]]:
    """Each way between two nodes that do not have just two neighbours, as indices with both ends; a ring on its own
    starts and ends at its root.
    """
    passed = set()
    for start in [*(node for node, others in enumerate(neighbours) if len(others) != 2), *roots]:
        if start in passed:
            continue
        for node in neighbours[start]:
            if (start, node) in passed:
                continue
            path = [start, node]
            while len(neighbours[node]) == 2 and node != start:
                passed.add(node)
                first, second = neighbours[node]
                node = second if first == path[-2] else first
                path.append(node)
            passed |= {(start, path[1]), (node, path[-2])}  # the same way from its other end
            yield path


def _smooth_path(positions: np.ndarray, radii: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A path resampled about every pixel and smoothed, its ends fixed: points, distances along it, radii."""
    raw = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(positions, axis=0), axis=1))])
    count = int(np.ceil(raw[-1])) + 1 if raw[-1] else 2
    at = np.linspace(0, raw[-1], count)
    points = np.column_stack([np.interp(at, raw, positions[:, axis]) for axis in range(2)])
    if raw[-1]:
        margin = int(np.ceil(4 * _SMOOTHING)) + 1
        mirrored = np.pad(points, [(margin, margin), (0, 0)], mode="reflect", reflect_type="odd")
        points = gaussian_filter1d(mirrored, _SMOOTHING, axis=0)[margin:-margin]
        points[[0, -1]] = positions[[0, -1]]  # to the last bit, so that a closed way has the chord 0
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    return points, along, np.interp(at, raw, radii)


def _without_spurs(tree: VesselTree, spur_length: float) -> VesselTree:
    """`tree` without branches that end within `spur_length` of the wall of the vessel they leave; of a fork the longest
    branch stays in any case.
    """
    parents, steps, radii = tree.parents.tolist(), tree.step_lengths.tolist(), tree.radii.tolist()
    linked = set(tree.links.ravel().tolist())  # what is joined to another vessel has no end
    branch = [0.0] * len(tree)  # from the parent of each node to the farthest tip after it
    reach = [0.0] * len(tree)
    longest = [-1] * len(tree)
    for node in range(len(tree) - 1, -1, -1):
        branch[node] = np.inf if node in linked else reach[node] + steps[node]
        parent = parents[node]
        if parent >= 0 and (longest[parent] < 0 or branch[node] > reach[parent]):
            reach[parent], longest[parent] = branch[node], node
    degrees = (tree.child_counts + (tree.parents >= 0)).tolist()
    keep = np.ones(len(tree), bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            spur = degrees[parent] > 2 and node != longest[parent] and branch[node] < radii[parent] + spur_length
            keep[node] = keep[parent] and not spur
    return select_nodes(tree, keep)
