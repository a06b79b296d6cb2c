"""Pictures of synthetic pairs for the Review tab, as the bytes of a file.

Pairs never change, so thumbnails are kept in the project, in a hidden folder that may be deleted at any time.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np

from app.gradio_ui import pictures
from univg.errors import InputError
from univg.io import check_stem, read_mask
from univg.overlay import PREDICTION
from univg.workflow.project import Project

LAYERS = ("image", "mask", "white", "small")
_SHOWN_SIDE = 1024
_THUMBNAIL = 96
_THUMBNAIL_OPACITY = 0.45
_THUMBNAILS_FOLDER = ".thumbnails"
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1]
_WEBP = [cv2.IMWRITE_WEBP_QUALITY, 85]


def picture(project: Project, layer: str, name: str) -> tuple[bytes, str]:
    """A picture of the pair `name` and its media type.

    Parameters
    ----------
    project : Project
    layer : {'image', 'mask', 'white', 'small'}
        The image; its mask tinted on nothing, to lie above the image; the mask white on black; or both as a thumbnail.
    name : str

    Raises
    ------
    InputError
        If there is no such pair or layer.
    """
    if layer not in LAYERS:
        raise InputError(f"There is no picture {layer!r} of a pair", fix=f"There are: {', '.join(LAYERS)}.")
    if layer == "small":
        return _thumbnail(project, name), "image/webp"
    # As stored where the page can show that: three layers of each pair are asked for with every key.
    image_file, mask_file = project.synthetic_pair_files(name)
    stored = {"image": image_file, "white": mask_file}.get(layer)
    if stored is not None and _is_shown_as_stored(stored):
        return stored.read_bytes(), "image/png"
    if layer == "image":
        image = project.synthetic_pair(name).image
        shown = cv2.cvtColor(pictures.reduce(pictures.as_rgb(image), _SHOWN_SIDE), cv2.COLOR_RGB2BGR)
        return _encoded(".png", shown, _PNG), "image/png"
    mask = pictures.reduce(read_mask(mask_file), _SHOWN_SIDE)
    if layer == "white":
        shown = mask.astype(np.uint8) * 255
    else:
        shown = np.zeros((*mask.shape, 4), np.uint8)
        shown[mask] = (*PREDICTION[::-1], 255)
    return _encoded(".png", shown, _PNG), "image/png"


def draw_thumbnails(project: Project, names: Sequence[str]) -> None:
    """Keep the thumbnails of `names` in the project, so that they are there when the page asks for them."""
    for name in names:
        with suppress(InputError):  # a damaged pair is told of when it is asked for
            _thumbnail(project, name)


def _is_shown_as_stored(file: Path) -> bool:
    """Whether `file` is a PNG of 8 bits, no larger than what is shown."""
    with file.open("rb") as stream:
        head = stream.read(25)
    if head[:8] != b"\x89PNG\r\n\x1a\n" or len(head) < 25:
        return False
    width, height, depth = struct.unpack(">IIB", head[16:])
    return max(width, height) <= _SHOWN_SIDE and depth == 8


def _thumbnail(project: Project, name: str) -> bytes:
    name = check_stem(name)
    pair_file = project.pairs_folder / "masks" / f"{name}.png"
    kept = project.pairs_folder / _THUMBNAILS_FOLDER / f"{name}.webp"
    with suppress(OSError):
        if kept.stat().st_mtime_ns >= pair_file.stat().st_mtime_ns:
            return kept.read_bytes()
    data = _encoded(".webp", _drawn_small(project, name), _WEBP)
    _keep(kept, data)
    return data


def _drawn_small(project: Project, name: str) -> np.ndarray:
    """(96, 96, 3) uint8, blue first."""
    pair, size = project.synthetic_pair(name), (_THUMBNAIL, _THUMBNAIL)
    image = cv2.resize(pictures.as_rgb(pair.image), size, interpolation=cv2.INTER_AREA).astype(np.float32)
    covered = cv2.resize(pair.mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)[..., None]
    drawn = image + _THUMBNAIL_OPACITY * covered * (np.array(PREDICTION, np.float32) - image)
    return np.rint(drawn[..., ::-1]).astype(np.uint8)


def _keep(file: Path, data: bytes) -> None:
    """Write a thumbnail; where that is not possible, it is drawn again next time."""
    with suppress(OSError):
        file.parent.mkdir(exist_ok=True)
        temporary = file.with_name(f".{os.getpid()}-{id(data)}.tmp")
        temporary.write_bytes(data)
        temporary.replace(file)


def _encoded(suffix: str, shown: np.ndarray, options: list[int]) -> bytes:
    return cv2.imencode(suffix, shown, options)[1].tobytes()
