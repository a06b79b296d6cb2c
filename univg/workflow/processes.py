"""Telling processes apart after a restart, and across the computers and containers that share a folder."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

# Start times are computed from the boot time, which moves when the clock is corrected.
_SAME_START_SECONDS = 30.0


@cache
def this_host() -> str:
    """What numbers of processes hold for: this computer, under Linux this container. A hash, which names neither."""
    try:
        space = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        space = 0
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:8]


def process_start(pid: int) -> float | None:
    """When process `pid` started, in seconds since 1970; None when it has ended."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except (psutil.Error, ValueError, OverflowError):
        return None


def process_lives(pid: int, started: float) -> bool:
    """Whether process `pid` of this host exists and is not another one with a reused number."""
    start = process_start(pid)
    return start is not None and abs(start - started) < _SAME_START_SECONDS


def is_held(lock_file: Path) -> bool:
    """Whether a process anywhere holds `lock_file`, as far as the file system tells; False where it cannot."""
    if not lock_file.is_file():
        return False
    try:
        with FileLock(lock_file, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        return False
