"""Values between two processes of this program over a pipe: JSON, with arrays beside it as they lie in memory.

Only data cross: numbers, text, arrays, containers, paths, and the dataclasses and enumerations of this program, which
are made anew by their constructors. Nothing that arrives can name other code.
"""

from __future__ import annotations

import importlib
import json
import struct
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

_HEAD = struct.Struct("<QQ")  # bytes of the JSON, number of arrays beside it
_SIZE = struct.Struct("<Q")
_OURS = ("univg", "app")  # packages whose dataclasses and enumerations may cross


def send(pipe: BinaryIO, value: Any) -> None:
    """Write `value`; `TypeError` when it is of a kind that does not cross."""
    arrays: list[np.ndarray] = []
    data = json.dumps(_described(value, arrays)).encode()
    pipe.write(_HEAD.pack(len(data), len(arrays)) + b"".join(_SIZE.pack(array.nbytes) for array in arrays))
    pipe.write(data)
    for array in arrays:
        pipe.write(array.reshape(-1).view(np.uint8).data if array.size else b"")
    pipe.flush()


def receive(pipe: BinaryIO) -> Any:
    """What `send` wrote at the other end; `EOFError` when that end is gone."""
    length, count = _HEAD.unpack(_read(pipe, _HEAD.size))
    sizes = [_SIZE.unpack(_read(pipe, _SIZE.size))[0] for _ in range(count)]
    data = _read(pipe, length)
    return _made(json.loads(data), [_read(pipe, size) for size in sizes])


def _described(value: Any, arrays: list[np.ndarray]) -> Any:
    """`value` as JSON knows it; what it does not know becomes a list of a kind and its parts."""
    if isinstance(value, Enum):
        return ["enum", _name_of(type(value)), value.value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise TypeError("arrays of objects do not cross between processes")
        arrays.append(np.ascontiguousarray(value))
        return ["array", value.dtype.str, list(value.shape), len(arrays) - 1]
    if isinstance(value, Path):
        return ["path", str(value)]
    if isinstance(value, slice):
        return ["slice", *(_described(part, arrays) for part in (value.start, value.stop, value.step))]
    if is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: _described(getattr(value, f.name), arrays) for f in fields(value) if f.init}
        return ["object", _name_of(type(value)), parts]
    if isinstance(value, dict):
        return ["dict", [[_described(part, arrays) for part in item] for item in value.items()]]
    if type(value) in (tuple, list):
        return [type(value).__name__, [_described(part, arrays) for part in value]]
    raise TypeError(f"a {type(value).__name__} does not cross between processes")


def _made(told: Any, arrays: Sequence[bytearray]) -> Any:
    if not isinstance(told, list):
        return told
    kind, *parts = told
    if kind == "array":
        dtype, shape, index = parts
        found = np.frombuffer(arrays[index], np.dtype(dtype)) if arrays[index] else np.empty(0, np.dtype(dtype))
        return found.reshape(shape)
    if kind == "enum":
        return _class_of(parts[0], Enum)(parts[1])
    if kind == "path":
        return Path(parts[0])
    if kind == "slice":
        return slice(*(_made(part, arrays) for part in parts))
    if kind == "object":
        return _class_of(parts[0], None)(**{name: _made(part, arrays) for name, part in parts[1].items()})
    if kind == "dict":
        return {_made(key, arrays): _made(part, arrays) for key, part in parts[0]}
    if kind in ("tuple", "list"):
        found = [_made(part, arrays) for part in parts[0]]
        return tuple(found) if kind == "tuple" else found
    raise ValueError(f"unknown kind {kind!r} in a message between processes")


def _name_of(kind: type) -> str:
    if kind.__module__.partition(".")[0] not in _OURS:
        raise TypeError(f"a {kind.__qualname__} does not cross between processes")
    return f"{kind.__module__}:{kind.__qualname__}"


def _class_of(name: str, base: type | None) -> type:
    """The dataclass, or the subclass of `base`, called so in a package of this program."""
    module, _, kind = name.partition(":")
    if module.partition(".")[0] not in _OURS:
        raise ValueError(f"{name!r} is no class of this program")
    found = getattr(importlib.import_module(module), kind)
    if not isinstance(found, type) or not (is_dataclass(found) if base is None else issubclass(found, base)):
        raise ValueError(f"{name!r} is not what a message may hold")
    return found


def _read(pipe: BinaryIO, size: int) -> bytearray:
    data = bytearray(size)
    view, done = memoryview(data), 0
    while done < size:
        got = pipe.readinto(view[done:])
        if not got:
            raise EOFError
        done += got
    return data
