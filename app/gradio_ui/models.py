"""The models of a project: whether the newest still fits the annotated images, and running one.

torch is loaded with the first model, not with this module.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from univg.errors import InputError
from univg.io import file_stamp, read_json
from univg.workflow import support_store
from univg.workflow.model_versions import active_segmenter
from univg.workflow.project import Project

if TYPE_CHECKING:
    from univg.segmentation import Segmenter

# One image at a time for all pages: two at once would be slower on the same cores.
worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="segment")
reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="preview")
_loading = threading.Lock()
_CARDS = ("segmenter.json", "engine.json")  # of a segmenter, and of an adapted engine


class EngineChoice:
    """What a studio (a dataclass with `version`, `engines` and `changed`) knows of the engine that it draws with."""

    version: str
    engines: tuple[str, ...]
    changed: int

    def turn_to_newer(self, engines: Sequence[str]) -> None:
        """Take the newest of `engines` when one has come since the last look, or the chosen one is gone."""
        if len(engines) > len(self.engines) or self.version not in ("", *engines):
            self.version = next(reversed(engines), "")
            self.changed += 1
        self.engines = tuple(engines)


def is_stale(project: Project) -> bool:
    """Whether the annotated images are others than those that the model in use was made from."""
    folder = active_segmenter(project)
    if folder is None:
        return False
    trained_on = _trained_on(folder, model_stamp(folder))
    if not trained_on:
        return False
    return _hashes(project.support_folder, support_key(project)) != dict(trained_on)


def support_key(project: Project) -> tuple[tuple[str, tuple[int, int, int]], ...]:
    """Another one whenever an annotated image comes, goes or gets another mask."""
    masks = project.support_folder / "masks"
    return tuple((name, file_stamp(masks / f"{name}.png")) for name in project.support_names())


def model_stamp(folder: Path) -> tuple[tuple[int, int, int], ...]:
    """Another one when another model lies in `folder`: none is ever changed, but a project may be deleted and made anew
    in the same place.
    """
    return tuple(file_stamp(folder / card) for card in _CARDS)


@lru_cache(maxsize=16)
def _trained_on(folder: Path, stamp: tuple) -> tuple[tuple[str, str], ...]:
    try:
        card = read_json(folder / "segmenter.json")
        return tuple(sorted(card["card"]["support_sha256"].items()))
    except (InputError, KeyError, TypeError, AttributeError):
        return ()


@lru_cache(maxsize=16)
def _hashes(folder: Path, stamps: tuple[tuple[str, int], ...]) -> dict[str, str]:
    return support_store.content_hashes(folder, [name for name, _ in stamps])


def load_segmenter(folder: Path, device: str) -> Segmenter:
    """The model in `folder`, kept in memory."""
    with _loading:
        return _load_segmenter(folder, model_stamp(folder), device)


@lru_cache(maxsize=2)
def _load_segmenter(folder: Path, stamp: tuple, device: str) -> Segmenter:
    from univg.segmentation import Segmenter

    return Segmenter.load(folder, device)


def timed_probability(image: np.ndarray, segmenter: Segmenter, *, augmented: bool) -> tuple[np.ndarray, float]:
    """Vessel probability of `image`, (H, W) float32 in [0, 1], and the seconds that took."""
    from univg.segmentation import segment

    started = time.perf_counter()
    result = segment(image, segmenter, test_time_augmentation=augmented)
    return result.probability, time.perf_counter() - started


def warm_up(folder: Path, device: str) -> None:
    """Load the software and the model in the background, so that the first image does not wait for them."""

    def load() -> None:
        try:
            segmenter = load_segmenter(folder, device)
        except InputError:
            return  # said when it is used
        timed_probability(np.zeros((512, 512), np.uint8), segmenter, augmented=False)

    worker.submit(load)


def shut_down() -> None:
    """Give up what waits and let what is in work end, so that nothing is written afterwards."""
    for executor in (worker, reader):
        executor.shutdown(wait=True, cancel_futures=True)
