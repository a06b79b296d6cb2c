"""What the trees of one folder have in common, and growing one of them: all that a worker needs."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from univg.errors import InputError
from univg.geometry import VesselTree, rasterize_tree
from univg.io import write_bytes_atomic, write_mask
from univg.sca import TreeScene, grow_scene

FORMAT = "univg-trees/4"
FORMATS = ("png", "json", "swc")

_LARGEST_SEED = 2**63


class PackedMask(NamedTuple):
    """A mask at one bit a pixel, as it travels to the workers."""

    shape: tuple[int, int]
    bits: np.ndarray

    @classmethod
    def of(cls, mask: np.ndarray) -> PackedMask:
        return cls(mask.shape, np.packbits(mask))

    def mask(self) -> np.ndarray:
        height, width = self.shape
        return np.unpackbits(self.bits, count=height * width).reshape(self.shape).astype(bool)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(b"%d,%d," % self.shape + self.bits.tobytes()).hexdigest()


class TreeFacts(NamedTuple):
    """All that a worker sends back about a tree."""

    index: int
    pixels_sha256: str
    nodes: int


@dataclass(frozen=True, eq=False)
class Plan:
    """What every tree of a folder has in common; the masks travel apart from it.

    Attributes
    ----------
    folder : Path
    scene : TreeScene
        Of the first tree; tree i has the seed ``scene.seed + i`` and the frame and name of its mask.
    formats : tuple of str
        Written beside the PNG.
    masks, mask_files : tuple of str
        SHA-256 of the pixels, and of the files they came from, for the record.
    mask_names : tuple of str
    hubs : tuple of (row, col) or None
        Where the vessels of each mask come from.
    """

    # Dask may quote its arguments in a log, where the names of the user's folders do not belong.
    folder: Path = field(repr=False)
    scene: TreeScene
    formats: tuple[str, ...] = ()
    masks: tuple[str, ...] = ()
    mask_files: tuple[str, ...] = ()
    mask_names: tuple[str, ...] = field(default=(), repr=False)
    hubs: tuple[tuple[float, float] | None, ...] = ()

    def parameters(self) -> dict:
        """All that the pixels depend on, except the number of the tree."""
        scene = {k: v for k, v in self.scene.to_json().items() if k not in ("mask_name", "mask_sha256", "hub")}
        return {**scene, "masks": list(self.masks), "hubs": [hub and list(hub) for hub in self.hubs]}

    @functools.cached_property
    def key(self) -> str:
        """SHA-256 of `parameters`."""
        text = json.dumps({**self.parameters(), "format": FORMAT}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def path(self, index: int, suffix: str) -> Path:
        return self.folder / f"{tree_name(self.scene.seed, index)}.{suffix}"

    def scene_of(self, index: int, shape: tuple[int, int]) -> TreeScene:
        """The scene that tree `index` is grown from."""
        turn = index % max(len(self.masks), 1)
        return replace(
            self.scene,
            shape=shape,
            seed=self.scene.seed + index,
            mask_name=self.mask_names[turn] if self.mask_names else "",
            mask_sha256=self.mask_files[turn] if self.mask_files else "",
            hub=self.hubs[turn] if self.hubs else None,
        )


def tree_name(seed: int, index: int) -> str:
    """The stem of the files of tree `index`: its own seed, so that one tree can be grown again alone."""
    return f"tree-{seed + index:05d}"


def checked_plan(
    output: str | Path,
    packed: Sequence[PackedMask],
    scene: TreeScene,
    *,
    mask_sha256: Sequence[str],
    mask_names: Sequence[str],
    hubs: Sequence[tuple[float, float] | None],
    formats: Sequence[str],
) -> Plan:
    """The plan, or the `InputError` that says what does not go together."""
    if isinstance(scene.seed, bool) or not 0 <= scene.seed <= _LARGEST_SEED:
        raise InputError(f"The seed must be a whole number from 0 to {_LARGEST_SEED}, got {scene.seed!r}")
    frames = [mask.shape for mask in packed] or [scene.shape]
    _check_points(scene, frames)
    for name, given in (("mask_sha256", mask_sha256), ("mask_names", mask_names), ("hubs", hubs)):
        if given and len(given) != len(packed):
            raise ValueError(f"`{name}` must have one entry for each of {len(packed)} masks, got {len(given)}")
    hashes = tuple(mask.sha256 for mask in packed)
    return Plan(
        # Not resolved: on a cluster the folder as it was named is what all machines have in common.
        folder=Path(output).expanduser().absolute(),
        scene=replace(scene, mask_name="", mask_sha256="", hub=None, shape=frames[0]),
        formats=_checked_formats(formats),
        masks=hashes,
        mask_files=tuple(mask_sha256) or hashes,
        mask_names=tuple(mask_names),
        hubs=tuple(hubs),
    )


def pack_masks(masks: Sequence[np.ndarray]) -> tuple[PackedMask, ...]:
    """The masks as they travel, checked."""
    for number, mask in enumerate(masks, 1):
        if mask.dtype != np.bool_ or mask.ndim != 2:
            raise ValueError(f"`masks` must be bool (H, W) arrays, got {mask.dtype} {mask.shape}")
        if not mask.any():
            raise InputError(f"Mask {number} of {len(masks)} is empty, so no tree can be conditioned on it")
    return tuple(PackedMask.of(mask) for mask in masks)


def grow_and_write(plan: Plan, packed: PackedMask | None, index: int) -> TreeFacts:
    """Grow tree `index` and write its files, the PNG last: once that is there, the tree is finished."""
    mask = None if packed is None else packed.mask()
    scene = plan.scene_of(index, plan.scene.shape if mask is None else mask.shape)
    try:
        tree = grow_scene(scene, mask=mask)
    except ValueError as error:
        # Roots outside the boundary, for example: what the user gave does not go together.
        raise InputError(f"Tree {scene.seed} cannot grow: {error}") from error
    drawn = rasterize_tree(tree)
    fact = TreeFacts(index, pixels_sha256(drawn), len(tree))
    record = {
        **scene.to_json(),
        "made_by": "univg sca",
        "parameters_sha256": plan.key,
        "nodes": fact.nodes,
        "pixels_sha256": fact.pixels_sha256,
    }
    for suffix in plan.formats:
        write_bytes_atomic(plan.path(index, suffix), _tree_text(tree, suffix, record).encode())
    write_mask(plan.path(index, "png"), drawn, provenance=record)
    return fact


def pixels_sha256(mask: np.ndarray) -> str:
    """SHA-256 of a mask's pixels, one byte each, 0 or 1, row by row."""
    return hashlib.sha256(np.ascontiguousarray(mask)).hexdigest()


def _tree_text(tree: VesselTree, suffix: str, record: Mapping) -> str:
    if suffix == "json":
        return replace(tree, meta=dict(record)).to_json()
    from univg.geometry import write_swc

    return write_swc(tree)


def _check_points(scene: TreeScene, frames: Sequence[tuple[int, int]]) -> None:
    """Raise unless what is drawn on the frame fits every frame that a tree grows in."""
    if scene.boundary or scene.obstacles:
        for height, width in frames:
            if (height, width) != tuple(scene.shape):
                raise InputError(
                    f"Boundary and obstacles were drawn on {scene.shape[1]} x {scene.shape[0]} pixels, "
                    f"but a mask has {width} x {height} (width x height)",
                    fix="Use masks of one size, or no boundary and obstacles.",
                )
    for row, col in scene.roots:
        for height, width in frames:
            if not (0 <= row < height and 0 <= col < width):
                raise InputError(
                    f"Root {row:g},{col:g} lies outside the image of {height} rows and {width} columns",
                    fix="Give roots as ROW,COL.",
                )


def _checked_formats(formats: Sequence[str]) -> tuple[str, ...]:
    """`formats` without ``"png"``, which is always written, and last."""
    for name in formats:
        if name not in FORMATS:
            raise InputError(f"Unknown format {name!r}", fix=f"Use one of: {', '.join(FORMATS)}.")
    return tuple(name for name in FORMATS if name in formats and name != "png")
