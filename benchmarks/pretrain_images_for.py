"""Pretrain the image engine for as many minutes as a GPU can be had: the number of steps is chosen by timing the first.

usage: python benchmarks/pretrain_images_for.py IMAGES OUT --minutes M [--batch N] [--workers N] [--rate R] [--seed N]
                                                [--device D] [--size N] [--trial N]

IMAGES is a folder of unlabelled images with a subfolder a modality. It goes on from the shipped networks, U-Net and
ControlNet together, and writes OUT/images: copy it over models/images where it is better. The learning rate falls over
the steps chosen, so a run that its minutes end too early loses little: the average of the weights by then is written.
"""

from __future__ import annotations

import argparse
import shutil
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import safetensors
import torch
from diffusers import ControlNetModel

from univg.engines import load_backbone
from univg.engines.backbone import DiffusionBackbone
from univg.engines.folders import load_autoencoder, load_controlnet, save_compact, save_controlnet
from univg.engines.pretrain import ImagePretrainConfig, pretrain_images
from univg.errors import Cancelled
from univg.progress import ProgressEvent
from univg.segmentation.prior import find_vessels
from univg.training.device import resolve_device
from univg.weights import shipped_folder

SECONDS_TO_WRITE = 20
SHARE = 0.92  # of the rest, so that the last steps are reached


class Clock:
    """A progress callback that knows when each step of both networks ended."""

    def __init__(self) -> None:
        self.ended: list[float] = []

    def __call__(self, event: ProgressEvent) -> None:
        if event.stage == "controlnet":
            self.ended.append(time.monotonic())
            if event.step % 200 == 0 or event.step == 1:
                print(f"step {event.step} of {event.total}: loss {event.metrics['loss']:.4f}", flush=True)

    @property
    def seconds(self) -> float:
        """Of a step, without the first third, in which memory is found and algorithms are chosen."""
        settled = self.ended[len(self.ended) // 3 :]
        return (settled[-1] - settled[0]) / (len(settled) - 1)


def shipped_networks() -> tuple[DiffusionBackbone, ControlNetModel]:
    backbone = load_backbone(engine="images")
    return backbone, load_controlnet(shipped_folder("models", "images") / "controlnet", backbone)


def averaged_so_far(work: Path, steps: int) -> tuple[DiffusionBackbone, ControlNetModel]:
    """The networks as the moving average in a checkpoint has them."""
    backbone, controlnet = shipped_networks()
    parts = {"unet": backbone.unet, "modality_embedding": backbone.conditioner, "controlnet": controlnet}
    weights = {f"{name}.{key}": p for name, part in parts.items() for key, p in part.named_parameters()}
    with safetensors.safe_open(work / "controlnet" / "state.safetensors", "pt") as file, torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(file.get_tensor(f"average/{name}"))
    return replace(backbone, figures={**backbone.figures, "control_steps": steps}), controlnet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rate", type=float, default=6e-4)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--trial", type=int, default=140, help="steps that are timed")
    args = parser.parse_args()
    end = time.monotonic() + 60 * args.minutes - SECONDS_TO_WRITE
    device = resolve_device(args.device).type
    if device == "cuda":
        torch.backends.cudnn.benchmark = True
    config = ImagePretrainConfig(
        seed=args.seed,
        steps=1,
        control_steps=10**6,
        batch_size=args.batch,
        learning_rate=args.rate,
        warmup_steps=100,
        whole_share=0.04,
        look_every=10**6,
        size=args.size,
        window=args.size // 2,
    )

    def train(config: ImagePretrainConfig, work: Path, clock: Clock, should_stop) -> tuple:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        backbone, controlnet = shipped_networks()
        return pretrain_images(
            config,
            load_autoencoder(),
            args.images,
            partial(find_vessels, device=device),
            work,
            start=backbone,
            start_controlnet=controlnet,
            workers=args.workers,
            device=device,
            on_progress=clock,
            should_stop=should_stop,
        )

    # 1. How long a step takes
    work, clock, started = args.out / "work", Clock(), time.monotonic()
    with suppress(Cancelled):
        train(config, work, clock, lambda: len(clock.ended) >= args.trial)
    # Whole pictures have four times the pixels of windows.
    seconds = clock.seconds * (1 + 3 * config.whole_share)
    until_first = clock.ended[0] - started
    steps = max(int(SHARE * (end - time.monotonic() - until_first) / seconds), 1)
    print(f"{1000 * clock.seconds:.0f} ms a step of {args.batch}: {steps} steps", flush=True)

    # 2. As many as fit
    clock = Clock()
    config = replace(config, control_steps=steps, look_every=max(steps // 2, 1))
    try:
        backbone, controlnet = train(config, work, clock, lambda: time.monotonic() > end)
    except Cancelled:
        print(f"out of time after {len(clock.ended)} steps", flush=True)
        backbone, controlnet = averaged_so_far(work, len(clock.ended))
    folder = args.out / "images"
    (folder / "controlnet").mkdir(parents=True, exist_ok=True)
    save_compact(backbone, folder, figures=backbone.figures)
    save_controlnet(controlnet, folder / "controlnet")
    if (work / "samples.png").exists():
        shutil.copy(work / "samples.png", args.out)


if __name__ == "__main__":
    main()
