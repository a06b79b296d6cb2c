"""Values between two processes of this program over a pipe; arrays go beside the pickle and are not copied."""

from __future__ import annotations

import pickle
import struct
from typing import Any, BinaryIO

_HEAD = struct.Struct("<QQ")  # bytes of the pickle, number of arrays beside it
_SIZE = struct.Struct("<Q")


def send(pipe: BinaryIO, value: Any) -> None:
    """Write `value`."""
    arrays: list[pickle.PickleBuffer] = []
    data = pickle.dumps(value, protocol=5, buffer_callback=arrays.append)
    views = [array.raw() for array in arrays]
    pipe.write(_HEAD.pack(len(data), len(views)) + b"".join(_SIZE.pack(view.nbytes) for view in views))
    pipe.write(data)
    for view in views:
        pipe.write(view)
    pipe.flush()


def receive(pipe: BinaryIO) -> Any:
    """What `send` wrote at the other end; `EOFError` when that end is gone."""
    length, count = _HEAD.unpack(_read(pipe, _HEAD.size))
    sizes = [_SIZE.unpack(_read(pipe, _SIZE.size))[0] for _ in range(count)]
    data = _read(pipe, length)
    return pickle.loads(data, buffers=[_read(pipe, size) for size in sizes])


def _read(pipe: BinaryIO, size: int) -> bytearray:
    data = bytearray(size)
    view, done = memoryview(data), 0
    while done < size:
        got = pipe.readinto(view[done:])
        if not got:
            raise EOFError
        done += got
    return data
