"""Options and output that several commands share."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path
from typing import TextIO

from univg.errors import InputError
from univg.progress import ProgressEvent
from univg.types import Modality
from univg.workflow.stages import LARGEST_SEED


def add_modality(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    parser.add_argument("--modality", required=required, metavar="M", help=f"one of {', '.join(Modality)}")


def refuse_to_replace(file: str | Path | None, mark: bytes) -> None:
    """`InputError` unless `file` is free, or holds `mark`, which only what the same command wrote there does."""
    if file is not None and Path(file).is_file() and mark not in Path(file).read_bytes():
        raise InputError(
            "The result would replace a file that this command did not make",
            path=file,
            fix="Name another file, or move it away.",
        )


def add_full_length(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--full-length",
        action="store_true",
        help="train for all steps of the preset, on a slow computer too, where fewer fit its time limit",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda or mps (default: auto)")


def add_seed(parser: argparse.ArgumentParser, about: str | None = None) -> None:
    parser.add_argument("--seed", type=_seed, default=0, metavar="N", help=about)


def _seed(text: str) -> int:
    """A whole number that random generators can start from."""
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value <= LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to {LARGEST_SEED}, got {text!r}")
    return value


def add_grey_threshold(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--grey-threshold",
        type=_share,
        metavar="T",
        help="cut masks of more than two values at this share of their range, 0 to 1; they are refused otherwise",
    )


def _share(text: str) -> float:
    """A number strictly between 0 and 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"expected a number between 0 and 1, got {text!r}")
    return value


def output_folder(name: str) -> Path:
    """`name` as an existing folder, made if need be."""
    folder = Path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"Cannot make the output folder: {error.strerror}", path=folder, fix="Choose another with -o."
        ) from error
    return folder


SECONDS_BETWEEN_LINES = 30.0  # in a file, of work that takes long


class ProgressLine:
    """Shows events on a line for every stage, which a terminal sees growing; a file gets none, or one now and then.

    Parameters
    ----------
    stream : text stream, optional
        Standard error by default.
    seconds_between : float, optional
        The least time between two lines of a stage in a file, which gets none by default.
    """

    def __init__(self, stream: TextIO | None = None, *, seconds_between: float | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._rewrites = self._stream.isatty()
        self._seconds_between = seconds_between
        self._stage, self._open, self._due = "", False, 0.0

    def __call__(self, event: ProgressEvent) -> None:
        begins, ends = event.stage != self._stage, event.step == event.total
        self._stage = event.stage
        if self._rewrites:
            if begins:
                self.end()
            line = describe(event)[: shutil.get_terminal_size().columns - 1]  # one that wraps cannot be rewritten
            print(f"\r\033[K{line}", end="\n" if ends else "", file=self._stream, flush=True)
            self._open = not ends
        elif self._seconds_between is not None and (begins or ends or time.monotonic() >= self._due):
            print(describe(event), file=self._stream, flush=True)
            self._due = time.monotonic() + self._seconds_between

    def end(self) -> None:
        """Leave a line that a terminal sees growing as it is; what is printed next begins below it."""
        if self._open:
            print(file=self._stream)
            self._open = False


def describe(event: ProgressEvent) -> str:
    """An event on one line."""
    figures = ", ".join(f"{name} {value:.4g}" for name, value in event.metrics.items())
    left = "" if event.seconds_left is None else f"about {_duration(event.seconds_left)} left"
    parts = (f"{event.stage} {event.step}/{event.total}", event.message, figures, left)
    return " | ".join(part for part in parts if part)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
