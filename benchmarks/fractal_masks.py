"""Masks of recursive tubes, the rule-based baseline of the paper's Table 4.

In the manner of Ma et al. 2021 (*Self-supervised vessel segmentation via adversarial learning*, ICCV): a straight trunk
gives off one branch to each side at a random place, a quarter to three quarters of it in length and width, and so do
the branches, for three or four generations; then the picture is deformed. The shares, the generations and the trunk are
those of their released program. Theirs draws rectangles at right angles, one trunk a picture, and deforms pixels; here
branching angles are drawn too, up to three trunks are, and the nodes of a `VesselTree` move.
"""

from __future__ import annotations

import numpy as np

from univg.geometry import VesselTree, rasterize_tree
from univg.geometry.tree import join_trees
from univg.sca import SCAConfig
from univg.sca.shaping import wind_tree

MOST_TREES = 3
GENERATIONS = (3, 4)  # fewest, most; the trunk is the first
TRUNK_LENGTH = (0.68, 0.88)  # of the shorter side of the frame: 350 to 450 of 512 pixels
TRUNK_RADIUS = (0.009, 0.017)  # likewise: 9 to 17 of 512 pixels across; coronary arteries are 4 to 20
SHARE = (0.25, 0.75)  # of a branch in the length, and in the radius, of what it leaves
ANGLE = (30.0, 90.0)  # degrees
NODE_SPACING = 4.0  # pixels
BEND = 0.3  # across a vessel, as a share of the length that bends to one side
BEND_LENGTH = 0.35  # of the shorter side


def fractal_mask(shape: tuple[int, int], *, rng: np.random.Generator) -> np.ndarray:
    """`fractal_tree`, drawn: a bool (H, W) mask."""
    return rasterize_tree(fractal_tree(shape, rng=rng))


def fractal_tree(shape: tuple[int, int], *, rng: np.random.Generator) -> VesselTree:
    """One to three bifurcating trees; parts of them may lie outside the frame.

    Parameters
    ----------
    shape : tuple of int
        ``(height, width)`` of the frame, in pixels.
    rng : numpy.random.Generator

    Returns
    -------
    VesselTree
    """
    height, width = int(shape[0]), int(shape[1])
    unit = min(height, width)
    forest = join_trees([_grow_tubes((height, width), unit, rng) for _ in range(rng.integers(1, MOST_TREES + 1))])
    bend = SCAConfig(tortuosity=BEND, winding_length=BEND_LENGTH * unit)
    return wind_tree(forest, config=bend, rng=rng)


def _grow_tubes(shape: tuple[int, int], unit: int, rng: np.random.Generator) -> VesselTree:
    positions: list[np.ndarray] = []
    parents: list[int] = []
    radii: list[float] = []

    def grow(start: np.ndarray, parent: int, angle: float, length: float, radius: float, generations: int) -> None:
        direction = np.array([np.sin(angle), np.cos(angle)])
        first, count = len(positions), max(round(length / NODE_SPACING), 2)
        for along in np.linspace(0, length, count):
            positions.append(start + along * direction)
            parents.append(parent)
            radii.append(radius)
            parent = len(positions) - 1
        if generations == 1:
            return
        for side in (-1, 1):
            fork = int(rng.integers(first + 1, first + count))
            turn = side * np.deg2rad(rng.uniform(*ANGLE))
            share_of_length, share_of_radius = rng.uniform(*SHARE, 2)
            grow(
                positions[fork],
                fork,
                angle + turn,
                length * share_of_length,
                radius * share_of_radius,
                generations - 1,
            )

    # The middle of the trunk lies in the middle half of the frame, so that no tree is lost outside it.
    angle, length = rng.uniform(0, 2 * np.pi), unit * rng.uniform(*TRUNK_LENGTH)
    middle = np.asarray(shape) * rng.uniform(0.25, 0.75, 2)
    start = middle - length / 2 * np.array([np.sin(angle), np.cos(angle)])
    generations = int(rng.integers(GENERATIONS[0], GENERATIONS[1] + 1))
    grow(start, -1, angle, length, unit * rng.uniform(*TRUNK_RADIUS), generations)
    return VesselTree(np.array(positions), np.array(parents, np.int64), np.array(radii), shape)
