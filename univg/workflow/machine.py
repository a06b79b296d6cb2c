"""What this computer has for a run, found out in a moment and without loading torch."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path

import numpy as np
import psutil

_MB = 1 << 20
_CALIBRATION_SECONDS = 0.15
_SECONDS_A_CARD_IS_KNOWN = 30
# Of the matrices that are multiplied: so small that one core does it, and in a moment that other programs leave free.
# Of a side of 96 two threads share the work on some computers, and a busy one was taken for 600 times as slow.
_SIDE = 64


def forget_peak_memory() -> None:
    """Let `peak_memory_mb` count from now on; Linux alone can do that."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb() -> float:
    """The most memory that this process has had so far, or since `forget_peak_memory` under Linux."""
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1024  # in kilobytes there
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset / _MB
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (_MB if sys.platform == "darwin" else 1024)  # in bytes there, in kilobytes elsewhere


@dataclass(frozen=True)
class GraphicsCard:
    """A graphics card that torch can use; `kind` is its name as a device, 'cuda' or 'mps'."""

    kind: str
    name: str
    free_mb: float


@dataclass(frozen=True)
class Machine:
    """What a run finds.

    Attributes
    ----------
    device : {'cpu', 'cuda', 'mps'}
        Where the work would run.
    available : bool or None
        Whether that device is there; None where only torch, which is not loaded for a glance, could say.
    cores : int
    free_memory_mb : float
        Of the graphics card where that is the device, of the computer otherwise.
    free_disk_mb : float
        Where the project lies.
    native_bfloat16 : bool
        Whether the processor computes it in hardware.
    speed : float
        Of one core with single precision, in 10⁹ operations a second; see `core_speed`.
    """

    device: str
    cores: int
    free_memory_mb: float
    free_disk_mb: float
    native_bfloat16: bool
    speed: float
    available: bool | None = True


def look_at_machine(folder: str | Path, device: str = "auto") -> Machine:
    """The machine as it is now, for a project in `folder` and a device as the user names it."""
    card = graphics_card()
    if device == "auto":
        device = card.kind if card else "cpu"
    on_card = card is not None and card.kind == device
    free = card.free_mb if on_card and card.kind == "cuda" else psutil.virtual_memory().available / _MB
    return Machine(
        device,
        cores=core_count(),
        free_memory_mb=free,
        free_disk_mb=shutil.disk_usage(folder).free / _MB,
        native_bfloat16=has_native_bfloat16(),
        speed=core_speed(),
        available=device == "cpu" or on_card or _perhaps(device),
    )


@cache
def core_count() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _perhaps(device: str) -> bool | None:
    """None where torch may have a device that nothing else tells of: AMD's cards are 'cuda' to it, too."""
    possible = device == "cuda" and sys.platform != "darwin" and not _torch_is_cpu_only() and not _cards_are_hidden()
    return None if possible else False


def graphics_card() -> GraphicsCard | None:
    """What there is, and how much of its memory is free, as asked within the last seconds."""
    return _graphics_card(int(time.monotonic() / _SECONDS_A_CARD_IS_KNOWN))


@lru_cache(maxsize=1)
def _graphics_card(_: int) -> GraphicsCard | None:
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return GraphicsCard("mps", "Apple GPU", psutil.virtual_memory().available / _MB)
    program = shutil.which("nvidia-smi")
    if program is None or _torch_is_cpu_only() or _cards_are_hidden():
        return None
    query = [program, "--query-gpu=name,memory.free", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=5, check=True).stdout
        name, free = answer.strip().splitlines()[0].rsplit(",", 1)
        return GraphicsCard("cuda", name.strip(), float(free))
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return None


@cache
def has_native_bfloat16() -> bool:
    """As torch would say it of an x86 processor under Linux; False where that cannot be told."""
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


@cache
def core_speed() -> float:
    """The best rate of a small matrix product in a moment of trying: other programs only slow it down."""
    matrix = np.ones((_SIDE, _SIDE), np.float32)
    best, end = 0.0, time.perf_counter() + _CALIBRATION_SECONDS
    while (started := time.perf_counter()) < end:
        matrix @ matrix
        best = max(best, 2e-9 * _SIDE**3 / (time.perf_counter() - started))
    return best


def _cards_are_hidden() -> bool:
    """Whether the user hid every card from torch; `nvidia-smi` lists them all the same."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible is not None and visible.split(",")[0].strip() in ("", "-1")


def _torch_is_cpu_only() -> bool:
    try:
        return metadata.version("torch").endswith("+cpu")
    except metadata.PackageNotFoundError:
        return True
