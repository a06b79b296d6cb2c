"""Images and masks from files: the header first, then the pixels, then the conventions of `univg.types`."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np

from univg.errors import InputError
from univg.io.source import MAX_PIXELS, FileKind, ImageInfo, Pixels, decoding, identify

_TWO_VALUED = "Export it as a two-valued PNG (0 and 255)"
# Of the range, by how much channels differ in grey that compression tinted.
_TINT = 0.1
_COUNTED_PIXELS = 1 << 16  # of a colour picture: sorting all colours of a photograph takes half a minute


def read_image_info(path: str | PathLike[str], *, max_pixels: int = MAX_PIXELS) -> ImageInfo:
    """What the header of an image file says; no pixel is decoded.

    Raises
    ------
    InputError
        The file cannot be read, is not an image, or is above `max_pixels` (width times height).
    """
    path, kind = identify(path)
    with decoding(path, kind):
        if kind is FileKind.DICOM:
            from univg.io import dicom

            return dicom.read_header(path, max_pixels=max_pixels)
        if kind is FileKind.TIFF:
            from univg.io import tiff

            return tiff.read_header(path, max_pixels=max_pixels)
        from univg.io import raster

        return raster.read_header(path, kind, max_pixels=max_pixels)


def read_image(path: str | PathLike[str], *, frame: int | None = None, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read an image file.

    8-bit data are returned as they are. Anything deeper (16-bit, float, DICOM with more than 8 bits) is
    scaled linearly from its own minimum and maximum to 0 and 1, a constant image to 0; 16-bit PNG written by
    `write_image` is divided by 65535 instead, so that it comes back as it was.

    The orientation stored in the file is applied, alpha is dropped, palettes and CMYK become RGB, and colour
    with three equal channels becomes grey. DICOM is shown as the file asks (rescale, window, MONOCHROME1
    inverted).

    Parameters
    ----------
    path : path-like
        PNG, JPEG, TIFF, BMP, GIF, PPM, WebP or DICOM, told by its content.
    frame : int, optional
        Which page or frame to read, from 0; required when there are several.
    max_pixels : int
        Cap on width times height, checked on the header.

    Returns
    -------
    (H, W) or (H, W, 3) ndarray of uint8, or of float32 in [0, 1]

    Raises
    ------
    InputError
        The file cannot be read or decoded, is too large, has several frames and none was chosen, or holds NaN
        or infinite values.
    """
    path, pixels = _read_pixels(path, frame, max_pixels=max_pixels)
    values = _equal_channels_to_grey(pixels.values)
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    _check_numbers(values, path)
    if pixels.full_range:
        scaled = values.astype(np.float32)
        scaled /= np.float32(np.iinfo(values.dtype).max)
        return scaled
    return _scale_to_unit(values)


def read_mask(
    path: str | PathLike[str],
    *,
    grey_threshold: float | None = None,
    frame: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Read a vessel mask.

    A mask has two values, whichever they are: the larger (or brighter) one is vessel. With a single value, 0
    is an empty mask and anything else a full one. The orientation stored in the file is applied and alpha is
    dropped.

    Parameters
    ----------
    path : path-like
    grey_threshold : float, optional
        In (0, 1). When the file has more than two values, those above this share of the number type's range
        (of the image's maximum for floats) are vessel; without it such a file is refused. Of a colour the largest
        channel counts, so that vessels in red and in blue are vessels alike.
    frame : int, optional
        Which page or frame to read, from 0; required when there are several.
    max_pixels : int
        Cap on width times height, checked on the header.

    Returns
    -------
    (H, W) ndarray of bool

    Raises
    ------
    InputError
        As `read_image`, or the file has more than two values, or is painted in its alpha channel alone.
    """
    if grey_threshold is not None and not 0 < grey_threshold < 1:
        raise ValueError(f"`grey_threshold` must lie between 0 and 1, got {grey_threshold}")
    return mask_from_values(read_mask_values(path, frame=frame, max_pixels=max_pixels), path, grey_threshold)


def read_mask_values(
    path: str | PathLike[str], *, frame: int | None = None, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """What `read_mask` reads, before it is cut: (H, W), or (H, W, 3) of colours, in any number type."""
    path, pixels = _read_pixels(path, frame, max_pixels=max_pixels)
    _check_not_painted_in_alpha(pixels, path)
    values = _equal_channels_to_grey(pixels.values)
    _check_numbers(values, path)
    return values


def mask_from_values(values: np.ndarray, path: str | PathLike[str], grey_threshold: float | None) -> np.ndarray:
    """The mask that `read_mask` makes of the values of `path`."""
    if values.ndim == 3:
        return _colour_mask(values, path, grey_threshold=grey_threshold)
    levels = np.unique(values)
    if levels.size == 1:
        return np.full(values.shape, bool(levels[0] != 0))
    if levels.size == 2:
        return values == levels[1]
    if grey_threshold is None:
        _refuse_many_values(str(levels.size), path)
    return values > grey_threshold * _range_of(values)


def _read_pixels(path: str | PathLike[str], frame: int | None, *, max_pixels: int) -> tuple[Path, Pixels]:
    path, kind = identify(path)
    with decoding(path, kind):
        if kind is FileKind.DICOM:
            from univg.io import dicom

            return path, dicom.read_pixels(path, frame, max_pixels=max_pixels)
        if kind is FileKind.TIFF:
            from univg.io import tiff

            return path, tiff.read_pixels(path, frame, max_pixels=max_pixels)
        from univg.io import raster

        return path, raster.read_pixels(path, kind, frame, max_pixels=max_pixels)


def _equal_channels_to_grey(values: np.ndarray) -> np.ndarray:
    if values.ndim == 3 and (values[..., :1] == values[..., 1:]).all():
        return values[..., 0]
    return values


def _check_numbers(values: np.ndarray, path: Path) -> None:
    if values.dtype.kind not in "uif":
        raise InputError(
            f"The image holds {values.dtype} values", path=path, fix="Export it as 8-bit, 16-bit or float."
        )
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        bad = np.count_nonzero(~np.isfinite(values))
        raise InputError(
            f"The image holds NaN or infinite values ({bad} of {values.size})",
            path=path,
            fix="Replace them before loading it.",
        )


def _scale_to_unit(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    if low == high:
        return np.zeros(values.shape, dtype=np.float32)
    # Each copy of a large image in float64 would be half a gigabyte and more, and only these need one.
    fits = np.can_cast(values.dtype, np.float32) and high - low < float(np.finfo(np.float32).max)
    scaled = values.astype(np.float32 if fits else np.float64)
    scaled -= low
    scaled /= high - low
    np.clip(scaled, 0, 1, out=scaled)
    return scaled.astype(np.float32, copy=False)


def _check_not_painted_in_alpha(pixels: Pixels, path: Path) -> None:
    if pixels.alpha is None or pixels.alpha.min() == pixels.alpha.max():
        return
    flat = pixels.values.reshape(pixels.alpha.size, -1)
    if (flat == flat[0]).all():
        raise InputError(
            "The mask is painted in its alpha channel: all pixels have one colour, only transparency differs",
            path=path,
            fix="Flatten it onto a black background and export it as a two-valued PNG.",
        )


def _colour_mask(values: np.ndarray, path: str | PathLike[str], *, grey_threshold: float | None) -> np.ndarray:
    """Two colours, of which the brighter is vessel; more need a threshold."""
    first = values[0, 0]
    other = (values != first).any(axis=2)
    if not other.any():
        return np.full(other.shape, bool(first.any()))
    rest = values[other]
    if not (rest == rest[0]).all():
        if grey_threshold is not None:
            return _strength(values) > grey_threshold * _range_of(values)
        _refuse_many_values(_colour_count(values), path)
    a, b = first.mean(dtype=np.float64), rest[0].mean(dtype=np.float64)
    if a == b:
        raise InputError(
            "The two colours of this mask are equally bright, so which one is vessel is unclear",
            path=path,
            fix=f"{_TWO_VALUED}.",
        )
    return other if b > a else ~other


def _colour_count(values: np.ndarray) -> str:
    """How many colours there are, more than two: in words, since they are counted in some pixels of a large picture."""
    colours = values.reshape(-1, 3)
    stride = -(-len(colours) // _COUNTED_PIXELS)
    count = len(np.unique(colours[::stride], axis=0))
    return str(count) if stride == 1 else f"at least {max(count, 3)}"


def _strength(values: np.ndarray) -> np.ndarray:
    """(H, W) of colours: the largest channel, or the mean where they are grey but for a tint."""
    largest = values.max(axis=2).astype(np.float64)
    tinted = largest - values.min(axis=2) <= _TINT * _range_of(values)
    return np.where(tinted, values.mean(axis=2, dtype=np.float64), largest)


def _refuse_many_values(count: str, path: str | PathLike[str]) -> None:
    raise InputError(
        f"The mask has {count} different values; a mask has two",
        path=path,
        fix=f"{_TWO_VALUED}, without JPEG compression or smoothing, "
        "or pass grey_threshold (for example 0.5) to cut it there.",
    )


def _range_of(values: np.ndarray) -> float:
    return float(values.max()) if values.dtype.kind == "f" else float(np.iinfo(values.dtype).max)
