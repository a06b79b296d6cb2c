"""How large compressed data become, found before a decoder makes room for it: a megabyte can hold a gigabyte of zeros.

What unpacks them counts no further than `most` bytes, so that finding out costs no more than that.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from itertools import pairwise
from typing import BinaryIO

_STEP = 1 << 16

# JPEG (ITU-T T.81, table B.1): markers without a segment, start of frame (also of JPEG-LS), hierarchy and scan.
_BARE = (0x01, *range(0xD0, 0xD9))
_FRAMES = (*(code for code in range(0xC0, 0xD0) if code not in (0xC4, 0xC8, 0xCC)), 0xDE, 0xF7)
_END, _SCAN = 0xD9, 0xDA
# JPEG 2000 (ITU-T T.800, A.5.1): a codestream starts with SOC and SIZ.
_JPEG_2000 = b"\xff\x4f\xff\x51"


def zlib_size(packed: bytes, most: int) -> int:
    """Bytes that `packed` inflates to, or ``most + 1`` where there are more."""
    return len(zlib.decompressobj().decompress(packed, most + 1))


def lzma_size(packed: bytes, most: int) -> int:
    """As `zlib_size`, of LZMA."""
    import lzma  # some builds of Python lack it

    with lzma.open(io.BytesIO(packed)) as stream:
        return len(stream.read(most + 1))


def packbits_size(packed: bytes, most: int) -> int:
    """As `zlib_size`, of PackBits: the run-length coding of TIFF, and of each segment of DICOM's."""
    position = size = 0
    while position < len(packed) and size <= most:
        head = packed[position]
        if head < 128:
            size += head + 1
            position += head + 2
        elif head > 128:
            size += 257 - head
            position += 2
        else:
            position += 1
    return min(size, most + 1)


def rle_segments(packed: bytes) -> list[bytes]:
    """The PackBits segments of one frame in DICOM's run-length coding (DICOM PS3.5, G.3 to G.5)."""
    count, *offsets = struct.unpack("<16L", packed[:64])
    bounds = [*offsets[:count], len(packed)]
    return [packed[start:end] for start, end in pairwise(bounds)]


def inflate(source: BinaryIO, target: BinaryIO, most: int) -> bool:
    """Write to `target` what the raw deflated data in `source` inflate to; False once that is above `most` bytes.

    Raises
    ------
    EOFError
        The data end early.
    """
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    size = 0
    while not unpacker.eof:
        packed = unpacker.unconsumed_tail or source.read(_STEP)
        part = unpacker.decompress(packed, _STEP)
        if not packed and not part:
            raise EOFError("the deflated data end early")
        size += len(part)
        if size > most:
            return False
        target.write(part)
    return True


def jpeg_size(stream: bytes) -> tuple[int, int] | None:
    """(height, width) in the header of JPEG, JPEG-LS or JPEG 2000 data; None where there is no such header."""
    if stream[:2] != b"\xff\xd8":
        start = stream.find(_JPEG_2000)
        if start < 0 or len(stream) < start + 24:
            return None
        right, bottom, left, top = struct.unpack_from(">4L", stream, start + 8)
        return bottom - top, right - left
    sizes = [struct.unpack_from(">2H", segment, 1) for code, segment in _jpeg_segments(stream) if code in _FRAMES]
    # Decoders differ in which of several they take.
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


def _jpeg_segments(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and segment of each that stands before the first scan."""
    position = 2
    while (position := stream.find(b"\xff", position)) >= 0 and position + 9 <= len(stream):
        code = stream[position + 1]
        if code in (_SCAN, _END):
            return
        if code in (0x00, 0xFF):
            position += 1
        elif code in _BARE:
            position += 2
        else:
            length = int.from_bytes(stream[position + 2 : position + 4])
            yield code, stream[position + 4 : position + 2 + length]
            position += 2 + length
