"""Processes that compute for the window.

A thread is not enough. Loading torch holds Python's lock for the better part of a second, and next to a thread that
computes in Python every call of a drawing takes milliseconds longer; the window stands still in either case. A helper
starts when it is first needed, and ends with this process: also when this one is killed, since its standard input
closes then.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app import texts
from app.napari_plugin.wire import receive, send
from univg.errors import InputError

_ROOT = Path(__file__).resolve().parents[2]


class Helper:
    """Calls functions of this package in a process of its own, one at a time; for use in a background thread."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._turn = threading.Lock()

    def call(self, function: Callable, *args: Any, **options: Any) -> Any:
        """The result of a function of a module of this package; an `InputError` in it is raised here."""
        name = function.__module__.rpartition(".")[2], function.__name__
        with self._turn:
            try:
                process = self._asked((*name, args, options))
                outcome, value = receive(process.stdout)
            except (OSError, EOFError, ValueError) as error:
                self._end()
                raise InputError(texts.NAPARI_HELPER_ENDED, fix=texts.NAPARI_HELPER_ENDED_FIX) from error
        if outcome == "refused":
            problem, path, fix = value
            raise InputError(problem, path=path, fix=fix)
        if outcome == "failed":
            raise RuntimeError(value)
        return value

    def warm_up(self, function: Callable, *args: Any) -> None:
        """Call `function` for what it leaves loaded, before somebody waits for it; returns at once."""
        threading.Thread(target=self._quietly, args=(function, *args), daemon=True).start()

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def stop(self) -> None:
        """End the process, whatever it is doing; the next call starts another."""
        process = self._process
        if process is not None:
            process.kill()
            process.wait()

    def _quietly(self, function: Callable, *args: Any) -> None:
        try:
            self.call(function, *args)
        except (InputError, RuntimeError):  # said when somebody needs the result
            return

    def _asked(self, request: tuple) -> subprocess.Popen:
        """The process that has got `request`: another one when the one before had ended without being noticed."""
        process = self._running()
        try:
            send(process.stdin, request)
        except OSError:
            self._end()
            process = self._running()
            send(process.stdin, request)
        return process

    def _running(self) -> subprocess.Popen:
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "app.napari_plugin.helper_server"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=None if sys.__stderr__ else subprocess.DEVNULL,  # a program without a terminal has none
                close_fds=True,
                # Threads that wait for work must sleep, not spin: the window needs the cores too.
                env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ},
                cwd=_ROOT,  # where the package is, installed or not
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        return self._process

    def _end(self) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            try:
                pipe.close()
            except OSError:  # what was not sent yet has nobody to go to
                continue


# One each, so that a correction need not wait for a measurement, nor either of them for a model.
MODELS, TOOLS, MEASURING = Helper(), Helper(), Helper()
for _helper in (MODELS, TOOLS, MEASURING):
    atexit.register(_helper.stop)
