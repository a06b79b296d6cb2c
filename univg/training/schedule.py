"""The learning rate over a run."""

from __future__ import annotations

import math
from typing import Protocol

SCHEDULES = ("constant", "cosine")


class Scheduled(Protocol):
    """A recipe that a learning rate can be read from."""

    @property
    def steps(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def warmup_steps(self) -> int: ...
    @property
    def schedule(self) -> str: ...


def learning_rate_at(config: Scheduled, step: int) -> float:
    """A linear rise over `warmup_steps`, then constant, or a half cosine that ends at 0."""
    warmup = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    decay = 0.5 * (1 + math.cos(math.pi * step / config.steps)) if config.schedule == "cosine" else 1.0
    return config.learning_rate * warmup * decay
