"""Compare recipes inside the support sets: some of a split's annotated images train, the others are scored.

usage: python benchmarks/recipe.py [NAME=VALUE ...] [--preset NAME] [--sets NAME ...] [--split N] [--folds N]
                                   [--tested N] [--pairs N] [--hold-out] [--tta] [--thresholds] [--prior DIR]
                                   [--keep FOLDER]

NAME is a field of SegmentationConfig, VALUE is JSON. Images that the benchmark tests on are never read. Without
--hold-out all images of a fold that are not scored train, and the last weights are scored. With --keep the
segmenter of each fold is saved in NAME-FOLD, and what it found beside it (probability, mask), for other rules than a
threshold of 0.5.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from few_shot import SETS

from univg.io import match_pair_files
from univg.metrics import dice, evaluate
from univg.sca import generate_mask
from univg.segmentation import SegmentationConfig, Segmenter, render_pairs, segment, train_segmenter
from univg.workflow.benchmark import choose_training_files, load_resized
from univg.workflow.presets import PRESETS

SHOTS = 5
THRESHOLDS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)


def score(name: str, config: SegmentationConfig, args: argparse.Namespace) -> list[tuple[float, float]]:
    """Dice and clDice of each scored image."""
    data, modality = args.data / name, SETS[name]
    files = match_pair_files(data / "images", data / "masks", None)
    pairs = [load_resized(file, config.working_size) for file in choose_training_files(files, SHOTS, args.split)[0]]
    figures = []
    for fold in range(args.folds):
        tested = [(args.tested * fold + i) % SHOTS for i in range(args.tested)]
        real = [pair for i, pair in enumerate(pairs) if i not in tested]
        rng = np.random.default_rng([args.split, fold])
        masks = [generate_mask(modality, mask=real[i % len(real)].mask, rng=rng) for i in range(args.pairs)]
        synthetic = list(render_pairs(real, masks, modality=modality, rng=rng))
        segmenter = train_segmenter(
            real[1:] if args.hold_out else real,
            synthetic,
            modality=modality,
            held_out=real[0] if args.hold_out else None,
            config=config,
            device="cpu",
            prior_folder=args.prior,
        )
        kept = args.keep and args.keep / f"{name}-{fold}"
        if kept:
            kept.mkdir(parents=True, exist_ok=True)
            segmenter.save(kept)
        for i in tested:
            found = segment(pairs[i].image, segmenter, test_time_augmentation=args.tta)
            metrics = evaluate(found.probability >= 0.5, pairs[i].mask)
            figures.append((metrics.dice, metrics.cldice))
            if kept:
                np.savez_compressed(kept / f"{i}.npz", probability=np.float16(found.probability), mask=pairs[i].mask)
        if args.thresholds:
            for label, images in (("scored", [pairs[i] for i in tested]), ("trained", real)):
                print(f"  {label}: " + by_threshold(images, segmenter, args.tta), flush=True)
    return figures


def by_threshold(images: list, segmenter: Segmenter, tta: bool) -> str:
    """Mean Dice of `images` at each of `THRESHOLDS`."""
    found = [segment(pair.image, segmenter, test_time_augmentation=tta).probability for pair in images]
    means = [np.mean([dice(p >= t, pair.mask) for p, pair in zip(found, images, strict=True)]) for t in THRESHOLDS]
    return " ".join(f"{t:.2f} {mean:.4f}" for t, mean in zip(THRESHOLDS, means, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("settings", nargs="*", metavar="NAME=VALUE")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("UNIVG_DATA", ".")) / "benchmark")
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=list(SETS))
    parser.add_argument("--split", type=int, default=0)
    parser.add_argument("--folds", type=int, default=1)
    parser.add_argument("--tested", type=int, default=2, help="images of a fold that are scored")
    parser.add_argument("--pairs", type=int, default=0, help="rendered pairs")
    parser.add_argument("--preset", default="standard", choices=list(PRESETS))
    parser.add_argument("--hold-out", action="store_true", help="keep one training image out, as the presets do")
    parser.add_argument("--tta", action="store_true", help="average over flips and turns, as the benchmark does")
    parser.add_argument("--thresholds", action="store_true", help="also Dice at other thresholds")
    parser.add_argument("--prior", type=Path, help="folder of the prior, instead of the shipped one")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="save segmenters and what they found")
    args = parser.parse_args()
    settings = {name: json.loads(value) for name, value in (item.split("=", 1) for item in args.settings)}
    config = replace(PRESETS[args.preset].segmentation, **settings)
    print(args.preset, *args.settings, f"pairs={args.pairs} tested={args.tested} tta={args.tta}", flush=True)
    for name in args.sets:
        started = time.perf_counter()
        figures = score(name, config, args)
        dice, cldice = np.mean(figures, axis=0)
        each = " ".join(f"{d:.3f}" for d, _ in figures)
        seconds = time.perf_counter() - started
        print(f"  {name}: Dice {dice:.4f} clDice {cldice:.4f} ({each}) {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
