"""Pictures for the page: small enough to show, written as PNG with the parameters they were made with."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import struct
import threading
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np

from univg.errors import InputError
from univg.io.write import PROVENANCE_KEY
from univg.types import as_float

# How the page shows a picture, and a strip of small ones.
PICTURE = {
    "format": "png",
    "interactive": False,
    "show_label": False,
    "container": False,
    "buttons": ["download", "fullscreen"],
    "elem_classes": "picture",
}
STRIP = {
    "format": "png",
    "show_label": False,
    "container": False,
    "allow_preview": False,
    "rows": 1,
    "object_fit": "cover",
    "buttons": [],
    "interactive": False,
    "elem_classes": "strip",
}

SHOWN_SIDE = 2048
THUMBNAIL_SIDE = 192
KEPT = 40  # in a folder, which holds those of one tab
_AFTER_HEADER = 8 + 25  # bytes of a PNG up to the end of its first chunk
_writing = threading.Lock()
_SMALL = 1 << 20  # bytes of pixels up to which compressing takes longer than it saves
_QUICK = [*(cv2.IMWRITE_PNG_COMPRESSION, 0), *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE)]
_SMALLER = [
    *(cv2.IMWRITE_PNG_COMPRESSION, 1),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_SUB),
]


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


def unreadable(side: int = THUMBNAIL_SIDE) -> np.ndarray:
    """Grey, in the place of a picture whose file is damaged: the rest of a strip must not go with it."""
    return np.full((side, side, 3), 40, np.uint8)


def small_or_unreadable(picture: Callable[[], np.ndarray]) -> np.ndarray:
    """The thumbnail of what `picture` returns, or `unreadable` where it raises an `InputError`."""
    try:
        return reduce(as_rgb(picture()), THUMBNAIL_SIDE)
    except InputError:
        return unreadable()


def as_rgb(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8, for showing only."""
    shown = image if image.dtype == np.uint8 else np.rint(as_float(image) * 255).astype(np.uint8)
    return np.repeat(shown[..., None], 3, axis=2) if shown.ndim == 2 else shown


def save_picture(picture: np.ndarray, folder: Path, parameters: Mapping | None = None) -> str:
    """Write a uint8 picture under a name made from its content, and return the path.

    Not flushed to the disk: it is made again whenever it is needed. Only the `KEPT` that were asked for last are left
    in `folder`.
    """
    text = json.dumps(dict(parameters or {}), sort_keys=True)
    digest = hashlib.sha256(np.ascontiguousarray(picture).data)
    digest.update(f"{picture.shape}{text}".encode())
    path = folder / f"{digest.hexdigest()[:24]}.png"
    if not _was_there(path):
        png = _encode(picture, text)
        with _writing:
            folder.mkdir(parents=True, exist_ok=True)
            # Written under another name first, as another thread may serve the same picture.
            temporary = path.with_suffix(".tmp")
            temporary.write_bytes(png)
            temporary.replace(path)
            _forget_oldest(folder, path)
    return str(path)


def _was_there(path: Path) -> bool:
    """Whether the picture is there already; it counts as new then."""
    with _writing:  # so that it is not among the oldest that another thread is about to remove
        try:
            os.utime(path)
        except FileNotFoundError:
            return False
        return True


def _encode(picture: np.ndarray, text: str) -> bytes:
    """A PNG with `text` inside, in a fraction of the time that Pillow takes, which sliders feel."""
    swapped = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    png = cv2.imencode(".png", swapped, _QUICK if picture.size <= _SMALL else _SMALLER)[1].tobytes()
    return _with_provenance(png, text)


def _with_provenance(png: bytes, text: str) -> bytes:
    body = b"iTXt" + PROVENANCE_KEY.encode() + bytes(5) + text.encode()  # uncompressed, no language, no translation
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return png[:_AFTER_HEADER] + chunk + png[_AFTER_HEADER:]


def as_data_uri(mask: np.ndarray, parameters: Mapping) -> str:
    """A mask in white on black, as an address that needs no request: a few thousand characters."""
    png = cv2.imencode(".png", mask.astype(np.uint8) * 255, [cv2.IMWRITE_PNG_BILEVEL, 1])[1].tobytes()
    png = _with_provenance(png, json.dumps(dict(parameters), sort_keys=True))
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _forget_oldest(folder: Path, written: Path) -> None:
    """Remove all but the `KEPT` newest; never `written`, as the clock of a file system may be coarse."""
    others = [path for path in folder.glob("*.png") if path != written]
    for path in sorted(others, key=_written_at, reverse=True)[KEPT - 1 :]:
        path.unlink(missing_ok=True)


def _written_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # the session was removed meanwhile
        return 0.0
