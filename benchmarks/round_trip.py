"""What the compact autoencoder loses of real masks and images that it has never seen.

usage: python benchmarks/round_trip.py [DATA] [--autoencoder DIR] [--sets NAME ...] [--count N] [--segment PRESET]
                                       [--json FILE] [--sheet FOLDER]

DATA is a folder with drive, octa500_3m, dias, dca1 and chasedb1 (default: the folder benchmark in UNIVG_DATA). Masks
and images are brought to 512 x 512 as in the benchmark. With --segment a segmenter is adapted to split 0 with that
preset, and scored on original and on reconstructed test images. --sheet draws originals above reconstructions, for the
eye alone: the licences of the sets forbid to pass such pictures on.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from few_shot import SETS

from univg.commands.options import SECONDS_BETWEEN_LINES, ProgressLine
from univg.engines import load_autoencoder
from univg.engines.autoencoder import save_sheet
from univg.engines.backbone import image_to_picture, mask_to_picture, picture_to_image, picture_to_mask
from univg.io import match_pair_files, write_json_atomic
from univg.metrics import cldice, dice
from univg.segmentation import segment
from univg.types import SupportSet, as_float
from univg.workflow.benchmark import choose_training_files, describe_environment, load_resized
from univg.workflow.pipeline import run_pipeline
from univg.workflow.presets import preset_named

SIZE = 512


@torch.inference_mode()
def round_trip(autoencoder, picture: torch.Tensor) -> torch.Tensor:
    return autoencoder(picture.contiguous(memory_format=torch.channels_last)).sample.clamp(-1, 1)


def as_colour(image: np.ndarray) -> np.ndarray:
    image = as_float(image)
    return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image


def figures_of(autoencoder, pairs: list, sheet: Path | None) -> dict[str, float]:
    scores, reconstructed, rows = [], [], [[], []]
    for pair in pairs:
        mask = picture_to_mask(round_trip(autoencoder, mask_to_picture(pair.mask[None])))[0]
        original = image_to_picture(as_colour(pair.image)[None])
        image = round_trip(autoencoder, original)
        error = float(((image - original) / 2).square().mean())
        scores.append((dice(mask, pair.mask), cldice(mask, pair.mask), -10 * np.log10(error)))
        reconstructed.append(picture_to_image(image)[0])
        if len(rows[0]) < 6:
            rows[0] += [mask_to_picture(pair.mask[None])[0], original[0]]
            rows[1] += [mask_to_picture(mask[None])[0], image[0]]
    if sheet:
        save_sheet([torch.stack(row) for row in rows], sheet)
    means = np.mean(scores, axis=0)
    return dict(zip(("dice", "cldice", "psnr"), map(float, means), strict=True)) | {"images": len(pairs)}, reconstructed


def segmentation_loss(name: str, support: list, tested: list, reconstructed: list, preset: str) -> dict[str, float]:
    """Mean Dice of a segmenter on originals and on reconstructions, in percent."""
    show = ProgressLine(seconds_between=SECONDS_BETWEEN_LINES)
    support_set = SupportSet(SETS[name], tuple(support))
    segmenter = run_pipeline(support_set, preset=preset_named(preset), on_progress=show)
    if tested[0].image.ndim == 2:
        reconstructed = [image.mean(axis=2) for image in reconstructed]
    found = {}
    for label, images in (("originals", [pair.image for pair in tested]), ("reconstructions", reconstructed)):
        masks = [segment(image, segmenter).mask for image in images]
        found[f"dice_{label}"] = 100 * float(np.mean([dice(m, p.mask) for m, p in zip(masks, tested, strict=True)]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--autoencoder", type=Path)
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=list(SETS))
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--segment", metavar="PRESET")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sheet", type=Path)
    args = parser.parse_args()
    data = args.data or Path(os.environ["UNIVG_DATA"]) / "benchmark"
    autoencoder, results = load_autoencoder(args.autoencoder), {}
    if args.sheet:
        args.sheet.mkdir(parents=True, exist_ok=True)
    for name in args.sets:
        files = match_pair_files(data / name / "images", data / name / "masks", None)
        train, test = choose_training_files(files, 5, 0)
        tested = [load_resized(file, SIZE) for file in test[: args.count]]
        sheet = args.sheet / f"{name}.png" if args.sheet else None
        results[name], reconstructed = figures_of(autoencoder, tested, sheet)
        if args.segment:
            support = [load_resized(file, SIZE) for file in train]
            results[name] |= segmentation_loss(name, support, tested, reconstructed, args.segment)
        print(name, " ".join(f"{key} {value:.4g}" for key, value in results[name].items()), flush=True)
        if args.json:
            write_json_atomic(args.json, {"sets": results, "environment": describe_environment()})


if __name__ == "__main__":
    main()
