"""Kill a real adaptation with SIGKILL, resume it each time, and compare what it made with an undisturbed run.

usage: python benchmarks/kill_and_resume.py IMAGES MASKS MODALITY [--preset preview] [--kills 10] [--seed 0]
                                            [--every-stage] [--page] [--set NAME=VALUE ...] [--json FILE]

Without --every-stage the kills are spread over starting and training; with it, every stage that the undisturbed run
reports is killed that many times, or until it is over. With --page the server of the app dies with the job each time,
as in a power cut, is started again, and the run is resumed by the button of the page in Chromium. --set shortens a run:
mask_steps, image_steps, pairs and segmenter_steps. Compared are the weights of every engine and segmenter and every
file of every pair.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from app_server import AppServer, chromium

from univg.io import load_support_set, sha256_file, write_json_atomic
from univg.types import Modality
from univg.workflow.benchmark import describe_environment
from univg.workflow.jobs import EventReader, Job, JobState, resume_job, start_job, wait_for
from univg.workflow.project import Project

SHOTS = 5
MADE = ("adapters", "image_engines", "pairs", "segmenters")  # folders of a project that a run writes to
COMPARED = (".safetensors", ".png", ".tif")
LONGEST_WAIT_S = 5.0


def make_project(folder: Path, args: argparse.Namespace) -> Project:
    modality = Modality.parse(args.modality)
    project = Project.create(folder, modality=modality)
    for pair in list(load_support_set(args.images, args.masks, modality=modality))[:SHOTS]:
        project.add_support_pair(pair, source=None)
    return project


def start(project: Project, args: argparse.Namespace) -> Job:
    return start_job(project, "adapt", {"preset": args.preset, "seed": args.seed, "device": "cpu", **args.settings})


class Page:
    """The app on a project and a page of it in Chromium."""

    def __init__(self, app: AppServer, browser) -> None:
        self._app, self._page = app, browser.new_page()
        self._page.set_default_timeout(180_000)

    def kill_server(self) -> None:
        self._app.kill()

    def resume(self, job: Job) -> Job:
        """Start the server again, load the page anew, and resume the run as a user does."""
        self._app.start()
        self._page.goto(self._app.address)
        self._page.wait_for_selector("#page-state[data-view=work]", state="attached")
        self._page.click("#tab-adapt-button")
        self._page.wait_for_selector("#adapt-status .failed")
        self._page.click("#resume:not([disabled])")
        self._page.wait_for_selector("#adapt-status .failed", state="detached")
        return job.refreshed()


def run(
    project: Project, args: argparse.Namespace, kills: int, rng: np.random.Generator, page: Page | None
) -> dict[str, str]:
    """What a run makes that was killed `kills` times."""
    job = start(project, args)
    for number in range(1, kills + 1):
        # A fifth dies while it starts, the others in training: before, after or amid the writing of a checkpoint.
        if rng.random() < 0.2:
            time.sleep(rng.uniform(0, 10))
        else:
            wait_for_stage(job, "segmenter")
            time.sleep(rng.uniform(0, 20))
        job, killed = kill(job, f"kill {number}", page)
        if not killed:
            break
    return finished(project, job)


def run_killed_in_every_stage(
    project: Project, args: argparse.Namespace, seconds: dict[str, float], rng: np.random.Generator, page: Page | None
) -> tuple[dict[str, str], dict[str, int]]:
    """What a run makes that was killed in each stage, and how often each was; `seconds` are those of a quiet run."""
    job, counts = start(project, args), dict.fromkeys(seconds, 0)
    for stage, whole in seconds.items():
        while counts[stage] < args.kills and wait_for_stage(job, stage):
            time.sleep(rng.uniform(0, min(1.5 * whole / args.kills, LONGEST_WAIT_S)))
            job, killed = kill(job, f"{stage}, kill {counts[stage] + 1}", page)
            if not killed:
                break
            counts[stage] += 1
    return finished(project, job), counts


def kill(job: Job, label: str, page: Page | None) -> tuple[Job, bool]:
    """Kill the process of a job, and the server with it, and start another; False when the job had ended before."""
    job = job.refreshed()
    if job.state.finished:
        return job, False
    event = job.latest_event()
    os.kill(job.record.pid, signal.SIGKILL)
    if page is not None:
        page.kill_server()
    job = wait_for(job, 30)
    where = "before its first event" if event is None else f"at {event.stage} {event.step}/{event.total}"
    print(f"{label}: {where}; state {job.state}: {job.error}", flush=True)
    return (resume_job(job) if page is None else page.resume(job)), True


def finished(project: Project, job: Job) -> dict[str, str]:
    """SHA-256 of every file of weights and pairs, by a name without the day and the random part of its folder's."""
    job = wait_for(job)
    if job.state is not JobState.DONE:
        raise SystemExit(f"the job ended {job.state}: {job.error}")
    found = {}
    for kind in MADE:
        for file in sorted((project.path / kind).rglob("*")):
            if file.suffix in COMPARED:
                inside = file.relative_to(project.path / kind).parts
                found["/".join((kind, *(inside if kind == "pairs" else inside[1:])))] = sha256_file(file)
    return found


def watched(job: Job) -> dict[str, float]:
    """Seconds that each stage of a job takes, in the order in which they begin; returns when the job has ended."""
    reader, times = EventReader(job.folder), {}
    while True:
        over = job.refreshed().state.finished
        for event in reader.read_new():
            times.setdefault(event.stage, []).append(time.monotonic())
        if over:
            return {stage: max(seen) - min(seen) for stage, seen in times.items()}
        time.sleep(0.1)


def wait_for_stage(job: Job, stage: str) -> bool:
    """True once this attempt reports `stage` as the last it is in; False when another follows, or the job has ended."""
    reader, seen, last = EventReader(job.folder), False, ""
    reader.read_new()
    while not job.refreshed().state.finished:
        for event in reader.read_new():
            seen, last = seen or event.stage == stage, event.stage
        if last == stage:
            return True
        if seen:
            return False
        time.sleep(0.02)
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images")
    parser.add_argument("masks")
    parser.add_argument("modality")
    parser.add_argument("--preset", default="preview")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every-stage", action="store_true")
    parser.add_argument("--page", action="store_true", help="kill the server of the app too, and resume in Chromium")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    args.settings = {name: json.loads(value) for name, value in (text.split("=", 1) for text in args.set)}
    rng = np.random.default_rng(args.seed)
    report = {"preset": args.preset, "settings": args.settings, "server_killed_too": args.page}
    with tempfile.TemporaryDirectory() as folder:
        quiet_project = make_project(Path(folder) / "quiet", args)
        job = start(quiet_project, args)
        report["seconds"] = seconds = watched(job)
        quiet = finished(quiet_project, job)
        print("undisturbed:", {stage: round(s, 1) for stage, s in seconds.items()}, flush=True)
        project = make_project(Path(folder) / "disturbed", args)
        with ExitStack() as open_things:
            page = None
            if args.page:
                app = open_things.enter_context(AppServer(project.path, Path(folder) / "app"))
                page = Page(app, open_things.enter_context(chromium()))
            if args.every_stage:
                disturbed, report["kills"] = run_killed_in_every_stage(project, args, seconds, rng, page)
                print("kills:", report["kills"])
            else:
                disturbed = run(project, args, args.kills, rng, page)
    differing = sorted(name for name in quiet.keys() | disturbed.keys() if quiet.get(name) != disturbed.get(name))
    report |= {"files": len(quiet), "differing": differing, "environment": describe_environment()}
    print(f"{len(quiet)} files, " + (f"DIFFERENT: {', '.join(differing)}" if differing else "identical"))
    if args.json:
        write_json_atomic(args.json, report)


if __name__ == "__main__":
    main()
