"""Decoding TIFF with tifffile, which keeps 16-bit and float data; Pillow decodes what it cannot."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from univg.errors import InputError
from univg.io.bounds import lzma_size, packbits_size, zlib_size
from univg.io.raster import open_image, orient, swaps_sides, to_arrays
from univg.io.source import MAX_PIXELS, FileKind, ImageInfo, Pixels, check_pixel_count, choose_frame, name_warning

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffFrame, TiffPage, TiffPageSeries

_ORIENTATION_TAG = 274
_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB = 0, 1, 2
_CONTIGUOUS = 1
_ASSOCIATED_ALPHA, _UNASSOCIATED_ALPHA = 1, 2
# tifffile unpacks these only where imagecodecs is installed, and leaves 4 bits at 0 to 15, which look black.
_PILLOW_BITS = (2, 4, 12)
_UNCOMPRESSED = 1
_LAST_BIT_FIRST = 2
_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
# By compression. Without imagecodecs tifffile unpacks these with no limit, and zstd too from Python 3.14 on.
_UNPACKED_SIZE = {8: zlib_size, 32946: zlib_size, 50013: zlib_size, 32773: packbits_size, 34925: lzma_size}


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

    @property
    def pages(self) -> list[TiffPage | TiffFrame]:
        """Those that are decoded for it."""
        pages = [self.series.pages[self.index]] if self.has_own_page else self.series.pages
        return [page for page in pages if page is not None]


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
        _check_tiles(page, path)
        if not _decodes_here(page):
            return _read_with_pillow(path, chosen, max_pixels=max_pixels)
        _check_unpacked_size(tif, chosen, path)
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

    packed = page.samplesperpixel == 1 and page.bitspersample in _PILLOW_BITS
    counted = page.compression in (_UNCOMPRESSED, *_UNPACKED_SIZE)
    return (
        page.photometric in (_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB)
        and not packed
        and (counted or importlib.util.find_spec("imagecodecs") is not None)
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
    size = tif.filehandle.size
    for page in frame.pages:
        ends = (o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=False))
        missing = not page.dataoffsets or 0 in page.databytecounts
        if missing or max(ends) > size:
            raise InputError(
                "The TIFF file is truncated: pixel data are missing",
                path=path,
                fix="Export or copy it again.",
            )


def _check_tiles(page: TiffPage, path: Path) -> None:
    if page.is_tiled and page.tilewidth * page.tilelength * page.tiledepth > MAX_PIXELS:
        raise InputError(
            f"The tiles of this TIFF are {page.tilewidth} x {page.tilelength}, larger than any image that is read",
            path=path,
            fix="Export it again, with smaller tiles or none.",
        )


def _check_unpacked_size(tif: TiffFile, frame: _Frame, path: Path) -> None:
    unpacked_size = _UNPACKED_SIZE.get(frame.keyframe.compression)
    if unpacked_size is None:
        return
    most = 2 * _segment_size(frame.keyframe)  # some writers pad the last strip
    bit_order = _REVERSED_BITS if frame.keyframe.fillorder == _LAST_BIT_FIRST else None
    for page in frame.pages:
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
            tif.filehandle.seek(offset)
            packed = tif.filehandle.read(count).translate(bit_order)
            if unpacked_size(packed, most) > most:
                raise InputError(
                    f"The pixel data of this TIFF unpack to far more than its {frame.keyframe.imagewidth} x "
                    f"{frame.keyframe.imagelength} pixels hold",
                    path=path,
                    fix="The file is damaged, or made to exhaust the memory; export it again.",
                )


def _segment_size(page: TiffPage) -> int:
    """Bytes of a strip or tile."""
    if page.is_tiled:
        pixels = page.tilewidth * page.tilelength * page.tiledepth
    else:
        pixels = page.imagewidth * min(page.rowsperstrip, page.imagelength)
    samples = page.samplesperpixel if page.planarconfig == _CONTIGUOUS else 1
    return pixels * samples * -(-page.bitspersample // 8)


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
        check_pixel_count(*image.size, path, max_pixels=max_pixels)
        # Pillow turns TIFF images by their orientation when it loads them.
        image.load()
        return Pixels(*to_arrays(image))


def _orientation(page: TiffPage) -> int:
    code = page.tags.valueof(_ORIENTATION_TAG, default=1)
    return code if code in range(1, 9) else 1
