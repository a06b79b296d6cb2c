"""Training state on disk: one safetensors file, no pickle, exact to the bit."""

from __future__ import annotations

import errno
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from univg.errors import InputError
from univg.io import write_atomic

_FILE = "state.safetensors"
_PAUSE = 20  # times as long as the last checkpoint took to write, at least, until the next


@dataclass
class TrainingState:
    """What a run needs to go on as if it had never stopped.

    Attributes
    ----------
    step : int
        Steps done.
    tensors : dict
        ``{"network": {...}, "average": {...}, "best": {...}, "optimizer": {...}}`` by name.
    best_score, best_step : float, int
        The best Dice on the held-out image and when it was reached; -1 before the first.
    fingerprint : str
        Hash of recipe and data; a checkpoint of another run is refused.
    """

    step: int
    tensors: dict[str, dict[str, torch.Tensor]]
    best_score: float = -1.0
    best_step: int = -1
    fingerprint: str = ""
    figures: dict = field(default_factory=dict)


def save_state(state: TrainingState, folder: Path) -> None:
    """Write `state` atomically: a crash leaves the previous checkpoint. It is streamed, since it may be gigabytes."""
    flat = {
        f"{group}/{name}": value.detach().cpu().contiguous()
        for group, tensors in state.tensors.items()
        for name, value in tensors.items()
    }
    scalars = {k: v for k, v in vars(state).items() if k != "tensors"}

    def write(file: Path) -> None:
        file.touch()
        mode = file.stat().st_mode
        try:
            safetensors.torch.save_file(flat, file, {"univg": json.dumps(scalars)})
        except safetensors.SafetensorError as error:
            code = re.search(r"os error (\d+)", str(error))  # it comes as text only
            raise OSError(int(code[1]) if code else errno.EIO, str(error)) from error
        file.chmod(mode)  # the library's are for their owner alone

    write_atomic(folder / _FILE, write)


class CheckpointPace:
    """Calls `save` at most every `seconds`, and less often where it takes long: at most a twentieth of the time."""

    def __init__(self, save: Callable[[], None], seconds: float) -> None:
        self._save, self._seconds = save, seconds
        self._due = time.monotonic() + seconds

    def save_if_due(self) -> None:
        started = time.monotonic()
        if started < self._due:
            return
        self._save()
        now = time.monotonic()
        self._due = now + max(self._seconds, _PAUSE * (now - started))


def load_state(folder: Path, fingerprint: str) -> TrainingState | None:
    """The checkpoint in `folder`, or None; `InputError` when it is damaged or belongs to another run."""
    path = folder / _FILE
    if not path.exists():
        return None
    try:
        with safetensors.safe_open(path, "pt") as file:
            scalars = json.loads((file.metadata() or {})["univg"])
            tensors: dict[str, dict[str, torch.Tensor]] = {}
            for key in file.keys():  # noqa: SIM118 - not a mapping
                group, name = key.split("/", 1)
                # A copy: a view keeps the file open, which Windows then does not let the next checkpoint replace.
                tensors.setdefault(group, {})[name] = file.get_tensor(key).clone()
        state = TrainingState(tensors=tensors, **scalars)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise InputError(
            "The checkpoint is damaged and cannot be resumed", path=path, fix="Start the adaptation anew."
        ) from error
    if state.fingerprint != fingerprint:
        raise InputError(
            "The checkpoint was made with other images or settings",
            path=path,
            fix="Start a new adaptation, or put the images and settings back.",
        )
    return state


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's per-parameter state by ``index.name``."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value) for index, entry in state.items() for name, value in entry.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Undo `optimizer_tensors`."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
