"""What the Trees tab does, without the page: the scene being worked on, its pictures, and what they say."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image

from app.gradio_ui import pictures
from univg.errors import InputError
from univg.geometry import (
    TreeMorphometry,
    VesselTree,
    extract_network,
    extract_tree,
    measure_tree,
    murray_compliance,
    rasterize_tree,
    resize_mask,
)
from univg.geometry.tree import select_nodes
from univg.io import file_stamp
from univg.metrics import dice
from univg.overlay import MISSED, PREDICTION, REFERENCE, Colour, overlay_mask
from univg.sca import TreeScene, find_hub, grow_scene, preset_for, preset_named, presets_of, recipes_for
from univg.sca.config import SCAConfig
from univg.types import Modality
from univg.workflow.project import Project
from univg.workflow.support_store import content_hashes

BOUNDARY: Colour = (240, 228, 66)  # Okabe and Ito's yellow
MASK, PRESET = "mask:", "preset:"
GROWTH_SIDE = 768  # pixels of the film of a tree that grows
_UNDO_STEPS = 100
_FRAMES, _FRAME_MS = 36, 60


@dataclass
class Studio:
    """The tree on the page.

    Attributes
    ----------
    scene : TreeScene
    source : str
        ``"mask:NAME"`` or ``"preset:NAME"``.
    history : list
        Earlier (source, scene) for undo.
    corners : list of (row, col)
        Of a shape that is not closed yet.
    changed : int
        Counts changes that the controls on the page must follow.
    shown_side : int
        What the picture on screen was reduced to, where it is larger.
    varied : tuple
        What the strip of variations was made of, see `tree_view.varied_signature`.
    """

    scene: TreeScene
    source: str
    show: str = "image"
    shown_side: int = pictures.SHOWN_SIDE
    locked: bool = False
    history: list[tuple[str, TreeScene]] = field(default_factory=list)
    corners: list[tuple[float, float]] = field(default_factory=list)
    changed: int = 0
    varied: tuple = ()
    _sliding: str = ""

    @classmethod
    def of(cls, project: Project) -> Studio:
        """Starts with the first mask, or with the modality's preset where there is none."""
        source = first_source(project)
        return cls(scene_from(project, source, config=default_config(source, project.modality), seed=0), source)

    def go_to(self, scene: TreeScene, source: str | None = None, *, sliding: str = "") -> None:
        """Turn to `scene`; steps of one slider in a row are undone together."""
        if not sliding or sliding != self._sliding:
            self.history.append((self.source, self.scene))
            del self.history[:-_UNDO_STEPS]
        self._turn_to(scene, source or self.source, sliding)

    def undo(self) -> bool:
        if self.corners:
            self.corners.pop()
        elif self.history:
            source, scene = self.history.pop()
            self._turn_to(scene, source, "")
        else:
            return False
        return True

    def _turn_to(self, scene: TreeScene, source: str, sliding: str) -> None:
        # Drawing on the picture moves no control; setting one anyway could undo what is being moved at the moment.
        moved = (scene.config, scene.seed, source) != (self.scene.config, self.scene.seed, self.source)
        if moved and not sliding:
            self.changed += 1
        self.scene, self.source, self._sliding = scene, source, sliding


@dataclass(frozen=True, eq=False)
class Grown:
    """A tree and how it came about."""

    tree: VesselTree
    mask: np.ndarray
    milliseconds: float
    copy_dice: float | None


def sources(project: Project) -> list[str]:
    """What trees can grow from, the project's masks first."""
    own = [f"{MASK}{name}" for name in project.support_names()]
    return own + [f"{PRESET}{preset.name}" for preset in presets_of(project.modality)]


def first_source(project: Project) -> str:
    """The first of `sources` that can be read: files of a pair may be damaged."""
    for name in project.support_names():
        with suppress(InputError):
            _pair(project, name, _stamp(project, name))
            return f"{MASK}{name}"
    return f"{PRESET}{preset_for(project.modality).name}"


def default_config(source: str, modality: Modality) -> SCAConfig:
    return (
        recipes_for(modality)["natural"]
        if source.startswith(MASK)
        else preset_named(source.removeprefix(PRESET)).config
    )


def scene_from(project: Project, source: str, *, config: SCAConfig, seed: int) -> TreeScene:
    """A scene without anything drawn on it."""
    if source.startswith(PRESET):
        side = project.working_size
        return TreeScene(project.modality, (side, side), config, seed, preset=source.removeprefix(PRESET))
    name = source.removeprefix(MASK)
    pair, sha256 = _pair(project, name, _stamp(project, name))
    hub = find_hub(project.modality, pair.mask, pair.image)
    return TreeScene(project.modality, pair.shape, config, seed, mask_name=name, mask_sha256=sha256, hub=hub)


def brought_up_to_date(project: Project, scene: TreeScene) -> TreeScene:
    """`scene` with the hash and the hub of its mask as that is now: it may have been painted in since.

    On a mask of another size it begins anew: what was drawn on it was for another picture.
    """
    if not scene.mask_name or scene.mask_name not in project.support_names():
        return scene
    pair, sha256 = _pair(project, scene.mask_name, _stamp(project, scene.mask_name))
    if sha256 == scene.mask_sha256:
        return scene
    if pair.shape != tuple(scene.shape):
        return scene_from(project, f"{MASK}{scene.mask_name}", config=scene.config, seed=scene.seed)
    return replace(scene, mask_sha256=sha256, hub=find_hub(project.modality, pair.mask, pair.image))


def real_mask(project: Project, scene: TreeScene) -> np.ndarray | None:
    """The mask that conditions `scene`; None for a preset, or when the project does not have it."""
    if not scene.mask_name or scene.mask_name not in project.support_names():
        return None
    mask = _pair(project, scene.mask_name, _stamp(project, scene.mask_name))[0].mask
    return mask if mask.shape == tuple(scene.shape) else None


def grow(project: Project, scene: TreeScene) -> Grown:
    """Grow and draw `scene`; `ValueError` when its parameters do not go together."""
    started = time.perf_counter()
    real = real_mask(project, scene)
    tree = grow_scene(scene, mask=real)
    mask = rasterize_tree(tree)
    elapsed = 1000 * (time.perf_counter() - started)
    return Grown(tree, mask, elapsed, None if real is None else dice(mask, real))


def draw(project: Project, studio: Studio, mask: np.ndarray) -> np.ndarray:
    """The tree with what was drawn by hand, over image, mask or black: (H, W, 3) uint8."""
    scene = studio.scene
    canvas = overlay_mask(_ground(project, scene, studio.show), mask, opacity=0.9)
    side = max(scene.shape)
    line = max(round(side / 400), 1)
    for polygon in scene.obstacles:
        _outline(canvas, polygon, REFERENCE, line)
    if scene.boundary:
        _outline(canvas, scene.boundary, BOUNDARY, line)
    if studio.corners:
        _outline(canvas, studio.corners, (255, 255, 255), line, closed=False)
    return canvas


def mark_roots(canvas: np.ndarray, tree: VesselTree) -> np.ndarray:
    """Dots where growth started, in place."""
    radius = max(round(max(canvas.shape) / 110), 2)
    for row, col in tree.positions[tree.roots]:
        cv2.circle(canvas, (round(col), round(row)), radius + 1, (255, 255, 255), cv2.FILLED, cv2.LINE_AA)
        cv2.circle(canvas, (round(col), round(row)), radius, MISSED, cv2.FILLED, cv2.LINE_AA)
    return canvas


def animation(tree: VesselTree, folder) -> str:
    """An animated GIF of the tree growing; nodes are in the order in which they grew."""
    folder.mkdir(parents=True, exist_ok=True)
    palette = [11, 11, 12, *PREDICTION]
    frames = []
    for count in np.unique(np.linspace(len(tree.roots), len(tree), _FRAMES).astype(int)):
        kept = np.arange(len(tree)) < count
        grown = rasterize_tree(select_nodes(tree, kept))
        frame = Image.fromarray(pictures.reduce(grown, GROWTH_SIDE).astype(np.uint8), "P")
        frame.putpalette(palette)
        frames.append(frame)
    path = folder / f"growth-{time.monotonic_ns()}.gif"
    frames[0].save(
        path, save_all=True, append_images=frames[1:], duration=[_FRAME_MS] * (len(frames) - 1) + [4000], loop=0
    )
    for old in sorted(folder.glob("growth-*.gif"))[:-4]:
        old.unlink(missing_ok=True)
    return str(path)


def measure_mask(mask: np.ndarray) -> TreeMorphometry:
    """As both real and generated masks are measured, so that they compare."""
    return measure_tree(extract_network(mask), mask=mask)


def mean_compliance(mask: np.ndarray) -> float:
    """Mean Murray compliance in percent, exponent 2; NaN without a bifurcation."""
    scores = murray_compliance(extract_tree(mask)) if mask.any() else np.empty(0)
    scores = scores[np.isfinite(scores)]
    return float(scores.mean()) if len(scores) else float("nan")


def at_side(mask: np.ndarray, side: int) -> np.ndarray:
    """`mask` with its longer side of `side` pixels, proportions kept."""
    factor = side / max(mask.shape)
    return resize_mask(mask, tuple(max(round(length * factor), 1) for length in mask.shape))


def real_measurements(project: Project, side: int | None = None) -> list[TreeMorphometry]:
    """One for each mask of the project, measured once: at its own size, or with a longer side of `side` pixels."""
    return [_real_measurement(project, name, _stamp(project, name), side) for name in project.support_names()]


def real_compliance(project: Project) -> float:
    """Mean Murray compliance over the project's masks, in percent; NaN without any."""
    values = [_real_compliance(project, name, _stamp(project, name)) for name in project.support_names()]
    return float(np.nanmean(values)) if values else float("nan")


def compared_side(scene: TreeScene) -> int | None:
    """The longer side that masks must have to be compared with trees like `scene`; None where each has its own."""
    return None if _takes_turns(scene) else max(scene.shape)


def _takes_turns(scene: TreeScene) -> bool:
    """Whether trees like `scene` grow along all masks in turn: what was drawn on one is not put on others."""
    return bool(scene.mask_name) and not (scene.roots or scene.obstacles or scene.boundary)


def generated_measurements(project: Project, scene: TreeScene, count: int) -> list[TreeMorphometry]:
    """Trees of as many seeds, along all masks in turn when the scene grows along one."""
    names = project.support_names() if _takes_turns(scene) else []
    results = []
    for number in range(count):
        current = replace(scene, seed=scene.seed + number)
        if names:
            source = f"{MASK}{names[number % len(names)]}"
            current = scene_from(project, source, config=scene.config, seed=current.seed)
        results.append(measure_mask(grow(project, current).mask))
    return results


def with_settings(scene: TreeScene, values: Mapping[str, float], *, closed: bool) -> TreeScene:
    """`scene` with other growth parameters; `ValueError` when they do not go together."""
    whole = {name: round(value) if name == "smoothing" else value for name, value in values.items()}
    return replace(scene, config=replace(scene.config, **whole, venation="closed" if closed else "open"))


def _outline(canvas: np.ndarray, points, colour: Colour, width: int, *, closed: bool = True) -> None:
    corners = np.rint(np.asarray(points)[:, ::-1]).astype(np.int32)
    cv2.polylines(canvas, [corners], closed, colour, width, cv2.LINE_AA)
    for col, row in corners:
        cv2.circle(canvas, (int(col), int(row)), width + 1, colour, cv2.FILLED, cv2.LINE_AA)


def _ground(project: Project, scene: TreeScene, show: str) -> np.ndarray:
    if show != "black" and scene.mask_name in project.support_names():
        pair = _pair(project, scene.mask_name, _stamp(project, scene.mask_name))[0]
        if pair.shape == tuple(scene.shape):
            return pair.image if show == "image" else (pair.mask * np.uint8(110))
    return np.full(scene.shape, 11, np.uint8)


def _stamp(project: Project, name: str) -> tuple[int, int, int]:
    return file_stamp(project.support_folder / "masks" / f"{name}.png")


@lru_cache(maxsize=8)
def _pair(project: Project, name: str, changed: tuple):
    return project.support_pair(name), content_hashes(project.support_folder, [name])[f"masks/{name}.png"]


@lru_cache(maxsize=128)
def _real_measurement(project: Project, name: str, changed: tuple, side: int | None) -> TreeMorphometry:
    mask = _pair(project, name, changed)[0].mask
    return measure_mask(mask if side is None else at_side(mask, side))


@lru_cache(maxsize=64)
def _real_compliance(project: Project, name: str, changed: tuple) -> float:
    return mean_compliance(_pair(project, name, changed)[0].mask)
