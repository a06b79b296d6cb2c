"""What the page knows about the jobs of a project, read from their folders as they grow."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from app.gradio_ui.models import support_key
from univg.io import file_stamp
from univg.progress import ProgressEvent
from univg.workflow.job_records import RECORD_FILE, EventReader
from univg.workflow.jobs import Job
from univg.workflow.jobs import list_jobs as read_jobs
from univg.workflow.project import Project

_SETTLED_NS = 100_000_000
LEARNS_FROM = "support"  # among the parameters of a job, see `support_digest`


@dataclass
class JobWatch:
    """The events of one job so far, brought into the form that the page shows; `read_new` looks again."""

    folder: Path
    stages: dict[str, ProgressEvent] = field(default_factory=dict)
    losses: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    dice: list[tuple[float, float]] = field(default_factory=list)
    pictures: dict[str, tuple[int, Path]] = field(default_factory=dict)
    count: int = 0

    def __post_init__(self) -> None:
        self._reader = EventReader(self.folder)
        self._lock = threading.Lock()

    def read_new(self) -> JobWatch:
        with self._lock:
            for event in self._reader.read_new():
                self._take(event)
        return self

    @property
    def latest(self) -> ProgressEvent | None:
        return next(reversed(self.stages.values()), None)

    @property
    def loss(self) -> list[tuple[float, float]]:
        """Of the segmenter's own training."""
        return self.losses.get("segmenter", [])

    @property
    def learning(self) -> str | None:
        """The stage that learnt last, as far as its loss is known."""
        return next((stage for stage in reversed(self.stages) if stage in self.losses), None)

    def _take(self, event: ProgressEvent) -> None:
        self.count += 1
        self.stages.pop(event.stage, None)  # so that the latest stage comes last
        self.stages[event.stage] = event
        if "loss" in event.metrics:
            _append(self.losses.setdefault(event.stage, []), event, "loss")
        if event.stage == "segmenter":
            _append(self.dice, event, "held_out_dice")
        if event.picture:
            path = (self.folder / event.picture).resolve()
            # The folder may come from elsewhere; nothing outside it is shown.
            if path.is_relative_to(self.folder.resolve()) and path.is_file():
                self.pictures.pop(event.stage, None)  # so that the newest comes last
                self.pictures[event.stage] = (event.step, path)


def _append(points: list[tuple[float, float]], event: ProgressEvent, name: str) -> None:
    """Add a point; a resumed job repeats the steps after its last checkpoint, so later ones are dropped first."""
    if name not in event.metrics:
        return
    while points and points[-1][0] >= event.step:
        points.pop()
    points.append((event.step, float(event.metrics[name])))


@lru_cache(maxsize=32)
def _watch(folder: Path) -> JobWatch:
    return JobWatch(folder)


def watch(job: Job) -> JobWatch:
    """The watch of `job`, shared by every page that shows it, with its newest events."""
    return _watch(job.folder).read_new()


class _JobList:
    """The jobs of one project; a finished one is read again only when its record has changed."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._seen: tuple = ()
        self._jobs: list[Job] = []
        self._records: dict[Path, tuple] = {}
        self._lock = threading.Lock()

    def now(self) -> list[Job]:
        with self._lock:
            stamp = file_stamp(self._project.jobs_folder)
            # The time of a folder has steps of some milliseconds: a job may come right after a look at it.
            settled = time.time_ns() - stamp[0] > _SETTLED_NS
            if stamp != self._seen or not settled:
                self._jobs, self._records = read_jobs(self._project), {}
                self._seen = stamp
            else:
                self._jobs = [self._as_now(job) for job in self._jobs]
            return list(self._jobs)

    def _as_now(self, job: Job) -> Job:
        stamp = file_stamp(job.folder / RECORD_FILE)
        if job.record.state.finished and self._records.get(job.folder) == stamp:
            return job
        self._records[job.folder] = stamp  # as it was before the reading
        return job.refreshed()


@lru_cache(maxsize=8)
def _job_list(project: Project) -> _JobList:
    return _JobList(project)


def list_jobs(project: Project) -> list[Job]:
    """Every job of `project` as it is now, the newest first; a page asks for them many times with each tick."""
    return _job_list(project).now()


def jobs_of(project: Project) -> list[Job]:
    """The adapt jobs of `project`, the newest first."""
    return [job for job in list_jobs(project) if job.kind == "adapt"]


def latest_job(project: Project, kind: str) -> Job | None:
    """The newest job of one kind."""
    return next((job for job in list_jobs(project) if job.kind == kind), None)


def support_digest(project: Project) -> str:
    """What stands for the annotated pairs in the parameters of a job: its checkpoint is of no use with others."""
    return _digest(project, support_key(project))


@lru_cache(maxsize=4)
def _digest(project: Project, key: tuple) -> str:
    return hashlib.sha256(json.dumps(project.support_hashes(), sort_keys=True).encode()).hexdigest()


def active_job(project: Project) -> Job | None:
    """The unfinished job of `project`, of whatever kind."""
    return next((job for job in list_jobs(project) if not job.state.finished), None)
