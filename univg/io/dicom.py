"""Decoding DICOM one frame at a time, shown as the file asks; patient tags are never copied."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from univg.errors import InputError
from univg.io.source import AT_DETECTOR, FileKind, ImageInfo, Pixels, check_pixel_count, choose_frame, name_warning

if TYPE_CHECKING:
    from pydicom import Dataset


# How pydicom says that the file is fine and the software is lacking.
_NO_DECODER = ("missing dependencies", "is not supported")
_INVERTED = "MONOCHROME1"
_PALETTE = "PALETTE COLOR"


def read_header(path: Path, *, max_pixels: int) -> ImageInfo:
    return _info(_read_tags(path), path, max_pixels=max_pixels)


def read_pixels(path: Path, frame: int | None, *, max_pixels: int) -> Pixels:
    from pydicom.pixels import pixel_array

    tags = _read_tags(path)
    info = _info(tags, path, max_pixels=max_pixels)
    index = choose_frame(frame, info.frames, path)
    try:
        stored = pixel_array(path, index=index)
    except (RuntimeError, NotImplementedError) as error:
        if not any(words in str(error) for words in _NO_DECODER):
            raise
        syntax = tags.file_meta.TransferSyntaxUID.name
        raise InputError(
            f"No decoder for this DICOM file's compression is installed ({syntax})",
            path=path,
            fix="Export it uncompressed, or install a decoder, such as `pip install python-gdcm`.",
        ) from error
    if stored.shape[:2] != (info.height, info.width):
        raise InputError(
            f"The pixel data are {stored.shape}, the header says {info.height} rows x {info.width} columns",
            path=path,
            fix="The file is damaged; export it again.",
        )
    return Pixels(_as_displayed(stored, tags))


def _read_tags(path: Path) -> Dataset:
    from pydicom import dcmread

    return dcmread(path, stop_before_pixels=True)


def _info(tags: Dataset, path: Path, *, max_pixels: int) -> ImageInfo:
    if "Rows" not in tags or "Columns" not in tags:
        raise InputError(
            "The DICOM file holds no image (no Rows and Columns)", path=path, fix="Choose an image object."
        )
    height, width = int(tags.Rows), int(tags.Columns)
    check_pixel_count(width, height, path, max_pixels=max_pixels)
    notes = name_warning(path, FileKind.DICOM)
    if str(tags.get("BurnedInAnnotation", "")).upper() == "YES":
        notes += (
            "Patient data may be written into the picture (BurnedInAnnotation is YES); "
            "check before sharing anything made from it.",
        )
    spacing, note = _pixel_spacing(tags)
    return ImageInfo(
        width=width,
        height=height,
        frames=max(1, int(tags.get("NumberOfFrames") or 1)),
        bit_depth=int(tags.get("BitsStored") or tags.get("BitsAllocated") or 8),
        format="DICOM",
        pixel_spacing_mm=spacing,
        spacing_note=note,
        warnings=notes,
    )


def _pixel_spacing(tags: Dataset) -> tuple[float | None, str]:
    """Pixel size in mm and where it holds.

    A projection magnifies: `ImagerPixelSpacing` is measured at the detector, and so is a `PixelSpacing` that
    repeats it without a calibration (DICOM PS3.3, 10.7.1.3).
    """
    own, imager = tags.get("PixelSpacing"), tags.get("ImagerPixelSpacing")
    calibration = str(tags.get("PixelSpacingCalibrationType") or "").lower()
    values, note = (own, "mm") if own else (imager, AT_DETECTOR)
    if not values:
        return None, "no pixel size in the file"
    if own and calibration:
        note = f"mm, calibrated by {calibration}"
    elif own and imager:
        note = AT_DETECTOR if list(own) == list(imager) else "mm, calibration not stated"
    rows, columns = (float(value) for value in values)
    if not (rows > 0 and columns > 0 and np.isfinite([rows, columns]).all()):
        return None, "the pixel size in the file is not a positive number"
    if abs(rows - columns) > 0.01 * max(rows, columns):
        return None, f"pixels are not square ({rows:g} x {columns:g} mm)"
    return (rows + columns) / 2, note


def _as_displayed(stored: np.ndarray, tags: Dataset) -> np.ndarray:
    """Modality LUT or rescale, then VOI LUT or window, then polarity (DICOM PS3.4, N.2)."""
    from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut

    photometric = str(tags.get("PhotometricInterpretation", ""))
    if photometric == _PALETTE:
        return apply_color_lut(stored, tags)[..., :3]
    if stored.ndim == 3:
        return stored[..., :3]
    shown = apply_voi_lut(apply_modality_lut(stored, tags), tags)
    # An 8-bit image whose grey levels were only windowed stays one.
    if stored.dtype == np.uint8 and int(tags.BitsStored) == 8 and not _rescales(tags) and shown.max() <= 255:
        shown = np.rint(shown).astype(np.uint8)
    if photometric != _INVERTED:
        return shown
    return 255 - shown if shown.dtype == np.uint8 else shown.max() - (shown - shown.min())


def _rescales(tags: Dataset) -> bool:
    slope, intercept = tags.get("RescaleSlope"), tags.get("RescaleIntercept")
    identity = float(1 if slope is None else slope) == 1 and float(intercept or 0) == 0
    return "ModalityLUTSequence" in tags or not identity
