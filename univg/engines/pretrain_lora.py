"""Pretraining a mask engine that is too large to train whole: a LoRA of Stable Diffusion on trees (section 3.2.1).

The LoRA is merged afterwards, so what comes out is an ordinary checkpoint: the base that a LoHa is learnt on, and what
α = 0 gives.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from univg.engines.adapters import Adapter, adapted_prediction, attach_adapter, save_adapter, training_prediction
from univg.engines.autoencoder import save_sheet
from univg.engines.backbone import DiffusionBackbone, fingerprint, mask_to_picture
from univg.engines.config import AdapterConfig, DiffusionTrainConfig, SamplingConfig, check_size
from univg.engines.diffusion import noising_batch, noising_loss, sample_latents
from univg.engines.folders import save_unet
from univg.engines.streams import draw_masks, in_order
from univg.errors import InputError
from univg.progress import OnProgress, ShouldStop, ignore_progress, never_stop
from univg.training.loop import Batch, Look, optimize
from univg.types import Modality

_MODALITIES = list(Modality)


def pretrain_mask_lora(
    backbone: DiffusionBackbone,
    folder: str | Path,
    *,
    config: DiffusionTrainConfig,
    adapter: AdapterConfig,
    size: int = 512,
    look_every: int = 500,
    workers: int = 1,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> Adapter:
    """Train a LoRA on vessel trees of all five modalities.

    Parameters
    ----------
    backbone : DiffusionBackbone
        On the device to train on. It stays as it is.
    folder : path-like
        An existing folder for the checkpoint and sample sheets; what is found there is resumed, exactly.
    config : DiffusionTrainConfig
    adapter : AdapterConfig
        Of kind 'lora'.
    size : int
    look_every : int
        Steps between sample sheets.
    workers : int
        Processes that grow trees; the result does not depend on their number.
    on_progress, should_stop : callable

    Returns
    -------
    Adapter

    Raises
    ------
    Cancelled
        After saving a checkpoint, when `should_stop` says so.
    """
    check_size(size)
    if adapter.kind != "lora":
        raise ValueError(f"`adapter` must be of kind 'lora', got {adapter.kind!r}")
    folder = Path(folder)
    trained = attach_adapter(backbone, adapter, generator=torch.Generator().manual_seed(config.seed))
    predict = training_prediction(trained)
    draw = partial(draw_masks, count=config.batch_size, size=size)

    def batches_from(first: int) -> Iterator[Batch]:
        steps = ((config.seed, step) for step in itertools.count(first))
        for step, (masks, numbers) in enumerate(in_order(draw, steps, workers=workers, ahead=2 * workers), first):
            latents = backbone.encode(mask_to_picture(masks), [_MODALITIES[n] for n in numbers])
            rng = np.random.default_rng([config.seed, step, 1])
            yield (
                latents,
                *noising_batch(latents, backbone.scheduler, rng),
                torch.tensor(numbers, device=latents.device),
            )

    def loss_of(latents, noise, timesteps, numbers) -> torch.Tensor:
        tokens = backbone.conditioner(numbers)
        gamma = config.min_snr_gamma
        return noising_loss(
            predict, latents, noise, timesteps, tokens, scheduler=backbone.scheduler, min_snr_gamma=gamma
        )

    def look(step: int) -> Look:
        tokens = backbone.condition(_MODALITIES)
        drawn = adapted_prediction(backbone, trained, 1.0)
        rows = [
            sample_latents(drawn, backbone, tokens[i : i + 1], seeds=[i], config=SamplingConfig(size=size))
            for i in range(len(_MODALITIES))
        ]
        drawn = [backbone.decode(row, [m]) for row, m in zip(rows, _MODALITIES, strict=True)]
        save_sheet([torch.cat(drawn)], folder / "samples.png")
        return Look({}, "samples.png")

    optimize(
        trained.factors(),
        loss_of,
        batches_from,
        config=config,
        stage="mask LoRA",
        folder=folder,
        fingerprint=fingerprint("lora", backbone.sha256, config.to_json(), adapter.to_json(), size),
        look=look,
        look_every=look_every,
        seconds_between_checkpoints=60.0,
        on_progress=on_progress,
        should_stop=should_stop,
    )
    return replace(trained, card={"pretrained_on": "grown trees", "training": config.to_json()})


def save_merged(adapter: Adapter, source: str | Path, folder: str | Path) -> None:
    """Write a checkpoint whose U-Net has `adapter` merged, beside copies of the other parts in `source`, and the LoRA.

    Parameters
    ----------
    adapter : Adapter
    source : path-like
        The folder, in diffusers' layout, that the backbone was read from.
    folder : path-like
        An existing, empty folder.

    Raises
    ------
    InputError
        If `source` is no such folder.
    """
    source, folder = Path(source), Path(folder)
    if not source.is_dir():
        raise InputError(
            "A merged checkpoint needs a base in diffusers' folder layout", path=source, fix="Convert it first."
        )
    for part in sorted(source.iterdir()):
        if part.is_dir() and part.name != "unet":
            shutil.copytree(part, folder / part.name, dirs_exist_ok=True)
        elif part.suffix == ".json":
            shutil.copy2(part, folder / part.name)
    save_adapter(adapter, folder)
    save_unet(adapter.unet, folder / "unet", changed=adapter.weights(1.0))
