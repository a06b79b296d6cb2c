"""The vessel prior: a segmentation network trained on an endless stream of phantoms, before it sees any real image."""

from __future__ import annotations

import copy
import hashlib
import json
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from univg.errors import Cancelled, InputError
from univg.io import read_json, sha256_file, write_bytes_atomic, write_json_atomic
from univg.metrics import dice
from univg.progress import OnProgress, ProgressEvent, ShouldStop, StageClock, ignore_progress, never_stop
from univg.segmentation.config import SegmentationConfig
from univg.segmentation.networks import build_network
from univg.segmentation.optimize import make_optimizer, optimize_step
from univg.segmentation.phantoms import grow_shapes, phantom_batch
from univg.segmentation.predict import segment
from univg.segmentation.segmenter import Segmenter
from univg.training.ahead import results_in_order
from univg.training.average import update_average
from univg.training.checkpoint import (
    CheckpointPace,
    TrainingState,
    load_state,
    optimizer_tensors,
    restore_optimizer,
    save_state,
)
from univg.training.device import autocast, resolve_device
from univg.training.seeding import seeded
from univg.types import Modality
from univg.weights import shipped_folder

_WEIGHTS, _RECIPE = "model.safetensors", "prior.json"
_FORMAT = "univg-prior/1"
_SECONDS_BETWEEN_CHECKPOINTS = 60.0
_VALIDATION_BATCHES = 6
_VALIDATION_SEED = 10**9  # no step of a training is ever that far


@dataclass(frozen=True)
class PriorConfig:
    """Recipe of a pretraining.

    Attributes
    ----------
    segmentation : SegmentationConfig
        Network, inputs, steps, patch size, rate and loss; what concerns real images is ignored.
    batch_size : int
        Phantoms a step, each seen once.
    shapes : int
        Trees that phantoms are drawn from; each use warps and thickens them anew.
    validate_every : int
        Steps between two looks at phantoms that never train.
    """

    segmentation: SegmentationConfig = field(
        default_factory=lambda: SegmentationConfig(steps=20_000, warmup_steps=200, ema_decay=0.998)
    )
    batch_size: int = 8
    shapes: int = 500
    validate_every: int = 250

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("shapes", 5), ("validate_every", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` must be at least {least}, got {getattr(self, name)}")

    def to_json(self) -> dict:
        return {**asdict(self), "segmentation": self.segmentation.to_json()}


@dataclass(frozen=True, eq=False)
class Prior:
    """Pretrained weights.

    Attributes
    ----------
    tensors : dict of str to tensor of float32
    sha256 : str
        Of the weights' file.
    """

    tensors: dict[str, torch.Tensor]
    sha256: str


def pretrain_prior(
    config: PriorConfig,
    folder: str | Path,
    *,
    start: Prior | None = None,
    workers: int = 1,
    device: str = "auto",
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> tuple[nn.Module, dict]:
    """Train on phantoms alone.

    Parameters
    ----------
    config : PriorConfig
    folder : path-like
        An existing folder for the grown trees and the checkpoint; what is found there is resumed, exactly.
    start : Prior, optional
        Weights to go on from, instead of random ones.
    workers : int
        Processes that draw phantoms; the result does not depend on their number.
    device : {'auto', 'cpu', 'cuda', 'mps'}
    on_progress, should_stop : callable

    Returns
    -------
    network : torch.nn.Module
        The moving average of the weights.
    figures : dict
        ``{"step", "dice"}`` of the last validation, and ``"start_sha256"`` of what it went on from.

    Raises
    ------
    Cancelled
        After saving a checkpoint, when `should_stop` says so.
    """
    folder, target, recipe = Path(folder), resolve_device(device), config.segmentation
    origin = [start.sha256] if start else []
    fingerprint = hashlib.sha256(json.dumps([config.to_json(), *origin]).encode()).hexdigest()
    shapes_file = _grown_shapes(folder, config, workers, on_progress)

    with seeded(recipe.seed):
        network = build_network(recipe)
    if start:
        network.load_state_dict(start.tensors)
    network = network.to(target)
    average = copy.deepcopy(network)
    optimizer = make_optimizer(network, recipe)
    state = load_state(folder, fingerprint) or TrainingState(step=0, tensors={}, fingerprint=fingerprint)
    if state.tensors:
        network.load_state_dict(state.tensors["network"])
        average.load_state_dict(state.tensors["average"])
        restore_optimizer(optimizer, state.tensors.get("optimizer", {}))  # none before the first step

    def checkpoint() -> None:
        state.tensors = {
            "network": network.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer_tensors(optimizer),
        }
        save_state(state, folder)

    clock = StageClock(first_step=state.step)
    pace = CheckpointPace(checkpoint, _SECONDS_BETWEEN_CHECKPOINTS)
    with ProcessPoolExecutor(
        max(workers, 1), mp_context=get_context("spawn"), initializer=_open_shapes, initargs=(shapes_file,)
    ) as pool:
        for inputs, masks in _batches(pool, config, range(state.step, recipe.steps)):
            if should_stop():
                checkpoint()
                raise Cancelled
            inputs = torch.from_numpy(inputs).to(target, memory_format=torch.channels_last)
            loss = optimize_step(
                network, optimizer, inputs, torch.from_numpy(masks).to(target), recipe, step=state.step
            )
            state.step += 1
            update_average(average.state_dict(), network.state_dict(), recipe.ema_decay, state.step)
            figures = {"loss": loss}
            if state.step % config.validate_every == 0 or state.step == recipe.steps:
                validation = range(_VALIDATION_SEED, _VALIDATION_SEED + _VALIDATION_BATCHES)
                figures["dice"] = _validate(average, _batches(pool, config, validation), recipe)
                state.figures = {"step": state.step, "dice": figures["dice"]}
            on_progress(clock.timed(ProgressEvent("prior", state.step, recipe.steps, metrics=figures)))
            pace.save_if_due()
    checkpoint()
    return average.eval(), {**state.figures, **({"start_sha256": start.sha256} if start else {})}


def _grown_shapes(folder: Path, config: PriorConfig, workers: int, on_progress: OnProgress) -> Path:
    """The file of trees, grown unless it is there."""
    file = folder / f"shapes-{config.shapes}-{config.segmentation.seed}.npy"
    if not file.exists():
        shapes = grow_shapes(
            config.shapes,
            seed=config.segmentation.seed,
            workers=max(workers, 1),
            on_grown=lambda done: on_progress(ProgressEvent("trees", done, config.shapes)),
        )
        partial = file.with_suffix(".partial.npy")
        np.save(partial, shapes)
        partial.replace(file)
    return file


_shapes: np.ndarray | None = None  # of a worker process, opened once


def _open_shapes(file: Path) -> None:
    global _shapes
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the process that made this one ends it
    _shapes = np.load(file, mmap_mode="r")


def _draw_batch(count: int, size: int, inputs: str, seed: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    return phantom_batch(_shapes, count=count, size=size, inputs=inputs, seed=seed)


def _batches(
    pool: ProcessPoolExecutor, config: PriorConfig, steps: range, ahead: int = 6
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The batches of `steps` in order, drawn a few steps ahead."""
    recipe = config.segmentation
    items = ((config.batch_size, recipe.patch_size, recipe.inputs, (recipe.seed, step)) for step in steps)
    return results_in_order(pool, _draw_batch, items, ahead=ahead)


@torch.inference_mode()
def _validate(
    network: nn.Module, batches: Iterator[tuple[np.ndarray, np.ndarray]], config: SegmentationConfig
) -> float:
    """Mean Dice over phantoms."""
    network.eval()
    target = next(network.parameters()).device
    scores = []
    for inputs, masks in batches:
        with autocast(target, config.precision):
            logits = network(torch.from_numpy(inputs).to(target, memory_format=torch.channels_last))
        found = (logits.float() >= 0).cpu().numpy()
        scores += [dice(f[0], m[0] > 0.5) for f, m in zip(found, masks, strict=True)]
    return float(np.mean(scores))


def save_prior(network: nn.Module, config: PriorConfig, figures: Mapping, folder: str | Path) -> None:
    """Write weights (safetensors, float16) and recipe (JSON) to an existing folder."""
    state = {
        name: (value.half() if value.is_floating_point() else value).cpu().contiguous()
        for name, value in network.state_dict().items()
    }
    write_bytes_atomic(Path(folder) / _WEIGHTS, safetensors.torch.save(state))
    recipe = {"format": _FORMAT, "config": config.to_json(), "figures": dict(figures)}
    write_json_atomic(Path(folder) / _RECIPE, recipe)


def load_prior(config: SegmentationConfig, folder: str | Path | None = None) -> Prior:
    """The weights for a network of `config`, from what `save_prior` wrote to `folder` (by default: the shipped ones).

    Raises
    ------
    InputError
        If they are missing or damaged, or made for other channels or inputs.
    """
    fix = "Reinstall UniVG." if folder is None else "Name a folder that `univg pretrain prior` wrote."
    folder = shipped_folder("models", "prior") if folder is None else Path(folder)
    try:
        made_for = SegmentationConfig.from_json(read_json(folder / _RECIPE)["config"]["segmentation"])
        state = safetensors.torch.load_file(folder / _WEIGHTS)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError("The vessel prior cannot be read", path=folder, fix=fix) from error
    for name in ("network", "channels", "inputs"):
        if getattr(made_for, name) != getattr(config, name):
            raise InputError(
                f"The vessel prior has {name} {getattr(made_for, name)!r}, the recipe {getattr(config, name)!r}",
                path=folder,
                fix="Use the prior's, or start='random'.",
            )
    # Copies: a view keeps the file open, which Windows then does not let `save_prior` replace.
    tensors = {name: (value.float() if value.is_floating_point() else value).clone() for name, value in state.items()}
    return Prior(tensors, sha256_file(folder / _WEIGHTS))


def prior_sha256() -> str:
    """Of the shipped weights."""
    return sha256_file(shipped_folder("models", "prior") / _WEIGHTS)


def find_vessels(image: np.ndarray, modality: Modality, *, device: str = "cpu") -> np.ndarray:
    """What the prior alone takes for vessels: the probability, (H, W) float32, of an image as `segment` takes it."""
    return segment(image, _cached_segmenter(modality, device)).probability


@lru_cache(maxsize=len(Modality))
def _cached_segmenter(modality: Modality, device: str) -> Segmenter:
    return prior_segmenter(modality, device=device)


def prior_segmenter(modality: Modality, *, device: str = "cpu", folder: str | Path | None = None) -> Segmenter:
    """The prior as a segmenter, before it has seen any real image."""
    config = replace(PriorConfig().segmentation, start="prior")
    prior = load_prior(config, folder)
    network = build_network(config)
    network.load_state_dict(prior.tensors)
    return Segmenter(network.to(resolve_device(device)).eval(), config, modality, card={"prior_sha256": prior.sha256})
