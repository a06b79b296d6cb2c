"""Several processes, one GPU each, that train one network: each takes a share of every batch.

Started with ``accelerate launch -m univg …``, which tells every process its place; started otherwise, a process is
alone and nothing here does anything. All draw the same batches, so the result differs from that of one process by
rounding only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
from torch import distributed, nn


def join() -> None:
    """Meet the other processes, when there are any; call it before anything is put on a device."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized():
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available())


def process_count() -> int:
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def is_first() -> bool:
    """Whether this process is the one that writes files and reports progress."""
    return process_count() == 1 or distributed.get_rank() == 0


def own_device() -> torch.device:
    """The GPU of this process among those of its machine."""
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def own_share(batch: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """What this process computes of a batch.

    Raises
    ------
    ValueError
        If there are fewer samples than processes.
    """
    count = process_count()
    if count == 1:
        return batch
    if len(batch[0]) < count:
        raise ValueError(f"`batch_size` must be at least the number of processes ({count}), got {len(batch[0])}")
    return tuple(tensor.tensor_split(count)[distributed.get_rank()] for tensor in batch)


def add_up(weights: Iterable[nn.Parameter], value: float) -> float:
    """Sum the gradients of all processes in place; returns the sum of their values."""
    if process_count() == 1:
        return value
    weights = list(weights)
    total = torch.tensor(value, device=weights[0].device)
    distributed.all_reduce(total)
    for weight in weights:
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        distributed.all_reduce(weight.grad)
    return float(total)


def agree(decision: bool) -> bool:
    """What the first process decided, for all."""
    if process_count() == 1:
        return decision
    device = own_device() if torch.cuda.is_available() else torch.device("cpu")
    shared = torch.tensor(int(decision), device=device)
    distributed.broadcast(shared, 0)
    return bool(shared)
