"""``univg jobs``: list, show, watch, cancel, resume, rerun and report the jobs of a project."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path

from univg.commands.options import SECONDS_BETWEEN_LINES, ProgressLine, refuse_to_replace
from univg.errors import InputError
from univg.workflow.job_records import EventReader
from univg.workflow.jobs import (
    Job,
    JobState,
    cancel_job,
    find_job,
    list_jobs,
    resume_job,
    start_job,
    wait_for,
)
from univg.workflow.project import Project
from univg.workflow.stages import FULL_STAGES

POLL_SECONDS = 0.5
CANCEL_SECONDS = 15.0
_EXIT_CODES = {JobState.DONE: 0, JobState.FAILED: 1, JobState.CANCELLED: 130}


_WAITS = {"review": "look through the pairs in the app, in the tab Review; `univg jobs resume` then trains."}


def add_parser(subparsers) -> argparse.ArgumentParser:
    """Add ``jobs`` to the subcommands of the main parser."""
    parser = subparsers.add_parser(
        "jobs",
        help="list, show, watch, cancel, resume or rerun the jobs of a project",
        description="Jobs go on when the window that started them is closed; this gets back to them.",
    )
    parser.add_argument(
        "action",
        choices=(*_ACTIONS, "rerun", "report"),
        help="rerun begins an adaptation again from a stage; report writes a run as one HTML file; "
        "selftest checks that jobs work on this machine",
    )
    parser.add_argument(
        "id",
        nargs="?",
        default="",
        help="job id, its beginning or its end; default: the newest, or to watch and cancel the one at work",
    )
    parser.add_argument("--project", required=True, metavar="DIR", help="project folder")
    parser.add_argument("-o", metavar="FILE", dest="output", help="where the report goes (default: <job>.html here)")
    parser.add_argument(
        "--from",
        dest="stage",
        metavar="STAGE",
        help=f"of rerun: keep what comes before; of the full preset one of {', '.join(FULL_STAGES)}",
    )
    parser.add_argument(
        "--set",
        dest="changes",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of rerun: change a setting, for example pairs=100 or alpha=0.5; may be repeated",
    )
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Do what the command line asks; returns the exit code."""
    project = Project.open(args.project)
    if args.action != "rerun" and (args.stage or args.changes):
        raise InputError("--from and --set are of rerun", fix="Leave them out.")
    if args.action != "report" and args.output:
        raise InputError("-o is of report", fix="Leave it out.")
    if args.action in ("list", "selftest") and args.id:
        raise InputError(f"{args.action} is of no single job, got {args.id!r}", fix="Leave it out, or use show.")
    if args.action == "rerun":
        return _rerun(project, args.id, args.stage, args.changes)
    if args.action == "report":
        return _report_to(project, args.id, args.output)
    return _ACTIONS[args.action](project, args.id)


def _list(project: Project, _: str) -> int:
    jobs = list_jobs(project)
    if not jobs:
        print("This project has no jobs.")
    for job in jobs:
        print(f"{job.id}  {job.state:<10}  {_progress(job)}".rstrip())
    return 0


def _report_to(project: Project, job_id: str, output: str | None) -> int:
    from univg.workflow.summary import write_summary

    job = find_job(project, job_id)
    path = Path(output or f"{job.id}.html")
    refuse_to_replace(path, b"Made by UniVG")
    write_summary(project, job, path)
    print(path)
    return 0


def _show(project: Project, job_id: str) -> int:
    job = find_job(project, job_id)
    rows = {
        "job": job.id,
        "kind": job.kind,
        "state": job.state,
        "reason": job.error,
        "progress": _progress(job),
        "created": job.created,
        "started": job.started,
        "finished": job.finished,
        "attempt": job.attempt,
        "parameters": job.params,
        "result": job.result(),
        "folder": job.folder,
    }
    for label, value in rows.items():
        if value not in (None, ""):
            print(f"{label:<11} {value}")
    return 0


def _watch(project: Project, job_id: str) -> int:
    return watch(_at_work(project, job_id))


def _at_work(project: Project, job_id: str) -> Job:
    """As `find_job`, but without an id the unfinished job, if any: one that was resumed is not the newest."""
    unfinished = (job for job in list_jobs(project) if not job.state.finished)
    return next(unfinished, None) or find_job(project) if not job_id else find_job(project, job_id)


def watch(job: Job) -> int:
    """Print the progress of `job` until it ends; Ctrl+C ends the watching, not the job."""
    reader = EventReader(job.folder)
    show = ProgressLine(sys.stdout, seconds_between=SECONDS_BETWEEN_LINES)
    try:
        while True:
            # The state first: events written before the job ended are then all read.
            job = job.refreshed()
            for event in reader.read_new():
                show(event)
            if job.state.finished:
                break
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        where = shlex.quote(str(job.folder.parents[1]))
        print(f"\nJob {job.id} goes on; `univg jobs cancel {job.id} --project {where}` stops it.")
        return 0
    show.end()
    return _report(job)


def _cancel(project: Project, job_id: str) -> int:
    job = cancel_job(_at_work(project, job_id))
    print(f"Job {job.id} was asked to stop.", flush=True)
    try:
        _report(wait_for(job, CANCEL_SECONDS))
    except TimeoutError:
        print("It is still finishing its step; it will stop after that.")
    return 0


def _resume(project: Project, job_id: str) -> int:
    return watch(resume_job(find_job(project, job_id)))


def _rerun(project: Project, job_id: str, stage: str | None, changes: list[str]) -> int:
    from univg.workflow.rerun import rerun_job

    job = rerun_job(project, find_job(project, job_id), stage, dict(_setting(text) for text in changes))
    print(f"Job {job.id}: from {job.params['from_stage']} on, as in {job.params['rerun_of']}.", flush=True)
    return watch(job)


def _setting(text: str) -> tuple[str, object]:
    """A name and a value, which is JSON where it can be read as that and a word elsewhere."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InputError(f"{text!r} is no setting", fix="Write NAME=VALUE, for example pairs=100.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _selftest(project: Project, _: str) -> int:
    return watch(start_job(project, "selftest"))


def _progress(job: Job) -> str:
    event = job.latest_event()
    if job.waits_for:
        return f"waits for your {job.waits_for}"
    return job.error or ("" if event is None else f"{event.stage} {event.step}/{event.total}")


def _report(job: Job) -> int:
    if job.waits_for:
        print(f"Job {job.id} waits for your {job.waits_for}: {_WAITS.get(job.waits_for, '')}".rstrip())
        return 0
    detail = job.error or (job.result() if job.state is JobState.DONE else None)
    print(f"Job {job.id} {job.state}" + ("" if detail is None else f": {detail}"))
    return _EXIT_CODES[job.state]


_ACTIONS = {
    "list": _list,
    "show": _show,
    "watch": _watch,
    "cancel": _cancel,
    "resume": _resume,
    "selftest": _selftest,
}
