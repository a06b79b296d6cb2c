"""Running a project's models, away from the window's thread; torch is loaded with the first one."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from app.napari_plugin.uncertainty import Doubt, doubtful_segments, uncertainty_map
from univg.metrics import cldice, dice
from univg.types import ImageMaskPair

if TYPE_CHECKING:
    from univg.segmentation import Segmenter

# Two images at once would be slower on the same cores.
_one_at_a_time = threading.Lock()
_loading = threading.Lock()


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


def load_segmenter(folder: Path) -> Segmenter:
    """The model in `folder`, kept in memory; the folders of models never change."""
    with _loading:
        return _load(folder)


@lru_cache(maxsize=2)
def _load(folder: Path) -> Segmenter:
    from univg.segmentation import Segmenter

    return Segmenter.load(folder, "auto")


def find_vessels(
    image: np.ndarray,
    folder: Path,
    *,
    window: tuple[slice, slice] | None = None,
    augmented: bool = False,
    rank: bool = True,
) -> Found:
    """Segment `image`, or its part in `window` alone, with the model in `folder`.

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
    segmenter = load_segmenter(folder)
    from univg.segmentation import segment

    started = time.perf_counter()
    with _one_at_a_time:
        found = segment(image if window is None else image[window], segmenter, test_time_augmentation=augmented)
    seconds = time.perf_counter() - started
    probability, unsure = found.probability, uncertainty_map(found.probability)
    if window is not None:
        probability, unsure = (_placed(part, window, image.shape[:2]) for part in (probability, unsure))
    doubts = doubtful_segments(probability) if rank else []
    return Found(probability, unsure, segmenter.threshold, folder.name, window, doubts, seconds)


def score_on(pairs: Sequence[ImageMaskPair], folder: Path) -> list[Score]:
    """How the model in `folder` does on each of `pairs`."""
    scores = []
    for pair in pairs:
        found = find_vessels(pair.image, folder, rank=False)
        mask = found.mask(found.threshold)
        scores.append(Score(pair.name, dice(mask, pair.mask), cldice(mask, pair.mask)))
    return scores


def _placed(part: np.ndarray, window: tuple[slice, slice], shape: tuple[int, int]) -> np.ndarray:
    whole = np.zeros(shape, np.float32)
    whole[window] = part
    return whole
