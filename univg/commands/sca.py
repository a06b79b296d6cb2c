"""``univg sca``: grow vessel trees and write them as masks."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from univg.commands.options import ProgressLine, add_grey_threshold, add_modality
from univg.errors import Cancelled, InputError
from univg.io import read_mask, sha256_file
from univg.io.source import SUFFIXES
from univg.progress import ShouldStop, never_stop
from univg.sca import PRESETS, RECIPES, TreeScene, preset_for, preset_named, recipes_for
from univg.types import Modality
from univg.workflow.bulk import FORMATS, generate_trees

_LARGEST_SIZE = 8192


def add_parser(subparsers) -> argparse.ArgumentParser:
    """Add ``sca`` to the subcommands of the main parser."""
    parser = subparsers.add_parser(
        "sca",
        help="grow vessel trees (R-SCA) and write them as masks",
        description="Many trees are grown on all cores, or on a Dask cluster. Stopped, the same command goes on.",
    )
    add_modality(parser)
    parser.add_argument(
        "--mask",
        action="append",
        metavar="PNG",
        help="real mask to condition on, or a folder of them, taken in turn; repeatable; without, the modality decides",
    )
    parser.add_argument("--preset", choices=PRESETS, help="how to grow without a mask (default: the modality's first)")
    parser.add_argument("--recipe", choices=RECIPES, help="growth parameters instead of the default ones")
    parser.add_argument("--root", action="append", type=_point, metavar="R,C", help="root in pixels; repeatable")
    parser.add_argument("--size", type=int, metavar="N", help="side in pixels when no mask is given (default: 512)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-n", type=int, default=1, metavar="N", help="how many")
    parser.add_argument("-o", required=True, metavar="DIR", dest="output", help="output folder")
    parser.add_argument(
        "--format",
        action="append",
        choices=FORMATS,
        dest="formats",
        help="also write the tree itself: json keeps every number, swc is for other software; repeatable",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes of this machine (default: one a core)")
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="Dask scheduler whose workers do it; they must reach the output folder"
    )
    add_grey_threshold(parser)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Grow `n` trees; each has its seed and parameters in the PNG."""
    modality = Modality.parse(args.modality)
    if args.n < 1:
        raise InputError(f"-n must be at least 1, got {args.n}")
    if args.workers is not None and args.workers < 1:
        raise InputError(f"--workers must be at least 1, got {args.workers}")
    if args.workers and args.scheduler:
        raise InputError("--workers cannot be given with --scheduler", fix="The cluster decides how many there are.")
    if args.grey_threshold is not None and not args.mask:
        raise InputError("--grey-threshold is of masks", fix="Give --mask with it, or leave it out.")
    if args.mask and args.size:
        raise InputError("--size cannot be given with --mask", fix="The mask decides the size.")
    if args.mask and args.preset:
        raise InputError("--preset cannot be given with --mask", fix="The mask decides how to grow; see --recipe.")
    if args.size is not None and not 64 <= args.size <= _LARGEST_SIZE:
        raise InputError(f"--size must be between 64 and {_LARGEST_SIZE} pixels, got {args.size}")
    files = _mask_files(args.mask or [])
    masks = [_real_mask(file, args.grey_threshold) for file in files]
    preset = preset_named(args.preset) if args.preset else preset_for(modality)
    if preset.modality is not modality:
        raise InputError(f"The preset {preset.name!r} is of the modality {preset.modality}, not {modality}")
    scene = TreeScene(
        modality,
        shape=masks[0].shape if masks else (args.size or 512,) * 2,
        config=recipes_for(modality)[args.recipe or "natural"] if args.recipe or masks else preset.config,
        seed=args.seed,
        preset="" if masks else preset.name,
        roots=tuple(args.root or ()),
    )

    with _interrupt_asks_to_stop() as should_stop:
        try:
            summary = generate_trees(
                args.output,
                scene,
                count=args.n,
                masks=masks,
                mask_sha256=[sha256_file(file) for file in files],
                formats=args.formats or ("png",),
                scheduler=args.scheduler,
                workers=args.workers,
                on_progress=ProgressLine(),
                should_stop=should_stop,
            )
        except Cancelled as stop:
            print(f"univg: {stop}; the same command goes on from there", file=sys.stderr)
            return 130
    (height, width), *others = {mask.shape for mask in masks} or {scene.shape}
    size = "" if others else f" of {width} x {height} pixels"
    found = f" ({summary.found} were there already)" if summary.found else ""
    print(f"{args.n} masks{size} in {args.output}{found}")
    return 0


def _mask_files(names: list[str]) -> list[Path]:
    """The files that `names` are, or hold, in the order given; those of a folder by name."""
    files = []
    for path in map(Path, names):
        inside = path.iterdir() if path.is_dir() else ()
        masks = sorted(file for file in inside if file.suffix.lower() in SUFFIXES and not file.name.startswith("."))
        if path.is_dir() and not masks:
            raise InputError("This folder holds no mask", path=path, fix="Give a mask, or a folder of masks.")
        files += masks or [path]
    return files


def _real_mask(file: Path, grey_threshold: float | None) -> np.ndarray:
    mask = read_mask(file, grey_threshold=grey_threshold)
    if not mask.any():
        raise InputError("The mask is empty, so no tree can be conditioned on it", path=file)
    return mask


def _point(text: str) -> tuple[float, float]:
    row, _, col = text.partition(",")
    try:
        return float(row), float(col)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected ROW,COL in pixels, got {text!r}") from None


@contextmanager
def _interrupt_asks_to_stop() -> Iterator[ShouldStop]:
    """While the block runs, Ctrl-C asks it to finish the trees at work; a second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield never_stop
        return
    asked = threading.Event()

    def ask(number: int, frame: object) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)
