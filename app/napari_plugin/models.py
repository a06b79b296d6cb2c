"""What a project's models find in images. They run in a process of their own, see `helpers`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from app.napari_plugin.helpers import MODELS
from app.napari_plugin.uncertainty import Doubt, doubtful_segments, uncertainty_map
from univg.io import file_stamp
from univg.metrics import cldice, dice
from univg.types import ImageMaskPair

if TYPE_CHECKING:
    from univg.segmentation import Segmenter


@dataclass(frozen=True, eq=False)
class Found:
    """What a model finds in an image.

    Attributes
    ----------
    probability, uncertainty : (H, W) ndarray of float32
        0 outside `window`.
    threshold : float
        The model's own.
    version : str
    window : tuple of slice or None
        The part that was looked at; None is all.
    doubts : list of Doubt
        The least certain segments first.
    seconds : float
    """

    probability: np.ndarray
    uncertainty: np.ndarray
    threshold: float
    version: str
    window: tuple[slice, slice] | None
    doubts: list[Doubt]
    seconds: float

    @property
    def mean_uncertainty(self) -> float:
        values = self.uncertainty if self.window is None else self.uncertainty[self.window]
        return float(values.mean())

    def mask(self, threshold: float, current: np.ndarray | None = None) -> np.ndarray:
        """The vessels at `threshold`; outside the window as in `current`."""
        mask = self.probability >= threshold
        if self.window is None or current is None:
            return mask
        result = current.copy()
        result[self.window] = mask[self.window]
        return result


@dataclass(frozen=True)
class Score:
    """How a model does on one image that no model trained on."""

    image: str
    dice: float
    cldice: float


def find_vessels(
    image: np.ndarray,
    folder: Path,
    *,
    window: tuple[slice, slice] | None = None,
    augmented: bool = False,
    rank: bool = True,
) -> Found:
    """Segment `image`, or its part in `window` alone, with the model in `folder`; waits for the result.

    Parameters
    ----------
    image : (H, W) or (H, W, 3) ndarray
    folder : Path
    window : tuple of slice, optional
    augmented : bool
        Average over flips and turns.
    rank : bool
        Whether to look for the least certain segments too.

    Returns
    -------
    Found
    """
    part = image if window is None else np.ascontiguousarray(image[window])
    shape = image.shape[:2]
    return MODELS.call(run_model, part, folder, window=window, shape=shape, augmented=augmented, rank=rank)


def score_on(pairs: Sequence[ImageMaskPair], folder: Path) -> list[Score]:
    """How the model in `folder` does on each of `pairs`."""
    scores = []
    for pair in pairs:
        found = find_vessels(pair.image, folder, rank=False)
        mask = found.mask(found.threshold)
        scores.append(Score(pair.name, dice(mask, pair.mask), cldice(mask, pair.mask)))
    return scores


# --- in the helper process


def load_model(folder: Path) -> None:
    """Have torch and a model ready."""
    segmenter = _loaded(folder)
    from univg.segmentation import segment

    # The first call of a network plans its memory and threads; a small image suffices.
    segment(np.zeros((64, 64), np.uint8), segmenter)


def run_model(
    part: np.ndarray,
    folder: Path,
    *,
    window: tuple[slice, slice] | None,
    shape: tuple[int, int],
    augmented: bool,
    rank: bool,
) -> Found:
    """As `find_vessels`, with `part` cut out of an image of `shape` already."""
    segmenter = _loaded(folder)
    from univg.segmentation import segment

    started = time.perf_counter()
    probability = segment(part, segmenter, test_time_augmentation=augmented).probability
    seconds = time.perf_counter() - started
    unsure = uncertainty_map(probability)
    if window is not None:
        probability, unsure = (_placed(values, window, shape) for values in (probability, unsure))
    doubts = doubtful_segments(probability) if rank else []
    return Found(probability, unsure, segmenter.threshold, folder.name, window, doubts, seconds)


def _loaded(folder: Path) -> Segmenter:
    """The model in `folder`, kept in memory; a project that is made anew has another one in a folder of that name."""
    return _loaded_as_of(folder, file_stamp(folder / "segmenter.json"))


@lru_cache(maxsize=2)
def _loaded_as_of(folder: Path, _made: tuple[int, int, int]) -> Segmenter:
    from univg.segmentation import Segmenter

    return Segmenter.load(folder, "auto")


def _placed(part: np.ndarray, window: tuple[slice, slice], shape: tuple[int, int]) -> np.ndarray:
    whole = np.zeros(shape, np.float32)
    whole[window] = part
    return whole
