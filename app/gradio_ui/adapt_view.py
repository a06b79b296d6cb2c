"""What the Adapt tab shows of a run: the bar of stages, a sentence on how it goes, the curve, two pictures."""

from __future__ import annotations

from collections.abc import Collection
from html import escape

import gradio as gr
import numpy as np
from PIL import Image

from app import texts
from app.gradio_ui import markup, pictures
from app.gradio_ui.engine_jobs import learns_from_present
from app.gradio_ui.job_watch import LEARNS_FROM, JobWatch
from app.gradio_ui.plots import learning_curve
from app.gradio_ui.state import Session
from app.gradio_ui.tabs import tab_title
from univg.progress import ProgressEvent
from univg.workflow.jobs import Job, JobState
from univg.workflow.project import Project
from univg.workflow.stages import IMAGE_ENGINE, MASK_ENGINE, PAIRS, SEGMENTER

# The bar of each preset: what the events of a job call its stages, and the stage that a rerun could begin with.
_USUAL = {"trees": "trees", "pairs": PAIRS, "segmenter": SEGMENTER, "check": SEGMENTER}
_BARS = {
    "plain": {"segmenter": SEGMENTER, "check": SEGMENTER},
    "full": {
        "mask engine": MASK_ENGINE,
        "critic": IMAGE_ENGINE,
        "image engine": IMAGE_ENGINE,
        "pairs": PAIRS,
        "review": SEGMENTER,
        "segmenter": SEGMENTER,
        "check": SEGMENTER,
    },
}
# Events that belong to a stage of the bar under another name.
_PART_OF = {"masks": "mask engine", "images": "image engine"}
_CAPTIONS = {
    "trees": texts.PICTURE_TREES,
    "mask engine": texts.PICTURE_MASKS,
    "masks": texts.PICTURE_STARTS,
    "image engine": texts.PICTURE_IMAGES,
    "images": texts.PICTURE_MIRRORED,
    "pairs": texts.PICTURE_PAIR,
    "segmenter": texts.PICTURE_HELD_OUT,
}


def _caption(stage: str, step: int) -> str:
    if stage == "segmenter" and step == 0:
        return texts.PICTURE_PRIOR
    return _CAPTIONS[stage].format(step=step)


def stage_bar(job: Job, seen: JobWatch, *, stale: Collection[str] = ()) -> str:
    """The stages of `job` in order; those of `stale`, as reruns call them, are marked as to be redone."""
    bar = _BARS.get(job.params.get("preset"), _USUAL)
    at = seen.latest and _PART_OF.get(seen.latest.stage, seen.latest.stage)
    kept = job.params.get("given", {})
    entries = []
    for name, rerun in bar.items():
        if name == "review" and not job.params.get("review"):
            continue
        event = seen.stages.get(name)
        fraction = 0.0 if event is None else event.fraction
        steps = "" if event is None else texts.STAGE_OF.format(step=event.step, total=event.total)
        state = "done" if fraction >= 1 else "now" if at == name and event is not None else "todo"
        if name == "review":
            fraction, state, steps = _review(job, seen)
        if rerun in kept:
            fraction, state, steps = 1.0, "done", texts.STAGE_KEPT
        mark = texts.TAB_MARKS["done"] if state == "done" else ""
        if rerun in stale:
            state, mark, steps = f"{state} stale", texts.TAB_MARKS["stale"], texts.STAGE_STALE
        title, what = texts.STAGES[name]
        if name == "pairs" and "mask engine" in bar:
            what = texts.STAGE_ENGINE_PAIRS
        entries.append(
            f'<li class="{state}" style="--done:{100 * fraction:.0f}%"><b>{escape(title)} {mark}</b>'
            f"<span>{escape(what)}</span><em>{escape(steps)}</em></li>"
        )
    return f'<ol class="stages">{"".join(entries)}</ol>'


def _review(job: Job, seen: JobWatch) -> tuple[float, str, str]:
    if job.waits_for:
        return 0.0, "now", texts.STAGE_WAITS
    return (1.0, "done", "") if "segmenter" in seen.stages else (0.0, "todo", "")


def status(project: Project, job: Job, seen: JobWatch) -> str:
    """How it goes, in a sentence."""
    state, kind, latest = texts.JOB_STATES[job.state], str(job.state), seen.latest
    goes_on = learns_from_present(project, job)
    if job.waits_for and goes_on:
        state, kind = texts.JOB_WAITS, "waits"
        count = seen.stages["pairs"].total if "pairs" in seen.stages else 0
        tab, noun = tab_title("review", project), texts.noun(count, "pair")
        text = texts.REVIEW_WAITS.format(count=count, noun=noun, tab=tab, go_on=texts.GO_ON_BUTTON)
    elif job.state is JobState.QUEUED:
        text = texts.JOB_QUEUED
    elif job.state is JobState.CANCELLING:
        text = texts.JOB_CANCELLING
    elif job.state is JobState.RUNNING:
        text = texts.JOB_STARTING if latest is None else _running_text(latest)
    elif job.state is JobState.CANCELLED:
        text = texts.JOB_CANCELLED if goes_on else texts.ENGINES_OTHER_PAIRS
    elif job.state is JobState.FAILED:
        text = _failed_text(job, goes_on)
    else:
        text = f"{texts.JOB_DONE.format(version=(job.result() or {}).get('segmenter', ''))} {_held_out_text(job)}"
    role = ' role="status"' if job.state.finished else ""  # else every step would be read aloud
    return f'<p class="status {kind}"{role}><b>{escape(state)}</b> {escape(text)}</p>'


def _failed_text(job: Job, goes_on: bool) -> str:
    """Why it failed, and what to do unless the reason says that itself, in a sentence of its own."""
    reason = (job.error or "").rstrip(".")
    fix = "" if ". " in reason else texts.JOB_FAILED_FIX
    return f"{texts.JOB_FAILED.format(reason=reason)} {fix if goes_on else texts.ENGINES_OTHER_PAIRS}".rstrip()


def _running_text(event: ProgressEvent) -> str:
    title, _ = texts.STAGES.get(event.stage, (event.stage, ""))
    left = texts.TIME_UNKNOWN
    if event.seconds_left is not None:
        left = texts.TIME_LEFT.format(time=texts.duration(event.seconds_left))
    steps = texts.STAGE_OF.format(step=event.step, total=event.total)
    return f"{title}: {steps}, {left}."


def _held_out_text(job: Job) -> str:
    figures = (job.result() or {}).get("held_out") or {}
    if figures.get("dice") is None:
        return texts.NO_HELD_OUT
    if figures.get("cldice") is None:
        return texts.HELD_OUT_DICE.format(dice=figures["dice"])
    return texts.HELD_OUT.format(dice=figures["dice"], cldice=figures["cldice"])


def curve(seen: JobWatch) -> str:
    """Of the stage that learns, or learnt last."""
    stage = seen.learning or "segmenter"
    total = seen.stages[stage].total if stage in seen.stages else 1
    title = texts.CURVE_OF.format(stage=texts.STAGES[stage][0]) if stage in texts.STAGES else ""
    return learning_curve(seen.losses.get(stage, []), seen.dice if stage == "segmenter" else [], total, title=title)


def live_pictures(session: Session, job: Job | None, seen: JobWatch | None) -> list:
    """Updates of the large picture and its caption, then of the small one and its: the newest two stages that have one.

    The held-out image is the large one as soon as there is a picture of it.
    """
    found = {} if seen is None else {stage: shown for stage, shown in seen.pictures.items() if stage in _CAPTIONS}
    newest = list(reversed(found))
    large = "segmenter" if "segmenter" in found else newest[0] if newest else None
    others = [stage for stage in newest if stage != large]
    small = "pairs" if "pairs" in others else others[0] if others else None
    updates = []
    for stage in (large, small):
        if stage is None:
            waits = not updates and job is not None and not job.state.finished
            updates += [gr.Image(value=None, visible=False), markup.waiting(texts.PICTURE_WAIT) if waits else ""]
            continue
        step, path = found[stage]
        with Image.open(path) as opened:
            picture = np.asarray(opened.convert("RGB"))
        left_out = ("given", LEARNS_FROM)
        params = {k: v for k, v in job.params.items() if k not in left_out and not k.endswith("backbone")}
        parameters = {"job": job.id, "stage": stage, "step": step, **params}
        shown = pictures.save_picture(picture, session.pictures_of("adapt"), parameters)
        updates += [gr.Image(shown, visible=True), markup.line(_caption(stage, step))]
    return updates
