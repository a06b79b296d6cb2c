"""Pretraining the U-Net of an engine on an endless stream."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderDC

from univg.engines.autoencoder import save_sheet
from univg.engines.backbone import (
    COMPACT,
    DiffusionBackbone,
    ModalityEmbedding,
    fingerprint,
    mask_to_picture,
    new_scheduler,
    new_unet,
)
from univg.engines.config import DiffusionTrainConfig, SamplingConfig
from univg.engines.diffusion import noising_batch, noising_loss, sample_latents, unet_prediction
from univg.engines.streams import draw_masks, in_order
from univg.progress import OnProgress, ShouldStop, ignore_progress, never_stop
from univg.training.device import resolve_device
from univg.training.loop import Batch, Look, optimize
from univg.types import Modality

_MODALITIES = list(Modality)


@dataclass(frozen=True)
class PretrainConfig(DiffusionTrainConfig):
    """Recipe of a compact U-Net.

    Attributes
    ----------
    steps, batch_size, …
        See `univg.engines.config.DiffusionTrainConfig`.
    channels : tuple of int
        Features of each level of the U-Net, finest first.
    layers : int
        Residual blocks a level.
    token_width : int
        Length of the tokens that stand for a modality.
    size : int
        Side of the pictures in pixels.
    look_every : int
        Steps between sample sheets.
    """

    steps: int = 20_000
    batch_size: int = 4
    learning_rate: float = 3e-4
    warmup_steps: int = 200
    ema_decay: float = 0.999
    channels: tuple[int, ...] = (48, 96, 128)
    layers: int = 1
    token_width: int = 64
    size: int = 512
    look_every: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        multiple = 8 * 2 ** (len(self.channels) - 1)
        if self.size < 64 or self.size % multiple:
            raise ValueError(f"`size` must be a multiple of {multiple} and at least 64, got {self.size}")
        for name in ("layers", "token_width", "look_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}")
        if not self.channels or any(width < 1 or width % 16 for width in self.channels):
            raise ValueError(f"`channels` must be multiples of 16, got {self.channels}")


def pretrain_masks(
    config: PretrainConfig,
    autoencoder: AutoencoderDC,
    folder: str | Path,
    *,
    workers: int = 1,
    device: str = "auto",
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> DiffusionBackbone:
    """Train a mask engine's U-Net on vessel trees of all five modalities, each seen once (section 3.2.1).

    Parameters
    ----------
    config : PretrainConfig
    autoencoder : AutoencoderDC
        Trained; it stays as it is.
    folder : path-like
        An existing folder for the checkpoint and sample sheets; what is found there is resumed, exactly.
    workers : int
        Processes that grow trees; the result does not depend on their number.
    device : {'auto', 'cpu', 'cuda', 'mps'}
    on_progress, should_stop : callable

    Returns
    -------
    DiffusionBackbone
        With the moving average of the weights, in evaluation mode.

    Raises
    ------
    Cancelled
        After saving a checkpoint, when `should_stop` says so.
    """
    draw = partial(draw_masks, count=config.batch_size, size=config.size)

    def pictures_from(first: int) -> Iterator[tuple[torch.Tensor, list[int]]]:
        steps = ((config.seed, step) for step in itertools.count(first))
        for masks, numbers in in_order(draw, steps, workers=workers, ahead=2 * workers):
            yield mask_to_picture(masks), numbers

    return _pretrain(
        config, autoencoder, Path(folder), pictures_from, "masks", resolve_device(device), on_progress, should_stop
    )


def _pretrain(config, autoencoder, folder, pictures_from, stage, target, on_progress, should_stop) -> DiffusionBackbone:
    # 1. Parts
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        unet = new_unet(
            autoencoder.config.latent_channels,
            channels=config.channels,
            layers=config.layers,
            token_width=config.token_width,
        )
        conditioner = ModalityEmbedding(width=config.token_width)
    mean, sd = latent_statistics(autoencoder, pictures_from)
    backbone = DiffusionBackbone(COMPACT, autoencoder, unet.train(), conditioner, new_scheduler(), mean, sd).to(target)
    predict = unet_prediction(backbone)

    # 2. Batches: latents, noise, timesteps and modality
    def batches_from(first: int) -> Iterator[Batch]:
        for step, (pictures, numbers) in enumerate(pictures_from(first), first):
            latents = backbone.encode(pictures.contiguous(memory_format=torch.channels_last))
            rng = np.random.default_rng([config.seed, step, 1])
            noise, timesteps = noising_batch(latents, backbone.scheduler, rng)
            yield latents, noise, timesteps, torch.tensor(numbers, device=target)

    def loss_of(latents, noise, timesteps, numbers) -> torch.Tensor:
        return noising_loss(
            predict,
            latents,
            noise,
            timesteps,
            backbone.conditioner(numbers),
            scheduler=backbone.scheduler,
            min_snr_gamma=config.min_snr_gamma,
        )

    # 3. A sheet of one sample a modality, always from the same noise
    def look(step: int) -> Look:
        unet.eval()
        sampling = SamplingConfig(size=config.size)
        with torch.inference_mode():
            tokens = backbone.condition(_MODALITIES)
            latents = sample_latents(predict, backbone, tokens, seeds=range(len(_MODALITIES)), config=sampling)
            save_sheet([backbone.decode(latents)], folder / "samples.png")
        unet.train()
        return Look({}, "samples.png")

    # 4. The loop
    trained = {f"unet.{n}": p for n, p in unet.named_parameters()}
    trained |= {f"modality_embedding.{n}": p for n, p in conditioner.named_parameters()}
    if config.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    optimize(
        trained,
        loss_of,
        batches_from,
        config=config,
        stage=stage,
        folder=folder,
        fingerprint=fingerprint(stage, config.to_json(), mean.flatten().tolist()),
        look=look,
        look_every=config.look_every,
        seconds_between_checkpoints=60.0,
        on_progress=on_progress,
        should_stop=should_stop,
    )
    unet.eval().requires_grad_(False)
    conditioner.eval().requires_grad_(False)
    return replace(backbone, figures={"steps": config.steps, "batch_size": config.batch_size})


def latent_statistics(autoencoder: AutoencoderDC, pictures_from, batches: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each latent channel, ``(C, 1, 1)`` both, over the first pictures of a stream."""
    latents = []
    device = next(autoencoder.parameters()).device
    with torch.no_grad():
        for pictures, _ in itertools.islice(pictures_from(0), batches):
            latents.append(autoencoder.encode(pictures.to(device)).latent.float().cpu())
    latents = torch.cat(latents)
    return latents.mean(dim=(0, 2, 3))[:, None, None], latents.std(dim=(0, 2, 3))[:, None, None]
