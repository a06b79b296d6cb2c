"""What the images of the image engine are worth: fidelity, Fréchet distance, and the segmenter that they train.

usage: python benchmarks/image_engine.py [DATA] [--sets NAME ...] [--splits N] [--count N] [--segment] [--own]
                                         [--makers NAME ...] [--masks tree|engine] [--strength S] [--scale C]
                                         [--steps N] [--set NAME=VALUE ...] [--preset NAME] [--json FILE]
                                         [--sheet FOLDER] [--engines FOLDER]

DATA is a folder with drive, octa500_3m, dias and dca1 (default: the folder benchmark in UNIVG_DATA). The five pairs of
a split adapt the engine; all others are the real images that it is compared with. With --own only the five are read:
four adapt, and the fifth is what they are compared with. Makers are *engine*, from noise; *render*, vessels drawn on
inpainted support images; *engine+render*, the engine starting from those, at --strength; and *pix2pix*, which trains as
long as the engine did. --scale is the conditioning. All draw the same masks. --segment trains a segmenter on the five
alone, and on the five with the pairs of each maker, with --preset. --set names fields of ImageTrainConfig, VALUE is
JSON. --sheet draws masks, images and real images, for the eye alone: the licences of the sets forbid to pass them on.
--engines keeps adapted engines and judges, and goes on with those that it finds there: name a new folder after a change
of the weights or of the training.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from features import pretrained_features
from few_shot import SETS
from pix2pix import draw_pix2pix, train_pix2pix

from univg.engines import (
    ImageEngine,
    SamplingConfig,
    finetune_mask_engine,
    sample_masks,
    synthesize_images,
    train_image_engine,
)
from univg.engines.folders import load_backbone
from univg.engines.image_engine import as_colour
from univg.errors import InputError
from univg.geometry import estimate_fov
from univg.io import match_pair_files, read_json, write_image, write_json_atomic
from univg.metrics import cldice, dice, frechet_distance
from univg.segmentation import render_pairs, segment, train_segmenter
from univg.training.device import resolve_device
from univg.types import SupportSet
from univg.workflow import engines as mask_engines
from univg.workflow.benchmark import choose_training_files, describe_environment, load_resized
from univg.workflow.image_engines import ADAPTATIONS, Critic, as_pair, load_base, train_critic
from univg.workflow.pair_checks import check_synthetic_pair
from univg.workflow.presets import CONDITIONING, IMAGE_STRENGTH, preset_named

SIZE = 512
SHOTS = 5


def pairs_of(data: Path, name: str, split: int, own: bool) -> tuple[list, list]:
    """Those that adapt, and those that are compared with and tested on."""
    files = match_pair_files(data / name / "images", data / name / "masks", None)
    train, test = choose_training_files(files, SHOTS, split)
    if own:
        train, test = train[:-1], train[-1:]
    return [load_resized(file, SIZE) for file in train], [load_resized(file, SIZE) for file in test]


def draw_masks(support: SupportSet, count: int, kind: str) -> list[np.ndarray]:
    trees = mask_engines.grow_starts(support, count, seed=2000)
    if kind == "tree":
        return trees
    backbone = load_backbone(engine="masks", device=resolve_device("auto"))
    adapter, training = mask_engines.ADAPTATIONS[backbone.name]
    engine = finetune_mask_engine(
        support.masks, backbone, modality=support.modality, adapter=adapter, config=training, size=SIZE
    )
    return list(sample_masks(engine, count, config=SamplingConfig(seed=2000, size=SIZE), trees=trees))


def judge(support: SupportSet, kept: Path | None) -> tuple[Critic, float]:
    """The judge of synthetic pairs, and the seconds that its training took."""
    if kept and (kept / "critic-seconds.json").exists():
        return Critic.load(kept / "critic", resolve_device("auto").type), read_json(kept / "critic-seconds.json")
    started = time.perf_counter()
    critic = train_critic(support)
    seconds = time.perf_counter() - started
    if kept:
        (kept / "critic").mkdir(parents=True, exist_ok=True)
        critic.segmenter.save(kept / "critic")
        write_json_atomic(kept / "critic-seconds.json", seconds)
    return critic, seconds


def adapted(support: SupportSet, changes: dict, kept: Path | None) -> tuple[ImageEngine, float]:
    """The engine adapted to `support`, with `changes` of the training's settings, and the seconds that it took."""
    backbone, controlnet = load_base()
    record = kept and kept / "adapted.json"
    if record and record.exists():
        found = read_json(record)
        if found["changes"] != changes:
            raise InputError("This engine was adapted otherwise", path=kept, fix="Name another folder for --engines.")
        return ImageEngine.load(kept / "engine", backbone), found["seconds"]
    started = time.perf_counter()
    engine = train_image_engine(
        support.pairs,
        backbone,
        controlnet,
        modality=support.modality,
        config=replace(ADAPTATIONS["compact"], **changes),
        size=SIZE,
    )
    seconds = time.perf_counter() - started
    if kept:
        (kept / "engine").mkdir(parents=True, exist_ok=True)
        engine.save(kept / "engine")
        write_json_atomic(record, {"seconds": seconds, "changes": changes})
    return engine, seconds


def make_pairs(maker: str, support: SupportSet, masks: list, args: argparse.Namespace, shared: dict) -> list:
    """Synthetic pairs of `masks`, and what they cost in `shared`."""
    modality, rng = support.modality, np.random.default_rng(7)
    if maker == "render":
        return list(render_pairs(support.pairs, masks, modality=modality, rng=rng))
    seen = [pair.fov if pair.fov is not None else estimate_fov(pair.image, modality) for pair in support.pairs]
    fields = [seen[int(rng.integers(len(seen)))] for _ in masks]
    masks = [mask & field for mask, field in zip(masks, fields, strict=True)]
    if maker == "pix2pix":
        generator, steps = train_pix2pix(support.pairs, modality=modality, size=SIZE, seconds=shared["adapt_seconds"])
        shared["pix2pix_steps"] = steps
        images = draw_pix2pix(generator, masks, fields)
        grey = support.pairs[0].image.ndim == 2
        images = np.rint(images.mean(axis=3)).astype(np.uint8) if grey else images
        return [as_pair(image, mask, f"{maker}-{i}") for i, (image, mask) in enumerate(zip(images, masks, strict=True))]
    starts = None
    if maker == "engine+render":
        rendered = list(render_pairs(support.pairs, masks, modality=modality, rng=rng))
        starts, masks = [pair.image for pair in rendered], [pair.mask for pair in rendered]
        fields = [estimate_fov(image, modality) for image in starts]
    sampling = SamplingConfig(scale=args.scale, steps=args.steps, strength=args.strength, size=SIZE, seed=2000)
    started = time.perf_counter()
    images = synthesize_images(shared["engine"], masks, config=sampling, fields=fields, starts=starts)
    shared["seconds_per_image"] = (time.perf_counter() - started) / len(masks)
    return [as_pair(image, mask, f"{maker}-{i}") for i, (image, mask) in enumerate(zip(images, masks, strict=True))]


def figures_of(pairs: list, support: SupportSet, critic, real_features: np.ndarray) -> dict:
    checks = [check_synthetic_pair(pair, support.pairs, critic.segmenter) for pair in pairs]
    return {
        "count": len(pairs),
        "agreement": 100 * float(np.mean([check.agreement for check in checks])),
        "contrast": float(np.nanmean([check.contrast for check in checks])),
        "nearest_image": float(np.median([check.nearest_image for check in checks])),
        "copies": sum("copied image" in check.flags for check in checks),
        "fd_effnetlite0": frechet_distance(pretrained_features([as_uint8(p.image) for p in pairs]), real_features),
    }


def as_uint8(image: np.ndarray) -> np.ndarray:
    return np.rint(as_colour(image) * 255).astype(np.uint8)


def score(segmenter, tested: list) -> dict:
    found = [segment(pair.image, segmenter, test_time_augmentation=True).probability >= 0.5 for pair in tested]
    return {
        "dice": 100 * float(np.mean([dice(mask, pair.mask) for mask, pair in zip(found, tested, strict=True)])),
        "cldice": 100 * float(np.mean([cldice(mask, pair.mask) for mask, pair in zip(found, tested, strict=True)])),
    }


def compare(name: str, split: int, args: argparse.Namespace) -> dict:
    modality = SETS[name]
    pairs, tested = pairs_of(args.data, name, split, args.own)
    support = SupportSet(modality, tuple(pairs))
    masks = draw_masks(support, args.count, args.masks)

    # 1. The judge, and what it gets on real images
    kept = args.engines and args.engines / f"{name}-{split}{'-own' if args.own else ''}"
    critic, seconds = judge(support, kept)
    result = {"critic_seconds": seconds, "real": len(tested), "makers": {}}
    shown = [segment(pair.image, critic.segmenter).mask for pair in tested]
    result["critic_dice"] = 100 * float(np.mean([dice(m, p.mask) for m, p in zip(shown, tested, strict=True)]))
    real_features = pretrained_features([as_uint8(pair.image) for pair in tested])
    print(
        f"{name} split {split}: the critic's Dice on {len(tested)} real images {result['critic_dice']:.1f}", flush=True
    )

    # 2. Adapt
    shared = {}
    if any("engine" in maker or maker == "pix2pix" for maker in args.makers):
        shared["engine"], shared["adapt_seconds"] = adapted(support, args.set, kept)
        print(f"  adapted in {shared['adapt_seconds']:.0f} s", flush=True)

    # 3. Draw, judge and train
    made = {maker: make_pairs(maker, support, masks, args, shared) for maker in args.makers}
    for maker, synthetic in made.items():
        found = figures_of(synthetic, support, critic, real_features) if len(tested) > 1 or args.own else {}
        result["makers"][maker] = found
        print(f"  {maker}: " + " ".join(f"{key} {value:.4g}" for key, value in found.items()), flush=True)
    if args.segment:
        config = replace(preset_named(args.preset).segmentation, seed=split)
        for maker, synthetic in {"none": [], **made}.items():
            started = time.perf_counter()
            segmenter = train_segmenter(
                pairs[1:], synthetic, modality=modality, held_out=pairs[0], config=config, device="auto"
            )
            seconds = time.perf_counter() - started
            found = score(segmenter, tested) | {"train_seconds": seconds}
            result["makers"].setdefault(maker, {})["segmenter"] = found
            print(f"  segmenter with {maker}: " + " ".join(f"{k} {v:.4g}" for k, v in found.items()), flush=True)
    result |= {key: value for key, value in shared.items() if key != "engine"}
    if args.sheet:
        write_image(args.sheet / f"{name}-{split}.png", contact_sheet(masks, made, tested))
    return result


def contact_sheet(masks: list, made: dict, real: list, columns: int = 6, side: int = 288) -> np.ndarray:
    """A row of masks, one of images of them for each maker, and one of real images."""
    masks = [np.repeat((mask * np.uint8(255))[..., None], 3, 2) for mask in masks]
    rows = [masks, *([as_uint8(pair.image) for pair in pairs] for pairs in made.values())]
    rows.append([as_uint8(pair.image) for pair in real])
    sheet = []
    for row in rows:
        cells = [cv2.resize(cell, (side, side), interpolation=cv2.INTER_AREA) for cell in row[:columns]]
        cells += [np.zeros((side, side, 3), np.uint8)] * (columns - len(cells))
        sheet.append(np.hstack(cells))
    return np.vstack(sheet)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=list(SETS))
    parser.add_argument("--splits", type=int, default=1)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--makers", nargs="*", default=["engine", "render", "pix2pix"])
    parser.add_argument("--masks", choices=("tree", "engine"), default="tree")
    parser.add_argument("--segment", action="store_true")
    parser.add_argument("--own", action="store_true")
    parser.add_argument("--preset", default="standard")
    parser.add_argument("--strength", type=float, default=IMAGE_STRENGTH)
    parser.add_argument("--scale", type=float, default=CONDITIONING)
    parser.add_argument("--steps", type=int, default=SamplingConfig().steps)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--engines", type=Path)
    args = parser.parse_args()
    if args.sheet:
        args.sheet.mkdir(parents=True, exist_ok=True)
    args.data = args.data or Path(os.environ["UNIVG_DATA"]) / "benchmark"
    args.set = {key: json.loads(value) for key, value in (text.split("=", 1) for text in args.set)}
    results = {}
    for name in args.sets:
        results[name] = [compare(name, split, args) for split in range(args.splits)]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if args.json:
            settings = {
                key: getattr(args, key) for key in ("masks", "scale", "strength", "steps", "preset", "count", "set")
            }
            environment = describe_environment() | {"peak_rss_mb": peak}
            write_json_atomic(args.json, {"sets": results, "settings": settings, "environment": environment})
    print(f"peak memory {peak:.0f} MB")


if __name__ == "__main__":
    main()
