"""The corrections of `correction`, computed in the helper process; for use in a background thread.

Tools that work between places get only the part of the frame around these, so that a large image costs no more than a
small one.
"""

from __future__ import annotations

import numpy as np

from app.napari_plugin import correction
from app.napari_plugin.correction import Point, Ridges
from app.napari_plugin.helpers import TOOLS
from univg.types import Modality

# More than a path swings out beyond its ends, with the radius of the widest vessel.
_AROUND = 112


def find_ridges(image: np.ndarray, modality: Modality) -> Ridges:
    """As `correction.find_ridges`."""
    return TOOLS.call(correction.find_ridges, image, modality)


def bridge_gap(mask: np.ndarray, ridges: Ridges, start: Point, end: Point, *, diameter: float = 0.0) -> np.ndarray:
    """As `correction.bridge_gap`."""
    window, (start, end) = _around(mask.shape, np.array([start, end]))
    piece = TOOLS.call(
        correction.bridge_gap, mask[window].copy(), ridges.part(window), tuple(start), tuple(end), diameter=diameter
    )
    return _put(mask, window, piece)


def snap_stroke(mask: np.ndarray, ridges: Ridges, stroke: np.ndarray, *, diameter: float = 0.0) -> np.ndarray:
    """As `correction.snap_stroke`."""
    window, stroke = _around(mask.shape, np.asarray(stroke))
    piece = TOOLS.call(correction.snap_stroke, mask[window].copy(), ridges.part(window), stroke, diameter=diameter)
    return _put(mask, window, piece)


def cut_branch(mask: np.ndarray, point: Point) -> np.ndarray:
    """As `correction.cut_branch`."""
    return TOOLS.call(correction.cut_branch, mask, point)


def set_calibre(mask: np.ndarray, point: Point, diameter: float) -> np.ndarray:
    """As `correction.set_calibre`."""
    return TOOLS.call(correction.set_calibre, mask, point, diameter)


def remove_specks(mask: np.ndarray, smallest: int) -> np.ndarray:
    """As `correction.remove_specks`."""
    return TOOLS.call(correction.remove_specks, mask, smallest)


def prune_spurs(mask: np.ndarray, length: float) -> np.ndarray:
    """As `correction.prune_spurs`."""
    return TOOLS.call(correction.prune_spurs, mask, length)


def ready() -> None:
    """Does nothing; called in the helper, it has loaded what the tools need."""


def _around(shape: tuple[int, int], points: np.ndarray) -> tuple[tuple[slice, slice], np.ndarray]:
    """The part of the frame around `points`, and the points in it."""
    points = np.clip(points, 0, np.array(shape) - 1)
    low = np.maximum(np.floor(points.min(axis=0)).astype(int) - _AROUND, 0)
    high = np.minimum(np.ceil(points.max(axis=0)).astype(int) + _AROUND + 1, shape)
    return (slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))), points - low


def _put(mask: np.ndarray, window: tuple[slice, slice], piece: np.ndarray) -> np.ndarray:
    result = mask.copy()
    result[window] = piece
    return result
