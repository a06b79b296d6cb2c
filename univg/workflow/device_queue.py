"""One job at a time on each device of this machine, first come first served, whatever its project."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from univg.errors import Cancelled
from univg.progress import ShouldStop
from univg.workflow.processes import process_lives, process_start, this_host

STATE_VARIABLE = "UNIVG_STATE"
_POLL_SECONDS = 0.1
_log = logging.getLogger(__name__)


def state_folder() -> Path:
    """Where this account keeps what its projects share; the environment variable UNIVG_STATE overrides it."""
    if override := os.environ.get(STATE_VARIABLE):
        return Path(override)
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "univg"
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "univg"
    return Path(os.environ.get("XDG_STATE_HOME") or home / ".local" / "state") / "univg"


def queue_folder(device: str) -> Path:
    """Where jobs for `device` wait; computers and containers that share the state folder each have queues of their own.

    Of several graphics cards a job uses the first that it sees.
    """
    if device == "cuda":
        first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        device = f"cuda-{re.sub('[^0-9A-Za-z-]', '_', first)}"
    return _queues() / device


def _queues() -> Path:
    return state_folder() / "queue" / this_host()


@contextmanager
def device_turn(device: str, *, should_stop: ShouldStop) -> Iterator[None]:
    """Wait for `device`, such as ``"cpu"`` or ``"cuda"``, and hold it for the block.

    Raises `univg.errors.Cancelled` when `should_stop` says so while waiting. Without a writable state folder
    there is no queue, and the block runs at once.
    """
    folder = queue_folder(device)
    ticket = folder / f"{time.time_ns():020d}-{os.getpid()}-{process_start(os.getpid())}.ticket"
    lock = FileLock(folder / "lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        ticket.touch()
    except OSError:
        _log.warning("The state folder is not writable: not waiting for other jobs on this device.")
        yield
        return
    try:
        while not _take(lock, ticket):
            if should_stop():
                raise Cancelled("Cancelled while waiting for the device")
            time.sleep(_POLL_SECONDS)
    finally:
        ticket.unlink(missing_ok=True)
    try:
        yield
    finally:
        lock.release()


def jobs_ahead(pid: int) -> int | None:
    """How many jobs, the running one included, the waiting process `pid` lets go first; None when it waits for none."""
    try:
        folders = [folder for folder in _queues().iterdir() if folder.is_dir()]
    except OSError:
        return None
    for folder in folders:
        waiting = [ticket for ticket in sorted(folder.glob("*.ticket")) if _is_valid(ticket)]
        pids = [ticket.stem.split("-")[1] for ticket in waiting]
        if str(pid) in pids:
            return pids.index(str(pid)) + 1
    return None


def _take(lock: FileLock, ticket: Path) -> bool:
    waiting = (path.name for path in sorted(ticket.parent.glob("*.ticket")) if _is_valid(path))
    if next(waiting, ticket.name) != ticket.name:
        return False
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    return True


def _is_valid(ticket: Path) -> bool:
    """Whether the process that drew `ticket` still waits; the ticket of a dead one is removed."""
    try:
        _, pid, started = ticket.stem.split("-")
        lives = process_lives(int(pid), float(started))
    except ValueError:
        return False
    if lives:
        return True
    ticket.unlink(missing_ok=True)
    return False
