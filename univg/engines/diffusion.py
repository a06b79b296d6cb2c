"""One noising loss and one sampling loop, for both engines and both backbones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from diffusers import ControlNetModel, DDPMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler
from diffusers.training_utils import compute_snr

from univg.engines.backbone import DiffusionBackbone
from univg.engines.config import SamplingConfig
from univg.errors import Cancelled
from univg.progress import ShouldStop, never_stop
from univg.training.device import autocast

_LEAST_WEIGHT = 0.2

# Gets latents (batch, C, h, w), timesteps and tokens; returns the U-Net's prediction, perhaps helped by a ControlNet.
Predict = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def draw_noise(shape: Sequence[int], seeds: Sequence[int]) -> torch.Tensor:
    """Standard normal noise ``(len(seeds), *shape)``; sample i depends on seed i alone, on every device."""
    return torch.stack([torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def noising_batch(
    latents: torch.Tensor, scheduler: DDPMScheduler, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise like `latents` and one timestep for each, from `rng` alone.

    Timesteps are stratified over the batch, which makes the loss less noisy. Which sample gets which is drawn too:
    samples of a stream have their modalities in turn.
    """
    noise = torch.from_numpy(rng.standard_normal(latents.shape, dtype=np.float32)).to(latents.device)
    count, total = len(latents), scheduler.config.num_train_timesteps
    strata = (rng.permutation(count) + rng.random(count)) / count
    timesteps = torch.from_numpy(np.minimum((strata * total).astype(np.int64), total - 1)).to(latents.device)
    return noise, timesteps


def noising_loss(
    predict: Predict,
    latents: torch.Tensor,
    noise: torch.Tensor,
    timesteps: torch.Tensor,
    tokens: torch.Tensor,
    *,
    scheduler: DDPMScheduler,
    min_snr_gamma: float,
    emphasis: torch.Tensor | None = None,
) -> torch.Tensor:
    """The mean squared error of the prediction (eqs. 13 and 14), weighted by the signal-to-noise ratio.

    Weights are those of Hang et al. (2023). With a schedule that ends in pure noise they would vanish where sampling
    starts, so they never fall below a fifth there. `emphasis` ``(batch, 1, h, w)`` weighs places within a picture.
    """
    noisy = scheduler.add_noise(latents, noise, timesteps)
    predicted = predict(noisy, timesteps, tokens).float()
    is_velocity = scheduler.config.prediction_type == "v_prediction"
    target = scheduler.get_velocity(latents, noise, timesteps) if is_velocity else noise
    error = (predicted - target).square()
    error = (error if emphasis is None else error * emphasis).mean(dim=(1, 2, 3))
    if min_snr_gamma == float("inf"):
        return error.mean()
    snr = compute_snr(scheduler, timesteps)
    weight = snr.clamp(max=min_snr_gamma) / (snr + 1 if is_velocity else snr)
    if scheduler.config.rescale_betas_zero_snr:
        weight = torch.where(snr < 1, weight.clamp(min=_LEAST_WEIGHT), weight)
    return (weight * error).mean()


def unet_prediction(backbone: DiffusionBackbone) -> Predict:
    """The plain U-Net as a `Predict`."""

    def predict(latents: torch.Tensor, timesteps: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return backbone.unet(latents, timesteps, encoder_hidden_states=tokens).sample

    return predict


def controlled_prediction(backbone: DiffusionBackbone, controlnet: ControlNetModel) -> Callable[..., torch.Tensor]:
    """The U-Net helped by a ControlNet (eqs. 10 to 12): a `Predict` once `condition` and `scale` are bound.

    ``condition`` are pictures ``(batch, 3, H, W)`` in [0, 1]. ``scale`` multiplies what the ControlNet adds: a number,
    or one for each picture ``(batch, 1, 1, 1)``. A scale of 0 is the U-Net alone, to the bit.
    """

    def predict(
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        tokens: torch.Tensor,
        *,
        condition: torch.Tensor,
        scale: float | torch.Tensor,
    ) -> torch.Tensor:
        if isinstance(scale, float | int) and scale == 0:
            return backbone.unet(latents, timesteps, encoder_hidden_states=tokens).sample
        down, middle = controlnet(
            latents, timesteps, encoder_hidden_states=tokens, controlnet_cond=condition, return_dict=False
        )
        return backbone.unet(
            latents,
            timesteps,
            encoder_hidden_states=tokens,
            down_block_additional_residuals=[residual * scale for residual in down],
            mid_block_additional_residual=middle * scale,
        ).sample

    return predict


@torch.inference_mode()
def sample_latents(
    predict: Predict,
    backbone: DiffusionBackbone,
    tokens: torch.Tensor,
    *,
    seeds: Sequence[int],
    config: SamplingConfig,
    start: torch.Tensor | None = None,
    precision: str = "auto",
    should_stop: ShouldStop = never_stop,
    on_step: Callable[[int, int], None] | None = None,
) -> torch.Tensor:
    """Denoise from noise, or from latents that noise covers in part.

    Parameters
    ----------
    predict : callable
        See `Predict`.
    backbone : DiffusionBackbone
    tokens : (batch, tokens, width) tensor
    seeds : sequence of int
        One for each sample.
    config : SamplingConfig
        Its steps, solver, size and strength.
    start : (batch, C, h, w) tensor, optional
        Standardised latents to start from; pure noise without them.
    should_stop, on_step : callable
        Asked before, and told after, every step with the number done and the number of all.

    Returns
    -------
    (batch, C, h, w) tensor
        Standardised latents.

    Raises
    ------
    Cancelled
        When `should_stop` says so.
    """
    # 1. Timesteps: a start from latents enters the schedule part of the way down
    solver = {"dpm++": DPMSolverMultistepScheduler, "unipc": UniPCMultistepScheduler}[config.solver].from_config(
        backbone.scheduler.config, solver_order=2
    )
    solver.set_timesteps(config.steps, device=backbone.device)
    skipped = 0 if start is None else config.steps - round(config.steps * config.strength)
    timesteps = solver.timesteps[skipped:]
    if start is not None and not len(timesteps):
        return start

    # 2. The start
    side = config.size // backbone.factor
    noise = draw_noise((backbone.unet.config.in_channels, side, side), seeds).to(backbone.device)
    if start is None:
        latents = noise * solver.init_noise_sigma
    else:
        solver.set_begin_index(skipped)
        latents = solver.add_noise(start, noise, timesteps[:1].repeat(len(start)))

    # 3. The denoising loop
    for number, timestep in enumerate(timesteps):
        if should_stop():
            raise Cancelled
        with autocast(backbone.device, precision):
            predicted = predict(solver.scale_model_input(latents, timestep), timestep.expand(len(latents)), tokens)
        latents = solver.step(predicted.float(), timestep, latents, return_dict=False)[0]
        if on_step is not None:
            on_step(number + 1, len(timesteps))
    return latents
