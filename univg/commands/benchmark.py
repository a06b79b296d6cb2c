"""``univg benchmark``: the paper's few-shot protocol on a labelled data set."""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import replace
from functools import partial
from pathlib import Path

from univg.commands.options import SECONDS_BETWEEN_LINES, ProgressLine, add_device, add_seed, refuse_to_replace
from univg.errors import InputError
from univg.io import match_pair_files, read_json, read_mask, sha256_file
from univg.segmentation.config import NETWORKS
from univg.types import Modality
from univg.weights import is_shipped, shipped_folder
from univg.workflow.presets import PRESETS, Preset, preset_named
from univg.workflow.start_trees import engine_size

# Folders named like the public data sets need no --modality.
_MODALITY_OF = {
    "drive": Modality.FUNDUS,
    "chasedb1": Modality.FUNDUS,
    "octa500_3m": Modality.OCTA,
    "dias": Modality.BRAIN_DSA,
    "dca1": Modality.CORONARY_DSA,
}
_ABLATION_PAIRS = 40
_SMALLEST_SIZE = 32  # of smaller images nothing is left at the lowest level of a network
_PLOTS = ("", ".png", ".svg", ".pdf")


def add_parser(subparsers) -> argparse.ArgumentParser:
    """Add ``benchmark`` to the subcommands of the main parser."""
    parser = subparsers.add_parser(
        "benchmark",
        help="measure a preset: few images train, all others test",
        description="With --json, finished splits are kept and an interrupted one goes on where it stopped. Several "
        "--shots or --pairs, and --ablation, give a table; each of its rows has a file of its own beside --json.",
    )
    parser.add_argument("data", metavar="DATA", help="folder with images/, masks/ and optionally fov/")
    parser.add_argument("--modality", metavar="M", help=f"one of {', '.join(Modality)}; known for some folder names")
    parser.add_argument("--shots", type=int, nargs="+", default=[5], metavar="N", help="training images (default: 5)")
    parser.add_argument("--pairs", type=int, nargs="+", metavar="N", help="synthetic pairs instead of the preset's")
    parser.add_argument(
        "--ablation",
        action="store_true",
        help="the preset without synthetic pairs, with rendered trees, and with each engine (table 3 of the paper), "
        "and from random weights where it starts from the vessel prior",
    )
    parser.add_argument("--splits", type=int, default=3, metavar="N", help="random splits (default: 3)")
    add_seed(parser, "of the first split (default: 0)")
    presets = ", ".join(name for name, preset in PRESETS.items() if not preset.engine_pairs)
    parser.add_argument("--preset", default="standard", metavar="P", help=f"one of {presets}")
    parser.add_argument(
        "--network", default="unet", metavar="NET", help=f"one of {', '.join(NETWORKS)}; others than unet have no prior"
    )
    parser.add_argument("--steps", type=int, metavar="N", help="training steps instead of the preset's")
    parser.add_argument("--size", type=int, default=512, metavar="N", help="side in pixels (default: 512)")
    parser.add_argument("--json", metavar="FILE", help="where results are kept")
    parser.add_argument("--csv", metavar="FILE", help="write the figures of every test image")
    parser.add_argument("--plot", metavar="FILE", help="write Dice against shots or pairs, as PNG or SVG")
    parser.add_argument(
        "--worst", metavar="FILE", help="write a sheet of the 8 images with the lowest Dice; with --json"
    )
    parser.add_argument("--compare", metavar="FILE", help="compare image by image with the results in this file")
    add_device(parser)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the splits that are not finished and print the table."""
    preset = _preset_at(args.size, args.preset, args.network)
    if args.steps is not None:
        if args.steps < 1:
            raise InputError(f"--steps must be at least 1, got {args.steps}")
        preset = replace(preset, segmentation=replace(preset.segmentation, steps=args.steps))
    data = Path(args.data)
    name = args.modality or _MODALITY_OF.get(data.resolve().name)
    if name is None:
        raise InputError("The modality is not known from the folder's name", path=data, fix="Give --modality.")
    variants = _variants(args, preset)
    # All that could be wrong with the reports is said before hours of work, not after them.
    if args.worst and (not args.json or len(variants) > 1):
        raise InputError("--worst needs --json, and a single preset, number of shots and of pairs")
    if args.csv and len(variants) > 1:
        raise InputError("--csv takes a single preset, number of shots and of pairs")
    for file in filter(None, (args.csv, args.plot, args.worst)):
        if not Path(file).parent.is_dir() or Path(file).is_dir():
            raise InputError("No file can be written there", path=file, fix="Name a file in a folder that exists.")
        refuse_to_replace(file, b"split,name," if file == args.csv else b"UniVG")
    if args.plot and Path(args.plot).suffix.lower() not in _PLOTS:
        raise InputError("--plot writes PNG, SVG or PDF", path=args.plot, fix="Name a file with one of these endings.")
    other = read_json(args.compare) if args.compare else None
    if args.compare and not (isinstance(other, dict) and isinstance(other.get("splits"), list)):
        raise InputError("This file holds no results of a benchmark", path=args.compare)
    if preset.engine_pairs:
        raise InputError("The full preset is measured with --ablation", fix="Leave --preset out.")

    # Loads torch, so bad input is refused before.
    from univg.workflow.benchmark import BenchmarkConfig, join_splits, run_benchmark

    if other is not None:
        _refuse_incomparable(args, data, other)

    results = {}
    for seeds in _seeds_at_once(args):
        for label, (chosen, shots, synthetic) in variants.items():
            config = BenchmarkConfig(
                *(Modality.parse(name), chosen, shots, len(seeds), seeds[0], args.size),
                device=args.device,
                engines_sha256=engines_of_row(label) if args.ablation else "",
            )
            found = run_benchmark(
                data,
                config=config,
                json_file=_file_of(args.json, label, len(variants)),
                synthetic=synthetic,
                on_progress=ProgressLine(seconds_between=SECONDS_BETWEEN_LINES),
            )
            # A file holds the splits from before, too.
            results[label] = found if args.json or label not in results else join_splits([results[label], found])
            if seeds[-1] == args.seed + args.splits - 1:
                print(format_table(results[label], label if len(variants) > 1 else ""), flush=True)
    _write_reports(args, data, results, other)
    return 0


def _refuse_incomparable(args: argparse.Namespace, data: Path, other: dict) -> None:
    """`InputError` where the results to come cannot be compared with `other`."""
    from univg.workflow.benchmark import choose_training_files
    from univg.workflow.report import refuse_other_training, splits_by_seed

    files, known = match_pair_files(data / "images", data / "masks", None), splits_by_seed(other)
    shared = [seed for seed in range(args.seed, args.seed + args.splits) if seed in known]
    # A file of results may hold more splits than are measured now.
    if not shared and not (args.json and Path(args.json).exists()):
        raise InputError("The two results have no split in common", path=args.compare, fix="Measure the same splits.")
    for seed in shared:
        train, _ = choose_training_files(files, args.shots[0], seed)
        refuse_other_training(known[seed], [file.name for file in train])


def _preset_at(size: int, name: str, network: str) -> Preset:
    """The preset called `name` for a network that sees images of `size`, where that can be."""
    if size < _SMALLEST_SIZE:
        raise InputError(f"--size must be at least {_SMALLEST_SIZE}, got {size}")
    preset = preset_named(name).with_network(network)
    try:
        return preset.scaled_to(size)
    except ValueError as error:
        raise InputError(f"--size {size} is too small for {network}: {error}", fix="Use a larger one.") from error


def _seeds_at_once(args: argparse.Namespace) -> list[list[int]]:
    """The splits that one row does before the next: one in an ablation, whose rows share the engines of a split."""
    if args.splits < 1:
        raise InputError(f"--splits must be at least 1, got {args.splits}")
    seeds = list(range(args.seed, args.seed + args.splits))
    return [[seed] for seed in seeds] if args.ablation else [seeds]


def _variants(args: argparse.Namespace, preset: Preset) -> dict:
    """What is measured, by the name of its row: preset, shots and what makes its synthetic pairs."""
    for option in ("shots", "pairs"):
        for number in getattr(args, option) or ():
            if number < (1 if option == "shots" else 0):
                raise InputError(f"--{option} must not be {number}")
    if args.ablation:
        if len(args.shots) > 1 or (args.pairs and len(args.pairs) > 1):
            raise InputError("--ablation takes one number of shots and of pairs")
        if args.pairs == [0]:
            raise InputError("--ablation compares synthetic pairs, so --pairs must not be 0")
        missing = [kind for kind in ("masks", "images") if not is_shipped("models", kind)]
        from univg.workflow.ablation import NO_PRIOR, ROWS, PairMaker, preset_of_row  # loads torch

        count = args.pairs[0] if args.pairs else _ABLATION_PAIRS
        folder = Path(args.json).with_suffix(".work") / "engines" if args.json else None
        maker = PairMaker(count, size=engine_size(args.size), folder=folder, device=args.device)
        rows = [row for row, parts in ROWS.items() if not _needed(parts) & set(missing)]
        if missing:
            print(f"Rows that need the weights of {' and '.join(missing)} are left out: not installed.", flush=True)
        if preset.segmentation.start != "prior":
            rows.remove(NO_PRIOR)
        return {row: (preset_of_row(preset, row, count), args.shots[0], partial(maker, row)) for row in rows}
    found = {}
    for shots in args.shots:
        for pairs in args.pairs or [None]:
            label = f"shots-{shots}" + ("" if pairs is None else f"-pairs-{pairs}")
            found[label] = (preset if pairs is None else replace(preset, pairs=pairs), shots, None)
    return found


def _needed(parts: tuple[str, str]) -> set[str]:
    """The engines that a row of the ablation takes its masks and its images from."""
    return {engine for engine, part in zip(("masks", "images"), parts, strict=True) if part == "engine"}


def engines_of_row(row: str) -> str:
    """Hash of the shipped weights that the pairs of a row of the ablation are drawn with; empty without any."""
    from univg.workflow.ablation import ROWS

    kinds = sorted(_needed(ROWS[row]))
    if not kinds:
        return ""
    files = [file for kind in ("autoencoder", *kinds) for file in shipped_folder("models", kind).rglob("*.safetensors")]
    return hashlib.sha256("".join(sha256_file(file) for file in sorted(files)).encode()).hexdigest()


def _file_of(json_file: str | None, label: str, count: int) -> Path | None:
    if json_file is None:
        return None
    file = Path(json_file)
    return file if count == 1 else file.with_name(f"{file.stem}-{label.replace(' ', '-')}{file.suffix}")


def _write_reports(args: argparse.Namespace, data: Path, results: dict[str, dict], other: dict | None) -> None:
    from univg.workflow import report

    first = next(iter(results.values()))
    if args.csv:
        report.write_image_table(first, args.csv)
    if args.plot:
        _plot(args, results)
    if other is not None:
        found = report.compare_results(other, first)
        print(
            f"against {args.compare}: Dice {found.mean_difference:+.2f} points on {found.count} images "
            f"(95 % {found.low:+.2f} to {found.high:+.2f}), better on {found.wins}, Wilcoxon p = {found.p_value:.2g}"
        )
    if args.ablation and len(results) > 1:
        for label, result in list(results.items())[1:]:
            found = report.compare_results(first, result)
            print(f"{label} against {next(iter(results))}: Dice {found.mean_difference:+.2f}, p = {found.p_value:.2g}")
    if args.worst:
        _draw_worst(args, data, first)


def _plot(args: argparse.Namespace, results: dict[str, dict]) -> None:
    from univg.workflow.report import plot_curve

    by_pairs = bool(args.pairs) and len(args.pairs) > 1
    curves: dict[str, list[tuple[float, float, float]]] = {}
    for result in results.values():
        shots, pairs, mean = result["config"]["shots"], result["config"]["pairs"], result["mean"]
        name = f"{shots} shots" if by_pairs else result["preset"]
        point = (pairs if by_pairs else shots, 100 * mean["dice"], 100 * mean["dice_sd_over_splits"])
        curves.setdefault(name, []).append(point)
    label = "synthetic pairs" if by_pairs else "annotated images"
    plot_curve(curves, args.plot, label=label, logarithmic=by_pairs)


def _draw_worst(args: argparse.Namespace, data: Path, result: dict) -> None:
    from univg.workflow.benchmark import load_resized, work_folder
    from univg.workflow.report import draw_worst_cases, worst_cases

    files = {file.name: file for file in match_pair_files(data / "images", data / "masks", None)}
    cases = []
    for split, name, dice in worst_cases(result):
        pair = load_resized(files[name], args.size)
        predicted = work_folder(args.json, split) / "masks" / f"{name}.png"
        if predicted.is_file():
            cases.append((f"{name}, split {split}: {100 * dice:.1f}", pair.image, read_mask(predicted), pair.mask))
    if not cases:
        raise InputError("The masks of these results are not kept any more", path=work_folder(args.json, 0))
    draw_worst_cases(cases, args.worst)


def format_table(result: dict, label: str = "") -> str:
    """Dice and clDice in percent: mean ± SD over images for each split, over splits in the last row."""
    lines = [
        f"{result['dataset']}, preset {result['preset']}, {result['config']['shots']} shots"
        + (f", {label}" if label else ""),
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
