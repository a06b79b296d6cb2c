"""Locks and readable errors for folders that several tabs and processes share."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from shutil import rmtree

import psutil
from filelock import FileLock, Timeout

from univg.errors import InputError
from univg.workflow.processes import this_host

LOCK_SECONDS = 60.0
_DAY = 86400.0

_FIXES = {
    errno.ENOSPC: "Free some space on this disk, then try again; earlier files are intact.",
    errno.EDQUOT: "Your disk quota is used up: free some space, then try again; earlier files are intact.",
    errno.EROFS: "The disk is read-only: copy the project to a place you may write to.",
    errno.EACCES: "You may not write here: choose another folder, or change its permissions.",
    errno.EPERM: "You may not write here: choose another folder, or change its permissions.",
}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a refusal by the operating system into an `InputError` that says what to do about it."""
    try:
        yield
    except Timeout:
        raise InputError(
            "Another window or process has kept this folder busy for a minute",
            path=path,
            fix="Close it, or wait for it, and try again.",
        ) from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        fix = _FIXES.get(error.errno, "Check that the folder exists and that you may write to it.")
        raise InputError(f"Cannot write here: {reason}", path=path, fix=fix) from error


@contextmanager
def locked(lock_file: Path, *, timeout: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold `lock_file` against other threads and processes; errors as in `writing`.

    Errors of the operating system that the block itself raises are translated as well.
    """
    with writing(lock_file.parent), FileLock(lock_file, timeout=timeout):
        yield


def append_lines(file: Path, text: str) -> None:
    """Append `text`, which ends with a line's end, and flush it to the disk; a last line that a crash tore is closed.

    To be called with the lock of whoever reads and writes `file`.
    """
    with file.open("ab+") as log:
        if log.seek(0, os.SEEK_END):
            log.seek(-1, os.SEEK_END)
            if log.read(1) != b"\n":
                log.write(b"\n")
        log.write(text.encode())
        log.flush()
        os.fsync(log.fileno())


def utc_now() -> str:
    """The time as ISO 8601 in UTC with microseconds, so that equal-length texts sort by time."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def file_stamp() -> str:
    """The time in UTC to the microsecond, for file names."""
    return datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")


def partial_name(name: str) -> str:
    """Of a hidden folder in which this process builds `name`."""
    return f".{name}.partial-{this_host()}-{os.getpid()}-{os.urandom(2).hex()}"


def partial_folders(folder: Path, name: str) -> list[Path]:
    """Folders in `folder` that any process builds, or has left behind, for the regular expression `name`."""
    named = re.compile(rf"\.{name}\.partial-([0-9a-f]{{8}}-)?\d+-[0-9a-f]{{4}}")  # earlier ones have no host
    return [path for path in folder.iterdir() if named.fullmatch(path.name) and path.is_dir()]


def remove_dead_partials(folder: Path, name: str) -> None:
    """Remove those of `partial_folders` whose process is gone: it was killed, and nobody else will.

    Those of another computer or container are removed once nothing was added to them for a day.
    """
    for path in partial_folders(folder, name):
        *host, pid, _ = path.name.rpartition(".partial-")[2].split("-")
        if host in ([], [this_host()]):
            gone = not psutil.pid_exists(int(pid))
        else:
            gone = time.time() - path.stat().st_mtime > _DAY
        if gone:
            rmtree(path, ignore_errors=True)


def sync_tree(folder: Path) -> None:
    """Flush every file below `folder` to the disk, so that renaming it afterwards publishes whole files."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
