"""``univg sca``: grow vessel trees and write them as masks."""

from __future__ import annotations

import argparse

import numpy as np

from univg.commands.options import ProgressLine, add_grey_threshold, add_modality, output_folder
from univg.errors import InputError
from univg.geometry import rasterize_tree
from univg.io import read_mask, sha256_file, write_mask
from univg.progress import ProgressEvent
from univg.sca import SCAConfig, generate_tree, preset_for
from univg.types import Modality

_LARGEST_SIZE = 8192


def add_parser(subparsers) -> argparse.ArgumentParser:
    """Add ``sca`` to the subcommands of the main parser."""
    parser = subparsers.add_parser("sca", help="grow vessel trees (R-SCA) and write them as masks")
    add_modality(parser)
    parser.add_argument("--mask", metavar="PNG", help="real mask to condition on; without it the modality decides")
    parser.add_argument("--root", action="append", type=_point, metavar="R,C", help="root in pixels; repeatable")
    parser.add_argument("--size", type=int, metavar="N", help="side in pixels when no mask is given (default: 512)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-n", type=int, default=1, metavar="N", help="how many")
    parser.add_argument("-o", required=True, metavar="DIR", dest="output", help="output folder")
    add_grey_threshold(parser)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Grow `n` trees; each has its seed and parameters in the PNG."""
    modality = Modality.parse(args.modality)
    if args.n < 1:
        raise InputError(f"-n must be at least 1, got {args.n}")
    if args.mask and args.size:
        raise InputError("--size cannot be given with --mask", fix="The mask decides the size.")
    if args.size is not None and not 64 <= args.size <= _LARGEST_SIZE:
        raise InputError(f"--size must be between 64 and {_LARGEST_SIZE} pixels, got {args.size}")
    mask = read_mask(args.mask, grey_threshold=args.grey_threshold) if args.mask else None
    if mask is not None and not mask.any():
        raise InputError("The mask is empty, so no tree can be conditioned on it", path=args.mask)
    shape = mask.shape if mask is not None else (args.size or 512,) * 2
    roots = _checked_roots(args.root, shape)
    folder = output_folder(args.output)

    progress = ProgressLine()
    config = SCAConfig() if mask is not None else preset_for(modality).config
    for number in range(args.n):
        seed = args.seed + number
        tree = generate_tree(
            modality, mask=mask, shape=shape, roots=roots, config=config, rng=np.random.default_rng(seed)
        )
        write_mask(
            folder / f"tree-{seed:05d}.png",
            rasterize_tree(tree),
            provenance={
                "synthetic": True,
                "made_by": "univg sca",
                "modality": str(modality),
                "seed": seed,
                "config": config.to_json(),
                "roots": None if roots is None else roots.tolist(),
                "mask_sha256": sha256_file(args.mask) if args.mask else None,
            },
        )
        progress(ProgressEvent("trees", number + 1, args.n))
    print(f"{args.n} masks of {shape[1]} x {shape[0]} pixels in {folder}")
    return 0


def _point(text: str) -> tuple[float, float]:
    row, _, col = text.partition(",")
    try:
        return float(row), float(col)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected ROW,COL in pixels, got {text!r}") from None


def _checked_roots(points: list[tuple[float, float]] | None, shape: tuple[int, int]) -> np.ndarray | None:
    if not points:
        return None
    for row, col in points:
        if not (0 <= row < shape[0] and 0 <= col < shape[1]):
            raise InputError(
                f"Root {row:g},{col:g} lies outside the image of {shape[0]} rows and {shape[1]} columns",
                fix="Give roots as ROW,COL.",
            )
    return np.asarray(points, np.float64)
