"""How near the masks of the mask engine come to real ones, by α and by adapter, and what that takes.

usage: python benchmarks/mask_engine.py [DATA] [--sets NAME ...] [--count N] [--adapters KIND ...] [--scales A ...]
                                        [--own] [--split N] [--strength S] [--start tree|noise] [--set NAME=VALUE ...]
                                        [--engine FOLDER] [--json FILE] [--sheet FOLDER]
       python benchmarks/mask_engine.py --table FILE ...

DATA is a folder with drive, octa500_3m, dias and dca1 (default: the folder benchmark in UNIVG_DATA). The five masks of
split N (default 0) adapt the engine; all others are the real ones that masks are compared with. With --own the five
themselves are, to tune by without looking at the others. NAME is a field of DiffusionTrainConfig or AdapterConfig,
VALUE is JSON. --sheet draws generated above real masks, for the eye alone: the licences of the sets forbid to pass them
on.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import torch
from features import pretrained_features
from few_shot import SETS
from realism import MAIN, SIZE, contact_sheet, masks_of, measure

from univg.engines import SamplingConfig, finetune_mask_engine, load_backbone, nearest_dice, sample_masks
from univg.geometry import compare_morphometry
from univg.io import read_json, write_image, write_json_atomic
from univg.metrics import NEAR_COPY, frechet_distance
from univg.types import SupportSet
from univg.workflow.benchmark import describe_environment
from univg.workflow.engines import ADAPTATIONS
from univg.workflow.start_trees import grow_starts


def realism(masks, real_measures, real_features, support, pool) -> dict:
    """Distances to real masks, and how near the nearest support mask is."""
    drawn = [mask for mask in masks if mask.any()]
    measures = list(pool.map(measure, drawn, chunksize=4))
    distances = compare_morphometry([m for m, _ in measures], [m for m, _ in real_measures])
    copies = [nearest_dice(mask, support) for mask in masks]
    return {
        "count": len(masks),
        "empty": len(masks) - len(drawn),
        "distances": {key: asdict(value) for key, value in distances.items()},
        "mean_distance": float(np.mean([distances[key].distance for key in MAIN])),
        "fd_effnetlite0": frechet_distance(pretrained_features(drawn), real_features),
        "nearest_dice": dict(zip(("p5", "median", "p95"), np.percentile(copies, [5, 50, 95]), strict=True)),
        "near_copies": float(np.mean(np.asarray(copies) > NEAR_COPY)),
    }


def line(label: str, found: dict) -> str:
    each = " ".join(
        f"{key} {found['distances'][key]['distance']:.2f}"
        f" ({found['distances'][key]['generated_median']:.3g}/{found['distances'][key]['real_median']:.3g})"
        for key in MAIN
    )
    return (
        f"  {label}: mean {found['mean_distance']:.2f} FD {found['fd_effnetlite0']:.1f} nearest "
        f"{found['nearest_dice']['median']:.2f}, {found['near_copies']:.0%} near copies, {found['empty']} empty\n"
        f"    {each}"
    )


def compare(name: str, args: argparse.Namespace, backbone, pool) -> dict:
    modality = SETS[name]
    pairs, others = masks_of(args.data, name, args.split)
    real = [pair.mask for pair in (pairs if args.own else others)]
    support = [pair.mask for pair in pairs]
    real_measures, real_features = list(pool.map(measure, real, chunksize=4)), pretrained_features(real)
    print(f"{name}: {len(real)} real masks", flush=True)
    trees = grow_starts(SupportSet(modality, tuple(pairs)), args.count, seed=1000)
    result = {"real": len(real), "trees": realism(trees, real_measures, real_features, support, pool), "adapters": {}}
    print(line("trees", result["trees"]), flush=True)
    starts = trees if args.start == "tree" else None
    for kind in args.adapters:
        adapter, training = ADAPTATIONS[backbone.name]
        adapter, training = changed(replace(adapter, kind=kind), args.set), changed(training, args.set)
        started = time.perf_counter()
        engine = finetune_mask_engine(support, backbone, modality=modality, adapter=adapter, config=training, size=SIZE)
        found = {"adapt_seconds": time.perf_counter() - started, "scales": {}}
        print(f"  {kind}: adapted in {found['adapt_seconds']:.0f} s", flush=True)
        for scale in args.scales:
            config = SamplingConfig(scale=scale, strength=args.strength, seed=1000, size=SIZE)
            started = time.perf_counter()
            masks = sample_masks(engine, args.count, config=config, trees=starts)
            seconds = (time.perf_counter() - started) / args.count
            figures = realism(masks, real_measures, real_features, support, pool) | {"seconds_per_mask": seconds}
            found["scales"][scale] = figures
            print(line(f"{kind} α {scale:g}, {seconds:.2f} s a mask", figures), flush=True)
            if args.sheet:
                write_image(args.sheet / f"{name}-{kind}-{scale:g}.png", contact_sheet(list(masks), real))
        result["adapters"][kind] = found
    return result


def table(files: list[Path]) -> str:
    """Markdown of what `--json` wrote."""
    lines = [
        "| set | masks | "
        + " | ".join(key.replace("_", " ") for key in MAIN)
        + " | mean | FD | nearest | near copies |",
        "|" + "---|" * (len(MAIN) + 6),
    ]
    for file in files:
        for name, result in read_json(file)["sets"].items():
            rows = {"trees": result["trees"]}
            for kind, found in result["adapters"].items():
                rows |= {f"{kind}, α {float(scale):g}": figures for scale, figures in found["scales"].items()}
            for label, found in rows.items():
                each = " | ".join(f"{found['distances'][key]['distance']:.2f}" for key in MAIN)
                lines.append(
                    f"| `{name}` | {label} | {each} | {found['mean_distance']:.2f} | {found['fd_effnetlite0']:.0f} "
                    f"| {found['nearest_dice']['median']:.2f} | {found['near_copies']:.0%} |"
                )
    return "\n".join(lines)


def changed(config, settings: dict):
    names = {field.name for field in fields(config)}
    return replace(config, **{key: value for key, value in settings.items() if key in names})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=list(SETS))
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--adapters", nargs="*", default=["loha"])
    parser.add_argument("--scales", nargs="*", type=float, default=[0.0, 0.7, 1.0])
    parser.add_argument("--own", action="store_true")
    parser.add_argument("--split", type=int, default=0)
    parser.add_argument("--strength", type=float, default=SamplingConfig().strength)
    parser.add_argument("--start", choices=("tree", "noise"), default="tree")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--engine", type=Path, help="folder of the engine (default: the shipped one)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--table", nargs="*", type=Path, metavar="FILE", help="print the table of these results")
    args = parser.parse_args()
    if args.table:
        print(table(args.table))
        return
    args.data = args.data or Path(os.environ["UNIVG_DATA"]) / "benchmark"
    if args.sheet:
        args.sheet.mkdir(parents=True, exist_ok=True)
    args.set = {key: json.loads(value) for key, value in (text.split("=", 1) for text in args.set)}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backbone = load_backbone(args.engine or "compact", device=device)
    results = {}
    with ProcessPoolExecutor(max_workers=2) as pool:
        for name in args.sets:
            results[name] = compare(name, args, backbone, pool)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            if args.json:
                settings = {"split": args.split, "strength": args.strength, "start": args.start, **args.set}
                environment = describe_environment() | {"peak_rss_mb": peak}
                write_json_atomic(args.json, {"sets": results, "settings": settings, "environment": environment})
    print(f"peak memory {peak:.0f} MB")


if __name__ == "__main__":
    main()
