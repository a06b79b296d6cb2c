"""What the Masks tab does, without the page: masks of the engine at a strength α, and how near they come to real ones.

torch is loaded with the first mask, not with this module.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from app.gradio_ui import tree_studio
from app.gradio_ui.models import EngineChoice, model_stamp, support_key
from univg.geometry import TreeMorphometry
from univg.workflow.project import Project

if TYPE_CHECKING:
    from univg.engines import MaskEngine

TREE, NOISE = "tree", "noise"
STRIP = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
COMPARED = 6  # masks drawn for a comparison: about ten seconds on two cores
MAP_GRID = 16
_KEPT = 240

# One picture at a time for all pages: two at once would be slower on the same cores.
_drawing = threading.Lock()


@dataclass(frozen=True)
class MaskSettings:
    """What decides a mask, apart from the engine."""

    scale: float = 0.7
    seed: int = 0
    start: str = TREE
    strength: float = 0.45
    steps: int = 12


@dataclass
class MaskStudio(EngineChoice):
    """The masks on the page.

    Attributes
    ----------
    settings : MaskSettings
    version : str
        Of the mask engine; empty for the pretrained one.
    drawn : mapping
        Masks by version and settings, so that the slider finds them again at once.
    changed : int
        Counts changes that the controls on the page must follow.
    swept : tuple
        What the strip of a sweep was made of.
    engines : tuple of str
        The versions that were there at the last look.
    """

    settings: MaskSettings = field(default_factory=MaskSettings)
    version: str = ""
    support: tuple = ()
    drawn: OrderedDict[tuple[str, MaskSettings], np.ndarray] = field(default_factory=OrderedDict)
    milliseconds: float = 0.0
    changed: int = 0
    swept: tuple = ()
    engines: tuple[str, ...] = ()

    @classmethod
    def of(cls, project: Project) -> MaskStudio:
        engines = tuple(project.mask_engine_versions())
        return cls(version=next(reversed(engines), ""), support=support_key(project), engines=engines)

    def follow(self, project: Project) -> None:
        """Forget what was drawn when the annotated masks, which trees grow along, have become others."""
        key = support_key(project)
        if key != self.support:
            self.support = key
            self.drawn = OrderedDict()  # another one: what is being drawn at the moment is of before

    def keep_shown(self) -> None:
        """Forget what was drawn but for the mask on screen."""
        shown = self.found(self.settings)
        self.drawn = OrderedDict({} if shown is None else {(self.version, _canonical(self.settings)): shown})

    def found(self, settings: MaskSettings) -> np.ndarray | None:
        return self.drawn.get((self.version, _canonical(settings)))

    def nearest_found(self, settings: MaskSettings) -> tuple[float, np.ndarray] | None:
        """Of the masks that differ from `settings` in α alone, the one with the nearest α."""
        candidates = self.found_at_other_scales(settings)
        if not candidates:
            return None
        nearest = min(candidates, key=lambda scale: (abs(scale - settings.scale), scale))
        return nearest, candidates[nearest]

    def found_at_other_scales(self, settings: MaskSettings) -> dict[float, np.ndarray]:
        """The masks that differ from `settings` in α alone, by their α."""
        same = replace(_canonical(settings), scale=0.0)
        return {
            known.scale: mask
            for (version, known), mask in list(self.drawn.items())  # to which more may be added meanwhile
            if version == self.version and replace(known, scale=0.0) == same
        }


def draw(project: Project, studio: MaskStudio, settings: Sequence[MaskSettings]) -> list[np.ndarray]:
    """A mask for each of `settings`, from memory where it was drawn before."""
    asked, studio = studio, replace(studio)  # another engine may be chosen while this draws
    masks = {one: studio.found(one) for one in settings}
    missing = [one for one, mask in masks.items() if mask is None]
    if missing:
        with _drawing:
            started = time.perf_counter()
            for one in missing:
                masks[one] = studio.found(one)
                if masks[one] is None:
                    masks[one] = _draw_one(project, studio.version, _canonical(one))
                    studio.drawn[studio.version, _canonical(one)] = masks[one]
            asked.milliseconds = 1000 * (time.perf_counter() - started) / len(missing)
            while len(studio.drawn) > _KEPT:
                studio.drawn.popitem(last=False)
    return [masks[one] for one in settings]


def start_tree(project: Project, seed: int) -> np.ndarray:
    """The tree that a mask starts from."""
    return _start(project.path, support_key(project), seed)


def feature_map(groups: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    """Two coordinates for each mask of each group: the first principal components of where vessels lie.

    A mask is described by its vessel density in each cell of a coarse grid.

    Returns
    -------
    list of (N, 2) ndarray of float64
    """
    rows = [
        cv2.resize(mask.astype(np.float32), (MAP_GRID, MAP_GRID), interpolation=cv2.INTER_AREA).ravel()
        for group in groups
        for mask in group
    ]
    described = np.stack(rows).astype(np.float64)
    described -= described.mean(axis=0)
    left, sizes, _ = np.linalg.svd(described, full_matrices=False)
    points = (left * sizes)[:, :2]
    return np.split(points, np.cumsum([len(group) for group in groups])[:-1])


def measure(masks: Sequence[np.ndarray], side: int) -> list[TreeMorphometry]:
    """At `side` pixels along the longer side; empty masks, which have nothing to measure, are left out."""
    return [tree_studio.measure_mask(tree_studio.at_side(mask, side)) for mask in masks if mask.any()]


def nearest_copy(project: Project, mask: np.ndarray) -> float:
    """Dice with the most similar mask of the project; 0 without any."""
    from univg.engines import nearest_dice

    support = support_masks(project)
    return nearest_dice(mask, support) if support else 0.0


def support_masks(project: Project) -> Sequence[np.ndarray]:
    """The masks of the project, kept in memory: every mask that is drawn is compared with them."""
    return _support_masks(project, support_key(project))


def engine_of(project: Project, version: str) -> MaskEngine:
    """The engine, kept in memory."""
    key = model_stamp(project.adapters_folder / version) if version else support_key(project)
    return _engine(project.path, version, key)


def _canonical(settings: MaskSettings) -> MaskSettings:
    """Settings without what does not matter: from noise there is no strength."""
    rounded = replace(settings, scale=round(settings.scale, 2), strength=round(settings.strength, 2))
    return rounded if settings.start == TREE else replace(rounded, strength=1.0)


def _draw_one(project: Project, version: str, settings: MaskSettings) -> np.ndarray:
    from univg.engines import SamplingConfig, sample_masks
    from univg.workflow.start_trees import engine_size

    config = SamplingConfig(
        steps=settings.steps,
        scale=settings.scale,
        strength=settings.strength,
        seed=settings.seed,
        size=engine_size(project.working_size),
    )
    trees = [start_tree(project, settings.seed)] if settings.start == TREE else None
    return sample_masks(engine_of(project, version), 1, config=config, trees=trees)[0]


@lru_cache(maxsize=2)
def _support_masks(project: Project, key: tuple) -> tuple[np.ndarray, ...]:
    return tuple(project.support_pair(name).mask for name, _ in key)


@lru_cache(maxsize=64)
def _start(path: Path, key: tuple, seed: int) -> np.ndarray:
    from univg.sca import generate_mask
    from univg.segmentation.inputs import shrink_support
    from univg.workflow.start_trees import engine_size, grow_starts

    project = Project.open(path)
    if not key:
        side = project.working_size
        return generate_mask(project.modality, shape=(side, side), rng=np.random.default_rng(seed))
    return grow_starts(shrink_support(project.load_support(), engine_size(project.working_size)), 1, seed=seed)[0]


@lru_cache(maxsize=4)
def _engine(path: Path, version: str, key: tuple) -> MaskEngine:
    from univg.workflow.engines import load_mask_engine

    return load_mask_engine(Project.open(path), version or None)
