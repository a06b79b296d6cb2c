"""Typed progress: the library reports events by callback; it never prints and owns no bar."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace


@dataclass(frozen=True)
class ProgressEvent:
    """One report from long work.

    Attributes
    ----------
    stage : str
        Which part of the work, for example ``"trees"`` or ``"segmenter"``.
    step, total : int
        Position in the stage; ``step == total`` means the stage is done.
    message : str
        One short sentence for people, or empty.
    metrics : mapping of str to float
        Figures worth plotting, for example ``{"loss": 0.21, "held_out_dice": 0.74}``.
    seconds_left : float or None
        Estimate for the stage, in seconds; None while it cannot be honestly given.
    picture : str or None
        Path of a PNG that shows the state, relative to the job folder.
    """

    stage: str
    step: int
    total: int
    message: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds_left: float | None = None
    picture: str | None = None

    @property
    def fraction(self) -> float:
        return self.step / self.total if self.total > 0 else 0.0

    def to_json(self) -> dict:
        return {**asdict(self), "metrics": dict(self.metrics)}

    @classmethod
    def from_json(cls, data: Mapping) -> ProgressEvent:
        return cls(**{name: data[name] for name in cls.__dataclass_fields__ if name in data})


OnProgress = Callable[[ProgressEvent], None]
ShouldStop = Callable[[], bool]


def ignore_progress(event: ProgressEvent) -> None:
    """The default `OnProgress`."""


def never_stop() -> bool:
    """The default `ShouldStop`."""
    return False


class StageClock:
    """Adds the time left to the events of one stage, from the steps done since the clock was made.

    A resumed stage starts at ``first_step``, so that earlier work does not flatter the estimate.
    """

    def __init__(self, *, first_step: int = 0, warmup_steps: int = 3) -> None:
        self._first = first_step
        self._warmup = warmup_steps
        self._started = time.monotonic()

    def timed(self, event: ProgressEvent) -> ProgressEvent:
        done = event.step - self._first
        if done < self._warmup:
            return event
        rate = (time.monotonic() - self._started) / done
        return replace(event, seconds_left=rate * (event.total - event.step))
