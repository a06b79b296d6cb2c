"""Pretraining the compact autoencoder on vessel trees and unlabelled images."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderDC
from PIL import Image
from torchvision.transforms.functional import gaussian_blur

from univg.engines.backbone import fingerprint, new_autoencoder, picture_to_mask
from univg.engines.config import AutoencoderConfig
from univg.engines.streams import draw_patches, in_order, unlabelled_images
from univg.metrics import dice
from univg.progress import OnProgress, ShouldStop, ignore_progress, never_stop
from univg.training.device import resolve_device
from univg.training.loop import Batch, Look, optimize
from univg.training.seeding import seeded

_VALIDATION_STEP = 10**9  # no training is ever that long
_LOOK_EVERY = 500
_DETAIL_SIGMAS = (1, 2)
_SURROUND_SIGMA = 8
_LEAST_CONTRAST = 0.03  # of pictures in [-1, 1]: about that of the noise in a fundus photograph
_MARGIN = 0.5  # of masks in [-1, 1]
_LUMINANCE = (0.25, 0.6, 0.15)  # mostly green, which shows vessels best

# Gets decoded pictures and originals, (B, 3, H, W) in [-1, 1], and where vessels are dark, (B,) bool; returns the mean
# difference of what a segmenter sees in them, see `univg.segmentation.perceptual.VesselFeatures`.
VesselDistance = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def pretrain_autoencoder(
    config: AutoencoderConfig,
    images: str | Path,
    folder: str | Path,
    *,
    start: AutoencoderDC | None = None,
    vessel_distance: VesselDistance | None = None,
    workers: int = 1,
    device: str = "auto",
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> tuple[AutoencoderDC, dict[str, float]]:
    """Train an autoencoder to give back pictures of vessels.

    Parameters
    ----------
    config : AutoencoderConfig
    images : path-like
        A folder of unlabelled images, see `univg.engines.streams.unlabelled_images`.
    folder : path-like
        An existing folder for the checkpoint and sample sheets; what is found there is resumed, exactly.
    start : AutoencoderDC, optional
        Goes on from this one, of the shapes of `config`, which is changed; a new one by default.
    vessel_distance : callable, optional
        Needed where `config.perceptual_weight` is not 0, see `VesselDistance`.
    workers : int
        Processes that draw pictures; the result does not depend on their number.
    device : {'auto', 'cpu', 'cuda', 'mps'}
    on_progress, should_stop : callable

    Returns
    -------
    autoencoder : AutoencoderDC
        The moving average of the weights, in evaluation mode.
    figures : dict
        ``{"mask_dice", "psnr"}`` on patches that never train.

    Raises
    ------
    Cancelled
        After saving a checkpoint, when `should_stop` says so.
    """
    if config.perceptual_weight and vessel_distance is None:
        raise ValueError("`perceptual_weight` is above 0, so `vessel_distance` is needed")
    folder, target = Path(folder), resolve_device(device)
    found = unlabelled_images(images)
    files, polarities = list(found.values()), [modality.vessels_are_dark for modality in found]
    if start is None:
        with seeded(config.seed):
            start = new_autoencoder(config)
    began_as = fingerprint(start)
    anchor = copy.deepcopy(start.encoder).to(target).requires_grad_(False) if config.anchor_weight else None
    autoencoder = start.to(target).requires_grad_(True).train()
    if config.decoder_only:
        autoencoder.encoder.requires_grad_(False)
    masks = round(config.batch_size * config.mask_share)
    draw = partial(
        draw_patches,
        images=files,
        polarities=polarities,
        count=config.batch_size,
        masks=masks,
        size=config.patch_size,
    )

    def batches_from(first: int) -> Iterator[Batch]:
        steps = ((config.seed, step) for step in itertools.count(first))
        for step, (pictures, dark) in enumerate(in_order(draw, steps, workers=workers, ahead=3 * workers), first):
            rng = np.random.default_rng([config.seed, step, 1])
            side, channels = config.patch_size // 8, config.latent_channels
            noise = rng.standard_normal((len(pictures), channels, side, side), dtype=np.float32)
            amount = config.latent_noise * rng.random((len(pictures), 1, 1, 1), dtype=np.float32)
            amount *= rng.random(amount.shape) < 0.5  # the other half learns to be exact
            yield (
                torch.from_numpy(pictures).to(target, memory_format=torch.channels_last),
                torch.from_numpy(noise * amount).to(target),
                torch.from_numpy(dark).to(target),
                torch.arange(len(pictures), device=target) < masks,
            )

    def loss_of(pictures: torch.Tensor, noise: torch.Tensor, dark: torch.Tensor, is_mask: torch.Tensor) -> torch.Tensor:
        with torch.set_grad_enabled(not config.decoder_only):
            latents = autoencoder.encode(pictures).latent
        spread = latents.detach().std(dim=(1, 2, 3), keepdim=True)
        decoded = autoencoder.decode(latents + noise * spread).sample
        loss = reconstruction_loss(decoded.float(), pictures, config.detail_weight)
        # A step that ran out of memory is computed in parts, and several GPUs share one. Neither kind need occur then,
        # and what is a mean over one kind counts by how much of it a part has: 1 for a whole batch.
        of_masks = is_mask.float().mean() * config.batch_size / max(masks, 1)
        of_images = (~is_mask).float().mean() * config.batch_size / max(config.batch_size - masks, 1)
        if is_mask.any():
            if config.sign_weight:
                loss = loss + of_masks * config.sign_weight * sign_loss(decoded[is_mask].float(), pictures[is_mask])
            if anchor is not None:
                with torch.no_grad():
                    known = anchor(pictures[is_mask])
                moved = (latents[is_mask] - known).float().square().mean() / known.float().var()
                loss = loss + of_masks * config.anchor_weight * moved
        if not is_mask.all():
            shown, wanted = decoded[~is_mask], pictures[~is_mask]
            if config.contrast_weight:
                loss = loss + of_images * config.contrast_weight * contrast_loss(shown.float(), wanted)
            if config.perceptual_weight:
                loss = loss + of_images * config.perceptual_weight * vessel_distance(shown, wanted, dark[~is_mask])
        return loss

    unseen = [torch.from_numpy(draw(config.seed, _VALIDATION_STEP + i)[0]).to(target) for i in range(4)]
    figures: dict[str, float] = {}

    def look(step: int) -> Look:
        figures.update(reconstruction_figures(autoencoder, unseen, masks))
        picture = folder / "samples.png"
        with torch.no_grad():
            save_sheet([unseen[0], autoencoder(unseen[0]).sample], picture)
        return Look(dict(figures), picture.name)

    optimize(
        {name: weight for name, weight in autoencoder.named_parameters() if weight.requires_grad},
        loss_of,
        batches_from,
        config=config,
        stage="autoencoder",
        folder=folder,
        fingerprint=fingerprint(config.to_json(), began_as, [[f.name for f in group] for group in files]),
        look=look,
        look_every=_LOOK_EVERY,
        seconds_between_checkpoints=60.0,
        on_progress=on_progress,
        should_stop=should_stop,
    )
    return autoencoder.eval(), figures


def reconstruction_loss(decoded: torch.Tensor, pictures: torch.Tensor, detail_weight: float = 0.0) -> torch.Tensor:
    """Absolute and squared error: the first keeps edges and fine vessels, the second the peak signal-to-noise ratio.

    `detail_weight` adds the absolute error of what a blur takes away, at two scales.
    """
    difference = decoded - pictures
    loss = difference.abs().mean() + 2 * difference.square().mean()
    if detail_weight:
        for sigma in _DETAIL_SIGMAS:
            fine = difference - _blurred(difference, sigma)
            loss = loss + detail_weight * fine.abs().mean() / len(_DETAIL_SIGMAS)
    return loss


def sign_loss(decoded: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Mean squared distance by which pixels of masks in [-1, 1] miss the right side of grey and a margin beside it."""
    return (_MARGIN - decoded * masks.sign()).clamp(min=0).square().mean()


def contrast_loss(decoded: torch.Tensor, pictures: torch.Tensor) -> torch.Tensor:
    """Mean absolute error of the luminance at the widths of fine vessels, in units of the contrast around."""
    weights = pictures.new_tensor(_LUMINANCE)[:, None, None]
    shown, error = ((p * weights).sum(dim=1, keepdim=True) for p in (pictures, decoded - pictures))
    spread = _blurred(shown.square(), _SURROUND_SIGMA) - _blurred(shown, _SURROUND_SIGMA).square()
    contrast = spread.clamp(min=0).sqrt() + _LEAST_CONTRAST
    bands = [_blurred(error, sigma) - _blurred(error, 3 * sigma) for sigma in _DETAIL_SIGMAS]
    return sum((band / contrast).abs().mean() for band in bands) / len(bands)


def _blurred(pictures: torch.Tensor, sigma: int) -> torch.Tensor:
    """A Gaussian blur of each channel, along rows, then columns: wide ones take seconds as one convolution."""
    # In bfloat16 the contrast of a fundus drowns in the rounding of its brightness.
    with torch.autocast(pictures.device.type, enabled=False):
        pictures = pictures.float()
        for size in ([6 * sigma + 1, 1], [1, 6 * sigma + 1]):
            pictures = gaussian_blur(pictures, size, [float(sigma)] * 2)
    return pictures


@torch.no_grad()
def reconstruction_figures(autoencoder: AutoencoderDC, batches: list[torch.Tensor], masks: int) -> dict[str, float]:
    """Mean Dice of the first `masks` pictures of each batch, and peak signal-to-noise ratio (dB) of the others."""
    scores, errors = [], []
    for pictures in batches:
        decoded = autoencoder(pictures).sample
        found, wanted = picture_to_mask(decoded[:masks]), picture_to_mask(pictures[:masks])
        scores += [dice(f, w) for f, w in zip(found, wanted, strict=True) if w.any()]
        errors += ((decoded[masks:].clamp(-1, 1) - pictures[masks:]) / 2).square().mean(dim=(1, 2, 3)).tolist()
    psnr = float(np.mean(-10 * np.log10(np.maximum(errors, 1e-10)))) if errors else float("nan")
    return {"mask_dice": float(np.mean(scores)) if scores else float("nan"), "psnr": psnr}


def save_sheet(rows: list[torch.Tensor], path: Path) -> None:
    """Write pictures ``(batch, 3, H, W)`` in [-1, 1] as a PNG, one tensor a row."""
    lines = [torch.cat(list(row.float().clamp(-1, 1).cpu()), dim=2) for row in rows]
    sheet = ((torch.cat(lines, dim=1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    partial_file = path.with_suffix(".partial.png")
    Image.fromarray(sheet).save(partial_file)
    partial_file.replace(path)
