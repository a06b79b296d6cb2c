"""Speed and memory of both engines and of the segmenter on one device, on the sample images.

usage: python benchmarks/engine_speed.py [--device D] [--batch N] [--sd15] [--tiny] [--json FILE]

Adaptation takes the steps that the app takes; pictures are of 512 x 512 pixels, alone and --batch at once. --sd15
adds seconds a step, and a picture, of networks with the shapes of Stable Diffusion 1.5 and random weights: no weights
are needed, and the pictures show nothing. --tiny makes everything small, to try the script itself.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import nn

from univg.engines import (
    SamplingConfig,
    finetune_mask_engine,
    load_backbone,
    sample_masks,
    synthesize_images,
    train_image_engine,
)
from univg.engines.backbone import DiffusionBackbone, new_controlnet
from univg.io import load_support_set, write_json_atomic
from univg.segmentation import segment, train_segmenter
from univg.training.device import resolve_device
from univg.types import Modality, SupportSet
from univg.workflow import engines, image_engines
from univg.workflow.benchmark import describe_environment
from univg.workflow.presets import preset_named
from univg.workflow.sample import SAMPLE_MODALITY, sample_folder


def sample_support() -> SupportSet:
    return load_support_set(sample_folder() / "images", sample_folder() / "masks", modality=SAMPLE_MODALITY)


class RandomTokens(nn.Module):
    """Stands for the text encoder: what it says is computed once and costs nothing afterwards."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("tokens", torch.randn(len(Modality), 77, width))

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        return self.tokens[numbers]


def random_sd15(device: torch.device, *, tiny: bool) -> DiffusionBackbone:
    """A backbone with the shapes of Stable Diffusion 1.5 (tiny: few channels) and random weights."""
    torch.manual_seed(0)
    widths = (32, 32, 32, 32) if tiny else (320, 640, 1280, 1280)
    levels = (32, 32, 32, 32) if tiny else (128, 256, 512, 512)
    width = 16 if tiny else 768
    with device:
        unet = UNet2DConditionModel(
            sample_size=64, block_out_channels=widths, cross_attention_dim=width, attention_head_dim=8
        )
        autoencoder = AutoencoderKL(
            block_out_channels=levels,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=4,
        )
        conditioner = RandomTokens(width)
    scheduler = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False)
    for part in (autoencoder, unet):
        part.requires_grad_(False).eval().to(memory_format=torch.channels_last)
    mean, sd = torch.zeros(1, 4, 1, 1, device=device), torch.full((1, 4, 1, 1), 5.5, device=device)
    return DiffusionBackbone("sd15", autoencoder, unet, conditioner, scheduler, mean, sd, sha256="random")


def seconds_of(work: Callable[[], object], device: torch.device) -> tuple[float, object]:
    started = time.perf_counter()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started, result


class StepTimer:
    """A progress callback that knows the median time of a step."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def __call__(self, event) -> None:
        self._times.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        return float(np.median(np.diff(self._times[len(self._times) // 4 :])))


def picture_seconds(draw: Callable[[int, int], object], batch: int, device: torch.device) -> dict:
    """Seconds a picture, alone and `batch` at once; `draw` gets how many in all and how many at once."""
    draw(batch, batch)  # the first call of a shape chooses algorithms
    draw(1, 1)
    alone = float(np.median([seconds_of(lambda: draw(1, 1), device)[0] for _ in range(5)]))
    return {
        "seconds_a_picture": alone,
        f"pictures_a_second_by_{batch}": batch / seconds_of(lambda: draw(batch, batch), device)[0],
    }


def measure_engines(masks_base, images_base, adaptations: tuple, batch: int, size: int, device: torch.device) -> dict:
    """Both engines: adaptation, and pictures."""
    support, found = sample_support(), {}
    masks = [pair.mask for pair in support.pairs]
    (adapter, mask_training), image_training = adaptations
    clock = StepTimer()
    seconds, engine = seconds_of(
        lambda: finetune_mask_engine(
            masks,
            masks_base,
            modality=SAMPLE_MODALITY,
            adapter=adapter,
            config=mask_training,
            size=size,
            on_progress=clock,
        ),
        device,
    )
    found["masks"] = {"steps": mask_training.steps, "adapt_seconds": seconds, "seconds_a_step": clock.seconds}
    sampling = SamplingConfig(size=size)
    found["masks"] |= picture_seconds(
        lambda n, b: list(sample_masks(engine, n, config=replace(sampling, batch_size=b))), batch, device
    )
    clock = StepTimer()
    backbone, controlnet = images_base
    seconds, engine = seconds_of(
        lambda: train_image_engine(
            support.pairs,
            backbone,
            controlnet,
            modality=SAMPLE_MODALITY,
            config=image_training,
            size=size,
            on_progress=clock,
        ),
        device,
    )
    found["images"] = {"steps": image_training.steps, "adapt_seconds": seconds, "seconds_a_step": clock.seconds}
    found["images"] |= picture_seconds(
        lambda n, b: synthesize_images(engine, [masks[0]] * n, config=replace(sampling, batch_size=b, scale=1.0)),
        batch,
        device,
    )
    return found


def measure_segmenter(device: torch.device, *, tiny: bool) -> dict:
    support, clock = sample_support(), StepTimer()
    preset = preset_named("standard")
    config = replace(preset.segmentation, steps=10 if tiny else 200)
    segmenter = train_segmenter(
        support.pairs, modality=SAMPLE_MODALITY, config=config, device=device.type, on_progress=clock
    )
    image = support.pairs[0].image
    segment(image, segmenter)
    alone = float(np.median([seconds_of(lambda: segment(image, segmenter), device)[0] for _ in range(7)]))
    return {"seconds_a_step": clock.seconds, "seconds_an_image": alone}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--sd15", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--json")
    args = parser.parse_args()
    device, result = resolve_device(args.device), {"environment": describe_environment()}
    size = 128 if args.tiny else 512

    def report(name: str, work: Callable[[], dict]) -> None:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        result[name] = work()
        if device.type == "cuda":
            result[name]["peak_gpu_mb"] = torch.cuda.max_memory_allocated() / 2**20
        print(name, result[name], flush=True)
        if args.json:
            write_json_atomic(args.json, result)

    def shortened(adaptations: tuple, steps: int) -> tuple:
        (adapter, masks), images = adaptations
        return (adapter, replace(masks, steps=steps)), replace(images, steps=steps)

    compact = (engines.ADAPTATIONS["compact"], image_engines.ADAPTATIONS["compact"])
    compact = shortened(compact, 3) if args.tiny else compact
    report(
        "compact",
        lambda: measure_engines(
            load_backbone(engine="masks", device=device),
            image_engines.load_base(device=args.device),
            compact,
            args.batch,
            size,
            device,
        ),
    )
    report("segmenter", lambda: measure_segmenter(device, tiny=args.tiny))
    if args.sd15:
        backbone = random_sd15(device, tiny=args.tiny)
        few = shortened((engines.ADAPTATIONS["sd15"], image_engines.ADAPTATIONS["sd15"]), 3 if args.tiny else 12)
        report(
            "sd15",
            lambda: measure_engines(
                backbone, (backbone, new_controlnet(backbone.unet)), few, min(args.batch, 4), size, device
            ),
        )


if __name__ == "__main__":
    main()
