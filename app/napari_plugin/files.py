"""What napari opens and saves through the plugin: images, masks and the sample, by the library's own rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from app import texts
from univg.errors import InputError
from univg.io import read_image, read_image_info, read_mask, write_mask
from univg.io.source import SUFFIXES
from univg.workflow.sample import sample_unseen_images

_MASK_FOLDERS = ("mask", "masks")
_MASK_ENDINGS = ("_mask", "-mask", " mask")

# Of a layer: data, keyword arguments, kind.
LayerData = tuple[np.ndarray, dict, str]


def reader_of(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[LayerData]] | None:
    """What reads `path`; None for a kind of file that the library does not read."""
    paths = [path] if isinstance(path, str) else list(path)
    return read_layers if all(_is_readable(Path(item)) for item in paths) else None


def read_layers(path: str | Sequence[str]) -> list[LayerData]:
    """An Image layer for each file, or a Labels layer where name and content say that it is a mask."""
    return [_read(Path(item)) for item in ([path] if isinstance(path, str) else path)]


def write_labels(path: str, data: np.ndarray, attributes: dict) -> list[str]:
    """Save a Labels layer as a mask of 0 and 255, pixel for pixel; every label is vessel."""
    pixels = np.squeeze(np.asarray(data))
    if pixels.ndim != 2:
        raise InputError(texts.NAPARI_NOT_FLAT.format(axes=pixels.ndim), fix=texts.NAPARI_NOT_FLAT_FIX)
    target = Path(path)
    if target.suffix.lower() != ".png":
        target = target.with_name(f"{target.name}.png")
    write_mask(target, pixels != 0)
    return [str(target)]


def sample_layers() -> list[LayerData]:
    """An unseen image of the sample and the mask it was made from."""
    image = sample_unseen_images()[0]
    return [_read(image), _read(image.parents[1] / "masks" / image.name)]


def _read(path: Path) -> LayerData:
    info = read_image_info(path)
    settings: dict = {"name": path.stem}
    if info.object_spacing_mm:
        settings |= {"scale": [info.object_spacing_mm] * 2, "units": ["mm", "mm"]}
    if info.frames > 1:
        frames = [read_image(path, frame=number) for number in range(info.frames)]
        for key, first in (("scale", 1.0), ("units", "pixel")):
            if key in settings:
                settings[key] = [first, *settings[key]]
        return np.stack(frames), settings, "image"
    if _named_as_mask(path):
        try:
            mask = read_mask(path)
        except InputError:  # more than two values: whatever its name, it is a picture
            return read_image(path), settings, "image"
        return mask.astype(np.uint8), settings, "labels"
    return read_image(path), settings, "image"


def _named_as_mask(path: Path) -> bool:
    return path.parent.name.lower() in _MASK_FOLDERS or path.stem.lower().endswith(_MASK_ENDINGS)


def _is_readable(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES
