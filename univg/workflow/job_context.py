"""What a job's function is given: its folders, a place for progress and the question whether to stop."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

from univg.progress import OnProgress, ProgressEvent, ShouldStop
from univg.workflow.job_records import CANCEL_FILE, CHECKPOINT_FOLDER, EVENTS_FILE, RELEASED_FILE, repair_events


@dataclass(frozen=True)
class JobPart:
    """What a stage of a job is given; see `JobContext`."""

    folder: Path
    checkpoint_folder: Path
    on_progress: OnProgress
    should_stop: ShouldStop

    @property
    def released(self) -> bool:
        """As `JobContext.released`."""
        return (self.folder / RELEASED_FILE).exists()

    def within(self, name: str) -> JobPart:
        """As `JobContext.within`."""
        folder = self.checkpoint_folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return replace(self, checkpoint_folder=folder)


class JobContext:
    """Handed to the function of a job kind.

    The function calls `on_progress` as often as it likes, asks `should_stop` after every step, and when that
    says yes saves its state in `checkpoint_folder` and raises `univg.errors.Cancelled`. A later attempt finds
    that state.
    """

    def __init__(self, folder: Path, *, seconds_between_events: float = 0.1) -> None:
        self.folder = folder
        self.checkpoint_folder = folder / CHECKPOINT_FOLDER
        self._cancel_file = folder / CANCEL_FILE
        self._stop = False
        self._gap = seconds_between_events
        self._written_at = float("-inf")
        self._held_back: bytes | None = None
        self._stage: str | None = None
        repair_events(folder)
        # Unbuffered, so that each event is one write and a kill can tear the last line only.
        self._file = (folder / EVENTS_FILE).open("ab", buffering=0)

    def __enter__(self) -> JobContext:
        return self

    def __exit__(self, *error: object) -> None:
        self._write_held_back()
        self._file.close()

    def within(self, name: str) -> JobPart:
        """The same job for a stage that keeps its checkpoint in a folder of its own, made here."""
        folder = self.checkpoint_folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return JobPart(self.folder, folder, self.on_progress, self.should_stop)

    def on_progress(self, event: ProgressEvent) -> None:
        """Record `event`: about ten a second, and always a picture and the last event of a stage."""
        if event.stage != self._stage:
            self._write_held_back()
            self._stage = event.stage
        line = json.dumps({**event.to_json(), "time": time.time()}, default=float).encode() + b"\n"
        last = event.total > 0 and event.step >= event.total
        if last or event.picture is not None or time.monotonic() - self._written_at >= self._gap:
            self._held_back = None
            self._write(line)
        else:
            self._held_back = line

    def should_stop(self) -> bool:
        """Whether somebody asked the job to stop (one look at a file name, cheap enough for every step)."""
        return self._stop or self._cancel_file.exists()

    @property
    def released(self) -> bool:
        """Whether a person told the job to go on after it raised `univg.errors.Paused`."""
        return (self.folder / RELEASED_FILE).exists()

    def request_stop(self) -> None:
        self._stop = True

    def _write_held_back(self) -> None:
        if self._held_back is not None:
            self._write(self._held_back)
            self._held_back = None

    def _write(self, line: bytes) -> None:
        self._file.write(line)
        self._written_at = time.monotonic()
