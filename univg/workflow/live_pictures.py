"""The pictures that a running job shows: sheets of masks and of pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from univg.io import write_image
from univg.overlay import overlay_mask
from univg.types import ImageMaskPair

# Gets a name and an (H, W) or (H, W, 3) uint8 picture; returns where it was put, relative to the job's folder.
SavePicture = Callable[[str, np.ndarray], str]

SHOWN = 6  # masks or pairs on a sheet
_SIDE, _GAP, _COLUMNS = 256, 4, 3
_GROUND = 40  # grey of the gaps: masks are black and white


def saver(job_folder: Path) -> SavePicture:
    """Saves pictures in the folder of a job."""

    def save(name: str, picture: np.ndarray) -> str:
        folder = job_folder / "pictures"
        folder.mkdir(exist_ok=True)
        write_image(folder / f"{name}.png", picture)
        return f"pictures/{name}.png"

    return save


def mask_sheet(masks: Sequence[np.ndarray]) -> np.ndarray:
    """The last masks, three in a row, as an (H, W, 3) uint8 picture."""
    return _sheet([np.repeat(np.uint8(255) * mask[..., None], 3, axis=2) for mask in masks[-SHOWN:]])


def starts_sheet(starts: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> np.ndarray:
    """Below each of the first starts the mask that was made of it."""
    count = min(len(masks), _COLUMNS)
    return _sheet([np.repeat(np.uint8(255) * m[..., None], 3, axis=2) for m in (*starts[:count], *masks[:count])])


def pair_sheet(pairs: Sequence[ImageMaskPair]) -> np.ndarray:
    """Below each of the last three images the same one with its mask."""
    shown = pairs[-_COLUMNS:]
    bare = [overlay_mask(pair.image, pair.mask, opacity=0.0) for pair in shown]
    return _sheet(bare + [overlay_mask(pair.image, pair.mask) for pair in shown], columns=len(shown))


def _sheet(pictures: Sequence[np.ndarray], *, columns: int = _COLUMNS) -> np.ndarray:
    cells = [_cell(picture) for picture in pictures]
    cells += [np.full_like(cells[0], _GROUND)] * (-len(cells) % columns if len(cells) > columns else 0)
    rows = [np.hstack(cells[first : first + columns]) for first in range(0, len(cells), columns)]
    return np.vstack(rows)[:-_GAP, :-_GAP]


def _cell(picture: np.ndarray) -> np.ndarray:
    """A square with the whole of `picture` in its middle, and a gap at the right and below."""
    factor = _SIDE / max(picture.shape[:2])
    width, height = (max(round(side * factor), 1) for side in (picture.shape[1], picture.shape[0]))
    cell = np.full((_SIDE + _GAP, _SIDE + _GAP, 3), _GROUND, np.uint8)
    top, left = (_SIDE - height) // 2, (_SIDE - width) // 2
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST
    cell[top : top + height, left : left + width] = cv2.resize(picture, (width, height), interpolation=method)
    return cell
