"""``univg evaluate``: score masks against references."""

from __future__ import annotations

import argparse
from pathlib import Path

from univg.commands.options import add_grey_threshold, refuse_to_replace
from univg.errors import InputError
from univg.io import read_mask, write_json_atomic
from univg.io.pairs import match_predictions
from univg.metrics import evaluate, summarize


def add_parser(subparsers) -> argparse.ArgumentParser:
    """Add ``evaluate`` to the subcommands of the main parser."""
    parser = subparsers.add_parser("evaluate", help="score masks against reference masks of the same names")
    parser.add_argument("--pred", required=True, metavar="DIR", help="masks to score")
    parser.add_argument("--masks", required=True, metavar="DIR", help="reference masks")
    parser.add_argument("--fov", metavar="DIR", help="fields of view; pixels outside do not count")
    parser.add_argument("--partial", action="store_true", help="leave out references that have no mask to score")
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    parser.add_argument(
        "--definitions",
        choices=("standard", "authors"),
        default="standard",
        help="'authors' repeats those of the published code (default: standard)",
    )
    add_grey_threshold(parser)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Print mean and spread over the images; figures of single images go to the JSON file."""
    refuse_to_replace(args.json, b'"definitions"')
    rows, metrics = [], []
    for files in match_predictions(args.pred, args.masks, args.fov, partial=args.partial):
        mask, reference = (read_mask(p, grey_threshold=args.grey_threshold) for p in (files.image, files.mask))
        fov = None if files.fov is None else read_mask(files.fov, grey_threshold=args.grey_threshold)
        for label, array in (("reference", reference), ("field of view", fov)):
            if array is not None and array.shape != mask.shape:
                raise InputError(
                    f"Mask and {label} {files.name!r} differ in size: {mask.shape[1]} x {mask.shape[0]} against "
                    f"{array.shape[1]} x {array.shape[0]}",
                    path=files.image,
                    fix="Export both at the same size.",
                )
        if fov is not None and not fov.any():
            raise InputError("The field of view is empty", path=files.fov, fix="Check how it was exported.")
        scored = evaluate(mask, reference, fov=fov, definitions=args.definitions)
        metrics.append(scored)
        rows.append({"name": files.name, **scored.to_json()})

    summary = summarize(metrics)
    print(f"{len(rows)} images, {args.definitions} definitions")
    for name, figures in summary.items():
        if figures["n"]:
            print(f"{name:<14} {figures['mean']:.4f}  sd {figures['sd']:.4f}  n {figures['n']}")
    if args.json:
        write_json_atomic(Path(args.json), {"definitions": args.definitions, "mean": summary, "images": rows})
    return 0
