"""nnU-Net (Isensee et al. 2021) trained on the same five images for as long as the standard preset may take.

usage: python benchmarks/nnunet.py [DATA] [--sets NAME ...] [--splits N] [--minutes N] [--patch N] [--batch N]
                                   [--work FOLDER] [--json FILE]

It needs `pip install nnunetv2`, which UniVG itself does not. Its own planner chooses network and normalisation for the
five images, brought to 512 x 512 as in the benchmark; augmentation, loss, optimiser and mirroring are its own, too. Two
things are not: windows of --patch pixels in batches of --batch, because a processor does few steps of a plan for 8 GB
of GPU memory (0 keeps what it planned), and the number of steps, which fills --minutes; the learning rate falls
to nothing over them. All five images train.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from few_shot import SETS

from univg.io import match_pair_files, read_json, write_json_atomic
from univg.metrics import cldice, dice
from univg.types import ImageMaskPair
from univg.workflow.benchmark import choose_training_files, describe_environment, load_resized

SIZE, SHOTS = 512, 5
EPOCHS = 20  # the learning rate falls once an epoch
TRIED = 3  # steps that are timed, to know how many fill the minutes
CONFIGURATION = "2d_windows"


def write_raw(pairs: list[ImageMaskPair], raw: Path) -> None:
    """The pairs as nnU-Net's data set 1."""
    folder = raw / "Dataset001_Vessels"
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for number, pair in enumerate(pairs):
        image = pair.image if pair.image.ndim == 2 else pair.image[..., ::-1]
        cv2.imwrite(str(folder / "imagesTr" / f"{number:03d}_0000.png"), as_uint8(image))
        cv2.imwrite(str(folder / "labelsTr" / f"{number:03d}.png"), pair.mask.astype(np.uint8))
    channels = ["grey"] if pairs[0].image.ndim == 2 else ["red", "green", "blue"]
    contents = {
        "channel_names": {str(i): name for i, name in enumerate(channels)},
        "labels": {"background": 0, "vessel": 1},
        "numTraining": len(pairs),
        "file_ending": ".png",
    }
    write_json_atomic(folder / "dataset.json", contents)


def as_uint8(image: np.ndarray) -> np.ndarray:
    return image if image.dtype == np.uint8 else np.round(image * 255).astype(np.uint8)


def plan(patch: int, batch: int) -> dict:
    """nnU-Net's own plan, with a configuration of other windows; the data are prepared for it."""
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api
    from nnunetv2.paths import nnUNet_preprocessed

    api.extract_fingerprints([1], num_processes=1)
    api.plan_experiments([1])
    file = Path(nnUNet_preprocessed.require()) / "Dataset001_Vessels" / "nnUNetPlans.json"
    plans = read_json(file)
    own = plans["configurations"]["2d"]
    plans["configurations"][CONFIGURATION] = own | {
        "data_identifier": f"nnUNetPlans_{CONFIGURATION}",
        "patch_size": [patch, patch] if patch else own["patch_size"],
        "batch_size": batch or own["batch_size"],
    }
    write_json_atomic(file, plans)
    api.preprocess([1], configurations=[CONFIGURATION], num_processes=[1])
    return plans


def train(plans: dict, minutes: float):
    """A trainer whose steps filled `minutes`, and what it did."""
    from nnunetv2.paths import nnUNet_raw
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    contents = read_json(Path(nnUNet_raw.require()) / "Dataset001_Vessels" / "dataset.json")
    trainer = nnUNetTrainer(plans | {"continue_training": False}, CONFIGURATION, "all", contents, torch.device("cpu"))
    trainer.disable_checkpointing = True
    trainer.num_val_iterations_per_epoch = 1
    trainer.initialize()
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    start = time.perf_counter()
    for number in range(1 + TRIED):
        if number == 1:
            start = time.perf_counter()
        trainer.train_step(next(trainer.dataloader_train))
    seconds = (time.perf_counter() - start) / TRIED
    trainer.num_epochs = EPOCHS
    trainer.optimizer, trainer.lr_scheduler = trainer.configure_optimizers()
    trainer.num_iterations_per_epoch = max(round(60 * minutes / seconds / EPOCHS), 1)
    started = time.perf_counter()
    trainer.run_training()
    took = time.perf_counter() - started
    return trainer, {"steps": EPOCHS * trainer.num_iterations_per_epoch, "train_seconds": took}


def predictor_of(trainer):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False, verbose=False
    )
    trainer.set_deep_supervision_enabled(False)
    trainer.network.eval()
    predictor.manual_initialization(
        trainer.network,
        trainer.plans_manager,
        trainer.configuration_manager,
        [trainer.network.state_dict()],
        trainer.dataset_json,
        "nnUNetTrainer",
        trainer.inference_allowed_mirroring_axes,
    )
    return predictor


def mask_of(predictor, image: np.ndarray) -> np.ndarray:
    channels = as_uint8(image)[None] if image.ndim == 2 else np.moveaxis(as_uint8(image), -1, 0)
    array = channels[:, None].astype(np.float32)  # (channel, slice, row, column)
    return predictor.predict_single_npy_array(array, {"spacing": (999, 1, 1)})[0] > 0


def measure(data: Path, name: str, seed: int, args: argparse.Namespace) -> dict:
    files = match_pair_files(data / name / "images", data / name / "masks", None)
    train_files, test_files = choose_training_files(files, SHOTS, seed)
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        for variable in ("raw", "preprocessed", "results"):
            os.environ[f"nnUNet_{variable}"] = str(Path(folder) / variable)
            (Path(folder) / variable).mkdir()
        started = time.perf_counter()
        write_raw([load_resized(file, SIZE) for file in train_files], Path(folder) / "raw")
        trainer, did = train(plan(args.patch, args.batch), args.minutes)
        did["seconds"] = time.perf_counter() - started
        predictor = predictor_of(trainer)
        scores = []
        for file in test_files:
            pair = load_resized(file, SIZE)
            mask = mask_of(predictor, pair.image)
            scores.append({"name": file.name, "dice": dice(mask, pair.mask), "cldice": cldice(mask, pair.mask)})
    means = {key: float(np.mean([score[key] for score in scores])) for key in ("dice", "cldice")}
    return {"seed": seed, "train": [file.name for file in train_files], **did, **means, "images": scores}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=list(SETS))
    parser.add_argument("--splits", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--patch", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    os.environ.setdefault("nnUNet_n_proc_DA", "1")
    data, results = args.data or Path(os.environ["UNIVG_DATA"]) / "benchmark", {}
    settings = {"minutes": args.minutes, "patch": args.patch, "batch": args.batch}
    for name in args.sets:
        results[name] = []
        for seed in range(args.splits):
            results[name].append(measure(data, name, seed, args))
            found = results[name][-1]
            line = f"Dice {100 * found['dice']:.1f}, clDice {100 * found['cldice']:.1f}, {found['steps']} steps"
            print(f"{name} split {seed}: {line}", flush=True)
            if args.json:
                write_json_atomic(
                    args.json, {"settings": settings, "sets": results, "environment": describe_environment()}
                )


if __name__ == "__main__":
    main()
