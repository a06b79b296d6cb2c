"""Files written whole or not at all, with what they were made from inside them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from univg.errors import InputError
from univg.io.raster import FULL_RANGE, FULL_RANGE_KEY, open_image
from univg.io.source import MAX_PIXELS, FileKind, decoding, identify
from univg.types import check_image

PROVENANCE_KEY = "univg"
MAX_PROVENANCE_BYTES = 1 << 20
MAX_JSON_BYTES = 64 << 20
_SECONDS_OF_PATIENCE, _SECONDS_BETWEEN_TRIES = 2.0, 0.05


def write_mask(path: str | PathLike[str], mask: np.ndarray, *, provenance: Mapping | None = None) -> None:
    """Write a mask as a PNG of 0 and 255, atomically.

    Parameters
    ----------
    path : path-like
    mask : (H, W) ndarray of bool
    provenance : mapping, optional
        What the mask was made from, as JSON; see `read_provenance`.

    Raises
    ------
    InputError
        The folder cannot be written to; a file already there is left as it was.
    """
    if mask.dtype != np.bool_ or mask.ndim != 2:
        raise ValueError(f"`mask` must be a bool (H, W) array, got {mask.dtype} {mask.shape}")
    _write_png(path, mask.astype(np.uint8) * 255, provenance, {})


def write_image(path: str | PathLike[str], image: np.ndarray, *, provenance: Mapping | None = None) -> None:
    """Write an image as a PNG, atomically.

    Grey float32 keeps 16 bits, and `read_image` gives it back on the same scale; float32 colour is rounded to
    8 bits a channel.

    Parameters
    ----------
    path : path-like
    image : (H, W) or (H, W, 3) ndarray of uint8, or of float32 in [0, 1]
    provenance : mapping, optional
        What the image was made from, as JSON; see `read_provenance`.

    Raises
    ------
    InputError
        The folder cannot be written to; a file already there is left as it was.
    """
    check_image(image)
    if image.dtype == np.uint8:
        _write_png(path, image, provenance, {})
    elif image.ndim == 2:
        levels = np.rint(image * np.float64(65535)).astype(np.uint16)
        _write_png(path, levels, provenance, {FULL_RANGE_KEY: FULL_RANGE})
    else:
        _write_png(path, np.rint(image * 255).astype(np.uint8), provenance, {})


def read_provenance(path: str | PathLike[str]) -> dict | None:
    """What `write_mask` or `write_image` recorded in a PNG, or None where nothing was.

    Raises
    ------
    InputError
        The file cannot be read, or its record is not a JSON object or is above 1 MiB.
    """
    path, kind = identify(path)
    if kind is not FileKind.PNG:
        return None
    with decoding(path, kind), open_image(path, kind, max_pixels=MAX_PIXELS) as image:
        text = image.info.get(PROVENANCE_KEY)
    if text is None:
        return None
    fix = "The picture itself may still be fine; only its record is lost."
    if len(text) > MAX_PROVENANCE_BYTES:
        raise InputError("The record of how this picture was made is too long", path=path, fix=fix)
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError("The record of how this picture was made is corrupt", path=path, fix=fix) from error
    if not isinstance(record, dict):
        raise InputError("The record of how this picture was made is not a JSON object", path=path, fix=fix)
    return record


def write_bytes_atomic(path: str | PathLike[str], data: bytes) -> None:
    """Write `data` so that `path` holds either all of it or what it held before; see `write_atomic`."""
    write_atomic(path, lambda temporary: temporary.write_bytes(data))


def write_atomic(path: str | PathLike[str], write: Callable[[Path], object]) -> None:
    """Let `write` make a file so that `path` holds either all of it or what it held before.

    It gets the name of a temporary file in the same folder, which is then flushed to disk and renamed over `path`.

    Raises
    ------
    InputError
        The disk is full, or the folder is missing or read-only; the `OSError` is its cause.
    """
    path = Path(path)
    temporary = path.parent / f".{uuid.uuid4().hex}.tmp"
    try:
        write(temporary)
        with temporary.open("r+b") as stream:  # Windows flushes only what is open for writing
            os.fsync(stream.fileno())
        replace_patiently(temporary, path)
    except BaseException as error:
        # The first error is the one to report, whether or not the leftover can be removed.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _cannot_write(path, error) from error
        raise


def replace_patiently(source: Path, target: Path) -> None:
    """Rename `source` to `target`, replacing a file there.

    Windows refuses that while another program, such as a virus scanner or a page that reads it, has either open: for a
    moment.
    """
    deadline = time.monotonic() + _SECONDS_OF_PATIENCE
    while True:
        try:
            source.replace(target)
            return
        except PermissionError:
            if sys.platform != "win32" or time.monotonic() >= deadline:
                raise
            time.sleep(_SECONDS_BETWEEN_TRIES)


def write_json_atomic(path: str | PathLike[str], obj: Any) -> None:
    """Write `obj` as UTF-8 JSON, atomically.

    NumPy scalars and arrays, paths, tuples and sets are written as their plain counterparts; NaN and
    infinity, which JSON does not have, as null.
    """
    text = json.dumps(_plain(obj), indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes_atomic(path, f"{text}\n".encode())


def read_json(path: str | PathLike[str]) -> Any:
    """The content of a JSON file; `InputError` when it is missing, above 64 MiB or not JSON."""
    path = Path(path)
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise InputError("The file is too large for a settings file", path=path, fix="Check its name.")
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError("No such file", path=path, fix="Check the name and the folder.") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"Cannot read this file: {reason}", path=path, fix="Check its permissions.") from error
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"The file is not valid JSON: {error}", path=path, fix="Restore it.") from error


def file_stamp(path: str | PathLike[str]) -> tuple[int, int, int]:
    """Another one whenever `path` is written or replaced, for what is kept in memory of it; zeros where nothing is."""
    try:
        found = Path(path).stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def sha256_file(path: str | PathLike[str]) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    path = Path(path)
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"Cannot read this file: {reason}", path=path, fix="Check its name.") from error


def _write_png(
    path: str | PathLike[str], levels: np.ndarray, provenance: Mapping | None, text: Mapping[str, str]
) -> None:
    info = PngInfo()
    for key, value in text.items():
        info.add_text(key, value)
    if provenance is not None:
        record = json.dumps(_plain(provenance), ensure_ascii=False, allow_nan=False)
        if len(record) > MAX_PROVENANCE_BYTES:
            raise ValueError(f"`provenance` must be at most {MAX_PROVENANCE_BYTES} characters of JSON")
        info.add_itxt(PROVENANCE_KEY, record)
        if provenance.get("synthetic"):
            # "Source" is a keyword that the PNG standard defines, so other software shows it.
            info.add_text("Source", "synthetic")
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(levels)).save(buffer, format="PNG", pnginfo=info)
    write_bytes_atomic(path, buffer.getvalue())


def _plain(obj: Any) -> Any:
    """`obj` in the types JSON has."""
    if isinstance(obj, Mapping):
        return {str(key): _plain(value) for key, value in obj.items()}
    if isinstance(obj, (list, tuple)):
        return [_plain(value) for value in obj]
    if isinstance(obj, (set, frozenset)):
        return sorted(_plain(value) for value in obj)
    if isinstance(obj, np.ndarray):
        return _plain(obj.tolist())
    if isinstance(obj, np.generic):
        return _plain(obj.item())
    if isinstance(obj, float) and not math.isfinite(obj):
        return None
    return str(obj) if isinstance(obj, PathLike) else obj


_WRITE_ADVICE = {
    errno.ENOSPC: ("The disk is full", "Free some space and try again; nothing was changed."),
    errno.EDQUOT: ("Your disk quota is used up", "Free some space and try again; nothing was changed."),
    errno.EROFS: ("The disk is read-only", "Choose another folder."),
    errno.EACCES: ("The folder may not be written to", "Choose another folder or change its permissions."),
    errno.EPERM: ("The folder may not be written to", "Choose another folder or change its permissions."),
    errno.ENOENT: ("The folder does not exist", "Create it, or choose another one."),
    errno.ENOTDIR: ("A part of this path is a file, not a folder", "Choose another folder."),
    errno.EISDIR: ("A folder of this name is in the way", "Choose another name."),
    errno.ENAMETOOLONG: ("The file name is too long", "Choose a shorter name."),
}


def _cannot_write(path: Path, error: OSError) -> InputError:
    problem, fix = _WRITE_ADVICE.get(
        error.errno, (error.strerror or str(error), "Check the folder, or choose another one.")
    )
    return InputError(f"Cannot write {path.name!r}: {problem[0].lower()}{problem[1:]}", path=path.parent, fix=fix)
