"""``univg pretrain``: make the weights that are shipped; users do not need it."""

from __future__ import annotations

import argparse
import os
import signal
from dataclasses import replace

from univg.commands.options import ProgressLine, add_device, output_folder
from univg.errors import InputError
from univg.progress import ProgressEvent


def add_parser(subparsers) -> argparse.ArgumentParser:
    """Add ``pretrain`` to the subcommands of the main parser."""
    parser = subparsers.add_parser(
        "pretrain",
        help="make the shipped weights anew",
        description="Ctrl-C saves a checkpoint; the same command goes on from it.",
    )
    parser.add_argument("what", choices=("prior",), help="prior: the vessel segmenter trained on phantoms alone")
    parser.add_argument("-o", required=True, metavar="DIR", dest="output", help="where the weights go")
    parser.add_argument("--work", required=True, metavar="DIR", help="folder for the checkpoint")
    parser.add_argument("--steps", type=int, metavar="N", help="optimizer steps")
    parser.add_argument("--batch", type=int, metavar="N", help="phantoms a step")
    parser.add_argument("--patch", type=int, metavar="N", help="side of a phantom, in pixels")
    parser.add_argument("--shapes", type=int, metavar="N", help="trees to draw phantoms from")
    parser.add_argument("--workers", type=int, default=max((os.cpu_count() or 2) - 1, 1), metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    add_device(parser)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Train, or go on training, and write the weights."""
    from univg.segmentation.prior import PriorConfig, pretrain_prior, save_prior  # loads torch

    config = PriorConfig()
    chosen = {"steps": args.steps, "patch_size": args.patch}
    try:
        segmentation = replace(
            config.segmentation, seed=args.seed, **{k: v for k, v in chosen.items() if v is not None}
        )
        counts = {"batch_size": args.batch, "shapes": args.shapes}
        config = replace(config, segmentation=segmentation, **{k: v for k, v in counts.items() if v is not None})
    except ValueError as error:
        raise InputError(str(error)) from error
    output, work = output_folder(args.output), output_folder(args.work)

    stopping = []
    signal.signal(signal.SIGINT, lambda *_: stopping.append(True))
    line = ProgressLine()

    def report(event: ProgressEvent) -> None:
        line(event)
        if "dice" in event.metrics:
            print(f"step {event.step}: loss {event.metrics['loss']:.3f}, Dice {event.metrics['dice']:.3f}", flush=True)

    network, figures = pretrain_prior(
        config,
        work,
        workers=args.workers,
        device=args.device,
        on_progress=report,
        should_stop=lambda: bool(stopping),
    )
    save_prior(network, config, figures, output)
    return 0
