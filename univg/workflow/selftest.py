"""The job behind ``univg jobs selftest``: shows that jobs start, report, stop and resume on this machine."""

from __future__ import annotations

import time

import numpy as np

from univg.errors import Cancelled, InputError
from univg.io import read_json, write_json_atomic
from univg.progress import ProgressEvent, StageClock
from univg.workflow.job_context import JobContext
from univg.workflow.project import Project

STAGE = "selftest"
STEPS_BETWEEN_SAVES = 5


def run_selftest_job(project: Project, params: dict, context: JobContext) -> dict:
    """Sum random numbers step by step; the sum is the same however often the job was stopped or killed.

    Parameters
    ----------
    project : Project
        Not touched.
    params : dict
        ``steps`` (default 50), ``seconds_per_step`` (0.05) and ``seed`` (0).
    context : JobContext

    Returns
    -------
    dict
        ``{"steps": int, "sum": float}``
    """
    steps, pause, seed = params.get("steps", 50), params.get("seconds_per_step", 0.05), params.get("seed", 0)
    if not isinstance(steps, int) or steps < 1:
        raise InputError(f"The self-test needs a whole number of steps above 0, got {steps!r}")
    rng = np.random.default_rng(seed)
    checkpoint = context.checkpoint_folder / "selftest.json"
    done, total = 0, 0.0
    if checkpoint.exists():
        saved = read_json(checkpoint)
        done, total, rng.bit_generator.state = saved["done"], saved["sum"], saved["rng"]

    def save() -> None:
        write_json_atomic(checkpoint, {"done": done, "sum": total, "rng": rng.bit_generator.state})

    clock = StageClock(first_step=done)
    while done < steps:
        if context.should_stop():
            save()
            raise Cancelled(f"Stopped after step {done}")
        time.sleep(pause)
        total += float(rng.normal())
        done += 1
        event = ProgressEvent(STAGE, done, steps, "Adding random numbers", {"sum": total})
        context.on_progress(clock.timed(event))
        if done % STEPS_BETWEEN_SAVES == 0:
            save()
    return {"steps": done, "sum": total}
