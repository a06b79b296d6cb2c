"""``univg benchmark``: the paper's few-shot protocol on a labelled data set."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from univg.commands.options import ProgressLine, add_device
from univg.errors import InputError
from univg.types import Modality
from univg.workflow.presets import PRESETS, preset_named

# Folders named like the public data sets need no --modality.
_MODALITY_OF = {
    "drive": Modality.FUNDUS,
    "chasedb1": Modality.FUNDUS,
    "octa500_3m": Modality.OCTA,
    "dias": Modality.BRAIN_DSA,
    "dca1": Modality.CORONARY_DSA,
}


def add_parser(subparsers) -> argparse.ArgumentParser:
    """Add ``benchmark`` to the subcommands of the main parser."""
    parser = subparsers.add_parser(
        "benchmark",
        help="measure a preset: few images train, all others test",
        description="With --json, finished splits are kept and an interrupted one goes on where it stopped.",
    )
    parser.add_argument("data", metavar="DATA", help="folder with images/, masks/ and optionally fov/")
    parser.add_argument("--modality", metavar="M", help=f"one of {', '.join(Modality)}; known for some folder names")
    parser.add_argument("--shots", type=int, default=5, metavar="N", help="training images (default: 5)")
    parser.add_argument("--splits", type=int, default=3, metavar="N", help="random splits (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="of the first split (default: 0)")
    parser.add_argument("--preset", default="standard", metavar="P", help=f"one of {', '.join(PRESETS)}")
    parser.add_argument("--steps", type=int, metavar="N", help="training steps instead of the preset's")
    parser.add_argument("--size", type=int, default=512, metavar="N", help="side in pixels (default: 512)")
    parser.add_argument("--json", metavar="FILE", help="where results are kept")
    add_device(parser)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the splits that are not finished and print the table."""
    preset = preset_named(args.preset).scaled_to(args.size)
    if args.steps is not None:
        if args.steps < 1:
            raise InputError(f"--steps must be at least 1, got {args.steps}")
        preset = replace(preset, segmentation=replace(preset.segmentation, steps=args.steps))
    data = Path(args.data)
    name = args.modality or _MODALITY_OF.get(data.resolve().name)
    if name is None:
        raise InputError("The modality is not known from the folder's name", path=data, fix="Give --modality.")

    from univg.workflow.benchmark import BenchmarkConfig, run_benchmark  # loads torch, so bad input is refused before

    config = BenchmarkConfig(
        Modality.parse(name), preset, args.shots, args.splits, args.seed, args.size, device=args.device
    )
    result = run_benchmark(data, config=config, json_file=args.json, on_progress=ProgressLine())
    print(format_table(result))
    return 0


def format_table(result: dict) -> str:
    """Dice and clDice in percent: mean ± SD over images for each split, over splits in the last row."""
    lines = [
        f"{result['dataset']}, preset {result['preset']}, {result['config']['shots']} shots",
        f"{'split':>6} {'Dice':>14} {'clDice':>14} {'adapt s':>8} {'image ms':>9}",
    ]
    for split in result["splits"]:
        lines.append(_row(str(split["seed"]), split, "sd"))
    lines.append(_row("mean", result["mean"], "sd_over_splits"))
    return "\n".join(lines)


def _row(label: str, figures: dict, spread: str) -> str:
    def percent(name: str) -> str:
        return f"{100 * figures[name]:.2f} ± {100 * figures[f'{name}_{spread}']:.2f}"

    times = f"{figures['adapt_seconds']:>8.0f} {figures['segment_ms']:>9.0f}"
    return f"{label:>6} {percent('dice'):>14} {percent('cldice'):>14} {times}"
