from __future__ import annotations

import os
import struct
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile
from PIL import Image

from univg.errors import InputError
from univg.io import read_image, read_image_info, read_mask

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
READERS = (read_image, read_mask, read_image_info)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))


def encoded(tmp_path, ending: str) -> bytes:
    path = tmp_path / f"whole.{ending}"
    Image.fromarray(NOISE).save(path)
    return path.read_bytes()


@pytest.mark.parametrize("read", READERS)
def test_a_missing_file_a_folder_and_an_empty_file_are_named(tmp_path, read):
    (tmp_path / "empty.png").touch()
    for path, words in (
        (tmp_path / "no.png", "No such file"),
        (tmp_path, "This is a folder"),
        (tmp_path / "empty.png", "empty"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            read(path)
        assert str(path) in str(caught.value) and caught.value.fix


def test_a_name_with_a_null_byte_or_too_long_is_an_input_error(tmp_path):
    for name in ("a\0b.png", "x" * 5000 + ".png"):
        with pytest.raises(InputError):
            read_image(tmp_path / name)


def test_control_characters_of_a_name_do_not_reach_the_message(tmp_path):
    with pytest.raises(InputError) as caught:
        read_image(tmp_path / "a\x1b[31m\n.png")
    assert str(caught.value).isprintable()


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices are those of POSIX")
def test_a_device_or_pipe_is_refused_without_reading_it(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in ("/dev/zero", tmp_path / "pipe.png"):
        with pytest.raises(InputError, match="not an ordinary file"):
            read_image(path)


def test_a_file_that_may_not_be_read_is_an_input_error(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(encoded(tmp_path, "png"))

    def deny(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", deny)
    with pytest.raises(InputError, match=r"Permission denied.*permissions"):
        read_image(tmp_path / "a.png")


def test_a_file_above_the_size_cap_is_refused(tmp_path):
    with (tmp_path / "a.png").open("wb") as stream:
        stream.write(png_header(8, 8))
        stream.truncate((1 << 30) + 1)  # sparse
    with pytest.raises(InputError, match="GiB"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"hello, this is a text file", "text starting with 'hello, this is a"),
        (b"%PDF-1.7 ...", "a PDF"),
        (b"PK\x03\x04....", "a zip archive"),
        (b"\x00\x00\x00\x18ftypheic....", "HEIC"),
        (bytes(range(0, 200)), "unknown data starting with the bytes 00 01 02"),
        (b"\x00", "unknown data"),
    ],
)
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.dcm", "a"])
def test_what_is_no_image_is_described(tmp_path, content, words, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="not an image") as caught:
        read_image(tmp_path / name)
    assert words in str(caught.value) and "PNG, JPEG" in caught.value.fix


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "tif", "gif", "ppm", "webp"])
def test_truncated_files_are_refused_wherever_they_end(tmp_path, ending):
    whole = encoded(tmp_path, ending)
    path = tmp_path / f"cut.{ending}"
    for size in (3, 12, 30, 60, len(whole) // 4, len(whole) // 2, len(whole) * 9 // 10):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError):
            read_image(path)
        with pytest.raises(InputError):
            read_mask(path)


@pytest.mark.parametrize("compression", [None, "zlib", "packbits", "tiff_lzw", "jpeg"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_truncated_tiffs_do_not_come_back_half_black(tmp_path, compression, dtype):
    path = tmp_path / "a.tif"
    if compression in ("packbits", "tiff_lzw", "jpeg"):
        Image.fromarray(NOISE).save(path, compression=compression)
    else:
        tifffile.imwrite(path, NOISE.astype(dtype), compression=compression, photometric="rgb", rowsperstrip=8)
    whole = path.read_bytes()
    for share in (0.3, 0.6, 0.95, 0.999):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(InputError):
            read_image(path)


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "tif", "gif", "ppm", "webp"])
def test_damaged_files_are_read_or_refused_but_nothing_else(tmp_path, ending):
    whole = bytearray(encoded(tmp_path, ending))
    path = tmp_path / f"damaged.{ending}"
    rng = np.random.default_rng(1)
    for _ in range(60):
        damaged = bytearray(whole)
        for position in rng.integers(0, min(len(whole), 400), 4):
            damaged[position] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            image = read_image(path)
        except InputError:
            continue
        assert image.dtype in (np.uint8, np.float32)


def test_a_png_above_the_cap_is_refused_on_its_header(tmp_path):
    path = tmp_path / "bomb.png"
    size = 13_000
    packer = zlib.compressobj(9)
    row = bytes(size + 1)
    data = b"".join(packer.compress(row) for _ in range(size)) + packer.flush()
    path.write_bytes(png_header(size, size) + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b""))
    assert path.stat().st_size < 200_000
    for read in READERS:
        started = time.process_time()
        with pytest.raises(InputError, match=r"13000 x 13000, 169 megapixels; at most 64"):
            read(path)
        assert time.process_time() - started < 0.3, "it must not be decoded"


@pytest.mark.parametrize("size", [(9_000, 9_000), (12_000, 12_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_headers_of_any_size_are_refused_without_a_warning(tmp_path, size):
    (tmp_path / "a.png").write_bytes(png_header(*size))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=r"megapixels|Cannot decode"):
            read_image(tmp_path / "a.png")


def test_the_cap_is_an_argument(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(tmp_path, "png"))
    assert read_image(path, max_pixels=64 * 64).shape == (64, 64, 3)
    for read in READERS:
        with pytest.raises(InputError, match="64 x 64"):
            read(path, max_pixels=64 * 64 - 1)


def test_a_tiff_above_the_cap_is_refused_on_its_header(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif",
        shape=(1, 10_000, 10_000),
        dtype=np.uint8,
        data=iter([zlib.compress(bytes(100_000_000))]),
        compression="zlib",
        rowsperstrip=10_000,
    )
    assert (tmp_path / "a.tif").stat().st_size < 200_000
    for read in READERS:
        with pytest.raises(InputError, match="100 megapixels"):
            read(tmp_path / "a.tif")


def test_a_large_page_behind_a_small_one_is_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(np.zeros((8, 8), dtype=np.uint8))
        writer.write(np.zeros((40, 40), dtype=np.uint8))
    assert read_image(tmp_path / "a.tif", frame=0, max_pixels=100).shape == (8, 8)
    with pytest.raises(InputError, match="40 x 40"):
        read_image(tmp_path / "a.tif", frame=1, max_pixels=100)


def test_several_pages_need_a_choice_that_exists(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 8, 8), dtype=np.uint8), photometric="minisblack")
    for read in (read_image, read_mask):
        with pytest.raises(InputError, match=r"5 frames \(pages\).*frame=0 to frame=4"):
            read(tmp_path / "a.tif")
        for frame in (-1, 5):
            with pytest.raises(InputError, match=rf"no frame {frame}.*numbered from 0 to 4"):
                read(tmp_path / "a.tif", frame=frame)


def test_a_frame_of_a_single_image_must_exist(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(tmp_path, "png"))
    np.testing.assert_array_equal(read_image(path, frame=0), NOISE)
    with pytest.raises(InputError, match="no frame 1"):
        read_image(path, frame=1)


def test_many_channels_are_refused(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.zeros((8, 8, 6), dtype=np.uint8),
        photometric="minisblack",
        planarconfig="contig",
    )
    with pytest.raises(InputError, match="6 channels"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("read", [read_image, read_mask])
def test_values_that_are_not_finite_are_refused(tmp_path, value, read):
    array = np.zeros((8, 8), dtype=np.float32)
    array[2, 3] = value
    tifffile.imwrite(tmp_path / "a.tif", array)
    with pytest.raises(InputError, match=r"NaN or infinite values \(1 of 64\)"):
        read(tmp_path / "a.tif")


def test_complex_values_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8), dtype=np.complex64))
    with pytest.raises(InputError, match="complex64"):
        read_image(tmp_path / "a.tif")


def test_errors_are_one_line_and_say_what_to_do(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(tmp_path, "png")[:200])
    with pytest.raises(InputError) as caught:
        read_image(tmp_path / "a.png")
    assert "\n" not in str(caught.value)
    assert caught.value.fix and caught.value.path == tmp_path / "a.png" and caught.value.__cause__


def test_files_are_read_from_several_threads(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(tmp_path, "png"))
    with ThreadPoolExecutor(4) as pool:
        for image in pool.map(read_image, [path] * 40):
            np.testing.assert_array_equal(image, NOISE)
