"""What a training changed, seen on the image that two versions kept apart: figures, how sure they are, and masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from univg.errors import InputError
from univg.geometry import resize_mask
from univg.io import read_image
from univg.metrics import cldice
from univg.segmentation.config import HELD_OUT_PICTURE
from univg.types import as_float
from univg.workflow.model_versions import HeldOut, compare_versions, frozen_as_now
from univg.workflow.project import Project

TILES = 8  # along each side of the image
_DRAWS = 2000


@dataclass(frozen=True, eq=False)
class WhatChanged:
    """Two versions on the same held-out image.

    Attributes
    ----------
    before, after : str
        The versions.
    figures_before, figures_after : HeldOut
    image : (H, W) or (H, W, 3) ndarray
        At the size the networks work at.
    reference, mask_before, mask_after : (H, W) ndarray of bool
        All from before the image joined the training of either version.
    difference : float
        Dice after minus Dice before, of these masks.
    interval : tuple of float
        95 % interval of the difference over resampled tiles of this one image. It says nothing of other images.
    """

    before: str
    after: str
    figures_before: HeldOut
    figures_after: HeldOut
    image: np.ndarray
    reference: np.ndarray
    mask_before: np.ndarray
    mask_after: np.ndarray
    difference: float
    interval: tuple[float, float]

    @property
    def within_chance(self) -> bool:
        """Whether even within this image the difference cannot be told from none."""
        return self.interval[0] <= 0 <= self.interval[1]


def what_changed(project: Project, before: str, after: str) -> WhatChanged:
    """Compare two versions of `project` on its frozen image.

    Raises
    ------
    InputError
        When a version did not keep that image apart, or was made by a UniVG that kept no picture of it; or when the
        image is not in the project as both versions saw it.
    """
    versions = {version.name: version for version in compare_versions(project)}
    figures, masks = [], []
    for name in (before, after):
        if name not in versions:
            raise InputError(f"There is no model {name!r}", path=project.path, fix=f"There are: {', '.join(versions)}.")
        if versions[name].figures is None:
            reason = versions[name].reason or "not held out"
            raise InputError(
                f"Model {name} cannot be compared: {reason}", fix="Compare versions that kept the same image apart."
            )
        figures.append(versions[name].figures)
        masks.append(_mask_seen(project.segmenters_folder / name))
    _refuse_another_image(project, figures)
    image, reference = _frozen_pair(project, figures[-1].name, masks[-1].shape)
    masks = [resize_mask(mask, reference.shape) for mask in masks]
    difference, interval = dice_difference(masks[0], masks[1], reference)
    return WhatChanged(before, after, *figures, image, reference, *masks, difference, interval)


def dice_difference(
    before: np.ndarray, after: np.ndarray, reference: np.ndarray, *, draws: int = _DRAWS, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """Dice of `after` minus Dice of `before`, and its 95 % interval over resampled tiles of the image.

    Parameters
    ----------
    before, after, reference : (H, W) ndarray of bool
    draws : int
        How often tiles are drawn, with replacement.
    seed : int

    Returns
    -------
    difference : float
    interval : tuple of float
    """
    counts = np.array(
        [_tile_sums(array) for array in (before & reference, before, after & reference, after, reference)]
    )
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(counts.shape[1], np.full(counts.shape[1], 1 / counts.shape[1]), size=draws)
    differences = _difference(drawn @ counts.T)
    low, high = np.quantile(differences, (0.025, 0.975))
    return float(_difference(counts.sum(axis=1)[None])[0]), (float(low), float(high))


def centreline_figures(found: WhatChanged) -> tuple[float, float]:
    """clDice before and after, of the masks on show."""
    return cldice(found.mask_before, found.reference), cldice(found.mask_after, found.reference)


def _difference(sums: np.ndarray) -> np.ndarray:
    shared_before, before, shared_after, after, reference = sums.T.astype(float)
    return _dice(shared_after, after, reference) - _dice(shared_before, before, reference)


def _dice(shared: np.ndarray, found: np.ndarray, reference: np.ndarray) -> np.ndarray:
    total = found + reference
    return np.where(total > 0, 2 * shared / np.maximum(total, 1), 1.0)


def _tile_sums(mask: np.ndarray) -> np.ndarray:
    """Pixels of `mask` in each of the tiles, row by row."""
    rows = np.linspace(0, mask.shape[0], TILES + 1).astype(int)[:-1]
    cols = np.linspace(0, mask.shape[1], TILES + 1).astype(int)[:-1]
    return np.add.reduceat(np.add.reduceat(mask.astype(np.int64), rows, axis=0), cols, axis=1).ravel()


def _mask_seen(folder: Path) -> np.ndarray:
    file = folder / HELD_OUT_PICTURE
    if not file.is_file():
        raise InputError(
            f"Model {folder.name} kept no picture of the held-out image",
            fix="It was made by an earlier UniVG; train again to see what changes from now on.",
        )
    return as_float(read_image(file)) >= 0.5


def _refuse_another_image(project: Project, figures: Sequence[HeldOut]) -> None:
    """Raise unless `figures` are of the image and the mask that the project holds now: pictures are drawn of these."""
    name, now = figures[-1].name, frozen_as_now(project)
    if now is None:
        raise InputError(
            f"The image {name!r}, on which models are compared, is no longer in the project",
            fix="Add it again to see what changed.",
        )
    if not all(seen.image.is_same_as(now) for seen in figures):
        raise InputError(
            f"The mask of {name!r}, on which models are compared, or the image itself was changed since",
            fix="Train again: models from then on are compared on it as it is now.",
        )


def _frozen_pair(project: Project, name: str, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The frozen image and its mask at the size that the masks have."""
    pair = project.support_pair(name)
    return cv2.resize(pair.image, shape[1::-1], interpolation=cv2.INTER_AREA), resize_mask(pair.mask, shape)
