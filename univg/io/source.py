"""What a file is, judged by its content, before anything decodes it."""

from __future__ import annotations

import logging
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from os import PathLike
from pathlib import Path

import numpy as np

from univg.errors import InputError

AT_DETECTOR = "mm at detector"
MAX_PIXELS = 64_000_000
MAX_FILE_BYTES = 1 << 30


class FileKind(StrEnum):
    """File formats that are read, by Pillow's names where Pillow reads them."""

    PNG = "PNG"
    JPEG = "JPEG"
    BMP = "BMP"
    GIF = "GIF"
    PPM = "PPM"
    WEBP = "WEBP"
    TIFF = "TIFF"
    DICOM = "DICOM"


SUFFIXES = {
    ".png": FileKind.PNG,
    ".jpg": FileKind.JPEG,
    ".jpeg": FileKind.JPEG,
    ".bmp": FileKind.BMP,
    ".gif": FileKind.GIF,
    ".ppm": FileKind.PPM,
    ".pgm": FileKind.PPM,
    ".pbm": FileKind.PPM,
    ".webp": FileKind.WEBP,
    ".tif": FileKind.TIFF,
    ".tiff": FileKind.TIFF,
    ".dcm": FileKind.DICOM,
    ".dicom": FileKind.DICOM,
}

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", FileKind.PNG),
    (b"\xff\xd8\xff", FileKind.JPEG),
    (b"BM", FileKind.BMP),
    (b"GIF8", FileKind.GIF),
    (b"II*\x00", FileKind.TIFF),
    (b"MM\x00*", FileKind.TIFF),
    (b"II+\x00", FileKind.TIFF),
    (b"MM\x00+", FileKind.TIFF),
)
_FOREIGN_MAGIC = ((b"%PDF", "a PDF"), (b"PK\x03\x04", "a zip archive"), (b"\x1f\x8b", "gzip-compressed data"))
_SUPPORTED = "PNG, JPEG, TIFF, BMP, GIF, PPM, WebP and DICOM"


@dataclass(frozen=True)
class ImageInfo:
    """What the header of an image file says.

    Attributes
    ----------
    width, height : int
        In pixels, as displayed (after the orientation stored in the file).
    frames : int
        Pages of a TIFF, frames of a DICOM file or of an animation.
    bit_depth : int
        Bits that each channel stores.
    format : str
        From the content, not from the name: ``"PNG"``, ``"TIFF"``, ``"DICOM"``, …
    pixel_spacing_mm : float or None
        Size of a (square) pixel in mm, where the file states one.
    spacing_note : str
        Where that size holds, for example ``"mm at detector"``, or why there is none.
    warnings : tuple of str
        Sentences that a person should read before using the image.
    """

    width: int
    height: int
    frames: int
    bit_depth: int
    format: str
    pixel_spacing_mm: float | None = None
    spacing_note: str = "no pixel size in the file"
    warnings: tuple[str, ...] = ()

    @property
    def object_spacing_mm(self) -> float | None:
        """The size of a pixel where it is that of what is seen: a projection magnifies, so not one at the detector."""
        return None if self.spacing_note == AT_DETECTOR else self.pixel_spacing_mm


@dataclass(frozen=True)
class Pixels:
    """Decoded pixels, values as stored.

    Attributes
    ----------
    values : (H, W) or (H, W, 3) ndarray of any number type
    alpha : (H, W) ndarray or None
    full_range : bool
        True for integers that mean value / type maximum; otherwise their own range decides.
    """

    values: np.ndarray
    alpha: np.ndarray | None = None
    full_range: bool = False


def identify(path: str | PathLike[str]) -> tuple[Path, FileKind]:
    """The path and the kind of its content; `InputError` when it cannot be an image that is read here."""
    path = Path(path)
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise InputError("This is a folder, not an image file", path=path, fix="Name one file.")
        if not stat.S_ISREG(status.st_mode):
            raise InputError("This is not an ordinary file", path=path, fix="Name an image file.")
        with path.open("rb") as stream:
            start = stream.read(132)
    except FileNotFoundError as error:
        raise InputError("No such file", path=path, fix="Check the name and the folder.") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"Cannot read this file: {reason}", path=path, fix="Check its permissions.") from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError("This is not a usable file name", path=path, fix="Rename the file.") from error
    if not start:
        raise InputError("The file is empty (0 bytes)", path=path, fix="Export or copy it again.")
    if status.st_size > MAX_FILE_BYTES:
        raise InputError(
            f"The file is {status.st_size / 2**30:.1f} GiB; at most {MAX_FILE_BYTES / 2**30:.0f} GiB is read",
            path=path,
            fix="Export the one image you need.",
        )
    kind = _kind_of(start)
    if kind is None:
        raise InputError(
            f"The file is not an image: it holds {_describe(start)}",
            path=path,
            fix=f"Use {_SUPPORTED} files.",
        )
    return path, kind


def name_warning(path: Path, kind: FileKind) -> tuple[str, ...]:
    """A sentence when the suffix of `path` promises another format."""
    promised = SUFFIXES.get(path.suffix.lower())
    if promised in (None, kind):
        return ()
    return (f"The file is named {path.suffix} but holds {kind} data; it was read as {kind}.",)


def check_pixel_count(width: int, height: int, path: Path, *, max_pixels: int) -> None:
    """Raise `InputError` unless the size is positive and within the cap."""
    if width < 1 or height < 1:
        raise InputError(f"The header states an impossible size, {width} x {height}", path=path, fix=_DAMAGED)
    if width * height > max_pixels:
        raise InputError(
            f"The image is {width} x {height}, {width * height / 1e6:.0f} megapixels; "
            f"at most {max_pixels / 1e6:g} are read",
            path=path,
            fix="Crop or downscale it first.",
        )


def choose_frame(frame: int | None, frames: int, path: Path) -> int:
    """The index to read; `InputError` when a choice is needed and was not made, or does not exist."""
    noun = f"{frames} frames (pages)" if frames > 1 else "1 frame"
    if frame is None:
        if frames == 1:
            return 0
        raise InputError(
            f"The file holds {noun}",
            path=path,
            fix=f"Choose one with frame=0 to frame={frames - 1}, or export the one you need as a PNG.",
        )
    if not 0 <= frame < frames:
        raise InputError(
            f"There is no frame {frame}: the file holds {noun}",
            path=path,
            fix=f"Frames are numbered from 0 to {frames - 1}.",
        )
    return frame


@contextmanager
def decoding(path: Path, kind: FileKind) -> Iterator[None]:
    """Turn whatever a decoder raises on damaged bytes into an `InputError`, and keep its messages to itself.

    What matters in them is said by our own errors, and the others quote tags: a patient's name in a DICOM header
    or in the description of a TIFF would come into the log. Warning filters and loggers belong to the process, so one
    file is decoded at a time.
    """
    try:
        with _one_at_a_time, _unlogged(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(
            "Not enough memory to decode this image", path=path, fix="Crop or downscale it first."
        ) from error
    except Exception as error:  # decoders raise nearly anything on crafted or truncated input
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"Cannot decode this {kind} file: {reason}", path=path, fix=_DAMAGED) from error


@contextmanager
def _unlogged() -> Iterator[None]:
    levels = [logger.level for logger in _DECODER_LOGGERS]
    try:
        for logger in _DECODER_LOGGERS:
            logger.setLevel(logging.CRITICAL + 1)
        yield
    finally:
        for logger, level in zip(_DECODER_LOGGERS, levels, strict=True):
            logger.setLevel(level)


_one_at_a_time = threading.Lock()
_DECODER_LOGGERS = tuple(logging.getLogger(name) for name in ("PIL", "pydicom", "pylibjpeg", "tifffile"))

_DAMAGED = "It is damaged, truncated or of an unusual kind; export it again, for example as PNG."


def _kind_of(start: bytes) -> FileKind | None:
    if start[128:132] == b"DICM":
        return FileKind.DICOM  # some begin as a TIFF does, for programs that know no DICOM
    for magic, kind in _MAGIC:
        if start.startswith(magic):
            return kind
    if start[:1] == b"P" and start[1:2] in b"123456" and start[2:3].isspace():
        return FileKind.PPM
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return FileKind.WEBP
    return None


def _describe(start: bytes) -> str:
    for magic, name in _FOREIGN_MAGIC:
        if start.startswith(magic):
            return name
    if start[4:8] == b"ftyp":
        return "HEIC, AVIF or video data"
    head = start[:16]
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        return f"text starting with {' '.join(head.decode('ascii').split())!r}"
    return f"unknown data starting with the bytes {start[:8].hex(' ')}"
