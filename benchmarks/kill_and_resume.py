"""Kill a real adaptation ten times with SIGKILL, resume it each time, and compare its weights with an undisturbed run.

usage: python benchmarks/kill_and_resume.py IMAGES MASKS MODALITY [--preset preview] [--kills 10] [--seed 0]
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from pathlib import Path

import numpy as np

from univg.io import load_support_set, sha256_file
from univg.types import Modality
from univg.workflow.jobs import EventReader, Job, JobState, resume_job, start_job, wait_for
from univg.workflow.project import Project

SHOTS = 5


def make_project(folder: Path, args: argparse.Namespace) -> Project:
    modality = Modality.parse(args.modality)
    project = Project.create(folder, modality=modality)
    for pair in list(load_support_set(args.images, args.masks, modality=modality))[:SHOTS]:
        project.add_support_pair(pair, source=None)
    return project


def run(project: Project, args: argparse.Namespace, kills: int, rng: np.random.Generator) -> str:
    """The SHA-256 of the weights after a run that was killed `kills` times."""
    job = start_job(project, "adapt", {"preset": args.preset, "seed": args.seed, "device": "cpu"})
    for kill in range(kills):
        # A fifth dies while it starts, the others in training: before, after or amid the writing of a checkpoint.
        if rng.random() < 0.2:
            time.sleep(rng.uniform(0, 10))
        else:
            wait_for_training(job)
            time.sleep(rng.uniform(0, 20))
        job = job.refreshed()
        if job.state.finished:
            break
        event = job.latest_event()
        os.kill(job.record.pid, signal.SIGKILL)
        job = wait_for(job, 30)
        where = "before its first event" if event is None else f"at {event.stage} {event.step}/{event.total}"
        print(f"kill {kill + 1}: {where}; state {job.state}: {job.error}", flush=True)
        job = resume_job(job)
    job = wait_for(job)
    if job.state is not JobState.DONE:
        raise SystemExit(f"the job ended {job.state}: {job.error}")
    return sha256_file(project.segmenters_folder / job.result()["segmenter"] / "model.safetensors")


def wait_for_training(job: Job) -> None:
    """Return once this attempt has done a training step, or the job has ended."""
    reader = EventReader(job.folder)
    reader.read_new()
    while not job.refreshed().state.finished:
        if any(event.stage == "segmenter" for event in reader.read_new()):
            return
        time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images")
    parser.add_argument("masks")
    parser.add_argument("modality")
    parser.add_argument("--preset", default="preview")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        disturbed = run(make_project(Path(folder) / "disturbed", args), args, args.kills, rng)
        quiet = run(make_project(Path(folder) / "quiet", args), args, 0, rng)
    print(f"disturbed   {disturbed}\nundisturbed {quiet}\n{'identical' if disturbed == quiet else 'DIFFERENT'}")


if __name__ == "__main__":
    main()
