"""Decoding with Pillow: PNG, JPEG, BMP, GIF, PPM, WebP, and the TIFF kinds that tifffile leaves to it."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from univg.errors import InputError
from univg.io.source import FileKind, ImageInfo, Pixels, check_pixel_count, choose_frame, name_warning

# PNG text that `write_image` adds to 16-bit files whose values mean value / 65535.
FULL_RANGE_KEY = "univg-range"
FULL_RANGE = "unit"

_BITS = {"1": 1, "I;16": 16, "I;16L": 16, "I;16B": 16, "I": 32, "F": 32}
_NUMERIC = ("L", "I;16", "I;16L", "I;16B", "I", "F")
# Several pictures in one file; a camera's MPO holds previews of the same one.
_ANIMATED = (FileKind.PNG, FileKind.GIF, FileKind.WEBP)


def read_header(path: Path, kind: FileKind, *, max_pixels: int) -> ImageInfo:
    with open_image(path, kind, max_pixels=max_pixels) as image:
        return _info(image, path, kind)


def read_pixels(path: Path, kind: FileKind, frame: int | None, *, max_pixels: int) -> Pixels:
    with open_image(path, kind, max_pixels=max_pixels) as image:
        info = _info(image, path, kind)
        index = choose_frame(frame, info.frames, path)
        orientation = _orientation(image)
        full_range = image.info.get(FULL_RANGE_KEY) == FULL_RANGE
        if info.frames > 1:
            _seek(image, index, path, max_pixels=max_pixels)
        values, alpha = to_arrays(image)
    if kind is FileKind.PPM and image.mode == "I":
        values = values.astype(np.uint16)  # Pillow's 32 bits hold the 16 of the file
    return Pixels(orient(values, orientation), None if alpha is None else orient(alpha, orientation), full_range)


def open_image(path: Path, kind: FileKind, *, max_pixels: int) -> Image.Image:
    """The image with its header read and its size checked, nothing decoded yet."""
    try:
        image = Image.open(path, formats=[kind])
    except Image.DecompressionBombError as error:
        raise _far_too_large(error, path, max_pixels=max_pixels) from error
    try:
        check_pixel_count(*image.size, path, max_pixels=max_pixels)
    except InputError:
        image.close()
        raise
    return image


def to_arrays(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """Values, (H, W) or (H, W, 3), and alpha of a Pillow image of any mode."""
    if image.mode == "1":
        image = image.convert("L")
    if image.mode in _NUMERIC:
        return np.array(image), None
    if image.mode in ("LA", "La"):
        array = np.array(image.convert("LA"))
        return array[..., 0], array[..., 1]
    if image.mode in ("RGBA", "RGBa", "PA") or (image.mode == "P" and "transparency" in image.info):
        array = np.array(image.convert("RGBA"))
        return array[..., :3], array[..., 3]
    return np.array(image.convert("RGB")), None


def orient(array: np.ndarray, orientation: int) -> np.ndarray:
    """`array` turned and mirrored as the EXIF (and TIFF) orientation code, 1 to 8, asks."""
    if orientation in (2, 4, 5, 7):
        array = array[:, ::-1]
    turns = {3: 2, 4: 2, 5: 1, 6: -1, 7: -1, 8: 1}.get(orientation, 0)
    return np.ascontiguousarray(np.rot90(array, turns))


def swaps_sides(orientation: int) -> bool:
    return 5 <= orientation <= 8


def _seek(image: Image.Image, index: int, path: Path, *, max_pixels: int) -> None:
    """Frame by frame, as Pillow does itself: each of a GIF may enlarge the canvas, or make room to be cleared after."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            for step in range(index + 1):
                image.seek(step)
                check_pixel_count(*image.size, path, max_pixels=max_pixels)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise _far_too_large(error, path, max_pixels=max_pixels) from error


def _far_too_large(error: Exception, path: Path, *, max_pixels: int) -> InputError:
    return InputError(
        f"The image is far above {max_pixels / 1e6:g} megapixels: {error}",
        path=path,
        fix="Crop or downscale it first.",
    )


def _info(image: Image.Image, path: Path, kind: FileKind) -> ImageInfo:
    width, height = image.size
    if swaps_sides(_orientation(image)):
        width, height = height, width
    bits = _png_bit_depth(path) if kind is FileKind.PNG else _BITS.get(image.mode, 8)
    bits = min(bits, 16) if kind is FileKind.PPM else bits
    notes = name_warning(path, kind)
    if bits > 8 and image.mode not in _NUMERIC:
        notes += (f"Colour of {bits} bits a channel is read as 8 bits; save it as TIFF to keep all of them.",)
    frames = getattr(image, "n_frames", 1) if kind in _ANIMATED else 1
    return ImageInfo(width, height, frames, bits, str(kind), warnings=notes)


def _orientation(image: Image.Image) -> int:
    if image.format == "PNG" and not {"exif", "Raw profile type exif"} & image.info.keys():
        return 1  # Pillow would decode the whole picture in search of one behind it
    code = image.getexif().get(ExifTags.Base.Orientation, 1)
    return code if code in range(1, 9) else 1


def _png_bit_depth(path: Path) -> int:
    with path.open("rb") as stream:
        return stream.read(25)[24]
