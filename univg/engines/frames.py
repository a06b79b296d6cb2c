"""Between frames of any proportions and the squares that engines draw, and how few pictures become many."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import map_coordinates

from univg.geometry import resize_mask, skeleton_points
from univg.geometry.skeleton import pixel_graph
from univg.sca.noise import smooth_noise
from univg.types import Modality

_HAVE_NO_UPRIGHT = (Modality.OCTA, Modality.OCT)
_NEVER_MIRRORED = (Modality.CORONARY_DSA,)  # left and right differ
_INVERSION_STEPS, _DAMPING = 20, 0.7  # of 1,000 points all but one or two then lie within a tenth of a pixel


def to_square(picture: np.ndarray, size: int) -> np.ndarray:
    """`picture` scaled so that its longer side is `size`, in the middle of an empty square.

    Parameters
    ----------
    picture : (H, W) ndarray of bool, or (H, W, C) ndarray of float32
    size : int

    Returns
    -------
    (size, size) or (size, size, C) ndarray
        Of the same dtype.
    """
    height, width = _fitted(picture.shape, size)
    square = np.zeros((size, size, *picture.shape[2:]), picture.dtype)
    row, col = (size - height) // 2, (size - width) // 2
    square[row : row + height, col : col + width] = resize(picture, (height, width))
    return square


def from_square(square: np.ndarray, frame: tuple[int, int]) -> np.ndarray:
    """The part of `square` in which `to_square` puts a picture of the proportions of `frame`."""
    size = square.shape[0]
    height, width = _fitted(frame, size)
    row, col = (size - height) // 2, (size - width) // 2
    return square[row : row + height, col : col + width]


def resize(picture: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """`picture`, bool or float32, at ``(height, width)``; for masks see `univg.geometry.resize_mask`."""
    if picture.dtype == np.bool_:
        return resize_mask(picture, shape)
    if picture.shape[:2] == tuple(shape):
        return picture
    interpolation = cv2.INTER_AREA if shape[0] < picture.shape[0] else cv2.INTER_LINEAR
    return cv2.resize(picture.astype(np.float32), shape[::-1], interpolation=interpolation)


def _fitted(shape: tuple[int, ...], size: int) -> tuple[int, int]:
    factor = size / max(shape[:2])
    return max(round(shape[0] * factor), 1), max(round(shape[1] * factor), 1)


@dataclass(frozen=True, eq=False)
class Warp:
    """One way to move the pixels of a square, for everything that lies in it.

    Attributes
    ----------
    mirror : bool
    quarters : int
        Quarter turns.
    from_cols, from_rows : (S, S) ndarray of float32
        Where each pixel comes from, after mirroring and turning.
    """

    mirror: bool
    quarters: int
    from_cols: np.ndarray
    from_rows: np.ndarray

    def __call__(self, picture: np.ndarray, *, border: int = cv2.BORDER_CONSTANT) -> np.ndarray:
        """`picture` (S, S[, C]), bool or float32, moved; `border` is OpenCV's way to fill what comes from outside."""
        turned = self._turned(picture).astype(np.float32)
        moved = cv2.remap(turned, self.from_cols, self.from_rows, cv2.INTER_LINEAR, None, border, 0)
        return moved > 0.5 if picture.dtype == np.bool_ else moved

    def vessels(self, mask: np.ndarray, *, border: int = cv2.BORDER_CONSTANT) -> np.ndarray:
        """`mask` (S, S) of bool moved, its centrelines as lines: a thin vessel would fall to pieces between pixels."""
        drawn = self(mask, border=border).astype(np.uint8)
        points = skeleton_points(self._turned(mask))
        links, each = pixel_graph(points, mask.shape).tocoo(), np.arange(len(points))
        ends = np.rint(self._destinations(points)[:, ::-1]).astype(np.int32)  # (col, row), as OpenCV has it
        lines = np.stack([ends[np.append(links.row, each)], ends[np.append(links.col, each)]], axis=1)
        cv2.polylines(drawn, list(lines), isClosed=False, color=1)
        return drawn > 0

    def _turned(self, picture: np.ndarray) -> np.ndarray:
        mirrored = picture[:, ::-1] if self.mirror else picture
        return np.ascontiguousarray(np.rot90(mirrored, self.quarters))

    def _destinations(self, points: np.ndarray) -> np.ndarray:
        """Where (N, 2) points, mirrored and turned already, come to lie: the lookup is inverted, step by step."""
        to = points.astype(np.float64)
        for _ in range(_INVERSION_STEPS):
            inside = np.clip(to, 0, np.array(self.from_rows.shape) - 1)
            found = [map_coordinates(grid, inside.T, order=1) for grid in (self.from_rows, self.from_cols)]
            to = inside + _DAMPING * (points - np.stack(found, axis=1))
        return to


def random_warp(side: int, modality: Modality, rng: np.random.Generator) -> Warp:
    """Mirror, turn a little, scale a little and bend, so that anatomy stays plausible.

    OCTA and OCT scans have no upright and are turned by quarters too; coronary trees are never mirrored.

    Parameters
    ----------
    side : int
    modality : Modality
    rng : numpy.random.Generator
    """
    mirror = modality not in _NEVER_MIRRORED and rng.random() < 0.5
    quarters = int(rng.integers(4)) if modality in _HAVE_NO_UPRIGHT else 0
    angle, zoom = rng.uniform(-10, 10), float(np.exp(rng.uniform(-0.06, 0.06)))
    matrix = cv2.getRotationMatrix2D((side / 2 - 0.5, side / 2 - 0.5), angle, zoom)
    matrix[:, 2] += rng.uniform(-0.02, 0.02, 2) * side
    linear = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
    cols, rows = np.meshgrid(np.arange(side, dtype=np.float32), np.arange(side, dtype=np.float32))
    from_cols = (linear[0, 0] * cols + linear[0, 1] * rows + linear[0, 2]).astype(np.float32)
    from_rows = (linear[1, 0] * cols + linear[1, 1] * rows + linear[1, 2]).astype(np.float32)
    for grid in (from_cols, from_rows):
        grid += np.float32(0.012 * side) * smooth_noise((side, side), 0.08 * side, rng)
    return Warp(mirror, quarters, from_cols, from_rows)
