"""``univg pretrain``: make the weights that are shipped; users do not need it."""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from univg.commands.options import SECONDS_BETWEEN_LINES, ProgressLine, add_device, add_seed, output_folder
from univg.errors import InputError
from univg.io import write_json_atomic
from univg.progress import ProgressEvent, ShouldStop

Config = TypeVar("Config")
TRAINING_LIST = "trained_on.json"  # beside weights: the real images that they were trained on, by hash


def add_parser(subparsers) -> argparse.ArgumentParser:
    """Add ``pretrain`` to the subcommands of the main parser."""
    parser = subparsers.add_parser(
        "pretrain",
        help="make the shipped weights anew",
        description="Ctrl-C saves a checkpoint; the same command goes on from it.",
    )
    kinds = parser.add_subparsers(dest="what", required=True, metavar="WHAT")

    prior = _add(kinds, "prior", _prior, "the vessel segmenter trained on phantoms alone")
    prior.add_argument("--patch", type=int, metavar="N", help="side of a phantom, in pixels")
    prior.add_argument("--rate", type=float, metavar="R", help="learning rate")
    prior.add_argument("--start", metavar="DIR", help="go on from this prior; give another --seed")
    prior.add_argument("--shapes", type=int, metavar="N", help="trees to draw phantoms from")

    autoencoder = _add(kinds, "autoencoder", _autoencoder, "the compact autoencoder of both engines")
    autoencoder.add_argument("--images", required=True, metavar="DIR", help="unlabelled images, a subfolder a modality")
    autoencoder.add_argument("--patch", type=int, metavar="N", help="side of a patch, in pixels")
    autoencoder.add_argument("--latent-channels", type=int, metavar="N")
    autoencoder.add_argument("--mask-share", type=float, metavar="S", help="share of patches that are masks, 0 to 1")
    autoencoder.add_argument("--detail", type=float, metavar="W", help="weight of errors in fine detail")
    autoencoder.add_argument("--sign", type=float, metavar="W", help="weight of mask pixels on the wrong side of grey")
    autoencoder.add_argument("--contrast", type=float, metavar="W", help="weight of errors relative to local contrast")
    autoencoder.add_argument(
        "--perceptual", type=float, metavar="W", help="weight of what the vessel prior would miss in images"
    )
    autoencoder.add_argument("--anchor", type=float, metavar="W", help="weight of changes to the latents of masks")
    autoencoder.add_argument("--rate", type=float, metavar="R", help="learning rate")
    start = autoencoder.add_mutually_exclusive_group()
    start.add_argument("--start", metavar="DIR", help="go on from this autoencoder; give another --seed")
    start.add_argument(
        "--decoder-of", metavar="DIR", help="train the decoder of this autoencoder on, and leave its encoder as it is"
    )

    masks = _add(kinds, "masks", _masks, "the compact mask engine, on an endless stream of grown trees")
    masks.add_argument("--autoencoder", metavar="DIR", help="its folder (default: the shipped one)")
    masks.add_argument("--size", type=int, metavar="N", help="side of a mask, in pixels")
    masks.add_argument("--start", metavar="DIR", help="go on from this engine's weights; give another --seed")
    masks.add_argument(
        "--backbone",
        metavar="DIR",
        help="Stable Diffusion 1.5 in diffusers' layout: train a LoRA of it instead, and write it merged",
    )

    images = _add(kinds, "images", _images, "the compact image engine: a U-Net and its ControlNet")
    images.add_argument("--images", required=True, metavar="DIR", help="unlabelled images, a subfolder a modality")
    images.add_argument("--autoencoder", metavar="DIR", help="its folder (default: the shipped one)")
    images.add_argument("--size", type=int, metavar="N", help="side of an image, in pixels")
    images.add_argument("--start", metavar="DIR", help="go on from this engine's networks; give another --seed")
    images.add_argument(
        "--whole-share", type=float, metavar="S", help="share of the steps, the last ones, on whole pictures, 0 to 1"
    )
    images.add_argument("--repeats", type=int, metavar="N", help="steps in a row that learn from the same pictures")
    images.add_argument("--control-steps", type=int, metavar="N", help="steps of both after those of the U-Net alone")
    return parser


def _add(kinds, name: str, run: Callable[[argparse.Namespace], int], description: str) -> argparse.ArgumentParser:
    parser = kinds.add_parser(name, help=description, description=description)
    parser.add_argument("-o", required=True, metavar="DIR", dest="output", help="where the weights go")
    parser.add_argument("--work", required=True, metavar="DIR", help="folder for the checkpoint")
    parser.add_argument("--steps", type=int, metavar="N", help="optimizer steps")
    parser.add_argument("--batch", type=int, metavar="N", help="pictures a step")
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--workers", type=int, default=max((os.cpu_count() or 2) - 1, 1), metavar="N")
    add_seed(parser)
    add_device(parser)
    parser.set_defaults(run=run)
    return parser


def _prior(args: argparse.Namespace) -> int:
    from univg.segmentation.prior import PriorConfig, load_prior, pretrain_prior, save_prior  # loads torch

    config = PriorConfig()
    segmentation = _chosen(
        config.segmentation,
        seed=args.seed,
        steps=args.steps,
        patch_size=args.patch,
        precision=args.precision,
        learning_rate=args.rate,
    )
    config = _chosen(config, segmentation=segmentation, batch_size=args.batch, shapes=args.shapes)
    output, work, common = _prepare(args)
    start = load_prior(config.segmentation, args.start) if args.start else None
    network, figures = pretrain_prior(config, work, start=start, **common)
    save_prior(network, config, figures, output)
    _record_images(None, output)
    return 0


def _autoencoder(args: argparse.Namespace) -> int:
    from univg.engines.autoencoder import pretrain_autoencoder  # loads torch
    from univg.engines.config import AutoencoderConfig
    from univg.engines.folders import load_autoencoder, save_autoencoder
    from univg.segmentation.perceptual import VesselFeatures
    from univg.training import parallel
    from univg.training.device import resolve_device

    config = _chosen(
        AutoencoderConfig(),
        seed=args.seed,
        steps=args.steps,
        batch_size=args.batch,
        patch_size=args.patch,
        latent_channels=args.latent_channels,
        precision=args.precision,
        mask_share=args.mask_share,
        detail_weight=args.detail,
        sign_weight=args.sign,
        contrast_weight=args.contrast,
        perceptual_weight=args.perceptual,
        anchor_weight=args.anchor,
        learning_rate=args.rate,
        decoder_only=bool(args.decoder_of),
    )
    output, work, common = _prepare(args)
    before = args.decoder_of or args.start
    start = load_autoencoder(before) if before else None
    distance = None
    if config.perceptual_weight:
        distance = VesselFeatures().to(resolve_device(args.device)).distance
    autoencoder, _ = pretrain_autoencoder(config, args.images, work, start=start, vessel_distance=distance, **common)
    if parallel.is_first():
        save_autoencoder(autoencoder, output)
        _record_images(args.images, output)
    return 0


def _masks(args: argparse.Namespace) -> int:
    if args.backbone:
        return _mask_lora(args)
    from univg.engines.folders import load_autoencoder, load_backbone, save_compact  # loads torch
    from univg.engines.pretrain import PretrainConfig, pretrain_masks
    from univg.training import parallel

    config = _chosen(
        PretrainConfig(),
        seed=args.seed,
        steps=args.steps,
        batch_size=args.batch,
        size=args.size,
        precision=args.precision,
    )
    output, work, common = _prepare(args)
    start = load_backbone(args.start) if args.start else None
    backbone = pretrain_masks(config, load_autoencoder(args.autoencoder), work, start=start, **common)
    if parallel.is_first():
        save_compact(backbone, output, figures=backbone.figures)
        _record_images(None, output)
    return 0


def _mask_lora(args: argparse.Namespace) -> int:
    from univg.engines.config import AdapterConfig, DiffusionTrainConfig
    from univg.engines.folders import load_backbone  # loads torch
    from univg.engines.pretrain_lora import pretrain_mask_lora, save_merged
    from univg.training import parallel
    from univg.training.device import resolve_device

    if args.start or args.autoencoder:
        raise InputError("--start and --autoencoder are of the compact engine", fix="Leave them or --backbone out.")
    base = Path(args.backbone).expanduser()
    if base.is_file():  # the result is written in the layout of a folder
        raise InputError("--backbone must be a folder in diffusers' layout here", path=base, fix="Convert it first.")
    if base.resolve() == Path(args.output).expanduser().resolve():
        raise InputError("-o must be another folder than --backbone", path=base)
    settings = {"steps": args.steps, "batch_size": args.batch, "precision": args.precision}
    config = _chosen(DiffusionTrainConfig(steps=10_000, batch_size=1, warmup_steps=100), seed=args.seed, **settings)
    output, work, common = _prepare(args)
    backbone = load_backbone(args.backbone, device=resolve_device(common.pop("device")))
    if backbone.name != "sd15":
        raise InputError("--backbone takes Stable Diffusion 1.5; the compact engine is trained without it")
    adapter = pretrain_mask_lora(
        backbone, work, config=config, adapter=AdapterConfig("lora"), size=args.size or 512, **common
    )
    if parallel.is_first():
        save_merged(adapter, args.backbone, output)
    return 0


def _images(args: argparse.Namespace) -> int:
    from univg.engines.folders import (  # loads torch
        load_autoencoder,
        load_backbone,
        load_controlnet,
        save_compact,
        save_controlnet,
    )
    from univg.engines.pretrain import ImagePretrainConfig, pretrain_images
    from univg.segmentation.prior import find_vessels
    from univg.training import parallel
    from univg.training.device import resolve_device

    config = _chosen(
        ImagePretrainConfig(),
        seed=args.seed,
        steps=args.steps,
        control_steps=args.control_steps,
        whole_share=args.whole_share,
        repeats=args.repeats,
        batch_size=args.batch,
        size=args.size,
        precision=args.precision,
    )
    output, work, common = _prepare(args)
    autoencoder, start, start_controlnet = load_autoencoder(args.autoencoder), None, None
    if args.start:
        start = load_backbone(args.start, engine="images")
        start_controlnet = load_controlnet(Path(args.start) / "controlnet", start)
    backbone, controlnet = pretrain_images(
        config,
        autoencoder,
        args.images,
        # On a processor core each, workers would find vessels more slowly than a GPU learns.
        partial(find_vessels, device=resolve_device(args.device).type),
        work,
        start=start,
        start_controlnet=start_controlnet,
        **common,
    )
    if parallel.is_first():
        save_compact(backbone, output, figures=backbone.figures)
        save_controlnet(controlnet, output / "controlnet")
        _record_images(args.images, output)
    return 0


def _record_images(images: str | None, output: Path) -> None:
    """Put on record which real images took part; none without a folder of them."""
    from univg.engines.streams import training_list

    write_json_atomic(output / TRAINING_LIST, training_list(images) if images else {})


def _chosen(config: Config, **settings) -> Config:
    """`config` with the settings that the user gave."""
    try:
        return replace(config, **{name: value for name, value in settings.items() if value is not None})
    except ValueError as error:
        raise InputError(str(error)) from error


def _prepare(args: argparse.Namespace) -> tuple[Path, Path, dict]:
    """The two folders, and what every pretraining takes."""
    common = {
        "workers": args.workers,
        "device": args.device,
        "on_progress": _Report(),
        "should_stop": _stop_on_interrupt(),
    }
    return output_folder(args.output), output_folder(args.work), common


class _Report:
    """A progress line, and a line to keep for every look at the averaged weights."""

    def __init__(self) -> None:
        self._line = ProgressLine(seconds_between=SECONDS_BETWEEN_LINES)

    def __call__(self, event: ProgressEvent) -> None:
        self._line(event)
        if event.picture is not None or len(event.metrics) > 1:
            figures = ", ".join(f"{name} {value:.4g}" for name, value in event.metrics.items())
            self._line.end()
            print(f"step {event.step}: {figures}", flush=True)


def _stop_on_interrupt() -> ShouldStop:
    stopping: list[bool] = []
    signal.signal(signal.SIGINT, lambda *_: stopping.append(True))
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
    return lambda: bool(stopping)
