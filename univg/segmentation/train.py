"""Training a segmenter on a few real pairs and many synthetic ones (paper section 3.4.2)."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from univg.errors import Cancelled
from univg.geometry import resize_mask
from univg.metrics import SegmentationMetrics, evaluate
from univg.progress import OnProgress, ProgressEvent, ShouldStop, StageClock, ignore_progress, never_stop
from univg.segmentation.augment import random_patch
from univg.segmentation.config import SegmentationConfig
from univg.segmentation.inputs import fit_to_working_size, network_inputs, to_grey
from univg.segmentation.networks import build_network
from univg.segmentation.optimize import make_optimizer, optimize_step
from univg.segmentation.predict import predict_probability, recalibrate
from univg.segmentation.prior import Prior, load_prior
from univg.segmentation.segmenter import Segmenter
from univg.training.average import update_average
from univg.training.checkpoint import (
    CheckpointPace,
    TrainingState,
    load_state,
    optimizer_tensors,
    restore_optimizer,
    save_state,
)
from univg.training.device import is_out_of_memory, release_memory, resolve_device
from univg.training.seeding import seeded
from univg.types import ImageMaskPair, Modality

_SECONDS_BETWEEN_CHECKPOINTS = 10.0
SMALLER_BATCHES = "The graphics card ran out of memory; going on with smaller batches."
_EVALUATIONS = 12  # on the held-out image, over a whole run
_STEPS_BETWEEN_EVALUATIONS = 5  # at least: each looks at every annotated image
_HELD_OUT = "held_out_dice"

# Gets the step and the (H, W) probability of the held-out image; returns the path of a picture of it, or None.
OnHeldOut = Callable[[int, np.ndarray], str | None]


@dataclass(frozen=True, eq=False)
class _Sample:
    grey: np.ndarray
    mask: np.ndarray
    weight: float


def train_segmenter(
    real: Sequence[ImageMaskPair],
    synthetic: Sequence[ImageMaskPair] = (),
    *,
    modality: Modality,
    held_out: ImageMaskPair | None = None,
    config: SegmentationConfig,
    checkpoint_folder: str | Path | None = None,
    prior_folder: str | Path | None = None,
    device: str = "auto",
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
    on_held_out: OnHeldOut | None = None,
) -> Segmenter:
    """Train on batches that join real and synthetic patches.

    The weights kept are those of the moving average that segment `held_out` best. In the last ``release_fraction`` of
    the steps training goes on from those weights with `held_out` among the real pairs; figures on it date from before.

    Parameters
    ----------
    real : sequence of ImageMaskPair
        Never the held-out one.
    synthetic : sequence of ImageMaskPair
    modality : Modality
    held_out : ImageMaskPair, optional
        An annotated support image kept out of training to choose the weights by; without it the last average is kept.
    config : SegmentationConfig
    checkpoint_folder : path-like, optional
        An existing folder; a checkpoint found there is resumed, exactly.
    prior_folder : path-like, optional
        Where the pretrained weights are, for a recipe that starts from them; the shipped ones by default.
    device : {'auto', 'cpu', 'cuda', 'mps'}
    on_progress, should_stop, on_held_out : callable
        See `univg.progress` and `OnHeldOut`.

    Returns
    -------
    Segmenter

    Raises
    ------
    Cancelled
        After saving a checkpoint, when `should_stop` says so.
    """
    if not real:
        raise ValueError("`real` must hold at least one pair, got none")
    if held_out is not None and any(pair.name == held_out.name for pair in real):
        raise ValueError(f"`held_out` ({held_out.name!r}) must not be among the `real` pairs")
    target = resolve_device(device)
    folder = None if checkpoint_folder is None else Path(checkpoint_folder)
    prior = load_prior(config, prior_folder) if config.start == "prior" else None
    fingerprint = _fingerprint(config, prior, modality, real, synthetic, held_out)

    # 1. Data, at working size
    samples = {
        "real": [_to_sample(pair, modality, config) for pair in real],
        "synthetic": [_to_sample(pair, modality, config) for pair in synthetic],
        "held_out": [] if held_out is None else [_to_sample(held_out, modality, config)],
    }
    release_step = config.steps if held_out is None else round(config.steps * (1 - config.release_fraction))

    # 2. Network, moving average and optimizer, new or resumed
    with seeded(config.seed):
        network = build_network(config).to(target)
    if prior is not None:
        network.load_state_dict(prior.tensors)
    average = copy.deepcopy(network)
    optimizer = make_optimizer(network, config)
    state = None if folder is None else load_state(folder, fingerprint)
    if state is None:
        state = TrainingState(step=0, tensors={}, fingerprint=fingerprint)
    else:
        network.load_state_dict(state.tensors["network"])
        average.load_state_dict(state.tensors["average"])
        restore_optimizer(optimizer, state.tensors.get("optimizer", {}))  # none before the first step

    def checkpoint() -> None:
        if folder is not None:
            state.tensors = {
                **state.tensors,
                "network": network.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer_tensors(optimizer),
            }
            save_state(state, folder)

    def look_at_held_out() -> tuple[SegmentationMetrics, np.ndarray, str | None]:
        """Its figures, probability and picture with the weights of now."""
        sample = samples["held_out"][0]
        if config.recalibrate and state.step:
            recalibrate(average, [s.grey for s in samples["real"]], config)
        probability = predict_probability(sample.grey, average, config)
        metrics = evaluate(probability >= 0.5, sample.mask > 0.5, probability=probability)
        return metrics, probability, on_held_out(state.step, probability) if on_held_out else None

    # 3. The loop
    clock, parts = StageClock(first_step=state.step), 1
    if prior is not None and state.step == 0 and held_out is not None:
        # What the prior finds before it is adapted: a first overlay after seconds, on the slowest machine too.
        metrics, _, picture = look_at_held_out()
        on_progress(ProgressEvent("segmenter", 0, config.steps, metrics={_HELD_OUT: metrics.dice}, picture=picture))
    pace = CheckpointPace(checkpoint, _SECONDS_BETWEEN_CHECKPOINTS)
    evaluate_every = max(_STEPS_BETWEEN_EVALUATIONS, release_step // _EVALUATIONS)
    while state.step < config.steps:
        if should_stop():
            checkpoint()
            raise Cancelled
        if state.step == release_step and "best" in state.tensors:
            network.load_state_dict(state.tensors["best"])
            average.load_state_dict(state.tensors["best"])
        pool = samples["real"] + (samples["held_out"] if state.step >= release_step else [])
        inputs, masks = _make_batch(pool, samples["synthetic"], config, step=state.step)
        try:
            loss = optimize_step(
                network, optimizer, inputs.to(target), masks.to(target), config, step=state.step, parts=parts
            )
        except RuntimeError as error:
            if not is_out_of_memory(error) or parts >= len(inputs):
                raise
            parts = min(2 * parts, len(inputs))
            release_memory(target)
            on_progress(ProgressEvent("segmenter", state.step, config.steps, message=SMALLER_BATCHES))
            continue
        state.step += 1
        update_average(average.state_dict(), network.state_dict(), config.ema_decay, state.step)

        figures, picture = {"loss": loss}, None
        due = state.step % evaluate_every == 0 or state.step == release_step
        if samples["held_out"] and due and state.step <= release_step:
            metrics, probability, picture = look_at_held_out()
            figures[_HELD_OUT] = metrics.dice
            if metrics.dice > state.best_score:
                state.best_score, state.best_step = metrics.dice, state.step
                state.figures = {"dice": metrics.dice, "cldice": metrics.cldice, "step": state.step}
                state.tensors["best"] = {k: v.detach().clone() for k, v in average.state_dict().items()}
                state.tensors["held_out"] = {"probability": torch.from_numpy(probability.copy())}
        event = ProgressEvent("segmenter", state.step, config.steps, metrics=figures, picture=picture)
        on_progress(clock.timed(event))
        pace.save_if_due()
    checkpoint()

    # 4. The weights worth keeping
    if release_step == config.steps and "best" in state.tensors:
        average.load_state_dict(state.tensors["best"])
    elif config.recalibrate:
        recalibrate(average, [s.grey for s in samples["real"] + samples["held_out"]], config)
    card = {
        "train": [pair.name for pair in real],
        "held_out": None if held_out is None else held_out.name,
        "held_out_figures": state.figures,
        "held_out_joined_training_at_step": release_step if release_step < config.steps else None,
        "synthetic_pairs": len(synthetic),
        "prior_sha256": prior and prior.sha256,
    }
    seen = state.tensors.get("held_out")
    probability = None if seen is None else seen["probability"].numpy()
    return Segmenter(average.eval(), config, modality, card=card, held_out_probability=probability)


def _make_batch(
    real: list[_Sample], synthetic: list[_Sample], config: SegmentationConfig, *, step: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The batch of a step; its randomness depends on seed and step alone, so that a resumed run repeats it."""
    rng = np.random.default_rng([config.seed, step])
    strength = 1.0 if step < config.augment_until * config.steps else 0.0
    if synthetic and step < config.synthetic_until * config.steps:
        wanted = [(real, config.real_per_step), (synthetic, config.synthetic_per_step)]
    else:
        wanted = [(real, config.real_per_step + config.synthetic_per_step)]
    inputs, masks = [], []
    for samples, count in wanted:
        for _ in range(count):
            sample = _drawn(samples, rng)
            grey, mask = random_patch(
                sample.grey,
                sample.mask,
                size=config.patch_size,
                affine=rng.random() < strength * config.affine_augmentation,
                appearance=strength * config.appearance_augmentation,
                rng=rng,
            )
            inputs.append(network_inputs(grey, config.inputs))
            masks.append(mask[None])
    batch = torch.from_numpy(np.stack(inputs)).contiguous(memory_format=torch.channels_last)
    return batch, torch.from_numpy(np.stack(masks))


def _drawn(samples: list[_Sample], rng: np.random.Generator) -> _Sample:
    """One of `samples`, each as often as its weight says."""
    weights = np.array([sample.weight for sample in samples])
    if (weights == weights[0]).all():
        return samples[rng.integers(len(samples))]
    bounds = np.cumsum(weights)
    return samples[min(int(np.searchsorted(bounds, rng.random() * bounds[-1], side="right")), len(samples) - 1)]


def _to_sample(pair: ImageMaskPair, modality: Modality, config: SegmentationConfig) -> _Sample:
    grey = fit_to_working_size(to_grey(pair.image, modality), config.working_size)
    return _Sample(grey, resize_mask(pair.mask, grey.shape).astype(np.float32), pair.weight)


def _fingerprint(
    config: SegmentationConfig,
    prior: Prior | None,
    modality: Modality,
    real: Sequence[ImageMaskPair],
    synthetic: Sequence[ImageMaskPair],
    held_out: ImageMaskPair | None,
) -> str:
    digest = hashlib.sha256(json.dumps([config.to_json(), prior and prior.sha256, modality]).encode())
    for role, pairs in (("real", real), ("synthetic", synthetic), ("held out", [held_out] if held_out else [])):
        for pair in pairs:
            digest.update(f"{role}:{pair.name}:{pair.image.shape}:{pair.image.dtype}".encode())
            digest.update(np.ascontiguousarray(pair.image).data)
            digest.update(np.packbits(pair.mask).data)
            if pair.weight != 1:
                digest.update(f"weight:{pair.weight!r}".encode())
    return digest.hexdigest()
