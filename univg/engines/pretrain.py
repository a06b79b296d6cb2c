"""Pretraining the U-Net of an engine on an endless stream."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderDC, ControlNetModel
from torch import nn

from univg.engines.autoencoder import save_sheet
from univg.engines.backbone import (
    COMPACT,
    DiffusionBackbone,
    ModalityEmbedding,
    condition_to_picture,
    fingerprint,
    image_to_picture,
    mask_to_picture,
    new_controlnet,
    new_scheduler,
    new_unet,
)
from univg.engines.config import DiffusionTrainConfig, SamplingConfig, check_size
from univg.engines.diffusion import (
    controlled_prediction,
    noising_batch,
    noising_loss,
    sample_latents,
    unet_prediction,
)
from univg.engines.parts import evaluating
from univg.engines.streams import FindVessels, draw_images, draw_masks, in_order, unlabelled_images
from univg.progress import OnProgress, ShouldStop, ignore_progress, never_stop
from univg.training.device import resolve_device
from univg.training.loop import Batch, Look, optimize
from univg.training.seeding import seeded
from univg.types import Modality

_MODALITIES = list(Modality)
_NEVER_TRAINED = 10**9  # no training is ever that long


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
    window : int
        Side in pixels of the random windows that steps learn from, a multiple of 8 like `size`: four times as many
        steps in the same time as with whole pictures of twice the side.
    whole_share : float
        Share of the steps, the last ones, that learn from whole pictures.
    repeats : int
        Steps in a row that learn from the same pictures, with other windows and noise: drawing and encoding pictures
        takes as long as a step itself.
    look_every : int
        Steps between sample sheets.
    """

    steps: int = 8000
    batch_size: int = 8
    learning_rate: float = 4e-4
    warmup_steps: int = 200
    ema_decay: float = 0.999
    min_snr_gamma: float = math.inf
    channels: tuple[int, ...] = (48, 96, 128)
    layers: int = 1
    token_width: int = 64
    size: int = 512
    window: int = 256
    whole_share: float = 0.08
    repeats: int = 12
    look_every: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size(self.size)  # of the sample sheets
        multiple = 8 * 2 ** (len(self.channels) - 1)
        for name in ("size", "window"):
            if getattr(self, name) < 64 or getattr(self, name) % multiple:
                got = getattr(self, name)
                raise ValueError(f"`{name}` must be a multiple of {multiple} and at least 64, got {got}")
        if not 0 <= self.whole_share <= 1:
            raise ValueError(f"`whole_share` must be between 0 and 1, got {self.whole_share}")
        for name in ("layers", "token_width", "repeats", "look_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}")
        if not self.channels or any(width < 1 or width % 16 for width in self.channels):
            raise ValueError(f"`channels` must be multiples of 16, got {self.channels}")


@dataclass(frozen=True)
class ImagePretrainConfig(PretrainConfig):
    """Recipe of a compact image engine.

    Attributes
    ----------
    steps, batch_size, …
        See `PretrainConfig`; ``steps`` are those of the U-Net alone.
    control_steps : int
        Steps of the U-Net and its ControlNet together.
    untold : float
        Share of the pictures for which the ControlNet is silent then, so that the U-Net still works alone.
    """

    steps: int = 800
    control_steps: int = 3200
    untold: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.control_steps < 1 or not 0 <= self.untold <= 1:
            raise ValueError("`control_steps` must be at least 1 and `untold` between 0 and 1")


def pretrain_masks(
    config: PretrainConfig,
    autoencoder: AutoencoderDC,
    folder: str | Path,
    *,
    start: DiffusionBackbone | None = None,
    workers: int = 1,
    device: str = "auto",
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> DiffusionBackbone:
    """Train a mask engine's U-Net on an endless stream of vessel trees of all five modalities (section 3.2.1).

    Parameters
    ----------
    config : PretrainConfig
    autoencoder : AutoencoderDC
        Trained; it stays as it is.
    folder : path-like
        An existing folder for the checkpoint and sample sheets; what is found there is resumed, exactly.
    start : DiffusionBackbone, optional
        Goes on from its weights, which are changed, with the schedule of `config`; new ones by default. Choose another
        seed than it was trained with, or it sees the same trees again. It may have been trained with another
        autoencoder of the same shape.
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
        config,
        autoencoder,
        Path(folder),
        pictures_from,
        "masks",
        resolve_device(device),
        on_progress,
        should_stop,
        start=start,
    )


def pretrain_images(
    config: ImagePretrainConfig,
    autoencoder: AutoencoderDC,
    images: str | Path,
    find_vessels: FindVessels,
    folder: str | Path,
    *,
    start: DiffusionBackbone | None = None,
    start_controlnet: ControlNetModel | None = None,
    workers: int = 1,
    device: str = "auto",
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> tuple[DiffusionBackbone, ControlNetModel]:
    """Train an image engine's U-Net on unlabelled images, then its ControlNet and itself on what is found in them.

    Parameters
    ----------
    config : ImagePretrainConfig
    autoencoder : AutoencoderDC
        Trained; it stays as it is.
    images : path-like
        A folder of unlabelled images, see `univg.engines.streams.unlabelled_images`.
    find_vessels : callable
        See `univg.engines.streams.FindVessels`; with workers it must be importable.
    folder : path-like
        An existing folder for the checkpoints and sample sheets; what is found there is resumed, exactly.
    start : DiffusionBackbone, optional
        The U-Net goes on from its weights, which are changed; choose another seed than it was trained with.
    start_controlnet : ControlNetModel, optional
        Goes on from its weights, which are changed; a copy of the U-Net by default.
    workers : int
        Processes that read images; the result does not depend on their number.
    device : {'auto', 'cpu', 'cuda', 'mps'}
    on_progress, should_stop : callable

    Returns
    -------
    backbone : DiffusionBackbone
    controlnet : ControlNetModel
        With the moving average of the weights, in evaluation mode.

    Raises
    ------
    Cancelled
        After saving a checkpoint, when `should_stop` says so.
    """
    folder, target = Path(folder), resolve_device(device)
    found = unlabelled_images(images)
    sources = [[f.name for f in files] for files in found.values()]
    draw = partial(draw_images, images=found, find_vessels=find_vessels, count=config.batch_size, size=config.size)

    def blocks_from(first: int, stage: int) -> Iterator[tuple]:
        items = ((config.seed + stage, step) for step in itertools.count(first))
        for drawn, conditions, numbers in in_order(draw, items, workers=workers, ahead=2 * workers):
            yield image_to_picture(drawn), numbers, conditions

    # 1. The U-Net alone
    inside = folder / "unet"
    inside.mkdir(exist_ok=True)
    backbone = _pretrain(
        config,
        autoencoder,
        inside,
        lambda first: (block[:2] for block in blocks_from(first, 0)),
        "images",
        target,
        on_progress,
        should_stop,
        sources=sources,
        start=start,
    )

    # 2. The ControlNet begins as its copy, or where it was; both go on together
    known = () if start_controlnet is None else (fingerprint(start_controlnet),)
    with seeded(config.seed):
        controlnet = (start_controlnet or new_controlnet(backbone.unet)).to(target).requires_grad_(True).train()
    backbone.unet.requires_grad_(True).train()
    backbone.conditioner.requires_grad_(True).train()
    predict = controlled_prediction(backbone, controlnet)

    control = replace(config, steps=config.control_steps)

    def batches_from(first: int) -> Iterator[Batch]:
        blocks = blocks_from(first // config.repeats, 1)
        for latents, noise, timesteps, numbers, conditions, step in _steps(blocks, backbone, control, first):
            told = np.random.default_rng([config.seed, step, 2]).random(len(latents)) >= config.untold
            yield latents, noise, timesteps, numbers, conditions, torch.from_numpy(told).to(target)

    def loss_of(latents, noise, timesteps, numbers, conditions, told) -> torch.Tensor:
        return noising_loss(
            partial(predict, condition=conditions, scale=told.float()[:, None, None, None]),
            latents,
            noise,
            timesteps,
            backbone.conditioner(numbers),
            scheduler=backbone.scheduler,
            min_snr_gamma=config.min_snr_gamma,
        )

    _, numbers, conditions = next(iter(blocks_from(_NEVER_TRAINED, 1)))
    shown = condition_to_picture(conditions).to(target)

    def look(step: int) -> Look:
        with evaluating(backbone.unet, controlnet), torch.inference_mode():
            tokens = backbone.conditioner(torch.tensor(numbers, device=target))
            told = partial(predict, condition=shown, scale=1.0)
            seeds = range(len(numbers))
            latents = sample_latents(told, backbone, tokens, seeds=seeds, config=SamplingConfig(size=config.size))
            drawn = backbone.decode(latents, [_MODALITIES[n] for n in numbers])
            save_sheet([shown * 2 - 1, drawn], folder / "samples.png")
        return Look({}, "samples.png")

    trained = _named(unet=backbone.unet, modality_embedding=backbone.conditioner, controlnet=controlnet)
    inside = folder / "controlnet"
    inside.mkdir(exist_ok=True)
    optimize(
        trained,
        loss_of,
        batches_from,
        config=control,
        stage="controlnet",
        folder=inside,
        fingerprint=fingerprint("controlnet", config.to_json(), autoencoder.encoder, sources, *known),
        look=look,
        look_every=config.look_every,
        seconds_between_checkpoints=60.0,
        on_progress=on_progress,
        should_stop=should_stop,
    )
    for part in (backbone.unet, backbone.conditioner, controlnet):
        part.eval().requires_grad_(False)
    figures = {**backbone.figures, "control_steps": config.control_steps}
    return replace(backbone, figures=figures), controlnet


def _steps(blocks: Iterator[tuple], backbone: DiffusionBackbone, config: PretrainConfig, first: int) -> Iterator[tuple]:
    """What each step learns from, from step `first` on: windows of pictures as latents, and noise.

    Each block of pictures serves `config.repeats` steps.
    """
    step = first
    for pictures, numbers, *conditions in blocks:
        modalities = [_MODALITIES[n] for n in numbers]
        whole = backbone.encode(pictures.contiguous(memory_format=torch.channels_last), modalities)
        numbers = torch.tensor(numbers, device=whole.device)
        conditions = [condition_to_picture(c).to(whole.device) for c in conditions]
        for _ in range(config.repeats - step % config.repeats):
            rng = np.random.default_rng([config.seed, step, 1])
            told, latents = conditions, whole
            if config.window < config.size and step < config.steps * (1 - config.whole_share):
                corners = rng.integers((config.size - config.window) // backbone.factor + 1, size=(len(whole), 2))
                latents = _windows(whole, corners, config.window // backbone.factor)
                told = [_windows(c, corners * backbone.factor, config.window) for c in conditions]
            yield latents, *noising_batch(latents, backbone.scheduler, rng), numbers, *told, step
            step += 1


def _windows(pictures: torch.Tensor, corners: np.ndarray, side: int) -> torch.Tensor:
    """A window of each of the pictures ``(batch, C, H, W)``, `corners` being (row, col)."""
    cut = zip(pictures, corners.tolist(), strict=True)
    return torch.stack([picture[:, row : row + side, col : col + side] for picture, (row, col) in cut])


def _equal_in_half_precision(first: nn.Module, second: nn.Module) -> bool:
    """Whether two networks of the same shape would be the same when saved."""
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    return all(torch.equal(a.half().cpu(), b.half().cpu()) for a, b in pairs)


def _named(**parts: nn.Module) -> dict[str, nn.Parameter]:
    return {f"{name}.{key}": p for name, part in parts.items() for key, p in part.named_parameters()}


def _pretrain(
    config, autoencoder, folder, pictures_from, stage, target, on_progress, should_stop, *, sources=(), start=None
) -> DiffusionBackbone:
    # 1. Parts
    if start is None:
        start = _new_backbone(config, autoencoder, pictures_from)
    elif not _equal_in_half_precision(start.autoencoder, autoencoder):
        mean, sd = latent_statistics(autoencoder, pictures_from)
        start = replace(start, latent_mean=mean, latent_sd=sd)
    for part in (start.unet, start.conditioner):
        part.requires_grad_(True).train()
    backbone = replace(start, autoencoder=autoencoder).to(target)
    unet, conditioner = backbone.unet, backbone.conditioner
    predict = unet_prediction(backbone)

    # 2. Batches: latents, noise, timesteps and modality
    def batches_from(first: int) -> Iterator[Batch]:
        for *batch, _ in _steps(pictures_from(first // config.repeats), backbone, config, first):
            yield tuple(batch)

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
        sampling = SamplingConfig(size=config.size)
        with evaluating(unet), torch.inference_mode():
            tokens = backbone.condition(_MODALITIES)
            latents = sample_latents(predict, backbone, tokens, seeds=range(len(_MODALITIES)), config=sampling)
            save_sheet([backbone.decode(latents, _MODALITIES)], folder / "samples.png")
        return Look({}, "samples.png")

    # 4. The loop
    trained = _named(unet=unet, modality_embedding=conditioner)
    if config.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    optimize(
        trained,
        loss_of,
        batches_from,
        config=config,
        stage=stage,
        folder=folder,
        fingerprint=fingerprint(stage, config.to_json(), autoencoder.encoder, sources, start.sha256),
        look=look,
        look_every=config.look_every,
        seconds_between_checkpoints=60.0,
        on_progress=on_progress,
        should_stop=should_stop,
    )
    unet.eval().requires_grad_(False)
    conditioner.eval().requires_grad_(False)
    figures = {"steps": config.steps, "batch_size": config.batch_size}
    if start.figures:
        figures["before"] = dict(start.figures)
    return replace(backbone, figures=figures)


def _new_backbone(config: PretrainConfig, autoencoder: AutoencoderDC, pictures_from) -> DiffusionBackbone:
    with seeded(config.seed):
        unet = new_unet(
            autoencoder.config.latent_channels,
            channels=config.channels,
            layers=config.layers,
            token_width=config.token_width,
        )
        conditioner = ModalityEmbedding(width=config.token_width)
    mean, sd = latent_statistics(autoencoder, pictures_from)
    return DiffusionBackbone(COMPACT, autoencoder, unet, conditioner, new_scheduler(), mean, sd)


def latent_statistics(
    autoencoder: AutoencoderDC, pictures_from, batches: int = 20
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each latent channel for each modality, over the first pictures of a stream.

    Both are ``(M, C, 1, 1)``; a modality that does not occur gets those of all.
    """
    latents: list[torch.Tensor] = []
    numbers: list[int] = []
    device = next(autoencoder.parameters()).device
    with torch.no_grad():
        for pictures, drawn in itertools.islice(pictures_from(0), batches):
            latents.append(autoencoder.encode(pictures.to(device)).latent.float().cpu())
            numbers += drawn
    latents = torch.cat(latents)
    chosen = [torch.tensor([n == i for n in numbers]) for i in range(len(_MODALITIES))]
    groups = [latents[part] if part.any() else latents for part in chosen]
    mean, sd = (torch.stack([f(group, dim=(0, 2, 3)) for group in groups]) for f in (torch.mean, torch.std))
    return mean[:, :, None, None], sd[:, :, None, None]
