from __future__ import annotations

import io
import logging
import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, FileDataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
    XRayAngiographicImageStorage,
    generate_uid,
)

from univg.errors import InputError
from univg.io import (
    load_support_set,
    match_pair_files,
    read_image,
    read_image_info,
    read_mask,
    stem_of,
    write_mask,
)
from univg.types import Modality

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (10, 14), dtype=np.uint8)
DEEP = RNG.integers(0, 4096, (10, 14), dtype=np.uint16)


def write_dicom(path: Path, stored: np.ndarray, *, bits: int | None = None, frames: int = 1, **tags) -> Path:
    """A minimal XA file; `stored` is (H, W), (H, W, 3), or (frames, H, W)."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = XRayAngiographicImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    shape = stored.shape[1:] if frames > 1 else stored.shape
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Modality = "XA"
    data.PatientName, data.PatientID = "Secret^Name", "4711"
    data.Rows, data.Columns = shape[:2]
    data.SamplesPerPixel = 3 if len(shape) == 3 else 1
    if data.SamplesPerPixel == 3:
        data.PlanarConfiguration = 0
    data.PhotometricInterpretation = "RGB" if len(shape) == 3 else "MONOCHROME2"
    data.BitsAllocated = stored.dtype.itemsize * 8
    data.BitsStored = bits or data.BitsAllocated
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(stored.dtype.kind == "i")
    if frames > 1:
        data.NumberOfFrames = frames
    data.PixelData = stored.tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
    return path


def unit(array: np.ndarray) -> np.ndarray:
    array = array.astype(np.float64)
    return (array - array.min()) / (array.max() - array.min())


def test_eight_bits_come_back_exactly(tmp_path):
    image = read_image(write_dicom(tmp_path / "a.dcm", BYTES))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, BYTES)


def test_twelve_bits_are_scaled_from_their_own_range(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", DEEP, bits=12)
    image = read_image(path)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, unit(DEEP), atol=1e-6)
    assert read_image_info(path).bit_depth == 12


def test_signed_values_and_rescaling_are_kept_linear(tmp_path):
    signed = (DEEP.astype(np.int16) - 2048).astype(np.int16)
    path = write_dicom(tmp_path / "a.dcm", signed, RescaleSlope="2.5", RescaleIntercept="-1000")
    np.testing.assert_allclose(read_image(path), unit(signed), atol=1e-6)


def test_a_window_clips_what_lies_outside_it(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", DEEP, bits=12, WindowCenter="1000.5", WindowWidth="1001")
    np.testing.assert_allclose(read_image(path), (np.clip(DEEP, 500, 1500) - 500.0) / 1000, atol=1e-5)


def test_an_eight_bit_window_keeps_eight_bits(tmp_path):
    identity = write_dicom(tmp_path / "a.dcm", BYTES, WindowCenter="128", WindowWidth="256")
    np.testing.assert_array_equal(read_image(identity), BYTES)
    narrow = write_dicom(tmp_path / "b.dcm", BYTES, WindowCenter="100.5", WindowWidth="52")
    expected = np.rint((np.clip(BYTES, 74.5, 125.5) - 74.5) / 51 * 255)
    assert read_image(narrow).dtype == np.uint8
    assert np.abs(read_image(narrow) - expected).max() <= 1


def test_a_rescaled_eight_bit_image_is_not_rounded_away(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", BYTES, RescaleSlope="0.001", RescaleIntercept="0")
    np.testing.assert_allclose(read_image(path), unit(BYTES), atol=1e-6)


def test_a_voi_lookup_table_is_applied(tmp_path):
    item = Dataset()
    item.LUTDescriptor = [256, 0, 8]
    item.add_new("LUTData", "OW", np.arange(255, -1, -1, dtype="<u2").tobytes())
    path = write_dicom(tmp_path / "a.dcm", BYTES, VOILUTSequence=Sequence([item]))
    np.testing.assert_array_equal(read_image(path), 255 - BYTES)


def test_monochrome1_is_inverted(tmp_path):
    eight = write_dicom(tmp_path / "a.dcm", BYTES, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read_image(eight), 255 - BYTES)
    deep = write_dicom(tmp_path / "b.dcm", DEEP, bits=12, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_allclose(read_image(deep), 1 - unit(DEEP), atol=1e-6)


def test_colour_is_read(tmp_path):
    rgb = RNG.integers(0, 256, (10, 14, 3), dtype=np.uint8)
    np.testing.assert_array_equal(read_image(write_dicom(tmp_path / "a.dcm", rgb)), rgb)


def test_a_palette_becomes_its_colours(tmp_path):
    ramp = np.arange(256, dtype=np.uint16) * 257
    tags = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour, table in (("Red", ramp), ("Green", ramp[::-1]), ("Blue", np.zeros_like(ramp))):
        tags[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        tags[f"{colour}PaletteColorLookupTableData"] = table.tobytes()
    image = read_image(write_dicom(tmp_path / "a.dcm", BYTES, **tags))
    assert image.shape == (10, 14, 3)
    np.testing.assert_allclose(image[..., 0], BYTES / 255, atol=0.02)
    np.testing.assert_allclose(image[..., 1], 1 - BYTES / 255, atol=0.02)
    assert not image[..., 2].any()


def test_several_frames_need_a_choice(tmp_path):
    stack = RNG.integers(0, 256, (3, 10, 14), dtype=np.uint8)
    path = write_dicom(tmp_path / "a.dcm", stack, frames=3)
    assert read_image_info(path).frames == 3
    for read in (read_image, read_mask):
        with pytest.raises(InputError, match=r"3 frames.*frame=0 to frame=2"):
            read(path)
    for index in range(3):
        np.testing.assert_array_equal(read_image(path, frame=index), stack[index])
    with pytest.raises(InputError, match="no frame 3"):
        read_image(path, frame=3)


def test_a_mask_is_read(tmp_path):
    mask = BYTES > 100
    path = write_dicom(tmp_path / "m.dcm", mask.astype(np.uint8))
    np.testing.assert_array_equal(read_mask(path), mask)


@pytest.mark.parametrize(
    ("tags", "spacing", "note"),
    [
        ({}, None, "no pixel size in the file"),
        ({"ImagerPixelSpacing": [0.3, 0.3]}, 0.3, "mm at detector"),
        ({"PixelSpacing": [0.3, 0.3], "ImagerPixelSpacing": [0.3, 0.3]}, 0.3, "mm at detector"),
        (
            {
                "PixelSpacing": [0.2, 0.2],
                "ImagerPixelSpacing": [0.3, 0.3],
                "PixelSpacingCalibrationType": "GEOMETRY",
            },
            0.2,
            "mm, calibrated by geometry",
        ),
        (
            {"PixelSpacing": [0.2, 0.2], "ImagerPixelSpacing": [0.3, 0.3]},
            0.2,
            "mm, calibration not stated",
        ),
        ({"PixelSpacing": [0.01, 0.01]}, 0.01, "mm"),
        ({"PixelSpacing": [0.2, 0.3]}, None, "not square"),
        ({"PixelSpacing": [0, 0]}, None, "not a positive number"),
    ],
)
def test_the_pixel_size_says_where_it_holds(tmp_path, tags, spacing, note):
    info = read_image_info(write_dicom(tmp_path / "a.dcm", BYTES, **tags))
    assert info.pixel_spacing_mm == spacing
    assert note in info.spacing_note


def test_burned_in_annotations_give_a_warning(tmp_path):
    assert not read_image_info(write_dicom(tmp_path / "a.dcm", BYTES, BurnedInAnnotation="NO")).warnings
    info = read_image_info(write_dicom(tmp_path / "b.dcm", BYTES, BurnedInAnnotation="YES"))
    assert "Patient data" in info.warnings[0]


def test_a_file_that_begins_like_a_tiff_is_read_as_dicom(tmp_path):
    path = write_dicom(tmp_path / "dual.dcm", BYTES)
    content = bytearray(path.read_bytes())
    content[:8] = b"II*\0\x08\0\0\0"
    path.write_bytes(content)
    np.testing.assert_array_equal(read_image(path), BYTES)


def test_files_named_by_their_uid_are_found(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for number in (1, 2):
        write_dicom(tmp_path / "images" / f"1.2.840.113619.2.55.{number}", np.eye(64, dtype=np.uint8), bits=8)
        write_mask(tmp_path / "masks" / f"1.2.840.113619.2.55.{number}.png", np.eye(64, dtype=bool))
    (tmp_path / "images" / "notes.2").write_text("no image")
    found = match_pair_files(tmp_path / "images", tmp_path / "masks")
    assert [files.name for files in found] == ["1.2.840.113619.2.55.1", "1.2.840.113619.2.55.2"]
    assert stem_of("1.2.840.113619.2.55.1") == "1.2.840.113619.2.55.1" and stem_of("a.b.dcm") == "a.b"


def test_a_size_at_the_detector_is_not_that_of_what_is_seen(tmp_path):
    at_detector = read_image_info(write_dicom(tmp_path / "a", BYTES, ImagerPixelSpacing=[0.3, 0.3]))
    assert (at_detector.pixel_spacing_mm, at_detector.object_spacing_mm) == (0.3, None)
    calibrated = {
        "PixelSpacing": [0.2, 0.2],
        "ImagerPixelSpacing": [0.3, 0.3],
        "PixelSpacingCalibrationType": "GEOMETRY",
    }
    assert read_image_info(write_dicom(tmp_path / "b", BYTES, **calibrated)).object_spacing_mm == 0.2


def test_no_patient_tag_leaves_the_file(tmp_path):
    info = read_image_info(write_dicom(tmp_path / "a.dcm", BYTES))
    assert "Secret" not in repr(info) and "4711" not in repr(info)


def test_invalid_patient_tags_are_not_quoted_in_warnings(tmp_path, recwarn, caplog):
    path = write_dicom(tmp_path / "a.dcm", BYTES)
    path.write_bytes(path.read_bytes().replace(b"4711", b"\x07\x1b\n\\"))
    np.testing.assert_array_equal(read_image(path), BYTES)
    assert not recwarn.list and not caplog.records


@pytest.mark.filterwarnings("ignore:Unknown encoding")
def test_patient_tags_do_not_reach_the_log_of_an_application(tmp_path, caplog):
    path = write_dicom(tmp_path / "a.dcm", BYTES, SpecificCharacterSet="ISO_IR 4711")
    caplog.clear()  # of what was logged on writing
    libraries = [logging.getLogger(name) for name in ("pydicom", "tifffile", "PIL")]
    levels = [logger.level for logger in libraries]
    with caplog.at_level(logging.DEBUG):  # its handler is the root's
        read_image_info(path)
        read_image(path)
        assert not caplog.records
        with pytest.raises(InputError):
            read_image(path, frame=3)
    assert [logger.level for logger in libraries] == levels
    dcmread(path)
    assert "4711" in caplog.text  # others' log is theirs


def test_a_header_above_the_cap_is_refused(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", BYTES, Rows=60_000, Columns=60_000)
    for read in (read_image, read_image_info):
        with pytest.raises(InputError, match="3600 megapixels"):
            read(path)


def test_a_header_that_promises_more_than_the_file_holds_is_refused(tmp_path):
    for tags in ({"Rows": 500}, {"NumberOfFrames": 1_000_000}):
        path = write_dicom(tmp_path / "a.dcm", BYTES, **tags)
        with pytest.raises(InputError):
            read_image(path, frame=0 if "Rows" in tags else 999_999)


def test_a_truncated_file_is_refused(tmp_path):
    whole = write_dicom(tmp_path / "a.dcm", BYTES).read_bytes()
    for size in (132, 140, 400, len(whole) - 1):
        (tmp_path / "cut.dcm").write_bytes(whole[:size])
        with pytest.raises(InputError):
            read_image(tmp_path / "cut.dcm")


def compressed(path: Path, syntax: str, *streams: bytes, **tags) -> Path:
    data = dcmread(write_dicom(path, BYTES, **tags))
    data.file_meta.TransferSyntaxUID = syntax
    data.PixelData = encapsulate(list(streams or [b"no picture"]))
    data["PixelData"].VR = "OB"
    data.save_as(path)
    return path


def picture(array: np.ndarray, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind, **options)
    return stream.getvalue()


def run_lengths(*segments: bytes) -> bytes:
    offsets = np.cumsum([64, *map(len, segments)])[:-1]
    return struct.pack("<16L", len(segments), *offsets, *[0] * (15 - len(segments))) + b"".join(segments)


def literal(data: bytes) -> bytes:
    return b"".join(bytes([len(data[i : i + 128]) - 1]) + data[i : i + 128] for i in range(0, len(data), 128))


def test_a_compression_without_a_decoder_is_named(tmp_path):
    with pytest.raises(InputError, match=r"No decoder .* is installed \(MPEG2.*Export it uncompressed"):
        read_image(compressed(tmp_path / "a.dcm", MPEG2MPML))


def test_damaged_compressed_pixels_are_refused(tmp_path):
    for syntax in (RLELossless, JPEG2000Lossless):
        with pytest.raises(InputError):
            read_image(compressed(tmp_path / "a.dcm", syntax))


def test_each_frame_of_compressed_pixels_is_read(tmp_path):
    other = 255 - BYTES
    for syntax, pack in (
        (JPEG2000Lossless, lambda array: picture(array, "JPEG2000", no_jp2=True)),
        (RLELossless, lambda array: run_lengths(literal(array.tobytes()) + bytes(1))),
    ):
        path = compressed(tmp_path / "a.dcm", syntax, pack(BYTES), pack(other), NumberOfFrames=2)
        np.testing.assert_array_equal(read_image(path, frame=0), BYTES)
        np.testing.assert_array_equal(read_image(path, frame=1), other)
    flat = np.full_like(BYTES, 90)
    path = compressed(tmp_path / "b.dcm", JPEGBaseline8Bit, picture(flat, "JPEG", quality=95))
    np.testing.assert_array_equal(read_image(path), flat)


@pytest.mark.parametrize("frame", [0, 1])
def test_compressed_pixels_of_another_size_are_refused_before_they_are_decoded(tmp_path, monkeypatch, frame):
    monkeypatch.setattr("pydicom.pixels.pixel_array", lambda *_, **__: pytest.fail("decoded"))
    large = np.zeros((480, 640), np.uint8)
    jpeg_ls = b"\xff\xd8\xff\xf7\x00\x0b\x08" + struct.pack(">HH", 480, 640) + b"\x01\x01\x11\x00"
    for syntax, stream in (
        (JPEGBaseline8Bit, picture(large, "JPEG")),
        (JPEG2000Lossless, picture(large, "JPEG2000", no_jp2=True)),
        (JPEG2000Lossless, picture(large, "JPEG2000", no_jp2=False)),
        (JPEGLSLossless, jpeg_ls),
    ):
        streams = [picture(BYTES, "JPEG" if syntax == JPEGBaseline8Bit else "JPEG2000")] * 2
        streams[frame] = stream
        path = compressed(tmp_path / "a.dcm", syntax, *streams, NumberOfFrames=2)
        with pytest.raises(InputError, match=r"480 rows x 640 columns, the header says 10 rows x 14 columns"):
            read_image(path, frame=frame)
    with pytest.raises(InputError, match="of no stated size"):
        read_image(compressed(tmp_path / "b.dcm", JPEGBaseline8Bit))


def test_run_lengths_that_do_not_stop_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr("pydicom.pixels.pixel_array", lambda *_, **__: pytest.fail("decoded"))
    path = compressed(tmp_path / "a.dcm", RLELossless, run_lengths(b"\x81\x00" * 10_000))
    with pytest.raises(InputError, match="far more pixels, the header says 10 rows"):
        read_image(path)


def deflated(path: Path, stored: np.ndarray, *, behind: int = 0, **tags) -> Path:
    """A file compressed as a whole, with as many zeros in a private tag behind the pixels."""
    data = dcmread(write_dicom(path, stored, **tags))
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    if behind:
        data.add_new(0x7FE10010, "LO", "UniVG")
        data.add_new(0x7FE11000, "OB", bytes(behind))
    data.save_as(path)
    return path


def test_a_file_compressed_as_a_whole_is_read(tmp_path):
    path = deflated(tmp_path / "a.dcm", DEEP, bits=12, PixelSpacing=[0.2, 0.2])
    info = read_image_info(path)
    assert (info.width, info.height, info.bit_depth, info.pixel_spacing_mm) == (14, 10, 12, 0.2)
    np.testing.assert_allclose(read_image(path), unit(DEEP), atol=1e-6)
    stack = RNG.integers(0, 256, (3, 10, 14), dtype=np.uint8)
    np.testing.assert_array_equal(read_image(deflated(path, stack, frames=3), frame=2), stack[2])


def test_a_file_compressed_as_a_whole_inflates_no_further_than_the_cap_allows(tmp_path):
    path = deflated(tmp_path / "a.dcm", BYTES, behind=1 << 26)
    assert path.stat().st_size < 100_000
    for read in (read_image_info, read_image):
        tracemalloc.start()
        try:
            with pytest.raises(InputError, match=r"Deflated.*more than 5 MB.*Export it uncompressed"):
                read(path, max_pixels=1_000_000)
            assert tracemalloc.get_traced_memory()[1] < 1 << 24
        finally:
            tracemalloc.stop()


def test_a_file_compressed_as_a_whole_that_ends_early_is_refused(tmp_path):
    whole = deflated(tmp_path / "a.dcm", BYTES).read_bytes()
    (tmp_path / "cut.dcm").write_bytes(whole[:-20])
    for read in (read_image_info, read_image):
        with pytest.raises(InputError, match="end early"):
            read(tmp_path / "cut.dcm")


def test_a_file_without_an_image_is_refused(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", BYTES)
    data = dcmread(path)
    del data.PixelData
    data.save_as(tmp_path / "no-pixels.dcm")
    with pytest.raises(InputError):
        read_image(tmp_path / "no-pixels.dcm")
    del data.Rows
    data.save_as(tmp_path / "no-rows.dcm")
    with pytest.raises(InputError, match="holds no image"):
        read_image_info(tmp_path / "no-rows.dcm")


# Enhanced multi-frame files: what would be a tag elsewhere stands in functional groups. -----------------------


def group(**macros) -> Dataset:
    """A functional group of items given as mappings of tags, by the macro without its ending."""
    made = Dataset()
    for macro, tags in macros.items():
        item = Dataset()
        for name, value in tags.items():
            setattr(item, name, value)
        setattr(made, f"{macro}Sequence", Sequence([item]))
    return made


def write_enhanced(path: Path, stack: np.ndarray, shared: Dataset | None, own: list[Dataset] | None, **tags) -> Path:
    groups = {"SharedFunctionalGroupsSequence": shared and [shared], "PerFrameFunctionalGroupsSequence": own}
    groups = {name: Sequence(items) for name, items in groups.items() if items}
    return write_dicom(path, stack, frames=len(stack), **groups, **tags)


STACK = RNG.integers(0, 4096, (2, 10, 14), dtype=np.uint16)


def test_the_window_of_a_frame_goes_before_that_of_all(tmp_path):
    def windowed(centre, width):
        return group(FrameVOILUT={"WindowCenter": str(centre), "WindowWidth": str(width)})

    path = write_enhanced(
        tmp_path / "a.dcm", STACK, windowed(1000.5, 1001), [windowed(2000.5, 201), Dataset()], bits=12
    )
    np.testing.assert_allclose(read_image(path, frame=0), (np.clip(STACK[0], 1900, 2100) - 1900.0) / 200, atol=1e-5)
    np.testing.assert_allclose(read_image(path, frame=1), (np.clip(STACK[1], 500, 1500) - 500.0) / 1000, atol=1e-5)


def test_a_window_is_that_of_rescaled_values(tmp_path):
    shared = group(
        PixelValueTransformation={"RescaleSlope": "2", "RescaleIntercept": "-1000", "RescaleType": "HU"},
        FrameVOILUT={"WindowCenter": "1000.5", "WindowWidth": "1001"},
    )
    path = write_enhanced(tmp_path / "a.dcm", STACK, shared, None, bits=12)
    expected = (np.clip(2.0 * STACK[1] - 1000, 500, 1500) - 500) / 1000
    np.testing.assert_allclose(read_image(path, frame=1), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("shared", "own", "spacing", "note"),
    [
        ({"PixelMeasures": {"PixelSpacing": [0.2, 0.2]}}, None, 0.2, "mm"),
        (None, [0.3, 0.3], 0.3, "mm"),
        ({"PixelMeasures": {"PixelSpacing": [0.2, 0.2]}}, [0.3, 0.3], 0.3, "mm"),
        ({"PixelMeasures": {"PixelSpacing": [0.2, 0.2]}}, [0.3, None], None, "differs between the frames"),
        ({"FramePixelDataProperties": {"ImagerPixelSpacing": [0.1, 0.1]}}, None, 0.1, "mm at detector"),
        ({"FrameVOILUT": {"WindowCenter": "1", "WindowWidth": "2"}}, None, None, "no pixel size"),
    ],
)
def test_the_pixel_size_of_frames_is_found(tmp_path, shared, own, spacing, note):
    measured = own and [group(PixelMeasures={"PixelSpacing": [mm, mm]}) if mm else Dataset() for mm in own]
    path = write_enhanced(tmp_path / "a.dcm", STACK, shared and group(**shared), measured)
    info = read_image_info(path)
    assert info.pixel_spacing_mm == spacing and note in info.spacing_note and info.frames == 2


def test_groups_that_say_nothing_change_nothing(tmp_path):
    path = write_enhanced(tmp_path / "a.dcm", STACK, Dataset(), [Dataset()], bits=12, PixelSpacing=[0.2, 0.2])
    np.testing.assert_allclose(read_image(path, frame=1), unit(STACK[1]), atol=1e-6)
    assert read_image_info(path).pixel_spacing_mm == 0.2


def test_the_content_decides_and_a_wrong_suffix_is_mentioned(tmp_path):
    path = write_dicom(tmp_path / "a.png", BYTES)
    np.testing.assert_array_equal(read_image(path), BYTES)
    assert "named .png but holds DICOM" in read_image_info(path).warnings[0]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [({"PixelSpacing": [0.2, 0.2]}, 0.2), ({"ImagerPixelSpacing": [0.3, 0.3]}, None), ({}, None)],
)
def test_a_support_set_takes_the_pixel_size_over_unless_it_is_at_the_detector(tmp_path, tags, expected):
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    masks.mkdir()
    for stem in ("IM1", "IM2"):
        write_dicom(images / stem, BYTES, **tags)  # scanners often write no ending
        write_mask(masks / f"{stem}.png", BYTES > 200)
    support = load_support_set(images, masks, modality=Modality.CORONARY_DSA)
    assert [pair.name for pair in support] == ["IM1", "IM2"]
    assert support.pixel_spacing_mm == expected


def real_files() -> list[Path]:
    root = os.environ.get("UNIVG_DATA")
    return sorted(Path(root, "dicom").glob("*.dcm")) if root else []


@pytest.mark.realdata
@pytest.mark.skipif(not real_files(), reason="UNIVG_DATA is unset or holds no dicom folder")
def test_real_angiography_is_read_frame_by_frame():
    sizes = {}
    for path in real_files():
        info = read_image_info(path)
        assert (info.width, info.height, info.bit_depth, info.format) == (512, 512, 8, "DICOM")
        sizes[path.stem[-1]] = (info.frames, info.pixel_spacing_mm, info.spacing_note)
        first, last = read_image(path, frame=0), read_image(path, frame=info.frames - 1)
        assert first.dtype == np.uint8 and first.shape == (512, 512)
        assert not np.array_equal(first, last)
        with pytest.raises(InputError, match=f"{info.frames} frames"):
            read_image(path)
    assert sizes["8"] == (8, 0.390625, "mm at detector")
    assert sizes["1"][:2] == (14, None)
