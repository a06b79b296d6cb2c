"""Pictures for the page: small enough to show, written as PNG with the parameters they were made with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from univg.io.write import PROVENANCE_KEY
from univg.types import as_float

SHOWN_SIDE = 2048
THUMBNAIL_SIDE = 192
KEPT = 200


def shown_factor(shape: tuple[int, ...], side: int = SHOWN_SIDE) -> float:
    """The scale at which an image of `shape` is shown: 1 up to `side` pixels, smaller beyond."""
    return min(1.0, side / max(shape[:2]))


def reduce(array: np.ndarray, side: int = SHOWN_SIDE) -> np.ndarray:
    """An image, probability or mask scaled down to at most `side` pixels; unchanged when it is no larger."""
    factor = shown_factor(array.shape, side)
    if factor == 1:
        return array
    size = (max(1, round(array.shape[1] * factor)), max(1, round(array.shape[0] * factor)))
    if array.dtype == np.bool_:
        return cv2.resize(array.astype(np.uint8) * 255, size, interpolation=cv2.INTER_AREA) > 127
    reduced = cv2.resize(array, size, interpolation=cv2.INTER_AREA)
    return np.clip(reduced, 0, 1) if array.dtype.kind == "f" else reduced


def as_rgb(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8, for showing only."""
    shown = image if image.dtype == np.uint8 else np.rint(as_float(image) * 255).astype(np.uint8)
    return np.repeat(shown[..., None], 3, axis=2) if shown.ndim == 2 else shown


def save_picture(picture: np.ndarray, folder: Path, parameters: Mapping | None = None) -> str:
    """Write a uint8 picture under a name made from its content, and return the path.

    Not flushed to the disk: it is made again whenever it is needed. Only the `KEPT` newest are left in `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(dict(parameters or {}), sort_keys=True)
    digest = hashlib.sha256(np.ascontiguousarray(picture).data)
    digest.update(f"{picture.shape}{text}".encode())
    path = folder / f"{digest.hexdigest()[:24]}.png"
    if not path.exists():
        info = PngInfo()
        info.add_itxt(PROVENANCE_KEY, text)
        # Written under another name first, as another thread may serve the same picture.
        temporary = path.with_suffix(f".{id(picture)}.tmp")
        Image.fromarray(picture).save(temporary, format="PNG", compress_level=1, pnginfo=info)
        temporary.replace(path)
        _forget_oldest(folder)
    return str(path)


def _forget_oldest(folder: Path) -> None:
    pictures = sorted(folder.glob("*.png"), key=lambda path: path.stat().st_mtime)
    for path in pictures[:-KEPT]:
        path.unlink(missing_ok=True)
