"""What the Images tab does, without the page: an image of a mask, what can be said of it, and conditions.

torch is loaded with the first image, not with this module.
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

import numpy as np

from app.gradio_ui.models import EngineChoice, model_stamp, support_key
from univg.errors import InputError
from univg.types import ImageMaskPair
from univg.workflow.presets import CONDITIONING, IMAGE_STRENGTH
from univg.workflow.project import Project

if TYPE_CHECKING:
    from univg.engines import ImageEngine
    from univg.workflow.image_engines import Critic
    from univg.workflow.pair_checks import PairChecks

NEW, DRAWN, HELD, OWN = "new", "drawn", "held", "own:"
LOOKS = 4  # images of one mask side by side
_KEPT = 120

# One picture at a time for all pages: two at once would be slower on the same cores.
_drawing = threading.Lock()


@dataclass(frozen=True)
class ImageSettings:
    """What decides an image, apart from the engine and a mask drawn by hand.

    Attributes
    ----------
    source : str
        `NEW` for a mask of the mask engine, or of a tree before that is adapted; `DRAWN`; `HELD` for the mask of
        several looks; or `OWN` and a name.
    seed : int
        Of the image, and of a new mask.
    conditioning : float
    steps : int
    strength : float
        How far noise covers the rendered image that it starts from; 1 starts from noise alone.
    """

    source: str = NEW
    seed: int = 0
    conditioning: float = CONDITIONING
    steps: int = 12
    strength: float = IMAGE_STRENGTH


@dataclass(frozen=True, eq=False)
class Drawn:
    """An image of a mask."""

    pair: ImageMaskPair
    checks: PairChecks | None
    seconds: float


@dataclass
class ImageStudio(EngineChoice):
    """The image on the page.

    Attributes
    ----------
    settings : ImageSettings
    version : str
        Of the image engine; empty for the pretrained one.
    mask : (H, W) ndarray of bool, or None
        What was drawn by hand or dropped.
    held : (H, W) ndarray of bool, or None
        A new mask of which several images were drawn.
    overlay : bool
        Whether the mask is shown on the image.
    drawn : mapping
        Images by version, mask and settings.
    changed : int
        Counts changes that the controls on the page must follow.
    engines : tuple of str
        The versions that were there at the last look.
    """

    settings: ImageSettings = field(default_factory=ImageSettings)
    version: str = ""
    support: tuple = ()
    mask: np.ndarray | None = None
    held: np.ndarray | None = None
    overlay: bool = False
    drawn: OrderedDict[tuple, Drawn] = field(default_factory=OrderedDict)
    changed: int = 0
    engines: tuple[str, ...] = ()

    @classmethod
    def of(cls, project: Project) -> ImageStudio:
        names = project.support_names()
        settings = ImageSettings(source=f"{OWN}{names[0]}" if names else NEW)
        engines = tuple(project.image_engine_versions())
        return cls(settings, version=next(reversed(engines), ""), support=state_of(project), engines=engines)

    def follow(self, project: Project) -> None:
        """Forget what was drawn when the masks, or the engine that draws new ones, have become others."""
        key = state_of(project)
        if key != self.support:
            self.support = key
            self.drawn = OrderedDict()  # another one: what is being drawn at the moment is of before

    def keep_shown(self) -> None:
        """Forget what was drawn but for the image on screen."""
        shown = self.found(self.settings)
        self.drawn = OrderedDict({} if shown is None else {self.key(self.settings): shown})

    def key(self, settings: ImageSettings) -> tuple:
        mask = {DRAWN: self.mask, HELD: self.held}.get(settings.source)
        pixels = b"" if mask is None else mask.tobytes()
        return self.version, replace(settings, conditioning=round(settings.conditioning, 2)), hash(pixels)

    def found(self, settings: ImageSettings) -> Drawn | None:
        return self.drawn.get(self.key(settings))


def draw(project: Project, studio: ImageStudio, settings: Sequence[ImageSettings]) -> list[Drawn]:
    """An image for each of `settings`, from memory where it was drawn before."""
    studio = replace(studio)  # another engine may be chosen while this draws
    images = {one: studio.found(one) for one in settings}
    missing = [one for one, drawn in images.items() if drawn is None]
    if missing:  # else without waiting for what another page draws
        with _drawing:
            for one in missing:
                images[one] = studio.found(one)
                if images[one] is None:
                    images[one] = studio.drawn[studio.key(one)] = _draw_one(project, studio, one)
            while len(studio.drawn) > _KEPT:
                studio.drawn.popitem(last=False)
    return [images[one] for one in settings]


def mask_of(project: Project, studio: ImageStudio, settings: ImageSettings) -> np.ndarray:
    """The mask that an image is drawn of."""
    if settings.source == DRAWN:
        if studio.mask is None or not studio.mask.any():
            raise InputError("No mask is drawn yet", fix="Paint one below, or drop a file.")
        return studio.mask
    if settings.source == HELD:
        return studio.held
    if settings.source.startswith(OWN):
        return project.support_pair(settings.source.removeprefix(OWN)).mask
    return _new_mask(project.path, state_of(project), settings.seed)


def conditions_of(pair: ImageMaskPair, project: Project) -> dict[str, np.ndarray]:
    """Every condition of a real pair, as uint8 pictures by name; those whose package is missing are left out."""
    from univg.engines import CONDITIONS, condition_picture

    shown = {}
    for kind in CONDITIONS:
        try:
            picture = condition_picture(kind, image=pair.image, mask=pair.mask, modality=project.modality, fov=pair.fov)
        except InputError:
            continue
        shown[kind] = np.rint(picture * 255).astype(np.uint8)
    return shown


def _draw_one(project: Project, studio: ImageStudio, settings: ImageSettings) -> Drawn:
    from univg.engines import SamplingConfig
    from univg.segmentation.inputs import shrink_support
    from univg.workflow.image_engines import draw_pair
    from univg.workflow.pair_checks import check_synthetic_pair
    from univg.workflow.start_trees import engine_size

    mask = mask_of(project, studio, settings)
    stamp = model_stamp(project.image_engines_folder / studio.version) if studio.version else ()
    engine, critic = _engine(project.path, studio.version, stamp, str(project.modality))
    config = SamplingConfig(
        steps=settings.steps,
        scale=settings.conditioning,
        strength=settings.strength,
        seed=settings.seed,
        size=engine_size(project.working_size),
    )
    started = time.perf_counter()
    unused = critic is None and settings.strength == 1
    support = None if unused else shrink_support(project.load_support(), config.size)
    pair = draw_pair(engine, mask, support, config, name=f"seed-{settings.seed}")
    seconds = time.perf_counter() - started
    if critic is None:
        return Drawn(pair, None, seconds)
    checks = check_synthetic_pair(pair, support.pairs, critic.segmenter, expected_agreement=critic.expected_agreement)
    return Drawn(pair, checks, seconds)


def state_of(project: Project) -> tuple:
    """What new masks depend on besides the seed."""
    newest = project.latest_mask_engine()
    engine = () if newest is None else (newest.name, model_stamp(newest))
    return (*engine, *support_key(project))


@lru_cache(maxsize=64)
def _new_mask(path: Path, state: tuple, seed: int) -> np.ndarray:
    from app.gradio_ui.mask_studio import MaskSettings, MaskStudio, draw, start_tree

    project = Project.open(path)
    studio = MaskStudio.of(project)
    if not studio.version:
        return start_tree(project, seed)
    return draw(project, studio, [MaskSettings(seed=seed)])[0]


@lru_cache(maxsize=2)
def _engine(path: Path, version: str, stamp: tuple, modality: str) -> tuple[ImageEngine, Critic | None]:
    from univg.engines import ImageEngine
    from univg.types import Modality
    from univg.workflow.image_engines import load_base, load_image_engine

    if version:
        return load_image_engine(Project.open(path), version)
    backbone, controlnet = load_base(device="auto")
    grey = Modality(modality) is not Modality.FUNDUS
    return ImageEngine(backbone, controlnet, Modality(modality), grey=grey), None
