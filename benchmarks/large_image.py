"""Segmenting an image of 4,000 x 3,000 pixels in tiles: time, peak memory and seams.

usage: python benchmarks/large_image.py [--height 3000] [--width 4000] [--json FILE]

The segmenter is the vessel prior as shipped, with the image's longer side as its working size, so that nothing is
scaled down. The image is a phantom, repeated as mirror images. Seams: the probability found in tiles against that of
windows computed at once, each centred where four tiles meet, in their inner half.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from univg.io import write_json_atomic
from univg.segmentation import Segmenter, segment
from univg.segmentation.inputs import network_inputs, to_grey
from univg.segmentation.phantoms import draw_phantom, grow_shape
from univg.segmentation.predict import OVERLAP, TILE
from univg.segmentation.prior import prior_segmenter
from univg.training.device import autocast
from univg.types import Modality
from univg.workflow.benchmark import describe_environment

MODALITY = Modality.FUNDUS
SEAMS = 4  # places that are looked at


def made_up_image(height: int, width: int) -> np.ndarray:
    """(height, width) uint8 with dark vessels."""
    rng = np.random.default_rng(0)
    shapes = [grow_shape(MODALITY, rng=rng) for _ in range(3)]
    grey, _ = draw_phantom(shapes, MODALITY, size=512, rng=rng)
    rows, cols = (-(-side // 512) for side in (height, width))
    mirrored = np.pad(grey, [(0, 512 * (rows - 1)), (0, 512 * (cols - 1))], mode="symmetric")
    return np.rint(255 * (1 - mirrored[:height, :width])).astype(np.uint8)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@torch.inference_mode()
def seams(image: np.ndarray, probability: np.ndarray, segmenter: Segmenter) -> dict[str, float]:
    """Between what tiles and what windows around their corners gave: differences, and pixels that change sides."""
    step, half = TILE - OVERLAP, TILE // 2
    inputs = network_inputs(to_grey(image, segmenter.modality), segmenter.config.inputs)
    differences, changed = [], []
    for number in range(1, SEAMS + 1):
        row, col = (min(number * step + OVERLAP // 2, side - half) for side in image.shape)
        window = np.s_[row - half : row + half, col - half : col + half]
        with autocast(torch.device("cpu"), segmenter.config.precision):
            logits = segmenter.network(torch.from_numpy(inputs[:, *window])[None])
        alone = logits[0, 0].float().sigmoid().numpy()
        inner = np.s_[half // 2 : -half // 2, half // 2 : -half // 2]
        tiled = probability[window][inner]
        differences.append(np.abs(alone[inner] - tiled))
        changed.append((alone[inner] >= 0.5) != (tiled >= 0.5))
    return {
        "largest_difference": float(np.max(differences)),
        "mean_difference": float(np.mean(differences)),
        "pixels_that_change": float(np.mean(changed)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--height", type=int, default=3000)
    parser.add_argument("--width", type=int, default=4000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    segmenter = prior_segmenter(MODALITY)
    segmenter = replace(segmenter, config=replace(segmenter.config, working_size=max(args.height, args.width)))
    image = made_up_image(args.height, args.width)
    before, started = peak_mb(), time.perf_counter()
    found = segment(image, segmenter)
    seconds, peak = time.perf_counter() - started, peak_mb()
    figures = {
        "shape": [args.height, args.width],
        "seconds": seconds,
        "peak_mb": peak,
        "peak_mb_before": before,
        "seams": seams(image, found.probability, segmenter),
        "environment": describe_environment(),
    }
    print(json.dumps(figures, indent=2))
    if args.json:
        write_json_atomic(args.json, figures)


if __name__ == "__main__":
    main()
