"""The loop of every training but the segmenter's own: optimise, average, look, save, and go on exactly after a stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from univg.errors import Cancelled
from univg.progress import OnProgress, ProgressEvent, ShouldStop, StageClock, ignore_progress, never_stop
from univg.training import parallel
from univg.training.average import update_average
from univg.training.checkpoint import (
    CheckpointPace,
    TrainingState,
    load_state,
    optimizer_tensors,
    restore_optimizer,
    save_state,
)
from univg.training.device import autocast, is_out_of_memory, release_memory
from univg.training.schedule import SCHEDULES, learning_rate_at

SMALLER_BATCHES = "The graphics card ran out of memory; going on with smaller batches."
NO_LOOK = "The graphics card ran out of memory; going on without a look at what is learnt."

# Tensors of one step, each with the batch as first axis.
Batch = tuple[torch.Tensor, ...]
Item = TypeVar("Item")


@dataclass(frozen=True)
class OptimizationConfig:
    """How weights are optimised, whatever they are.

    Attributes
    ----------
    steps : int
        Optimizer steps in all.
    batch_size : int
    learning_rate, weight_decay : float
        Of AdamW.
    warmup_steps : int
        Steps over which the rate rises from 0.
    schedule : {'constant', 'cosine'}
    ema_decay : float
        Decay of the moving average of the weights, which is what is kept; 0 keeps the last weights.
    clip_norm : float
        Gradients longer than this are shortened to it.
    precision : {'auto', 'float32', 'bfloat16'}
        'auto' takes bfloat16 where the processor or GPU computes it natively.
    seed : int
    """

    steps: int
    batch_size: int = 4
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    warmup_steps: int = 0
    schedule: str = "cosine"
    ema_decay: float = 0.0
    clip_norm: float = 1.0
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "clip_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` must be above 0, got {getattr(self, name)}")
        if self.warmup_steps < 0 or self.weight_decay < 0 or not 0 <= self.ema_decay < 1:
            raise ValueError("`warmup_steps` and `weight_decay` must be 0 or more, and `ema_decay` in [0, 1)")
        for name, allowed in (("schedule", SCHEDULES), ("precision", ("auto", "float32", "bfloat16"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"`{name}` must be one of {allowed}, got {getattr(self, name)!r}")

    def to_json(self) -> dict:
        return asdict(self)


@dataclass(frozen=True)
class Look:
    """What a look at the averaged weights found.

    Attributes
    ----------
    metrics : mapping of str to float
    picture : str or None
        Path of a PNG, see `univg.progress.ProgressEvent`.
    """

    metrics: Mapping[str, float]
    picture: str | None = None


def preparing(
    items: Sequence[Item],
    message: str,
    *,
    stage: str,
    steps: int,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> Iterator[Item]:
    """Yield what has to be worked through before `optimize` can take the first of `steps`, as a part of its `stage`.

    Raises
    ------
    Cancelled
        When `should_stop` says so.
    """
    for number, item in enumerate(items):
        if parallel.agree(should_stop()):
            raise Cancelled
        if parallel.is_first():
            on_progress(ProgressEvent(stage, 0, steps, message=f"{message}: {number + 1} of {len(items)}"))
        yield item


def optimize(
    weights: Mapping[str, nn.Parameter],
    loss_of: Callable[..., torch.Tensor],
    batches_from: Callable[[int], Iterable[Batch]],
    *,
    config: OptimizationConfig,
    stage: str,
    folder: Path | None = None,
    fingerprint: str = "",
    look: Callable[[int], Look] | None = None,
    look_every: int = 0,
    seconds_between_checkpoints: float = 30.0,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> None:
    """Optimise `weights` in place and leave their moving average in them.

    Parameters
    ----------
    weights : mapping of str to Parameter
        All on one device.
    loss_of : callable
        The mean loss over a part of a batch, which it gets as positional arguments.
    batches_from : callable
        Gets a step and yields the batch of that step, of the next one, and so on. A batch must depend on its step
        alone, so that a resumed run repeats it; random numbers belong to the batch.
    config : OptimizationConfig
    stage : str
        Name of the stage in progress events.
    folder : Path, optional
        An existing folder for the checkpoint; one found there is resumed, exactly.
    fingerprint : str
        Of everything that decides the result; the checkpoint of another run is refused.
    look : callable, optional
        Called every `look_every` steps, and at the last one, while the averaged weights are in place; one for which
        memory is too short is left out.
    seconds_between_checkpoints : float
        At least; see `CheckpointPace`.
    on_progress, should_stop : callable
        See `univg.progress`.

    Raises
    ------
    Cancelled
        After saving a checkpoint, when `should_stop` says so.
    FloatingPointError
        If the loss stops being a number.
    """
    current = {name: weight.detach() for name, weight in weights.items()}  # shares memory with the parameters
    device = next(iter(current.values())).device
    optimizer = torch.optim.AdamW(weights.values(), lr=config.learning_rate, weight_decay=config.weight_decay)
    average = {name: value.clone() for name, value in current.items()} if config.ema_decay else current
    state = None if folder is None else load_state(folder, fingerprint)
    if state is None:
        state = TrainingState(step=0, tensors={}, fingerprint=fingerprint)
    else:
        _copy_into(current, state.tensors["weights"])
        if average is not current:
            _copy_into(average, state.tensors["average"])
        restore_optimizer(optimizer, state.tensors.get("optimizer", {}))  # none before the first step

    def checkpoint() -> None:
        if folder is not None and parallel.is_first():
            averages = {} if average is current else {"average": average}
            state.tensors = {"weights": current, **averages, "optimizer": optimizer_tensors(optimizer)}
            save_state(state, folder)

    clock, parts = StageClock(first_step=state.step), 1
    pace = CheckpointPace(checkpoint, seconds_between_checkpoints)
    batches = iter(batches_from(state.step) if state.step < config.steps else ())
    while state.step < config.steps:
        if parallel.agree(should_stop()):
            checkpoint()
            raise Cancelled
        whole = next(batches)
        batch, count = parallel.own_share(whole), len(whole[0])
        while True:
            try:
                loss = _step(weights, loss_of, batch, count, optimizer, config, state.step, device, parts)
                break
            except RuntimeError as error:
                if not is_out_of_memory(error) or parts >= len(batch[0]) or parallel.process_count() > 1:
                    raise
                parts *= 2
                release_memory(device)
                on_progress(ProgressEvent(stage, state.step, config.steps, message=SMALLER_BATCHES))
        state.step += 1
        if average is not current:
            update_average(average, current, config.ema_decay, state.step)

        seen, message = Look({}), ""
        due = state.step == config.steps or (look_every and state.step % look_every == 0)
        if look is not None and due and parallel.is_first():
            try:
                seen = _look_at(average, current, look, state.step)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                message = NO_LOOK
            if message:
                release_memory(device)  # only now: the error held on to what had been computed
        if parallel.is_first():
            figures = {"loss": loss, **seen.metrics}
            event = ProgressEvent(stage, state.step, config.steps, message, figures, picture=seen.picture)
            on_progress(clock.timed(event))
        pace.save_if_due()
    checkpoint()
    _copy_into(current, average)


def _look_at(
    average: Mapping[str, torch.Tensor], current: Mapping[str, torch.Tensor], look: Callable[[int], Look], step: int
) -> Look:
    """Look while `average` is in the place of `current`, which is put back whatever happens."""
    if average is current:
        return look(step)
    trained = {name: value.clone() for name, value in current.items()}
    try:
        _copy_into(current, average)
        return look(step)
    finally:
        _copy_into(current, trained)


def _step(
    weights: Mapping[str, nn.Parameter],
    loss_of: Callable[..., torch.Tensor],
    batch: Batch,
    count: int,
    optimizer: torch.optim.Optimizer,
    config: OptimizationConfig,
    step: int,
    device: torch.device,
    parts: int,
) -> float:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate_at(config, step)
    optimizer.zero_grad(set_to_none=True)
    value = 0.0
    for part in zip(*(tensor.chunk(parts) for tensor in batch), strict=True):
        with autocast(device, config.precision):
            loss = loss_of(*part) * (len(part[0]) / count)
        value += loss.item()
        loss.backward()
    value = parallel.add_up(weights.values(), value)
    if not math.isfinite(value):
        raise FloatingPointError(f"The loss became {value} at step {step}; lower `learning_rate`")
    torch.nn.utils.clip_grad_norm_(weights.values(), config.clip_norm)
    optimizer.step()
    return value


@torch.no_grad()
def _copy_into(kept: Mapping[str, torch.Tensor], new: Mapping[str, torch.Tensor]) -> None:
    for name, value in kept.items():
        value.copy_(new[name])
