"""Space colonization step by step as the paper writes it (section 3.1, eqs. 1-7; R-SCA, section 3.1.1, step 2).

No index, no arrays: every iteration compares every attractor with every node. It is slow on purpose, the reference
against which the time and the trees of `univg.sca.grow_tree` are measured.

Where the text leaves a choice:

- An attractor pulls only its nearest node within the attraction distance (Runions et al. 2005, section 3.2). Read word
  by word, step 2 lets it pull all nodes within reach, so that they all grow and vessels become sheaves.
- A node averages unit vectors, as in Runions et al.; eq. 3 normalises the average.
- Roots are the first new nodes: attractors within the kill distance of a root are gone before growth starts.
- Growth also ends when no node moves on. A node that would be set where one already is is left out, for an attractor
  that its nearest node steps past would otherwise call for the same node until the limits of eq. 7.
- Beyond the frame there are no nodes.
"""

from __future__ import annotations

import math
import time

import numpy as np

from univg.geometry import VesselTree

TIP_RADIUS = 1.0  # pixels
MURRAY_EXPONENT = 3.0

Point = tuple[float, float]


def grow_literally(
    attractors: np.ndarray,
    roots: np.ndarray,
    shape: tuple[int, int],
    *,
    attraction_distance: float = 20.0,
    kill_distance: float = 10.0,
    segment_length: float = 15.0,
    max_nodes: int,
    max_iterations: int,
    deadline: float = math.inf,
) -> VesselTree:
    """Grow vessel trees from `roots` towards `attractors`.

    Parameters
    ----------
    attractors : (A, 2) ndarray of float
        ``(row, col)`` positions s_j in pixels.
    roots : (R, 2) ndarray of float
        ``(row, col)`` positions of the first nodes.
    shape : tuple of int
        ``(height, width)`` of the frame, in pixels.
    attraction_distance, kill_distance, segment_length : float
        D_a, D_k and L_s, in pixels.
    max_nodes, max_iterations : int
        Where growth ends at the latest (eq. 7).
    deadline : float
        Reading of `time.perf_counter` at which to give up.

    Returns
    -------
    VesselTree
        Nodes in the order in which they grew, with radii by Murray's law from the tips.

    Raises
    ------
    ValueError
        If a root lies outside the frame.
    TimeoutError
        If the tree is not grown by `deadline`.
    """
    nodes: list[Point] = [(float(row), float(col)) for row, col in roots][:max_nodes]
    for root in nodes:
        if not _inside(root, shape):
            raise ValueError(f"`roots` must lie inside the frame {tuple(shape)}, got {root}")
    parents = [-1] * len(nodes)
    alive: list[Point] = [(float(row), float(col)) for row, col in attractors]
    alive = _prune(alive, nodes, kill_distance, deadline)

    for _ in range(max_iterations):
        if not alive or len(nodes) >= max_nodes:  # eq. 7
            break
        pulls = _associate(alive, nodes, attraction_distance, deadline)
        new: list[Point] = []
        for node in sorted(pulls):
            point = _step(nodes[node], pulls[node], segment_length)
            if _inside(point, shape) and point not in nodes and len(nodes) < max_nodes:
                nodes.append(point)
                parents.append(node)
                new.append(point)
        if not new:
            break
        alive = _prune(alive, new, kill_distance, deadline)

    positions = np.array(nodes, np.float64).reshape(-1, 2)
    radii = np.array(_radii(parents), np.float64)
    return VesselTree(positions, np.array(parents, np.int64), radii, (int(shape[0]), int(shape[1])))


def _associate(alive: list[Point], nodes: list[Point], reach: float, deadline: float) -> dict[int, list[Point]]:
    """Step 1: the attractors that pull each node; a node that none pulls is left out."""
    pulls: dict[int, list[Point]] = {}
    for attractor in alive:
        _check(deadline)
        nearest, least = -1, math.inf
        for index, node in enumerate(nodes):
            distance = math.dist(attractor, node)
            if distance < least:
                nearest, least = index, distance
        if least <= reach:
            pulls.setdefault(nearest, []).append(attractor)
    return pulls


def _step(node: Point, attractors: list[Point], segment_length: float) -> Point:
    """Steps 2 and 3: where the next node stands (eqs. 1-4); `node` itself when the attractors pull it nowhere."""
    row = col = 0.0
    for attractor in attractors:
        distance = math.dist(attractor, node)
        if distance > 0:
            row += (attractor[0] - node[0]) / distance  # eq. 1
            col += (attractor[1] - node[1]) / distance
    row, col = row / len(attractors), col / len(attractors)  # eq. 2
    length = math.hypot(row, col)
    if length < 1e-9:
        return node
    return node[0] + segment_length * row / length, node[1] + segment_length * col / length  # eqs. 3, 4


def _prune(alive: list[Point], new: list[Point], kill_distance: float, deadline: float) -> list[Point]:
    """Steps 4 and 5: the attractors that no new node has reached (eqs. 5, 6)."""
    left = []
    for attractor in alive:
        _check(deadline)
        for node in new:
            if math.dist(attractor, node) <= kill_distance:
                break
        else:
            left.append(attractor)
    return left


def _radii(parents: list[int]) -> list[float]:
    """Radii from the tips to the base, ``r_parent^3 = sum r_child^3``."""
    power = [0.0] * len(parents)
    for node in range(len(parents) - 1, -1, -1):
        if power[node] == 0:
            power[node] = TIP_RADIUS**MURRAY_EXPONENT
        if parents[node] >= 0:
            power[parents[node]] += power[node]
    return [value ** (1 / MURRAY_EXPONENT) for value in power]


def _inside(point: Point, shape: tuple[int, int]) -> bool:
    return 0 <= point[0] < shape[0] and 0 <= point[1] < shape[1]


def _check(deadline: float) -> None:
    if time.perf_counter() > deadline:
        raise TimeoutError("The tree was not grown by the deadline")
