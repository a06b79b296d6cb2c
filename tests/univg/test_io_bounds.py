from __future__ import annotations

import io
import lzma
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from univg.errors import InputError
from univg.io import read_image, read_image_info
from univg.io.bounds import inflate, jpeg_size, lzma_size, packbits_size, rle_segments, zlib_size

RNG = np.random.default_rng(0)
DATA = RNG.integers(0, 4, 5000, dtype=np.uint8).tobytes()


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def encoded(shape: tuple[int, int], kind: str, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, shape, dtype=np.uint8)).save(stream, kind, **options)
    return stream.getvalue()


def jpeg_header(*frames: tuple[int, int, int]) -> bytes:
    """Start of a JPEG with a frame header of each (marker, height, width), the last before a scan."""
    body = b"".join(struct.pack(">BBHBHHB", 0xFF, marker, 8, 8, h, w, 0) for marker, h, w in frames)
    return b"\xff\xd8" + b"\xff\xe0\x00\x04\xff\xc0" + b"\xff" + body + b"\xff\xda\x00\x02"


# Counting -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size_of", "pack"), [(zlib_size, zlib.compress), (lzma_size, lzma.compress)])
def test_unpacked_bytes_are_counted_up_to_a_limit(size_of, pack):
    packed = pack(DATA)
    assert size_of(packed, 10_000) == size_of(packed, 5000) == 5000
    assert size_of(packed, 4999) == 5000 and size_of(packed, 10) == 11


def test_runs_and_literals_are_counted_up_to_a_limit():
    packed = b"\x02abc" + b"\x80" + b"\xfex" + b"\x81y"  # three bytes, nothing, three, 128
    assert packbits_size(packed, 1000) == 3 + 3 + 128
    assert packbits_size(packed, 50) == 51 and packbits_size(b"", 50) == 0


def test_segments_of_a_frame_are_found():
    frame = struct.pack("<16L", 2, 64, 68, *[0] * 13) + b"aaaabb"
    assert rle_segments(frame) == [b"aaaa", b"bb"]


def test_what_is_inflated_is_the_same_and_ends_where_it_must():
    target = io.BytesIO()
    assert inflate(io.BytesIO(raw_deflate(DATA)), target, 5000) and target.getvalue() == DATA
    assert not inflate(io.BytesIO(raw_deflate(DATA)), io.BytesIO(), 4999)
    assert inflate(io.BytesIO(raw_deflate(bytes(1 << 20)) + b"\0"), io.BytesIO(), 1 << 20)


def test_deflated_data_that_end_early_are_an_error():
    with pytest.raises(EOFError, match="end early"):
        inflate(io.BytesIO(raw_deflate(DATA)[:-5]), io.BytesIO(), 5000)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("JPEG2000", {"no_jp2": True}), ("JPEG2000", {"no_jp2": False})],
)
def test_the_size_in_compressed_data_is_read(kind, options):
    assert jpeg_size(encoded((30, 70), kind, **options)) == (30, 70)


def test_the_largest_size_in_compressed_data_counts():
    assert jpeg_size(jpeg_header((0xF7, 30, 70))) == (30, 70)  # JPEG-LS
    assert jpeg_size(jpeg_header((0xC0, 30, 70), (0xC3, 3000, 7000))) == (3000, 7000)


@pytest.mark.parametrize("stream", [b"", b"no picture", jpeg_header(), b"\xff\x4f\xff\x51", b"\xff\xd8\xff\xff\xff"])
def test_data_without_a_size_are_told(stream):
    assert jpeg_size(stream) is None


# Animations -----------------------------------------------------------------------------------------------


def gif(*frames: tuple[int, int, int]) -> bytes:
    """Of 16 x 16 by its header, with frames of (width, height, disposal) that hold a single pixel each."""
    parts = [b"GIF89a" + struct.pack("<HHBBB", 16, 16, 0x80, 0, 0) + bytes(6)]
    for width, height, disposal in frames:
        parts.append(b"!\xf9\x04" + bytes([disposal << 2, 0, 0, 0, 0]))
        parts.append(b"," + struct.pack("<4HB", 0, 0, width, height, 0) + b"\x02\x02\x44\x01\x00")
    return b"".join(parts) + b";"


def test_a_frame_that_enlarges_the_canvas_is_held_to_the_cap(tmp_path):
    small, large = (Image.fromarray(np.zeros(shape, dtype=np.uint8)) for shape in ((16, 16), (100, 300)))
    streams = [io.BytesIO(), io.BytesIO()]
    small.save(streams[0], "GIF", save_all=True, append_images=[Image.fromarray(np.ones((16, 16), np.uint8))])
    large.save(streams[1], "GIF")
    first, second = (stream.getvalue() for stream in streams)
    (tmp_path / "a.gif").write_bytes(first[:-1] + second[second.index(struct.pack("<c4H", b",", 0, 0, 300, 100)) :])
    assert read_image_info(tmp_path / "a.gif").frames == 3
    assert read_image(tmp_path / "a.gif", frame=2).shape[:2] == (100, 300)
    assert read_image(tmp_path / "a.gif", frame=1, max_pixels=300).shape == (16, 16)
    with pytest.raises(InputError, match="300 x 100"):
        read_image(tmp_path / "a.gif", frame=2, max_pixels=29_999)


@pytest.mark.parametrize("frame", [1, 2])
@pytest.mark.parametrize("disposal", [0, 2])
def test_a_huge_frame_of_an_animation_is_refused_before_there_is_room_for_it(tmp_path, monkeypatch, frame, disposal):
    made = []
    monkeypatch.setattr(Image.core, "fill", lambda mode, size, colour: made.append(size) or pytest.fail("made room"))
    (tmp_path / "a.gif").write_bytes(gif((1, 1, 0), (13_000, 13_000, disposal), (1, 1, 0)))
    with pytest.raises(InputError, match="far above 64 megapixels"):
        read_image(tmp_path / "a.gif", frame=frame)
    assert not made


def test_a_small_animation_still_shows_each_frame(tmp_path):
    frames = [Image.fromarray(np.full((8, 8), level, dtype=np.uint8)) for level in (10, 100, 200)]
    for name in ("a.gif", "a.png", "a.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        for index, level in enumerate((10, 100, 200)):
            assert (read_image(tmp_path / name, frame=index) == level).all()


def test_counting_takes_no_more_memory_than_the_limit():
    packed = zlib.compress(bytes(1 << 26))
    tracemalloc.start()
    try:
        assert zlib_size(packed, 1 << 20) == (1 << 20) + 1
        assert tracemalloc.get_traced_memory()[1] < 1 << 22
    finally:
        tracemalloc.stop()
