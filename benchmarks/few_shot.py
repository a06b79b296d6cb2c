"""Measure presets on the labelled sets, one split at a time, and print the table of the README.

usage: python benchmarks/few_shot.py [DATA] [--table]

DATA is a folder with drive, dca1, octa500_3m and dias (default: the folder benchmark in UNIVG_DATA). Results go to
benchmarks/results; what is finished there is not run again, and an interrupted split goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from univg.io import read_json
from univg.types import Modality

RESULTS = Path(__file__).parent / "results"
PRESETS = ("plain", "standard")
# Folder: modality, splits
SETS = {
    "drive": (Modality.FUNDUS, 2),
    "dca1": (Modality.CORONARY_DSA, 2),
    "dias": (Modality.BRAIN_DSA, 1),
    "octa500_3m": (Modality.OCTA, 1),
}


def measure(data: Path) -> None:
    from univg.workflow.benchmark import BenchmarkConfig, run_benchmark
    from univg.workflow.presets import preset_named

    for name, (modality, splits) in SETS.items():
        for preset in PRESETS:
            config = BenchmarkConfig(modality, preset_named(preset), splits=splits)
            result = run_benchmark(data / name, config=config, json_file=RESULTS / f"{name}-{preset}.json")
            print(f"{name} {preset}: Dice {100 * result['mean']['dice']:.2f}", flush=True)


def table() -> str:
    """Markdown; Dice and clDice in percent, mean over the test images of all splits' means."""
    lines = [
        "| set | preset | splits | Dice | SD over images | clDice | minutes | ms an image |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in SETS:
        for preset in PRESETS:
            file = RESULTS / f"{name}-{preset}.json"
            if not file.exists():
                continue
            result = read_json(file)
            mean, splits = result["mean"], result["splits"]
            spread = 100 * sum(split["dice_sd"] for split in splits) / len(splits)
            lines.append(
                f"| `{name}` | {preset} | {len(splits)} | {100 * mean['dice']:.1f} | {spread:.1f} "
                f"| {100 * mean['cldice']:.1f} | {mean['adapt_seconds'] / 60:.1f} | {mean['segment_ms']:.0f} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--table", action="store_true", help="print the table of what is there, and run nothing")
    args = parser.parse_args()
    if not args.table:
        data = args.data or Path(os.environ["UNIVG_DATA"]) / "benchmark"
        measure(data)
    print(table())


if __name__ == "__main__":
    main()
