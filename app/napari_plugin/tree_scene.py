"""What the Trees panel grows: sources, parameters by name, and the tree of a scene; nothing here knows a viewer."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np

from app import texts
from univg.errors import InputError
from univg.geometry import VesselTree, rasterize_tree
from univg.geometry.tree import select_nodes
from univg.sca import SCAConfig, TreeScene, find_hub, grow_scene, preset_named, presets_of, recipes_for
from univg.types import Modality
from univg.workflow.project import Project
from univg.workflow.tree_presets import tree_presets

MASK, PRESET, OWN = "mask:", "preset:", "own:"
CHANGED = "changed"  # shown when the parameters are no named ones
VARIATIONS = 9
_FRAMES, _FRAME_SIDE, _THUMBNAIL_SIDE = 36, 768, 192


@dataclass(frozen=True, eq=False)
class Grown:
    """A tree, its (H, W) bool mask, and the time that both took."""

    tree: VesselTree
    mask: np.ndarray
    milliseconds: float


def sources(project: Project, on_screen: str = "") -> list[tuple[str, str]]:
    """(text, value) of what trees can grow from: the mask on screen, the project's masks, the presets."""
    names = list(dict.fromkeys([*([on_screen] if on_screen else []), *project.support_names()]))
    found = [(texts.TREES_SOURCE_MASK.format(name=name), f"{MASK}{name}") for name in names]
    for preset in presets_of(project.modality):
        text = texts.TREES_SOURCE_PRESET.format(name=texts.TREE_PRESETS[preset.name])
        found.append((text, f"{PRESET}{preset.name}"))
    return found


def default_config(source: str, modality: Modality) -> SCAConfig:
    if source.startswith(PRESET):
        return preset_named(source.removeprefix(PRESET)).config
    return recipes_for(modality)["natural"]


def recipes(project: Project, source: str) -> dict[str, tuple[str, SCAConfig]]:
    """(text, parameters) by key: the source's own, the paper's, and those that the user saved."""
    named = recipes_for(project.modality)
    if source.startswith(PRESET):
        name = texts.TREE_PRESETS[source.removeprefix(PRESET)]
        found = {source: (texts.TREES_SOURCE_PRESET.format(name=name), default_config(source, project.modality))}
        found["paper"] = (texts.TREES_RECIPES["paper"], named["paper"])
    else:
        found = {key: (texts.TREES_RECIPES[key], config) for key, config in named.items()}
    for name, scene in tree_presets(project).items():
        found[f"{OWN}{name}"] = (texts.TREES_RECIPE_OWN.format(name=name), scene.config)
    return found


def with_settings(config: SCAConfig, values: Mapping[str, float], *, closed: bool) -> SCAConfig:
    """`config` with other parameters; `InputError` when they do not go together."""
    whole = {name: round(value) if name == "smoothing" else value for name, value in values.items()}
    try:
        return replace(config, **whole, venation="closed" if closed else "open")
    except ValueError as error:
        raise InputError(texts.tree_problem(error)) from error


def grow(scene: TreeScene, mask: np.ndarray | None, image: np.ndarray | None) -> tuple[TreeScene, Grown]:
    """Grow `scene` along `mask`, its hub looked for on mask and image when not known yet.

    Returns
    -------
    scene : TreeScene
        With the hub.
    grown : Grown

    Raises
    ------
    InputError
        When the parameters, or roots and shapes, do not go together.
    """
    if mask is not None and not mask.any():
        mask = None
    if mask is not None and scene.hub is None:
        scene = replace(scene, hub=find_hub(scene.modality, mask, image))
    started = time.perf_counter()
    try:
        tree = grow_scene(scene, mask=mask)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(texts.tree_problem(error)) from error
    drawn = rasterize_tree(tree)
    return scene, Grown(tree, drawn, 1000 * (time.perf_counter() - started))


@dataclass(frozen=True, eq=False)
class Growth:
    """How a tree grew, as pictures of at most `_FRAME_SIDE` pixels.

    Attributes
    ----------
    born : (h, w) ndarray of uint8
        The frame in which a pixel becomes vessel, from 1; `frames` + 1 where it never does.
    frames : int
    factor : float
        Pixels of the tree's own frame for one of `born`.
    """

    born: np.ndarray
    frames: int
    factor: float

    def frame(self, number: int) -> np.ndarray:
        """The mask at frame `number`, (h, w) uint8."""
        return (self.born <= number).astype(np.uint8)


def growth_of(tree: VesselTree) -> Growth:
    """The way `tree` grew; its nodes are in the order in which they did."""
    height, width = tree.shape
    factor = max(max(tree.shape) / _FRAME_SIDE, 1.0)
    shape = (round(height / factor), round(width / factor))
    small = replace(tree, positions=(tree.positions + 0.5) / factor - 0.5, radii=tree.radii / factor, shape=shape)
    counts = np.unique(np.linspace(len(tree.roots), len(tree), _FRAMES).astype(int))
    born = np.full(shape, len(counts) + 1, np.uint8)
    for frame in range(len(counts), 0, -1):
        born[rasterize_tree(select_nodes(small, np.arange(len(tree)) < counts[frame - 1]))] = frame
    return Growth(born, len(counts), factor)


def variations(scene: TreeScene, mask: np.ndarray | None, image: np.ndarray | None) -> list[tuple[int, np.ndarray]]:
    """Trees of the seeds after that of `scene`, those that can grow: (seed, small mask, uint8 0 or 255)."""
    found, problem, first = [], None, scene.seed + 1
    for seed in range(first, first + VARIATIONS):
        try:
            scene, grown = grow(replace(scene, seed=seed), mask, image)
        except InputError as error:  # with roots and obstacles that were drawn, a seed may leave no way to grow
            problem = error
            continue
        factor = min(_THUMBNAIL_SIDE / max(grown.mask.shape), 1.0)
        size = (max(round(grown.mask.shape[1] * factor), 1), max(round(grown.mask.shape[0] * factor), 1))
        found.append((seed, cv2.resize(grown.mask.astype(np.uint8) * 255, size, interpolation=cv2.INTER_AREA)))
    if problem is not None and not found:
        raise problem
    return found


def without_seed(scene: TreeScene) -> TreeScene:
    """What `variations` of `scene` have in common; the hub follows from mask and image."""
    return replace(scene, seed=0, hub=None)


def new_seed() -> int:
    return secrets.randbelow(1_000_000)
