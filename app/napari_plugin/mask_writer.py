"""Masks on their way to the disk, from the window's thread and from background threads."""

from __future__ import annotations

import threading

import numpy as np

from app.napari_plugin.image_queue import ImageQueue


class MaskWriter:
    """Writes masks one after the other; one that was taken from the screen earlier never replaces a later one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tickets = 0
        self._newest: dict[tuple[ImageQueue, str], int] = {}

    def ticket(self) -> int:
        """Taken together with a mask, in the window's thread: says how new it is."""
        self._tickets += 1
        return self._tickets

    def write(
        self, queue: ImageQueue, name: str, mask: np.ndarray, ticket: int, known: np.ndarray | None = None
    ) -> None:
        """Write `mask` unless a newer one of this image was written already; `known` as in `ImageQueue.save_mask`."""
        with self._lock:
            if ticket > self._newest.get((queue, name), 0):
                queue.save_mask(name, mask, known)
                self._newest[queue, name] = ticket
