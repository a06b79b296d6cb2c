"""Which device work will run on, found out without loading torch."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from functools import cache
from importlib import metadata

from app import texts


@cache
def graphics_card() -> str:
    """Name and memory of the graphics card that torch can use, or an empty string."""
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return texts.DEVICES["mps"]
    program = shutil.which("nvidia-smi")
    if program is None or _torch_is_cpu_only():
        return ""
    query = [program, "--query-gpu=name,memory.free", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=5, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    lines = answer.strip().splitlines()
    return " ".join(lines[0].replace(",", ", free").split()) if lines else ""


def selectable() -> list[tuple[str, str]]:
    """Choices of a device, as (label, name for `univg`)."""
    names = ["auto", "cpu"]
    card = graphics_card()
    if card:
        names.append("mps" if card == texts.DEVICES["mps"] else "cuda")
    return [(texts.DEVICES[name], name) for name in names]


def _torch_is_cpu_only() -> bool:
    try:
        return metadata.version("torch").endswith("+cpu")
    except metadata.PackageNotFoundError:
        return True
