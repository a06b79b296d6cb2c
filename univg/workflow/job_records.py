"""What a job leaves on disk, and how to read it: ``job.json``, ``events.jsonl`` and who is working on it.

A job folder holds ``job.json`` (replaced as a whole), ``events.jsonl`` (appended to), ``log.txt``,
``checkpoint/`` and, once somebody asked the job to stop, an empty file ``cancel``. A job that waited for a person
and was told to go on has an empty file ``released``.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

from univg.io import read_json, write_json_atomic
from univg.progress import ProgressEvent
from univg.workflow.processes import is_held, process_lives, process_start, this_host

JOB_SCHEMA = 1
RECORD_FILE = "job.json"
EVENTS_FILE = "events.jsonl"
LOG_FILE = "log.txt"
CANCEL_FILE = "cancel"
RELEASED_FILE = "released"
CHECKPOINT_FOLDER = "checkpoint"
RUN_LOCK = ".run.lock"  # the process that works on the job holds it

DIED = "The process ended unexpectedly; resume continues from the last checkpoint"
DISK_FULL = "The disk is full; free some space, then resume"
UNREADABLE = "job.json is unreadable"
NEWER = "This job was made by a newer version of UniVG; update UniVG to see it"

# Longer than a job at work, which writes an event a step, writes nothing.
_SECONDS_OF_SILENCE = 180.0
_FULL_DISK_BYTES = 64 * 1024
_TORN = b" #torn\n"


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    FAILED = "failed"
    DONE = "done"

    @property
    def finished(self) -> bool:
        return self in (JobState.CANCELLED, JobState.FAILED, JobState.DONE)


@dataclass(frozen=True)
class JobRecord:
    """The content of ``job.json``; times are ISO 8601 in UTC.

    `error_without_path` is what a report says that others may see; None where `error` names no path.
    A job with `waits_for` stopped by itself, as if it had been cancelled, until a person has done that.
    `host` is where `pid` is the number of a process, and `inode` that of the job's folder, which a copy does not share;
    earlier records have neither.
    """

    kind: str
    params: dict
    created: str
    state: JobState = JobState.QUEUED
    attempt: int = 1
    pid: int | None = None
    process_started: float | None = None
    host: str | None = None
    inode: int | None = None
    started: str | None = None
    finished: str | None = None
    error: str | None = None
    error_without_path: str | None = None
    result: dict | None = None
    waits_for: str | None = None
    schema: int = JOB_SCHEMA

    def worked_on_by(self, pid: int) -> JobRecord:
        """This record with process `pid` as the one that keeps the job alive."""
        return replace(self, pid=pid, process_started=process_start(pid), host=this_host())

    def alive_in(self, folder: Path) -> bool:
        """Whether the process that works on the job in `folder` exists, and `folder` is no copy of its folder.

        Of a process on another computer or in another container the lock tells. Network drives may not carry it from
        one computer to the other, so the process also counts as alive for three minutes after it wrote something last.
        """
        if self.pid is None or self.process_started is None:
            return False
        in_place = self.inode in (None, _inode(folder))
        if self.host in (None, this_host()):
            lives = process_lives(self.pid, self.process_started)
            # Some network drives give a folder another number now and then.
            return lives and (in_place or is_held(folder / RUN_LOCK))
        return is_held(folder / RUN_LOCK) or (in_place and _seconds_of_silence(folder) < _SECONDS_OF_SILENCE)


def _inode(folder: Path) -> int | None:
    try:
        return folder.stat().st_ino
    except OSError:
        return None


def _seconds_of_silence(folder: Path) -> float:
    """How long ago the job in `folder` wrote its record or an event."""
    files = [file for name in (RECORD_FILE, EVENTS_FILE) if (file := folder / name).is_file()]
    return time.time() - max((file.stat().st_mtime for file in files), default=0.0)


def write_record(folder: Path, record: JobRecord) -> None:
    write_json_atomic(folder / RECORD_FILE, asdict(replace(record, inode=_inode(folder))))


def read_record(folder: Path) -> JobRecord:
    """The record in `folder`; one that cannot be read comes back as a failed job that says so."""
    try:
        data = read_json(folder / RECORD_FILE)
        if isinstance(data.get("schema"), int) and data["schema"] > JOB_SCHEMA:
            return _unusable(NEWER)
        names = JobRecord.__dataclass_fields__
        record = JobRecord(**{name: value for name, value in data.items() if name in names})
        record = replace(record, state=JobState(record.state))
    except (OSError, ValueError, TypeError, AttributeError):
        return _unusable(UNREADABLE)
    return record if _well_typed(record) else _unusable(UNREADABLE)


def presented_state(folder: Path, record: JobRecord) -> tuple[JobState, str | None]:
    """State and error to show: a job whose process is gone has failed, whatever it last wrote."""
    if record.state.finished:
        return record.state, record.error
    if not record.alive_in(folder):
        # A process that could not even write why it ended leaves the disk as full as it found it.
        full = shutil.disk_usage(folder).free < _FULL_DISK_BYTES
        return JobState.FAILED, DISK_FULL if full else DIED
    if (folder / CANCEL_FILE).exists():
        return JobState.CANCELLING, None
    return record.state, None


class EventReader:
    """Reads the events of a job as they are added; each call returns those that are new since the last one.

    A last line without its end, as a killed process leaves it, is not read; lines that are no events are
    left out.
    """

    def __init__(self, folder: str | Path) -> None:
        self._path = Path(folder) / EVENTS_FILE
        self._offset = 0

    def read_new(self, *, skip: int = 0) -> list[ProgressEvent]:
        """New events, without the first `skip` of them (which are not even parsed)."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        lines = [line for line in whole.split(b"\n") if line.endswith(b"}")]
        return [event for line in lines[skip:] if (event := _parse_event(line)) is not None]


def read_latest_event(folder: Path, *, tail_bytes: int = 16384) -> ProgressEvent | None:
    """The newest whole event, from the end of the file."""
    try:
        with (folder / EVENTS_FILE).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - tail_bytes))
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return None
    if size > tail_bytes:
        lines = lines[1:]
    return next((event for line in reversed(lines) if (event := _parse_event(line)) is not None), None)


def repair_events(folder: Path) -> None:
    """Close a line that a killed process left open, marked so that no reader takes it for an event."""
    with (folder / EVENTS_FILE).open("ab+") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(_TORN)


def _parse_event(line: bytes) -> ProgressEvent | None:
    try:
        return ProgressEvent.from_json(json.loads(line))
    except (ValueError, TypeError):
        return None


def _unusable(reason: str) -> JobRecord:
    return JobRecord(kind="unknown", params={}, created="", state=JobState.FAILED, error=reason)


def _well_typed(record: JobRecord) -> bool:
    optional = (
        (record.pid, int),
        (record.process_started, (int, float)),
        (record.host, str),
        (record.inode, int),
        (record.started, str),
        (record.finished, str),
        (record.error, str),
        (record.result, dict),
        (record.waits_for, str),
    )
    required = ((record.kind, str), (record.params, dict), (record.created, str), (record.attempt, int))
    return all(isinstance(value, kind) for value, kind in required) and all(
        value is None or isinstance(value, kind) for value, kind in optional
    )
