"""Random weights that depend on a seed, without touching anybody else's random numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw what torch draws on the CPU from `seed`; afterwards its generator goes on as if nothing had been drawn.

    `torch.manual_seed` would seed the generators of graphics cards too, which would stay so.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
