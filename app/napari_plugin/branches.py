"""The centreline of a mask in pieces: what lies between branch points and tips."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from skimage.morphology import skeletonize

from univg.geometry.skeleton import pixel_graph

_NEIGHBOURS = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], np.float32)


@dataclass(frozen=True, eq=False)
class Branches:
    """Centreline pixels and the branch that each belongs to.

    Attributes
    ----------
    points : (N, 2) ndarray of int64
        ``(row, col)``.
    branch_of : (N,) ndarray of int64
        From 1; 0 at branch points, which belong to none.
    count : int
        Number of branches.
    terminal : (count + 1,) ndarray of bool
        Whether a branch leaves a branch point and ends free.
    lengths : (count + 1,) ndarray of float64
        Along the pixels.
    joints : (J, 2) ndarray of int64
        Branches and the branch points that they touch, as pairs; touching centreline pixels are one branch point.
    shape : tuple of int
    """

    points: np.ndarray
    branch_of: np.ndarray
    count: int
    terminal: np.ndarray
    lengths: np.ndarray
    joints: np.ndarray
    shape: tuple[int, int]

    def image_of(self, chosen: np.ndarray) -> np.ndarray:
        """(H, W) bool picture of the centreline pixels where `chosen`, (N,) bool, is set."""
        picture = np.zeros(self.shape, bool)
        picture[self.points[chosen, 0], self.points[chosen, 1]] = True
        return picture

    def nearest(self, point: tuple[float, float], *, reach: float) -> int | None:
        """The branch next to `point`; None when none is within `reach` pixels."""
        inside = np.flatnonzero(self.branch_of > 0)
        if not len(inside):
            return None
        distance = np.linalg.norm(self.points[inside] - np.asarray(point), axis=1)
        best = int(np.argmin(distance))
        return int(self.branch_of[inside[best]]) if distance[best] <= reach else None


def find_branches(mask: np.ndarray) -> Branches:
    """The branches of `mask`, an (H, W) ndarray of bool."""
    skeleton = skeletonize(mask)
    neighbours = cv2.filter2D(skeleton.astype(np.float32), -1, _NEIGHBOURS, borderType=cv2.BORDER_CONSTANT)
    joints = skeleton & (neighbours > 2.5)
    arms = skeleton & ~joints
    count, label = cv2.connectedComponents(arms.astype(np.uint8), connectivity=8)
    points = np.argwhere(skeleton)
    branch_of = label[points[:, 0], points[:, 1]].astype(np.int64)

    _, joint = cv2.connectedComponents(joints.astype(np.uint8), connectivity=8)
    nearby = cv2.dilate(joint.astype(np.float32), np.ones((3, 3), np.uint8)).astype(np.int64)
    touching = arms & (nearby > 0)
    pairs = np.unique(np.column_stack([label[touching], nearby[touching]]), axis=0)
    leaves = np.zeros(count, bool)
    leaves[pairs[:, 0]] = True
    ends = np.zeros(count, bool)
    ends[np.unique(label[arms & (neighbours < 1.5)])] = True
    leaves[0] = ends[0] = False

    lengths = np.zeros(count)
    inside = points[branch_of > 0]
    if len(inside):
        links = pixel_graph(inside, mask.shape).tocoo()
        np.add.at(lengths, branch_of[branch_of > 0][links.row], links.data)
    return Branches(points, branch_of, count - 1, leaves & ends, lengths, pairs, mask.shape)
