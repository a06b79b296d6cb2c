"""Work away from the window's thread, with its result back in it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QThreadPool
from superqt.utils import FunctionWorker

from app import texts
from univg.errors import InputError

_THREADS = 8  # most of them wait for a helper process, and must not hold up the others

_log = logging.getLogger(__name__)


def in_background(work: Callable, *args: Any, done: Callable[[Any], None], failed: Callable[[Exception], None]) -> None:
    """Call ``work(*args)`` in a thread, then `done` with its result or `failed` with its error in this one."""
    pool = QThreadPool.globalInstance()
    pool.setMaxThreadCount(max(pool.maxThreadCount(), _THREADS))
    worker = FunctionWorker(work, *args)
    worker.returned.connect(done)
    worker.errored.connect(failed)
    worker.start()


class Newest:
    """Runs one piece of work at a time; of those asked for meanwhile only the newest, so that none comes late."""

    def __init__(self, done: Callable[[Any], None], failed: Callable[[Exception], None]) -> None:
        self._done, self._failed = done, failed
        self._waiting: Callable[[], Any] | None = None
        self._busy = False

    @property
    def busy(self) -> bool:
        return self._busy

    def ask(self, work: Callable[[], Any]) -> None:
        self._waiting = work
        if not self._busy:
            self._start()

    def _start(self) -> None:
        work, self._waiting = self._waiting, None
        self._busy = True
        in_background(work, done=self._take, failed=self._take_error)

    def _take(self, result: Any) -> None:
        self._busy = False
        try:
            self._done(result)
        except Exception as error:  # said like those of the work itself
            self._failed(error)
        self._go_on()

    def _take_error(self, error: Exception) -> None:
        self._busy = False
        self._failed(error)
        self._go_on()

    def _go_on(self) -> None:
        if self._waiting is not None and not self._busy:
            self._start()


def in_words(error: BaseException) -> str:
    """An error as a person can use it; one that nobody foresaw is logged."""
    if isinstance(error, InputError):
        return str(error)
    _log.error("Unexpected error", exc_info=error)
    return texts.UNEXPECTED.format(kind=type(error).__name__)
