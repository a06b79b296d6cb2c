"""What can be had without adapting anything: other observers, ridge filters, and the vessel prior alone.

usage: python benchmarks/references.py [DATA] [--sets NAME ...] [--only NAME ...] [--splits N] [--json FILE]

DATA is a folder with drive, chasedb1, octa500_3m, dias and dca1 (default: the folder benchmark in UNIVG_DATA), read as
in the benchmark: 512 x 512, full frame, the test images of each split.

second observer   Their masks against the first observer's, where there are any.
frangi, sato      Multi-scale ridge filters (scikit-image), sigma 1 to 5, cut at the threshold that is best on the five
                  annotated images of the split. The field of view of a fundus image alone counts, without its rim,
                  which is a ridge to them: without that they lose 9 and 18 points of Dice on drive.
prior             The vessel prior as shipped, which has seen no real image, in a single look, cut at 0.5.
prior, threshold  The same, cut where it is best on the five annotated images.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from few_shot import SETS
from skimage.filters import frangi, sato

from univg.geometry.fov import estimate_fov
from univg.io import match_pair_files, write_json_atomic
from univg.metrics import cldice, dice
from univg.segmentation import segment
from univg.segmentation.inputs import to_grey
from univg.segmentation.prior import prior_segmenter
from univg.types import ImageMaskPair, Modality
from univg.workflow.benchmark import choose_training_files, describe_environment, load_resized

SIZE, SHOTS = 512, 5
SIGMAS = range(1, 6)
RIM = 6  # pixels
QUANTILES = np.linspace(0.6, 0.98, 39)  # of a filter's response over the annotated images

# Gets an image and its modality; returns how much of a vessel each pixel is, (H, W).
Respond = Callable[[np.ndarray, Modality], np.ndarray]


def responses() -> dict[str, Respond]:
    segmenters = {}

    def prior(image: np.ndarray, modality: Modality) -> np.ndarray:
        if modality not in segmenters:
            segmenters[modality] = prior_segmenter(modality)
        return segment(image, segmenters[modality]).probability

    return {"frangi": partial(filtered, frangi), "sato": partial(filtered, sato), "prior": prior}


def filtered(ridges: Callable[..., np.ndarray], image: np.ndarray, modality: Modality) -> np.ndarray:
    response = ridges(to_grey(image, modality), sigmas=SIGMAS, black_ridges=False)
    inside = cv2.erode(estimate_fov(image, modality).astype(np.uint8), np.ones((2 * RIM + 1, 2 * RIM + 1), np.uint8))
    return response * inside


def best_threshold(found: list[np.ndarray], wanted: list[np.ndarray]) -> float:
    """The one with the highest mean Dice."""
    candidates = np.unique(np.quantile(np.concatenate([f.ravel() for f in found]), QUANTILES))
    scores = [np.mean([dice(f > t, w) for f, w in zip(found, wanted, strict=True)]) for t in candidates]
    return float(candidates[int(np.argmax(scores))])


def scores(found: list[np.ndarray], wanted: list[np.ndarray]) -> dict[str, float]:
    """Mean and standard deviation over images, in percent."""
    values = np.array([(dice(f, w), cldice(f, w)) for f, w in zip(found, wanted, strict=True)]) * 100
    mean, spread = values.mean(axis=0), values.std(axis=0, ddof=1)
    return {"images": len(values), "dice": mean[0], "dice_sd": spread[0], "cldice": mean[1], "cldice_sd": spread[1]}


def second_observer(data: Path, name: str) -> dict[str, float] | None:
    folder = data / name / "masks_second_observer"
    if not folder.is_dir():
        return None
    first = {f.name: f for f in match_pair_files(data / name / "images", data / name / "masks", None)}
    both = [(first[mask.stem], replace(first[mask.stem], mask=mask)) for mask in sorted(folder.iterdir())]
    wanted, found = ([load_resized(f, SIZE).mask for f in observer] for observer in zip(*both, strict=True))
    return scores(found, wanted)


def measure(data: Path, name: str, splits: int, only: list[str]) -> dict:
    modality = SETS[name]
    files = match_pair_files(data / name / "images", data / name / "masks", None)
    pairs: dict[str, ImageMaskPair] = {f.name: load_resized(f, SIZE) for f in files}
    results = {"second observer": second_observer(data, name)}
    for label, respond in responses().items():
        if label not in only:
            continue
        response = {key: respond(pair.image, modality) for key, pair in pairs.items()}
        found = []
        for seed in range(splits):
            train, test = ([f.name for f in half] for half in choose_training_files(files, SHOTS, seed))
            wanted = [pairs[key].mask for key in test]
            threshold = best_threshold([response[key] for key in train], [pairs[key].mask for key in train])
            row = {"chosen": scores([response[key] > threshold for key in test], wanted), "threshold": threshold}
            if label == "prior":
                row["fixed"] = scores([response[key] >= 0.5 for key in test], wanted)
            found.append(row)
        results[label] = found
        print(name, label, f"{np.mean([row['chosen']['dice'] for row in found]):.1f}", flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=list(SETS))
    parser.add_argument("--only", nargs="+", default=list(responses()), choices=list(responses()))
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    data, results = args.data or Path(os.environ["UNIVG_DATA"]) / "benchmark", {}
    for name in args.sets:
        results[name] = measure(data, name, args.splits, args.only)
        if args.json:
            write_json_atomic(args.json, {"sets": results, "environment": describe_environment()})


if __name__ == "__main__":
    main()
