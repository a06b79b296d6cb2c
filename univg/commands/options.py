"""Options and output that several commands share."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from univg.errors import InputError
from univg.progress import ProgressEvent
from univg.types import Modality


def add_modality(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    parser.add_argument("--modality", required=required, metavar="M", help=f"one of {', '.join(Modality)}")


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda or mps (default: auto)")


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


class ProgressLine:
    """Shows events on one line of a terminal that rewrites itself, or nothing when output goes to a file."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()

    def __call__(self, event: ProgressEvent) -> None:
        if not self._shown:
            return
        left = "" if event.seconds_left is None else f", about {event.seconds_left:.0f} s left"
        end = "\n" if event.step == event.total else ""
        print(f"\r\033[K{event.stage} {event.step}/{event.total}{left}", end=end, file=sys.stderr, flush=True)
