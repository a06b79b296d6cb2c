"""Decoding DICOM one frame at a time, shown as the file asks; patient tags are never copied."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from univg.errors import InputError
from univg.io.bounds import inflate, jpeg_size, packbits_size, rle_segments
from univg.io.source import AT_DETECTOR, FileKind, ImageInfo, Pixels, check_pixel_count, choose_frame, name_warning

if TYPE_CHECKING:
    from pydicom import Dataset


# How pydicom says that the file is fine and the software is lacking.
_NO_DECODER = ("missing dependencies", "is not supported")
_INVERTED = "MONOCHROME1"
_PALETTE = "PALETTE COLOR"

_PREAMBLE_SIZE = 132
_META_GROUP = 0x0002
_ELEMENT_HEADER_SIZE = 12  # of encapsulated pixel data: tag, VR and length
# How far a deflated file may inflate: colour has three bytes a pixel, of one picture as large as the cap.
_INFLATED_BYTES_PER_PIXEL = 4
_INFLATED_TAGS = 1 << 20

# Functional groups that say how large the pixels of a frame are and how it is shown.
_FRAME_MACROS = (
    "PixelMeasuresSequence",
    "FramePixelDataPropertiesSequence",
    "PixelValueTransformationSequence",
    "FrameVOILUTSequence",
)


def read_header(path: Path, *, max_pixels: int) -> ImageInfo:
    with _open(path, max_pixels=max_pixels) as stream:
        return _info(_read_tags(stream), path, max_pixels=max_pixels)


def read_pixels(path: Path, frame: int | None, *, max_pixels: int) -> Pixels:
    from pydicom.pixels import pixel_array

    with _open(path, max_pixels=max_pixels) as stream:
        tags = _read_tags(stream)
        info = _info(tags, path, max_pixels=max_pixels)
        index = choose_frame(frame, info.frames, path)
        _check_unpacked_size(stream, tags, index, path)
        try:
            stored = pixel_array(stream, index=index)
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
        raise _wrong_size(f"{stored.shape[0]} rows x {stored.shape[1]} columns", tags, path)
    return Pixels(_as_displayed(stored, _of_frame(tags, index)))


def _open(path: Path, *, max_pixels: int) -> BinaryIO:
    """The file, or in memory what one that is deflated as a whole inflates to: pydicom would set that no limit."""
    from pydicom.filereader import read_dataset, read_file_meta_info
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    if read_file_meta_info(path).get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return path.open("rb")
    inflated = io.BytesIO(_plain_preamble())
    inflated.seek(0, io.SEEK_END)
    most = max_pixels * _INFLATED_BYTES_PER_PIXEL + _INFLATED_TAGS
    with path.open("rb") as stream:
        stream.seek(_PREAMBLE_SIZE)
        # Only the tags before the others are not deflated; this leaves the stream behind them.
        read_dataset(stream, False, True, stop_when=lambda tag, _vr, _length: tag.group != _META_GROUP)
        if not inflate(stream, inflated, most):
            raise InputError(
                f"The DICOM file is compressed as a whole (Deflated), and inflates to more than {most / 1e6:.0f} MB",
                path=path,
                fix="Export it uncompressed.",
            )
    inflated.seek(0)
    return inflated


def _plain_preamble() -> bytes:
    """The start of a file that is not compressed, before its tags."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.filewriter import write_file_meta_info
    from pydicom.uid import ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.FileMetaInformationGroupLength = 0  # is counted when it is written
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    start = io.BytesIO()
    write_file_meta_info(start, meta, enforce_standard=False)
    return b"DICM".rjust(_PREAMBLE_SIZE, b"\0") + start.getvalue()


def _read_tags(stream: BinaryIO) -> Dataset:
    """All before the pixel data, where the stream then is."""
    from pydicom import dcmread

    return dcmread(stream, stop_before_pixels=True)


def _check_unpacked_size(stream: BinaryIO, tags: Dataset, index: int, path: Path) -> None:
    """Decoders believe the size in compressed pixel data, which may be far above that in the tags."""
    from pydicom.uid import JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes, JPEGTransferSyntaxes, RLETransferSyntaxes

    syntax = tags.file_meta.get("TransferSyntaxUID")
    if syntax in (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes, *JPEG2000TransferSyntaxes):
        size = jpeg_size(_packed_frame(stream, tags, index))
        if size is None:
            raise _wrong_size("of no stated size", tags, path)
        if size != (tags.Rows, tags.Columns):
            raise _wrong_size(f"{size[0]} rows x {size[1]} columns", tags, path)
    elif syntax in RLETransferSyntaxes:
        most = 2 * tags.Rows * tags.Columns  # some writers pad segments
        segments = rle_segments(_packed_frame(stream, tags, index))
        if any(packbits_size(segment, most) > most for segment in segments):
            raise _wrong_size("of far more pixels", tags, path)


def _packed_frame(stream: BinaryIO, tags: Dataset, index: int) -> bytes:
    """A frame still compressed, where the stream is at the pixel data."""
    from pydicom.encaps import get_frame
    from pydicom.pixels.utils import as_pixel_options

    stream.seek(_ELEMENT_HEADER_SIZE, io.SEEK_CUR)
    options = as_pixel_options(tags)
    offsets = options.get("extended_offsets")
    return get_frame(stream, index, number_of_frames=options["number_of_frames"], extended_offsets=offsets)


def _wrong_size(found: str, tags: Dataset, path: Path) -> InputError:
    return InputError(
        f"The pixel data are {found}, the header says {tags.Rows} rows x {tags.Columns} columns",
        path=path,
        fix="The file is damaged; export it again.",
    )


def _of_frame(tags: Dataset, index: int) -> Dataset:
    """`tags` as they hold for one frame: enhanced files state some for each, or once for all (PS3.3, C.7.6.16)."""
    from pydicom import Dataset

    own = tags.get("PerFrameFunctionalGroupsSequence") or ()
    groups = [*(tags.get("SharedFunctionalGroupsSequence") or ()), *([own[index]] if index < len(own) else [])]
    items = [item for group in groups for macro in _FRAME_MACROS for item in group.get(macro) or ()]
    if not items:
        return tags
    merged = Dataset(dict(tags.items()))
    for item in items:
        merged.update(item)
    return merged


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
    frames = max(1, int(tags.get("NumberOfFrames") or 1))
    spacing, note = _spacing_of_all(tags, frames)
    return ImageInfo(
        width=width,
        height=height,
        frames=frames,
        bit_depth=int(tags.get("BitsStored") or tags.get("BitsAllocated") or 8),
        format="DICOM",
        pixel_spacing_mm=spacing,
        spacing_note=note,
        warnings=notes,
    )


def _spacing_of_all(tags: Dataset, frames: int) -> tuple[float | None, str]:
    """As `_pixel_spacing`; no size where that of the frames differs."""
    stated = min(frames, len(tags.get("PerFrameFunctionalGroupsSequence") or ()))
    spacings = {_pixel_spacing(_of_frame(tags, index)) for index in range(max(1, stated))}
    return spacings.pop() if len(spacings) == 1 else (None, "the pixel size differs between the frames")


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
