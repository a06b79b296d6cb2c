"""From a mask to centrelines, local radii and a vessel tree."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree
from skimage.morphology import skeletonize

from univg.geometry.tree import VesselTree

EVEN_WIDTHS = 0.25  # pixels, see `centreline_radius`
_PINHOLE = 4  # pixels of a hole that is none of the vessels' making
_LOOP_STEPS = 8  # pixels that touch are further apart than this along a tree where a loop was cut


def local_radius(mask: np.ndarray) -> np.ndarray:
    """Distance of each vessel pixel's centre to the vessel wall, in pixels; 0 outside vessels.

    On a centreline this is the radius: a vessel drawn five pixels wide has 2.5. Vessels go on beyond the frame; only
    where nothing but vessel is in sight does the frame count as the wall.

    Parameters
    ----------
    mask : (H, W) ndarray of bool

    Returns
    -------
    (H, W) ndarray of float32
    """
    pixels = mask.astype(np.uint8)
    if mask.all():
        pixels = np.pad(pixels, 1)
    to_background = cv2.distanceTransform(pixels, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    if mask.all():
        to_background = to_background[1:-1, 1:-1]
    return np.maximum(to_background - np.float32(0.5), 0)  # the wall lies between two pixel centres


def centreline_radius(mask: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Radius of the vessel at each of (N, 2) skeleton pixels; (N,) float64 in pixels.

    A vessel an even number of pixels wide has no pixel on its axis, so that its skeleton reads half a pixel too thin;
    one of odd width reads right. Both get a quarter, which is right in the mean along rows and columns. Oblique vessels
    two pixels wide or more stay 0.1 to 0.3 too thin; what would mend that makes those of one pixel, half of many masks,
    too thick by as much again.
    """
    return local_radius(mask)[points[:, 0], points[:, 1]].astype(np.float64) + EVEN_WIDTHS


def skeleton_points(mask: np.ndarray) -> np.ndarray:
    """``(row, col)`` of the centreline pixels of `mask`, an (N, 2) ndarray of int64."""
    return np.argwhere(skeletonize(mask))


def nearest_centreline(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each pixel of the frame, the vessel nearest to it.

    Parameters
    ----------
    mask : (H, W) ndarray of bool
        With at least one vessel pixel.

    Returns
    -------
    radius : (H, W) ndarray of float32
        Radius of the vessel at its nearest centreline point, in pixels.
    distance : (H, W) ndarray of float32
        Distance to that centreline point, in pixels.
    """
    points = skeleton_points(mask)
    if not len(points):
        raise ValueError("`mask` must hold a vessel, got an empty mask")
    centreline = np.ones(mask.shape, np.uint8)
    centreline[points[:, 0], points[:, 1]] = 0
    distance, label = cv2.distanceTransformWithLabels(
        centreline, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    radius_of_label = np.zeros(label.max() + 1, np.float32)
    radius_of_label[label[points[:, 0], points[:, 1]]] = local_radius(mask)[points[:, 0], points[:, 1]]
    return radius_of_label[label], distance


def extract_tree(mask: np.ndarray) -> VesselTree:
    """The vessel tree of a mask: its skeleton pixels, joined without cycles.

    Each connected part is rooted at its thickest point. Where vessels cross or close a loop, the minimum spanning tree
    drops one link, so `rasterize_tree` of the result has no more holes than `mask`. To measure, see `extract_network`.

    Parameters
    ----------
    mask : (H, W) ndarray of bool

    Returns
    -------
    VesselTree
        One node per skeleton pixel; ``radii`` are those of `centreline_radius`.
    """
    points = skeleton_points(mask)
    if not len(points):
        return VesselTree(np.empty((0, 2)), np.empty(0, np.int64), np.empty(0), mask.shape)
    radii = centreline_radius(mask, points)

    graph = minimum_spanning_tree(pixel_graph(points, mask.shape))
    _, part = connected_components(graph, directed=False)
    thickest = np.lexsort((-radii, part))
    roots = thickest[np.unique(part[thickest], return_index=True)[1]]
    # All parts are walked at once, from one more node that is joined to their roots, and then put one after another.
    above = len(points)
    links = graph.tocoo()
    rows = np.concatenate([links.row, np.full(len(roots), above)])
    cols = np.concatenate([links.col, roots])
    joined = csr_array((np.ones(len(rows)), (rows, cols)), shape=(above + 1,) * 2)
    order, parent_of = breadth_first_order(joined, above, directed=False)
    order = order[1:]
    order = order[np.argsort(part[order], kind="stable")]
    rank = np.empty(above + 1, np.int64)
    rank[order], rank[above] = np.arange(above), -1
    parents = rank[parent_of[order]]
    return VesselTree(points[order].astype(np.float64), parents, radii[order], mask.shape)


def extract_network(mask: np.ndarray) -> VesselTree:
    """As `extract_tree`, to be measured: where the vessels of a mask close a loop, they stay joined by a link.

    A tree has to cut each loop somewhere, mostly next to a joint, which is then counted no more. Holes of a few pixels,
    which drawing leaves where vessels meet, are no loops and are filled: centrelines would run around them.

    Parameters
    ----------
    mask : (H, W) ndarray of bool

    Returns
    -------
    VesselTree
        With its loops as `VesselTree.links`.
    """
    tree = extract_tree(_without_pinholes(mask))
    return replace(tree, links=_loop_links(tree)) if len(tree) else tree


def _without_pinholes(mask: np.ndarray) -> np.ndarray:
    outside = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
    _, label, stats, _ = cv2.connectedComponentsWithStats(outside, connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] <= _PINHOLE
    small[0] = False  # the vessels themselves
    return mask | small[label][1:-1, 1:-1]


def _loop_links(tree: VesselTree) -> np.ndarray:
    """Pairs of neighbouring pixels of `tree` that are far apart along it, (L, 2); each closes one loop.

    Pixels in a corner are neighbours too, but a step or two apart.
    """
    grown = np.flatnonzero(tree.parents >= 0)
    joined: list[set[int]] = [set() for _ in range(len(tree))]
    for node, parent in zip(grown.tolist(), tree.parents[grown].tolist(), strict=True):
        joined[node].add(parent)
        joined[parent].add(node)
    graph, links = pixel_graph(tree.positions.astype(np.int64), tree.shape).tocoo(), []
    for first, second in zip(graph.row.tolist(), graph.col.tolist(), strict=True):
        if not _are_near(joined, first, second, _LOOP_STEPS):
            links.append((first, second))
            joined[first].add(second)
            joined[second].add(first)
    return np.array(links, np.int64).reshape(-1, 2)


def _are_near(joined: list[set[int]], first: int, second: int, steps: int) -> bool:
    """Whether at most `steps` steps lead from one node to the other."""
    seen, front = {first}, {first}
    for _ in range(steps):
        front = {node for before in front for node in joined[before]} - seen
        if second in front:
            return True
        seen |= front
    return False


def pixel_graph(points: np.ndarray, shape: tuple[int, int]) -> csr_array:
    """8-neighbour graph of the pixels `points`, an (N, 2) ndarray of int, weighted by distance; each pair once."""
    index = np.full((shape[0] + 2, shape[1] + 2), -1)
    rows, cols = points[:, 0] + 1, points[:, 1] + 1
    index[rows, cols] = np.arange(len(points))
    sources, targets, weights = [], [], []
    for dr, dc in ((0, 1), (1, 0), (1, 1), (1, -1)):
        neighbour = index[rows + dr, cols + dc]
        found = neighbour >= 0
        sources.append(np.flatnonzero(found))
        targets.append(neighbour[found])
        weights.append(np.full(found.sum(), np.hypot(dr, dc)))
    n = len(points)
    return coo_array(
        (np.concatenate(weights), (np.concatenate(sources), np.concatenate(targets))), shape=(n, n)
    ).tocsr()
