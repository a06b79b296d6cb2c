"""Measure presets on the labelled sets, one split at a time, and print a table of them.

usage: python benchmarks/few_shot.py [DATA] [--sets NAME ...] [--presets NAME ...] [--splits N]
                                     [--results DIR] [--fit] [--table]

DATA is a folder with drive, chasedb1, octa500_3m, dias and dca1 (default: the folder benchmark in UNIVG_DATA). Results
go to DIR (default: benchmarks/results); what is finished there is not run again, and an interrupted split goes on from
its checkpoint. Results of another vessel prior or recipe are not mixed in: name a new DIR after a change. Every set
gets its first split before any gets its second. With --fit presets keep to their time limits as they do in the app.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from univg.io import read_json
from univg.types import Modality

RESULTS = Path(__file__).parent / "results"
PRESETS = ("standard", "plain")
SETS = {
    "drive": Modality.FUNDUS,
    "chasedb1": Modality.FUNDUS,
    "octa500_3m": Modality.OCTA,
    "dias": Modality.BRAIN_DSA,
    "dca1": Modality.CORONARY_DSA,
}


def measure(data: Path, sets: list[str], presets: list[str], splits: int, results: Path, *, fit: bool) -> None:
    from univg.commands.options import SECONDS_BETWEEN_LINES, ProgressLine
    from univg.workflow.benchmark import BenchmarkConfig, run_benchmark
    from univg.workflow.expected_time import fitted
    from univg.workflow.machine import look_at_machine
    from univg.workflow.presets import preset_named

    for preset in presets:
        chosen = fitted(preset_named(preset), look_at_machine(".", "cpu")) if fit else preset_named(preset)
        for count in range(1, splits + 1):
            for name in sets:
                config = BenchmarkConfig(SETS[name], chosen, splits=count)
                show = ProgressLine(seconds_between=SECONDS_BETWEEN_LINES)
                file = results / f"{name}-{preset}.json"
                result = run_benchmark(data / name, config=config, json_file=file, on_progress=show)
                each = " ".join(f"{100 * split['dice']:.2f}" for split in result["splits"])
                print(f"{name} {preset}: Dice {100 * result['mean']['dice']:.2f} ({each})", flush=True)


def table(results: Path) -> str:
    """Markdown; means over the splits of the means over their test images, in percent."""
    lines = [
        "| set | preset | splits | Dice | SD over splits | SD over images | clDice | minutes | ms an image | GB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in SETS:
        for preset in PRESETS:
            file = results / f"{name}-{preset}.json"
            if not file.exists():
                continue
            result = read_json(file)
            mean, splits = result["mean"], result["splits"]
            images = sum(split["dice_sd"] for split in splits) / len(splits)
            memory = max(split["peak_rss_mb"] for split in splits) / 1024
            lines.append(
                f"| `{name}` | {preset} | {len(splits)} | {100 * mean['dice']:.1f} | {_spread(mean, len(splits))} "
                f"| {100 * images:.1f} | {100 * mean['cldice']:.1f} | {mean['adapt_seconds'] / 60:.1f} "
                f"| {mean['segment_ms']:.0f} | {memory:.1f} |"
            )
    return "\n".join(lines)


def _spread(mean: dict, splits: int) -> str:
    return f"{100 * mean['dice_sd_over_splits']:.1f}" if splits > 1 else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--presets", nargs="+", default=list(PRESETS), choices=list(PRESETS))
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--fit", action="store_true", help="shorten trainings as the app does on this computer")
    parser.add_argument("--table", action="store_true", help="print the table of what is there, and run nothing")
    args = parser.parse_args()
    if not args.table:
        data = args.data or Path(os.environ["UNIVG_DATA"]) / "benchmark"
        args.results.mkdir(parents=True, exist_ok=True)
        measure(data, args.sets, args.presets, args.splits, args.results, fit=args.fit)
    print(table(args.results))


if __name__ == "__main__":
    main()
