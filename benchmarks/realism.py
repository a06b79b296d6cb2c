"""Measure how far generated vessel masks lie from real ones, by generator.

usage: python benchmarks/realism.py [DATA] [--sets NAME ...] [--count N] [--own] [--json FILE] [--sheet FOLDER]
       python benchmarks/realism.py --table FILE ...

DATA is a folder with drive, octa500_3m, dias and dca1 (default: the folder benchmark in UNIVG_DATA). The five masks of
split 0 condition the trees; all other masks of the set are the real ones they are compared with. With --own the five
themselves are, to tune by without looking at the others. --sheet draws generated masks above real ones, for the eye
alone: the licences of the sets forbid to pass such pictures on.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
from few_shot import SETS
from fractal_masks import fractal_mask

from univg.geometry import compare_morphometry, extract_network, extract_tree, measure_tree, murray_compliance
from univg.io import match_pair_files, read_json, write_image, write_json_atomic
from univg.metrics import NEAR_COPY, dice, frechet_distance
from univg.sca import find_hub, generate_mask, recipes_for
from univg.workflow.benchmark import choose_training_files, describe_environment, load_resized

RESULTS = Path(__file__).parent / "results"
SIZE = 512
SHOTS = 5
GENERATORS = ("natural", "paper", "preset", "fractal")
# Those that the comparison is summed up by; the others are reported too.
MAIN = ("vessel_density", "segment_diameter", "branching_angle", "tortuosity", "fractal_dimension")


def make(job: tuple) -> tuple[np.ndarray, float | None]:
    """One mask and its Dice with the mask that conditioned it."""
    generator, modality, source, hub, seed = job
    rng = np.random.default_rng([seed, GENERATORS.index(generator)])
    if generator == "fractal":
        return fractal_mask((SIZE, SIZE), rng=rng), None
    if generator == "preset":
        return generate_mask(modality, shape=(SIZE, SIZE), rng=rng), None
    mask = generate_mask(modality, mask=source, hub=hub, config=recipes_for(modality)[generator], rng=rng)
    return mask, dice(mask, source)


def measure(mask: np.ndarray) -> tuple:
    return measure_tree(extract_network(mask), mask=mask), murray_compliance(extract_tree(mask))


def masks_of(data: Path, name: str, split: int = 0) -> tuple[list, list]:
    """The pairs of a split that condition, and the others."""
    files = match_pair_files(data / name / "images", data / name / "masks", None)
    return tuple([load_resized(file, SIZE) for file in part] for part in choose_training_files(files, SHOTS, split))


def compare(data: Path, name: str, count: int, own: bool, pool: ProcessPoolExecutor, sheet: Path | None) -> dict:
    from features import pretrained_features

    modality = SETS[name]
    support, others = masks_of(data, name)
    real = [pair.mask for pair in (support if own else others)]
    hubs = [find_hub(modality, pair.mask, pair.image) for pair in support]
    real_measures = list(pool.map(measure, real, chunksize=4))
    real_features = pretrained_features(real)
    murray = mean_murray(real_measures)
    print(f"{name}: {len(real)} real masks, density {np.mean([m.mean() for m in real]):.3f}, Murray {murray:.2f}")
    result = {"real": len(real), "real_murray": murray, "generators": {}}
    for generator in GENERATORS:
        jobs = [(generator, modality, support[i % SHOTS].mask, hubs[i % SHOTS], i) for i in range(count)]
        masks, copies = zip(*pool.map(make, jobs, chunksize=4), strict=True)
        measures = list(pool.map(measure, masks, chunksize=4))
        distances = compare_morphometry([m for m, _ in measures], [m for m, _ in real_measures])
        found = {
            "count": count,
            "distances": {key: asdict(value) for key, value in distances.items()},
            "mean_distance": float(np.mean([distances[key].distance for key in MAIN])),
            "fd_effnetlite0": frechet_distance(pretrained_features(masks), real_features),
            "murray": mean_murray(measures),
        }
        if copies[0] is not None:
            found["copy_dice"] = dict(zip(("p5", "median", "p95"), np.percentile(copies, [5, 50, 95]), strict=True))
            found["near_copies"] = float(np.mean(np.asarray(copies) > NEAR_COPY))
        result["generators"][generator] = found
        print(line(generator, found), flush=True)
        if sheet:
            write_image(sheet / f"{name}-{generator}.png", contact_sheet(masks, real))
    return result


def mean_murray(measures: list) -> float:
    """Mean over masks of their mean compliance, in percent, as the paper averages."""
    means = [np.nanmean(scores) for _, scores in measures if np.isfinite(scores).any()]
    return float(np.mean(means)) if means else float("nan")


def line(generator: str, found: dict) -> str:
    each = " ".join(
        f"{key} {value['distance']:.2f} ({value['generated_median']:.3g}/{value['real_median']:.3g})"
        for key, value in found["distances"].items()
    )
    copy = f" copy {found['copy_dice']['median']:.2f}, {found['near_copies']:.0%} near" if "copy_dice" in found else ""
    return (
        f"  {generator}: mean {found['mean_distance']:.2f} FD {found['fd_effnetlite0']:.2f} "
        f"Murray {found['murray']:.2f}{copy}\n    {each}"
    )


def contact_sheet(generated: list[np.ndarray], real: list[np.ndarray], columns: int = 6, side: int = 256) -> np.ndarray:
    """Generated masks above real ones."""

    def rows(masks: list[np.ndarray], count: int) -> Iterator[np.ndarray]:
        for first in range(0, count * columns, columns):
            row = [
                cv2.resize(m * np.uint8(255), (side, side), interpolation=cv2.INTER_AREA)
                for m in masks[first:][:columns]
            ]
            row += [np.zeros((side, side), np.uint8)] * (columns - len(row))
            yield np.concatenate([np.pad(cell, 2, constant_values=80) for cell in row], axis=1)

    return np.concatenate([*rows(list(generated), 2), *rows(real, 1 if len(real) <= columns else 2)])


def table(files: list[Path]) -> str:
    """Markdown of what `--json` wrote; of a set that is in several files the last one counts."""
    lines = [
        "| set | generator | trees | density | diameter | angle | tortuosity | fractal dimension | mean | FD "
        "| Murray | real Murray | copy |",
        "|" + "---|" * 13,
    ]
    sets = {name: found for file in files for name, found in read_json(file)["sets"].items()}
    for name, result in sets.items():
        for generator, found in result["generators"].items():
            each = " | ".join(f"{found['distances'][key]['distance']:.2f}" for key in MAIN)
            copy = f"{found['copy_dice']['median']:.2f}" if "copy_dice" in found else ""
            lines.append(
                f"| `{name}` | {generator} | {found['count']} | {each} | {found['mean_distance']:.2f} "
                f"| {found['fd_effnetlite0']:.0f} | {found['murray']:.1f} | {result['real_murray']:.1f} | {copy} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=list(SETS))
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--own", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--table", nargs="+", type=Path, metavar="FILE", help="print results, and measure nothing")
    args = parser.parse_args()
    if args.table:
        print(table(args.table))
        return
    data = args.data or Path(os.environ["UNIVG_DATA"]) / "benchmark"
    results = {}
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        for name in args.sets:
            results[name] = compare(data, name, args.count, args.own, pool, args.sheet)
            if args.json:
                write_json_atomic(args.json, {"sets": results, "environment": describe_environment()})


if __name__ == "__main__":
    main()
