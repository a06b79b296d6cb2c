"""Long work as jobs: detached processes with a folder each, which every interface lists, watches and stops.

A job goes on when the page or terminal that started it is closed. Its folder is all there is to know about it
(see `univg.workflow.job_records`); nothing is kept in the memory of the process that started it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from shutil import rmtree

import univg
from univg.errors import InputError, JobRunningError
from univg.io.write import replace_patiently
from univg.progress import ProgressEvent
from univg.workflow.folder_access import locked, utc_now, writing
from univg.workflow.job_context import JobContext
from univg.workflow.job_records import (
    CANCEL_FILE,
    CHECKPOINT_FOLDER,
    EVENTS_FILE,
    LOG_FILE,
    RELEASED_FILE,
    EventReader,
    JobRecord,
    JobState,
    presented_state,
    read_latest_event,
    read_record,
    write_record,
)
from univg.workflow.project import Project

__all__ = [
    "JOB_KINDS",
    "Job",
    "JobContext",
    "JobState",
    "cancel_job",
    "find_job",
    "list_jobs",
    "refuse_while_running",
    "resume_job",
    "start_job",
    "wait_for",
]

# What may run in a job: kind -> "module:function", called as function(project, params, context) -> result.
# Job folders name only the kind, so that a folder from elsewhere cannot choose the code.
JOB_KINDS = {
    "adapt": "univg.workflow.adapt_job:run_adapt_job",
    "generate": "univg.workflow.generate:run_generate_job",
    "image-engine": "univg.workflow.image_engines:run_image_engine_job",
    "mask-engine": "univg.workflow.engines:run_mask_engine_job",
    "retrain": "univg.workflow.adapt_job:run_retrain_job",
    "selftest": "univg.workflow.selftest:run_selftest_job",
    "trees": "univg.workflow.bulk:run_trees_job",
}

JOBS_LOCK = ".lock"


@dataclass(frozen=True, eq=False)
class Job:
    """A job as it was when it was loaded; `refreshed` looks again.

    Attributes
    ----------
    folder : Path
    record : JobRecord
        What the job wrote about itself.
    state : JobState
        What to show; a job whose process is gone is ``failed``, whatever it wrote.
    error : str or None
        Why it failed, as a sentence for people.
    """

    folder: Path
    record: JobRecord
    state: JobState
    error: str | None

    @classmethod
    def load(cls, folder: str | Path) -> Job:
        """The job in `folder`; one whose ``job.json`` is damaged comes back as failed."""
        folder = Path(folder)
        if not folder.is_dir():
            raise InputError("There is no such job", path=folder)
        record = read_record(folder)
        if not record.state.finished and not record.alive_in(folder):
            # It may have ended between the two looks, after writing how.
            record = read_record(folder)
        return cls(folder, record, *presented_state(folder, record))

    def refreshed(self) -> Job:
        return Job.load(self.folder)

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def kind(self) -> str:
        return self.record.kind

    @property
    def params(self) -> dict:
        return self.record.params

    @property
    def attempt(self) -> int:
        return self.record.attempt

    @property
    def created(self) -> str:
        return self.record.created

    @property
    def started(self) -> str | None:
        """When the present attempt began to work; None while it is queued."""
        return self.record.started

    @property
    def finished(self) -> str | None:
        return self.record.finished

    @property
    def waits_for(self) -> str | None:
        """What a person is to do before the job goes on, such as ``"review"``; None unless it stopped for that."""
        return self.record.waits_for if self.state is JobState.CANCELLED else None

    @property
    def log_file(self) -> Path:
        return self.folder / LOG_FILE

    def result(self) -> dict | None:
        """What the job returned; None unless it is done."""
        return self.record.result

    def events(self, after: int = 0) -> list[ProgressEvent]:
        """The events so far without the first `after`; `EventReader` also skips reading what it has read."""
        return EventReader(self.folder).read_new(skip=after)

    def latest_event(self) -> ProgressEvent | None:
        return read_latest_event(self.folder)


def start_job(project: Project, kind: str, params: Mapping | None = None) -> Job:
    """Start work on `project` in a process of its own and return at once.

    Raises
    ------
    JobRunningError
        When an unfinished job of this project is alive; its ``job_id`` says which.
    InputError
        When the kind is unknown, or the project cannot be written to.
    """
    _check_kind(kind)
    record = JobRecord(kind=kind, params=json.loads(json.dumps(dict(params or {}))), created=utc_now())
    with _jobs_locked(project.jobs_folder):
        _refuse_while_running(project.jobs_folder)
        folder = _make_folder(project.jobs_folder, record)
        try:
            _launch(folder, record)
        except BaseException:
            rmtree(folder, ignore_errors=True)
            raise
    return Job.load(folder)


def resume_job(job: Job) -> Job:
    """Continue a failed or cancelled job from its last checkpoint: same folder, same parameters.

    One that waits for a person is thereby told that this was done.
    """
    with _jobs_locked(job.folder.parent):
        job = job.refreshed()
        if job.state is JobState.DONE:
            raise InputError(f"Job {job.id} is done; there is nothing to resume", fix="Start a new job.")
        if not job.state.finished:
            raise JobRunningError(job.id)
        if not job.created:
            raise InputError(f"Job {job.id} cannot be resumed: {job.error}", fix="Start a new job.")
        _check_kind(job.kind)
        _refuse_while_running(job.folder.parent)
        (job.folder / CANCEL_FILE).unlink(missing_ok=True)
        if job.waits_for:
            (job.folder / RELEASED_FILE).touch()
        (job.folder / CHECKPOINT_FOLDER).mkdir(exist_ok=True)
        again = JobRecord(job.kind, job.params, job.created, attempt=job.attempt + 1)
        try:
            _launch(job.folder, again)
        except BaseException as error:
            reason = error.problem if isinstance(error, InputError) else "The job could not be started"
            write_record(job.folder, replace(again, state=JobState.FAILED, finished=utc_now(), error=reason))
            raise
    return job.refreshed()


def cancel_job(job: Job) -> Job:
    """Ask a job to finish its step, save and stop; returns at once, mostly with a ``cancelling`` job."""
    job = job.refreshed()
    if job.state.finished:
        detail = f" ({job.error})" if job.error else ""
        raise InputError(f"Job {job.id} is not running: it is {job.state}{detail}")
    with writing(job.folder):
        (job.folder / CANCEL_FILE).touch()
    return job.refreshed()


def list_jobs(project: Project) -> list[Job]:
    """Every job of `project`, the newest first."""
    return _jobs_in(project.jobs_folder)


def refuse_while_running(project: Project) -> None:
    """Raise `JobRunningError` when a job of `project` is not finished: what it works with must not change."""
    _refuse_while_running(project.jobs_folder)


def find_job(project: Project, id_or_part: str = "") -> Job:
    """The one job whose id begins or ends with `id_or_part`; the newest when that is empty."""
    jobs = list_jobs(project)
    if not jobs:
        raise InputError("This project has no jobs", path=project.path)
    if not id_or_part:
        return jobs[0]
    found = [job for job in jobs if job.id.startswith(id_or_part) or job.id.endswith(id_or_part)]
    exact = [job for job in found if job.id == id_or_part]
    if len(exact or found) == 1:
        return (exact or found)[0]
    problem = f"{len(found)} jobs match {id_or_part!r}" if found else f"No job matches {id_or_part!r}"
    raise InputError(problem, fix=f"Jobs: {', '.join(job.id for job in (found or jobs)[:5])}.")


def wait_for(job: Job, timeout: float | None = None) -> Job:
    """The job once it has finished, in whatever way; `TimeoutError` after `timeout` seconds."""
    deadline = None if timeout is None else time.monotonic() + timeout
    while not (job := job.refreshed()).state.finished:
        if deadline is not None and time.monotonic() > deadline:
            raise TimeoutError(f"Job {job.id} is still {job.state} after {timeout:g} s")
        time.sleep(0.05)
    return job


@contextmanager
def _jobs_locked(jobs_folder: Path) -> Iterator[None]:
    with writing(jobs_folder):
        jobs_folder.mkdir(parents=True, exist_ok=True)
    with locked(jobs_folder / JOBS_LOCK):
        yield


def _jobs_in(jobs_folder: Path) -> list[Job]:
    if not jobs_folder.is_dir():
        return []
    folders = [path for path in jobs_folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    jobs = [Job.load(folder) for folder in folders]
    # The second in the id, then the exact time: a damaged record has only the former.
    return sorted(jobs, key=lambda job: (job.id[:15], job.created, job.id), reverse=True)


def _refuse_while_running(jobs_folder: Path) -> None:
    for job in _jobs_in(jobs_folder):
        if not job.state.finished:
            raise JobRunningError(job.id)


def _check_kind(kind: str) -> None:
    if kind not in JOB_KINDS:
        raise InputError(f"Unknown kind of job {kind!r}", fix=f"Use one of: {', '.join(JOB_KINDS)}.")


def _make_folder(jobs_folder: Path, record: JobRecord) -> Path:
    """A new job folder, built under a hidden name and renamed, so that no reader sees half of it."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder = jobs_folder / f"{stamp}-{record.kind}-{os.urandom(2).hex()}"
    hidden = jobs_folder / f".{folder.name}"
    hidden.mkdir()
    try:
        (hidden / CHECKPOINT_FOLDER).mkdir()
        (hidden / EVENTS_FILE).touch()
        # Until the process exists, the present one vouches for the job.
        write_record(hidden, record.worked_on_by(os.getpid()))
        replace_patiently(hidden, folder)
        return folder
    except BaseException:
        rmtree(hidden, ignore_errors=True)
        raise


def _launch(folder: Path, record: JobRecord) -> None:
    """Start the process for the job in `folder`, which awaits the lock on the jobs that the caller holds."""
    write_record(folder, record.worked_on_by(os.getpid()))
    process = _start_process(folder)
    try:
        write_record(folder, record.worked_on_by(process.pid))
    except BaseException:
        process.kill()
        raise
    finally:
        # Without somebody waiting for it, an ended child would stay in the process table.
        threading.Thread(target=process.wait, daemon=True).start()


def _command(folder: Path) -> list[str]:
    return [sys.executable, "-m", "univg.workflow.job_runner", "run", str(folder.resolve())]


def _start_process(folder: Path) -> subprocess.Popen:
    if sys.platform == "win32":
        detached = {"creationflags": subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP}
    else:
        detached = {"start_new_session": True}
    with (folder / LOG_FILE).open("ab") as log:
        return subprocess.Popen(
            _command(folder),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            close_fds=True,
            # Threads that wait for work must sleep, not spin: else a job and the app on the same cores slow each
            # other down several times over.
            env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ},
            # Found there even when univg is not installed, and no stray module of the user's folder is.
            cwd=Path(univg.__file__).resolve().parents[1],
            **detached,
        )
