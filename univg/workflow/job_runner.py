"""The process of a job: ``python -m univg.workflow.job_runner run FOLDER``.

It keeps ``job.json`` up to date, waits for the device, calls the function of the job's kind and records how
that ended. The log gets stack traces, but no names of the user's files, so that it can be shown to others.
"""

from __future__ import annotations

import errno
import faulthandler
import importlib
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from univg.errors import Cancelled, InputError, Paused
from univg.workflow.device_queue import device_turn
from univg.workflow.folder_access import locked, utc_now
from univg.workflow.job_context import JobContext
from univg.workflow.job_records import DISK_FULL, RUN_LOCK, JobRecord, JobState, read_record, write_record
from univg.workflow.jobs import JOB_KINDS, JOBS_LOCK
from univg.workflow.project import Project

EXIT_CODES = {JobState.DONE: 0, JobState.FAILED: 1, JobState.CANCELLED: 130}
NOT_STARTED = 3
SECONDS_FOR_THE_LAST = 30.0
_ON_CPU = ("selftest", "trees")  # kinds of job, whatever graphics card there is
_NICENESS = 10

_log = logging.getLogger("univg.job")


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or arguments[0] != "run":
        sys.stderr.write("usage: python -m univg.workflow.job_runner run FOLDER\n")
        return 2
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    faulthandler.enable()
    make_way()
    return run_job(Path(arguments[1]).resolve())


def make_way() -> None:
    """Leave the processor to whatever a person is doing: the page, napari and other programs come first."""
    with suppress(OSError, psutil.Error):
        process = psutil.Process()
        below = getattr(psutil, "BELOW_NORMAL_PRIORITY_CLASS", None)  # of Windows
        process.nice(max(process.nice(), _NICENESS) if below is None else below)
    # Where Linux shares the processor among sessions first, that counts only among the processes of this one.
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(_NICENESS))


def run_job(folder: Path) -> int:
    """Do the job in `folder` in this process; returns the exit code."""
    only_one = FileLock(folder / RUN_LOCK)
    try:
        # A killed process keeps the lock until its last thread is gone, which may be after it is reported as ended.
        only_one.acquire(timeout=SECONDS_FOR_THE_LAST)
    except Timeout:
        _log.error("Another process works on this job already.")
        return NOT_STARTED
    record = _claim(folder)
    if record is None:
        return NOT_STARTED
    outcome = _outcome(folder, record)
    _log.info("Job %s", outcome.state)  # before others read the record, which may be the last thing that they wait for
    try:
        write_record(folder, replace(outcome, finished=utc_now()))
    except InputError as error:
        # The record goes on saying that this process works, which readers find to be untrue.
        _log.error("%s", _anonymous_trace(error))
        return EXIT_CODES[JobState.FAILED]
    return EXIT_CODES[outcome.state]


def _claim(folder: Path) -> JobRecord | None:
    """Enter this process in the record, once whoever started it has let go of the lock."""
    with locked(folder.parent / JOBS_LOCK):
        record = read_record(folder)
        if record.state is not JobState.QUEUED:
            _log.error("This job is %s, not queued.", record.state)
            return None
        record = record.worked_on_by(os.getpid())
        write_record(folder, record)
        return record


def _outcome(folder: Path, record: JobRecord) -> JobRecord:
    """The record after the work, in one of the finished states."""
    try:
        with JobContext(folder) as context:
            _stop_on_signals(context)
            with device_turn(_device_key(record), should_stop=context.should_stop):
                record = replace(record, state=JobState.RUNNING, started=utc_now())
                write_record(folder, record)
                _log.info("Job of kind %s, attempt %d", record.kind, record.attempt)
                if context.should_stop():
                    raise Cancelled("Cancelled before the first step")
                result = _function_of(record.kind)(Project.open(folder.parents[1]), record.params, context)
                result = json.loads(json.dumps(result, default=float))
    except Paused as pause:
        return replace(record, state=JobState.CANCELLED, waits_for=pause.waits_for)
    except Cancelled:
        return replace(record, state=JobState.CANCELLED)
    except Exception as error:
        _log.error("%s", _anonymous_trace(error))
        shareable = error.without_path if isinstance(error, InputError) else None
        return replace(record, state=JobState.FAILED, error=failure_reason(error), error_without_path=shareable)
    return replace(record, state=JobState.DONE, result=result)


def failure_reason(error: Exception) -> str:
    """One sentence that a person can act on."""
    if isinstance(error, InputError):
        return str(error)
    if type(error).__name__ == "OutOfMemoryError" or "MPS backend out of memory" in str(error):
        return "The graphics card ran out of memory; close what else uses it, or choose the device cpu"
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return "The computer ran out of memory; close other programs or choose a quicker preset, then resume"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DISK_FULL
    return f"Something went wrong that UniVG did not expect ({type(error).__name__}); see log.txt"


def _function_of(kind: str) -> Callable:
    if kind not in JOB_KINDS:
        raise InputError(f"This version of UniVG knows no job of kind {kind!r}", fix="Update UniVG.")
    module, function = JOB_KINDS[kind].split(":")
    return getattr(importlib.import_module(module), function)


def _device_key(record: JobRecord) -> str:
    """The device that a job works on, as the queue names it; trainings that name none take the best there is."""
    device = str(record.params.get("device", "cpu" if record.kind in _ON_CPU else "auto"))
    if device == "cpu":
        return device
    from univg.training.device import resolve_device

    return resolve_device(device).type


def _stop_on_signals(context: JobContext) -> None:
    def stop(number, frame) -> None:
        context.request_stop()

    for name in ("SIGTERM", "SIGINT", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), stop)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _anonymous_trace(error: BaseException) -> str:
    """The stack trace of `error` and its causes, without messages that are likely to quote a file name."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    before = "" if cause is None else f"{_anonymous_trace(cause)}\nwhich led to\n"
    frames = "".join(traceback.format_tb(error.__traceback__))
    if isinstance(error, OSError):
        message = error.strerror or ""
    else:
        message = "(message in job.json)" if isinstance(error, InputError) else str(error)
    return f"{before}{type(error).__name__}: {message}\n{frames}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
