"""The annotated pairs of a project on disk: the mask is written last, and makes the pair exist.

Layout below ``support/``: ``images/<name>.png`` (or ``.tif`` for colour above 8 bits), ``masks/<name>.png``,
``fov/<name>.png`` where a field of view was given, and ``<name>.json`` with the SHA-256 of the files they
came from. Earlier masks are in ``masks/.history/``, removed pairs in ``removed/``.
"""

from __future__ import annotations

import io as bytes_io
import json
import os
import time
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from univg.errors import InputError
from univg.io import (
    check_stem,
    read_image,
    read_json,
    read_mask,
    sha256_file,
    write_bytes_atomic,
    write_image,
    write_json_atomic,
    write_mask,
)
from univg.io.write import replace_patiently
from univg.types import ImageMaskPair
from univg.workflow.folder_access import file_stamp, utc_now

_IMAGE_SUFFIXES = (".png", ".tif")
_MASK = "masks/{name}.png"
_FOV = "fov/{name}.png"
_SIDECAR = "{name}.json"
_NAMES_SHOWN = 20
_MAX_FILE_NAME = 255  # bytes
_SETTLED_NS = 5_000_000_000  # clocks of file systems may be as coarse as two seconds


def pair_names(folder: Path) -> list[str]:
    """Names of the complete pairs in a support folder, sorted."""
    stamps = _settled_stamps(folder / "masks", folder / "images")
    if stamps is not None:
        return list(_names_as_of(folder, stamps))
    return _listed_names(folder)


def _listed_names(folder: Path) -> list[str]:
    masks = _stems(folder / "masks", (".png",))
    return sorted(masks & _stems(folder / "images", _IMAGE_SUFFIXES)) if masks else []


@lru_cache(maxsize=16)
def _names_as_of(folder: Path, stamps: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(_listed_names(folder))


def _settled_stamps(*folders: Path) -> tuple[int, ...] | None:
    """When names were last added to or taken from `folders`; None when that may still go on unseen.

    A listing of thousands of pairs takes a while and is asked for with every tick of a page.
    """
    try:
        stamps = tuple(folder.stat().st_mtime_ns for folder in folders)
    except OSError:
        return None
    return stamps if time.time_ns() - max(stamps) > _SETTLED_NS else None


def pair_files(folder: Path, name: str) -> tuple[Path, Path]:
    """The files of the image and the mask of pair `name`; `InputError` when either is missing."""
    name = check_stem(name)
    image, mask = _image_path(folder, name), folder / _MASK.format(name=name)
    if image is None or not mask.is_file():
        raise _missing(folder, name)
    return image, mask


def read_pair(folder: Path, name: str) -> ImageMaskPair:
    """The pair `name`, as it was given; float images come back at 16 bits."""
    name = check_stem(name)
    image, mask = pair_files(folder, name)
    fov = folder / _FOV.format(name=name)
    return ImageMaskPair(
        _read_image(image),
        read_mask(mask),
        name,
        fov=read_mask(fov) if fov.is_file() else None,
    )


def read_sidecar(folder: Path, name: str) -> dict:
    """What is known about where pair `name` came from; empty when nothing is."""
    path = folder / _SIDECAR.format(name=check_stem(name))
    return read_json(path) if path.is_file() else {}


def holds_pair(folder: Path, pair: ImageMaskPair) -> bool:
    """Whether the same pair is there already; `InputError` when another one has its name, or it but for case."""
    for name in pair_names(folder):
        if _folded(name) != _folded(pair.name):
            continue
        if name == pair.name and _same_content(read_pair(folder, name), pair):
            return True
        raise InputError(
            f"The project already holds another pair called {name!r}",
            fix="Rename the new files, or remove the pair from the project first.",
        )
    return False


def write_pair(
    folder: Path,
    pair: ImageMaskPair,
    *,
    source: Mapping[str, str | Path] | None = None,
    record: Mapping | None = None,
) -> bool:
    """Store `pair`; False when the same content is there already, `InputError` when other content is.

    `record` is what a synthetic pair was made from: it goes to the sidecar and into the pictures.
    """
    pair = replace(pair, name=check_stem(pair.name))
    if holds_pair(folder, pair):
        return False
    # What an add or a removal that was killed left behind would become part of this pair.
    for leftover in reversed(list(_files_of(folder, pair.name))):
        (folder / leftover).unlink()
    sidecar = {"name": pair.name, "added": utc_now(), "sources": _describe(source or {}), **(record or {})}
    for part in ("images", "masks", *(["fov"] if pair.fov is not None else [])):
        (folder / part).mkdir(parents=True, exist_ok=True)
    write_stored_image(folder / "images", pair.name, pair.image, record)
    write_json_atomic(folder / _SIDECAR.format(name=pair.name), sidecar)
    if pair.fov is not None:
        write_mask(folder / _FOV.format(name=pair.name), pair.fov)
    write_mask(folder / _MASK.format(name=pair.name), pair.mask, provenance=record)
    return True


def replace_mask(folder: Path, name: str, mask: np.ndarray) -> Path | None:
    """Write a new mask for `name` and return where the old one is kept, or None when they are equal."""
    old = read_pair(folder, name)
    name = old.name
    new = ImageMaskPair(old.image, mask, name, fov=old.fov)
    if np.array_equal(old.mask, new.mask):
        return None
    current = folder / _MASK.format(name=name)
    kept = folder / "masks" / ".history" / _history_name(name)
    kept.parent.mkdir(exist_ok=True)
    write_bytes_atomic(kept, current.read_bytes())
    write_mask(current, mask)
    return kept


def _history_name(name: str) -> str:
    """Of the copy of an earlier mask; a long name is cut, since with the time it would be too long for a file."""
    ending = f"-{file_stamp()}.png"
    return name.encode()[: _MAX_FILE_NAME - len(ending)].decode(errors="ignore") + ending


def remove_pair(folder: Path, name: str) -> Path:
    """Move the files of `name` to a new folder below ``removed/``, and return that folder."""
    name = check_stem(name)
    if name not in pair_names(folder):
        raise _missing(folder, name)
    bin_folder = folder / "removed" / file_stamp()
    for relative in reversed(list(_files_of(folder, name))):  # the mask first: it makes the pair exist
        _move(folder / relative, bin_folder / relative)
    return bin_folder


def removed_names(folder: Path) -> list[str]:
    """Names that `restore_pair` can bring back, sorted."""
    masks = (folder / "removed").glob("*/masks/*.png")
    return sorted({mask.stem for mask in masks} - set(pair_names(folder)))


def restore_pair(folder: Path, name: str) -> None:
    """Bring back the pair `name` that was removed last."""
    name = check_stem(name)
    if any(_folded(name) == _folded(present) for present in pair_names(folder)):
        raise InputError(f"The project holds a pair called {name!r} again", fix="Remove that one first.")
    bins = sorted((folder / "removed").glob("*"), reverse=True)
    bin_folder = next((b for b in bins if (b / _MASK.format(name=name)).is_file()), None)
    if bin_folder is None:
        raise InputError(f"No removed pair is called {name!r}", path=folder)
    for relative in list(_files_of(bin_folder, name)):
        _move(bin_folder / relative, folder / relative)


def content_hashes(folder: Path, names: list[str]) -> dict[str, str]:
    """SHA-256 of the stored image and mask files, keyed ``images/<file>`` and ``masks/<file>``."""
    files = (relative for name in names for relative in _files_of(folder, name) if relative.parent.name)
    return {relative.as_posix(): sha256_file(folder / relative) for relative in files}


def _files_of(folder: Path, name: str) -> Iterator[Path]:
    """The files of one pair relative to `folder`, the mask last."""
    candidates = (
        *(f"images/{name}{suffix}" for suffix in _IMAGE_SUFFIXES),
        _FOV.format(name=name),
        _SIDECAR.format(name=name),
        _MASK.format(name=name),
    )
    return (Path(path) for path in candidates if (folder / path).is_file())


def _stems(folder: Path, suffixes: tuple[str, ...]) -> set[str]:
    """What is called so in `folder`: one look, as one at each of thousands of files takes long."""
    try:
        with os.scandir(folder) as found:
            files = [file.name for file in found]
    except OSError:  # not made yet
        return set()
    return {file.rpartition(".")[0] for file in files if file.endswith(suffixes) and not file.startswith(".")}


def _image_path(folder: Path, name: str) -> Path | None:
    paths = (folder / "images" / f"{name}{suffix}" for suffix in _IMAGE_SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    replace_patiently(source, target)


def write_stored_image(folder: Path, name: str, image: np.ndarray, provenance: Mapping | None = None) -> None:
    """PNG for 8-bit and for grey images; 16-bit TIFF for finer colour, which Pillow cannot write as PNG.

    `provenance` goes into the file: as the description of a TIFF.
    """
    stored = _as_stored(image)
    if stored.ndim == 2 or stored.dtype == np.uint8:
        write_image(
            folder / f"{name}.png", image if image.ndim == stored.ndim else image[..., 0], provenance=provenance
        )
        return
    import tifffile

    buffer = bytes_io.BytesIO()
    description = None if provenance is None else json.dumps(provenance)
    tifffile.imwrite(
        buffer, stored, photometric="rgb", compression="zlib", predictor=True, description=description, metadata=None
    )
    write_bytes_atomic(folder / f"{name}.tif", buffer.getvalue())


def _read_image(path: Path) -> np.ndarray:
    if path.suffix != ".tif":
        return read_image(path)
    import tifffile

    # Not `read_image`, which stretches foreign TIFF files to their own range.
    try:
        return tifffile.imread(path).astype(np.float32) / np.float32(65535)
    except (ValueError, OSError) as error:
        raise InputError("The stored image is damaged", path=path, fix="Remove the pair and add it again.") from error


def _as_stored(image: np.ndarray) -> np.ndarray:
    """uint8 or uint16 array of what goes to the disk; colour with equal channels becomes grey."""
    stored = image if image.dtype == np.uint8 else np.rint(image * np.float64(65535)).astype(np.uint16)
    if stored.ndim == 3 and (stored == stored[..., :1]).all():
        return np.ascontiguousarray(stored[..., 0])
    return np.ascontiguousarray(stored)


def _same_content(stored: ImageMaskPair, pair: ImageMaskPair) -> bool:
    images = _as_stored(stored.image), _as_stored(pair.image)
    same_image = images[0].dtype == images[1].dtype and np.array_equal(*images)
    same_fov = (stored.fov is None) == (pair.fov is None) and (
        stored.fov is None or np.array_equal(stored.fov, pair.fov)
    )
    return same_image and same_fov and np.array_equal(stored.mask, pair.mask)


def _describe(source: Mapping[str, str | Path]) -> dict[str, dict[str, str]]:
    """Name and SHA-256 of each source file; folders stay out, since they often name a person."""
    return {part: {"file": Path(path).name, "sha256": sha256_file(path)} for part, path in source.items() if path}


def _folded(name: str) -> str:
    """Names that a case-insensitive or normalising file system takes for one."""
    return unicodedata.normalize("NFC", name).casefold()


def _missing(folder: Path, name: str) -> InputError:
    names = pair_names(folder)
    shown = ", ".join(names[:_NAMES_SHOWN]) + (f" and {len(names) - _NAMES_SHOWN} more" if names[_NAMES_SHOWN:] else "")
    return InputError(f"The project holds no pair called {name!r}", fix=f"It holds: {shown or 'none'}.")
