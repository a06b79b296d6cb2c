"""What was found on masks, remembered within a bound of memory."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

Found = TypeVar("Found")

_ENTRY = 1024  # bytes that every result takes besides its own


class MaskMemory(Generic[Found]):
    """Remembers what `find` gave for the masks asked for last, by their pixels.

    Parameters
    ----------
    find : callable
        Given a (H, W) ndarray of bool; what it returns is shared and must not be changed.
    most_bytes : int
        Of all results; beyond, those that were not asked for the longest are forgotten.
    size_of : callable, optional
        Bytes that a result takes; hardly any by default.
    """

    def __init__(
        self, find: Callable[[np.ndarray], Found], *, most_bytes: int, size_of: Callable[[Found], int] | None = None
    ) -> None:
        self._find, self._most_bytes = find, most_bytes
        self._size_of = (lambda found: _ENTRY + size_of(found)) if size_of else (lambda _: _ENTRY)
        self._found: OrderedDict[bytes, Found] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __call__(self, mask: np.ndarray) -> Found:
        key = hashlib.sha256(b"%d,%d," % mask.shape + np.packbits(mask).tobytes()).digest()
        with self._lock:
            if key in self._found:
                self._found.move_to_end(key)
                return self._found[key]
        found = self._find(mask)  # not under the lock: it takes seconds on a large mask
        with self._lock:
            if key not in self._found:
                self._found[key] = found
                self._bytes += self._size_of(found)
            while self._bytes > self._most_bytes and len(self._found) > 1:
                _, forgotten = self._found.popitem(last=False)
                self._bytes -= self._size_of(forgotten)
        return found
