"""TIFF files that no library here writes: packed levels, other bit orders, pixel data that do not stop."""

from __future__ import annotations

import logging
import lzma
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile

from univg.errors import InputError
from univg.io import read_image, read_image_info, read_mask

LEVELS = np.arange(64).reshape(8, 8) * 5 % 16
GREY = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
MEGABYTE = 1 << 20
# (code of the compression, 64 MB of zeros)
BOMBS = {
    "zlib": (8, zlib.compress(bytes(64 * MEGABYTE))),
    "old zlib": (32946, zlib.compress(bytes(64 * MEGABYTE))),
    "lzma": (34925, lzma.compress(bytes(64 * MEGABYTE), preset=0)),
    "two of lzma": (34925, lzma.compress(bytes(64)) + lzma.compress(bytes(64 * MEGABYTE), preset=0)),
    "packbits": (32773, b"\x81\x00" * (64 * MEGABYTE // 128)),
}


def by_hand(path: Path, data: bytes, *, bits: int = 8, compression: int = 1, photometric: int = 1, **tags) -> Path:
    """An 8 x 8 grey TIFF of one strip, or of one tile where `tile` is its side."""
    layout = {278: 8, 273: 8, 279: len(data)}
    if "tile" in tags:
        side = tags.pop("tile")
        layout = {322: side, 323: side, 324: 8, 325: len(data)}
    fill = {266: tags["fill_order"]} if "fill_order" in tags else {}
    entries = {256: 8, 257: 8, 258: bits, 259: compression, 262: photometric, 277: 1, **fill, **layout}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries.items()))
    data += bytes(len(data) % 2)
    start = b"II*\0" + struct.pack("<I", 8 + len(data))
    path.write_bytes(start + data + struct.pack("<H", len(entries)) + directory + bytes(4))
    return path


def packed(levels: np.ndarray, bits: int) -> bytes:
    return np.packbits((levels.reshape(-1, 1) >> np.arange(bits)[::-1]) & 1).tobytes()


def most_memory(read, path: Path) -> int:
    """Bytes that were held at most; `path` must be refused as one that unpacks to too much."""
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="unpack to far more than its 8 x 8 pixels"):
            read(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("compression", [1, 8])
@pytest.mark.parametrize(("bits", "white"), [(2, 3), (4, 15)])
def test_packed_grey_levels_span_black_to_white(tmp_path, compression, bits, white):
    levels = LEVELS % (white + 1)
    data = packed(levels, bits)
    data = zlib.compress(data) if compression == 8 else data
    for photometric, expected in ((1, levels), (0, white - levels)):
        path = by_hand(tmp_path / "a.tif", data, bits=bits, compression=compression, photometric=photometric)
        image = read_image(path)
        assert image.dtype == np.uint8 and read_image_info(path).bit_depth == bits
        np.testing.assert_array_equal(image, expected * (255 // white))


def test_a_packed_mask_is_read(tmp_path):
    path = by_hand(tmp_path / "m.tif", packed(np.where(LEVELS > 7, 15, 0), 4), bits=4)
    np.testing.assert_array_equal(read_mask(path), LEVELS > 7)


def test_twelve_packed_bits_keep_their_depth(tmp_path):
    levels = np.arange(64).reshape(8, 8) * 65
    image = read_image(by_hand(tmp_path / "a.tif", packed(levels, 12), bits=12))
    np.testing.assert_allclose(image, levels / levels.max(), atol=1e-6)


@pytest.mark.parametrize("name", BOMBS)
def test_pixel_data_that_unpack_to_far_more_are_refused_at_once(tmp_path, name):
    compression, data = BOMBS[name]
    path = by_hand(tmp_path / "a.tif", data, compression=compression)
    assert (read_image_info(path).width, read_image_info(path).height) == (8, 8)
    assert most_memory(read_image, path) < 16 * MEGABYTE


def test_a_tile_is_no_way_around_it(tmp_path):
    path = by_hand(tmp_path / "a.tif", BOMBS["zlib"][1], compression=8, tile=16)
    assert most_memory(read_image, path) < 16 * MEGABYTE
    path = by_hand(tmp_path / "b.tif", BOMBS["zlib"][1], compression=8, tile=1 << 15)
    with pytest.raises(InputError, match="tiles of this TIFF are 32768 x 32768"):
        read_image(path)


def test_reversed_bits_are_read_and_no_way_around_it(tmp_path):
    def reverse(data: bytes) -> bytes:
        return np.packbits(np.unpackbits(np.frombuffer(data, np.uint8)).reshape(-1, 8)[:, ::-1]).tobytes()

    options = {"compression": 8, "fill_order": 2}
    image = read_image(by_hand(tmp_path / "a.tif", reverse(zlib.compress(GREY.tobytes())), **options))
    np.testing.assert_array_equal(image, GREY)
    path = by_hand(tmp_path / "b.tif", reverse(BOMBS["zlib"][1]), **options)
    assert most_memory(read_image, path) < 16 * MEGABYTE


@pytest.mark.parametrize("compression", [8, 32946, 34925, 32773])
def test_a_padded_last_strip_is_read(tmp_path, compression):
    padded = GREY.tobytes() + bytes(64)
    pack = {34925: lzma.compress, 32773: lambda data: bytes([127]) + data}.get(compression, zlib.compress)
    path = by_hand(tmp_path / "a.tif", pack(padded), compression=compression)
    np.testing.assert_array_equal(read_image(path), GREY)


def test_a_description_does_not_reach_the_log_of_an_application(tmp_path, caplog):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, description="Patient: Mueller, Hans", metadata=None)
    path.write_bytes(path.read_bytes().replace(b"Mueller", b"M\xfcll\xffr\x81"))
    with caplog.at_level(logging.DEBUG):  # its handler is the root's
        np.testing.assert_array_equal(read_image(path), GREY)
        assert read_image_info(path).frames == 1
        # Pillow reads those tags too, for what is left to it.
        path.write_bytes(by_hand(path, packed(LEVELS, 4), bits=4).read_bytes())
        read_image(path)
    assert not caplog.records
