"""Decoding TIFF with tifffile, which keeps 16-bit and float data; Pillow decodes what it cannot."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from univg.errors import InputError
from univg.io.raster import open_image, orient, swaps_sides, to_arrays
from univg.io.source import FileKind, ImageInfo, Pixels, check_pixel_count, choose_frame, name_warning

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage, TiffPageSeries

# Problems come back as errors; without a handler Python would also write tifffile's log to the terminal.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_ORIENTATION_TAG = 274
_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB = 0, 1, 2
_ASSOCIATED_ALPHA, _UNASSOCIATED_ALPHA = 1, 2


@dataclass(frozen=True)
class _Frame:
    """Where a frame is: the `index`-th image of `series`."""

    series: TiffPageSeries
    index: int

    @property
    def keyframe(self) -> TiffPage:
        return self.series.keyframe

    @property
    def has_own_page(self) -> bool:
        return len(self.series.pages) == _frame_count(self.series)


def read_header(path: Path, *, max_pixels: int) -> ImageInfo:
    import tifffile

    with tifffile.TiffFile(path) as tif:
        return _info(tif, path, max_pixels=max_pixels)


def read_pixels(path: Path, frame: int | None, *, max_pixels: int) -> Pixels:
    import tifffile

    with tifffile.TiffFile(path) as tif:
        info = _info(tif, path, max_pixels=max_pixels)
        chosen = _find_frame(tif, choose_frame(frame, info.frames, path))
        page = chosen.keyframe
        check_pixel_count(page.imagewidth, page.imagelength, path, max_pixels=max_pixels)
        _check_channels(page, path)
        _check_complete(tif, chosen, path)
        if not _decodes_here(page):
            return _read_with_pillow(path, chosen, max_pixels=max_pixels)
        return _split(_read_array(chosen, path, max_pixels=max_pixels), page)


def _info(tif: TiffFile, path: Path, *, max_pixels: int) -> ImageInfo:
    series = _image_series(tif)
    if not series:
        raise InputError("The TIFF file holds no image", path=path, fix="Export it again.")
    page = series[0].keyframe
    width, height = page.imagewidth, page.imagelength
    check_pixel_count(width, height, path, max_pixels=max_pixels)
    if swaps_sides(_orientation(page)):
        width, height = height, width
    notes = name_warning(path, FileKind.TIFF)
    if page.bitspersample > 8 and page.samplesperpixel > 1 and not _decodes_here(page):
        notes += (f"Colour of {page.bitspersample} bits in this TIFF's compression is read as 8 bits.",)
    frames = sum(_frame_count(s) for s in series)
    return ImageInfo(width, height, frames, page.bitspersample, "TIFF", warnings=notes)


def _image_series(tif: TiffFile) -> list[TiffPageSeries]:
    return [series for series in tif.series if not series.keyframe.is_reduced]


def _frame_count(series: TiffPageSeries) -> int:
    sizes = zip(series.axes, series.shape, strict=True)
    return math.prod(size for axis, size in sizes if axis not in "YXS")


def _find_frame(tif: TiffFile, index: int) -> _Frame:
    for series in _image_series(tif):
        count = _frame_count(series)
        if index < count:
            return _Frame(series, index)
        index -= count
    raise IndexError(index)


def _decodes_here(page: TiffPage) -> bool:
    from tifffile import TIFF

    return (
        page.photometric in (_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB)
        and page.compression in TIFF.DECOMPRESSORS
        and page.predictor in TIFF.UNPREDICTORS
    )


def _check_channels(page: TiffPage, path: Path) -> None:
    if page.samplesperpixel > 4:
        raise InputError(
            f"The TIFF has {page.samplesperpixel} channels; grey and RGB, with or without alpha, are read",
            path=path,
            fix="Export the channels you need as grey or RGB.",
        )


def _check_complete(tif: TiffFile, frame: _Frame, path: Path) -> None:
    """tifffile fills missing strips with zeros, which would look like a real, dark image."""
    pages = [frame.series.pages[frame.index]] if frame.has_own_page else list(frame.series.pages)
    size = tif.filehandle.size
    for page in pages:
        if page is None:
            continue
        ends = (o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=False))
        missing = not page.dataoffsets or 0 in page.databytecounts
        if missing or max(ends) > size:
            raise InputError(
                "The TIFF file is truncated: pixel data are missing",
                path=path,
                fix="Export or copy it again.",
            )


def _read_array(frame: _Frame, path: Path, *, max_pixels: int) -> np.ndarray:
    """(H, W) or (H, W, S) values of one frame."""
    if frame.has_own_page:
        return _channels_last(frame.series.pages[frame.index].asarray(), frame.keyframe.axes)
    pixels = _frame_count(frame.series) * frame.keyframe.imagewidth * frame.keyframe.imagelength
    if pixels > max_pixels:
        raise InputError(
            f"This stack can only be decoded as a whole, and has {pixels / 1e6:.0f} megapixels",
            path=path,
            fix="Export the page you need as a single TIFF or PNG.",
        )
    return _channels_last(frame.series.asarray(), frame.series.axes, frame=frame.index)


def _channels_last(array: np.ndarray, axes: str, *, frame: int = 0) -> np.ndarray:
    order = [i for i, axis in enumerate(axes) if axis not in "YXS"]
    tail = [axes.index(axis) for axis in "YXS" if axis in axes]
    array = array.transpose(order + tail)
    return array.reshape(-1, *array.shape[len(order) :])[frame]


def _split(array: np.ndarray, page: TiffPage) -> Pixels:
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    if page.photometric == _MIN_IS_WHITE:
        # Of integers, the complement cannot overflow.
        array = np.invert(array) if array.dtype.kind in "iu" else array.max() - array
    orientation = _orientation(page)
    alpha = None
    if array.ndim == 3:
        colours = 1 if array.shape[2] < 3 else 3
        extra = tuple(page.extrasamples or ())
        if array.shape[2] > colours and extra[:1] in ((_ASSOCIATED_ALPHA,), (_UNASSOCIATED_ALPHA,)):
            alpha = orient(array[..., colours], orientation)
        array = array[..., 0] if colours == 1 else array[..., :3]
    return Pixels(orient(array, orientation), alpha)


def _read_with_pillow(path: Path, frame: _Frame, *, max_pixels: int) -> Pixels:
    page = frame.series.pages[frame.index] if frame.has_own_page else frame.keyframe
    with open_image(path, FileKind.TIFF, max_pixels=max_pixels) as image:
        image.seek(page.index)
        # Pillow turns TIFF images by their orientation when it loads them.
        image.load()
        return Pixels(*to_arrays(image))


def _orientation(page: TiffPage) -> int:
    code = page.tags.valueof(_ORIENTATION_TAG, default=1)
    return code if code in range(1, 9) else 1
