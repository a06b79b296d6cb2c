"""Tab 2, Adapt: start the job that makes a model, watch it, stop it, and see the runs so far."""

from __future__ import annotations

from datetime import datetime
from html import escape

import gradio as gr
import numpy as np
from PIL import Image

from app import texts
from app.gradio_ui import markup, pictures
from app.gradio_ui.context import Ui
from app.gradio_ui.devices import selectable
from app.gradio_ui.errors import note
from app.gradio_ui.header import cancel_running
from app.gradio_ui.job_watch import JobWatch, active_job, jobs_of, watch
from app.gradio_ui.models import is_stale
from app.gradio_ui.plots import learning_curve
from app.gradio_ui.state import Session
from univg.errors import InputError
from univg.progress import ProgressEvent
from univg.weights import is_shipped
from univg.workflow.jobs import Job, JobState, resume_job, start_job
from univg.workflow.presets import PRESETS
from univg.workflow.summary import write_summary

_FIRST, _NEXT, _BASELINE = "preview", "standard", "plain"
_MAX_SEED = 2**31 - 1
_USUAL_STAGES = ("trees", "pairs", "segmenter", "check")
_STAGES_OF = {
    _BASELINE: ("segmenter", "check"),
    "full": ("mask engine", "critic", "image engine", "pairs", "segmenter", "check"),
}
# What the second picture shows: the newest of these stages that has one.
_SYNTHETIC = {"pairs": texts.PICTURE_PAIR, "image engine": texts.PICTURE_IMAGES, "mask engine": texts.PICTURE_MASKS}


def build(ui: Ui) -> gr.Button:
    """Returns the button that leads to the next tab."""
    with gr.Row(elem_classes="tab-body"):
        with gr.Column(elem_classes="controls", scale=0, min_width=300):
            preset = gr.Radio(
                [(_preset_label(name), name) for name in texts.PRESETS if _can_run(name)],
                value=_FIRST,
                label=texts.PRESET,
                info=texts.PRESET_HELP,
                elem_id="preset",
            )
            adapt = gr.Button(texts.ADAPT_BUTTON, variant="primary", elem_id="adapt")
            with gr.Row():
                cancel = gr.Button(texts.CANCEL, size="sm", min_width=60, elem_id="cancel", interactive=False)
                resume = gr.Button(texts.RESUME_BUTTON, size="sm", min_width=60, elem_id="resume", interactive=False)
            notice = gr.HTML(elem_id="adapt-notice")
            with gr.Accordion(texts.ADVANCED, open=False, elem_id="adapt-advanced"):
                baseline = gr.Checkbox(
                    False,
                    label=texts.PRESET_BASELINE,
                    info=texts.PRESET_BASELINE_HELP.format(minutes=texts.minutes(PRESETS[_BASELINE].expected_minutes)),
                    elem_id="baseline",
                )
                seed = gr.Number(
                    0, label=texts.SEED, info=texts.SEED_HELP, precision=0, minimum=0, maximum=_MAX_SEED, elem_id="seed"
                )
                device = gr.Radio(
                    selectable(), value="auto", label=texts.DEVICE, info=texts.DEVICE_HELP, elem_id="device"
                )
        with gr.Column(elem_classes="canvas", scale=1, min_width=400):
            stages = gr.HTML(elem_id="stages")
            status = gr.HTML(elem_id="adapt-status")
            with gr.Row(elem_id="adapt-live"):
                with gr.Column(min_width=240, scale=3):
                    caption = gr.HTML(elem_classes="picture-caption")
                    held_out = gr.Image(elem_id="held-out-picture", alt_text=texts.CURVE_DICE, **pictures.PICTURE)
                with gr.Column(min_width=240, scale=3):
                    curve = gr.HTML(elem_id="curve")
                    pair_caption = gr.HTML(elem_classes="picture-caption")
                    pair = gr.Image(elem_id="pair-picture", alt_text=texts.PICTURE_PAIR, **pictures.PICTURE)
            with gr.Row(elem_classes="strip-head"):
                runs = gr.HTML(elem_id="runs")
                report = gr.DownloadButton(
                    texts.RUN_REPORT, size="sm", elem_id="run-report", scale=0, min_width=150, interactive=False
                )
                following = gr.Button(
                    texts.NEXT_SEGMENT, variant="primary", size="sm", elem_id="next-segment", scale=0, interactive=False
                )

    def start(session: Session, chosen: str, plain: bool, number: float | None, where: str) -> None:
        if number is None or not 0 <= number <= _MAX_SEED:
            raise InputError(f"The seed must lie between 0 and {_MAX_SEED}, got {number}", fix="0 is fine.")
        name = _BASELINE if plain else chosen
        start_job(session.required_project(), "adapt", {"preset": name, "seed": int(number), "device": where})
        note(texts.STARTED)

    def resume_latest(session: Session) -> None:
        job = _resumable(session)
        if job is None:
            raise InputError(texts.NOTHING_TO_RESUME, fix=texts.CHOICES_FIX)
        resume_job(job)
        note(texts.RESUMED)

    ui.part([preset], lambda session: session.project and session.project.path, _preset)
    ui.part([adapt, cancel, resume, notice, following], _controls_signature, _controls)
    ui.part([stages, status, curve], _progress_signature, _progress)
    ui.part([held_out, caption, pair, pair_caption], _pictures_signature, _pictures)
    ui.part([runs, report], _runs_signature, lambda session: [_runs(session), _report(session)])
    ui.on(adapt.click, start, [preset, baseline, seed, device])
    ui.on(cancel.click, cancel_running)
    ui.on(resume.click, resume_latest)
    return following


def _preset(session: Session) -> list:
    """A first look for a project without a model, the better one afterwards."""
    has_model = bool(session.project and session.project.segmenter_versions())
    return [_NEXT if has_model else _FIRST]


def _can_run(name: str) -> bool:
    """The full preset needs the weights of both engines."""
    return not PRESETS[name].engine_pairs or all(is_shipped("models", kind) for kind in ("masks", "images"))


def _preset_label(name: str) -> str:
    return texts.PRESETS[name].format(minutes=texts.minutes(PRESETS[name].expected_minutes))


def _latest(session: Session) -> Job | None:
    return None if session.project is None else next(iter(jobs_of(session.project)), None)


def _resumable(session: Session) -> Job | None:
    job = _latest(session)
    return job if job is not None and job.state in (JobState.CANCELLED, JobState.FAILED) and job.created else None


def _controls_signature(session: Session) -> tuple:
    project, job = session.project, _latest(session)
    if project is None:
        return ()
    versions = tuple(project.segmenter_versions())
    return project.path, tuple(project.support_names()), versions, is_stale(project), job and (job.id, job.state)


def _controls(session: Session) -> list:
    project = session.project
    count = len(project.support_names()) if project else 0
    running = active_job(project) if project else None
    if count == 0:
        text = texts.ADAPT_NO_DATA
    elif count == 1:
        text = texts.ADAPT_ONE
    elif project.segmenter_versions() and is_stale(project):
        text = texts.ADAPT_STALE.format(version=project.segmenter_versions()[-1])
    else:
        text = ""
    return [
        gr.Button(interactive=count > 0 and running is None),
        gr.Button(interactive=running is not None and running.state is not JobState.CANCELLING),
        gr.Button(interactive=running is None and _resumable(session) is not None),
        markup.line(text, "notice"),
        gr.Button(interactive=bool(project and project.segmenter_versions())),
    ]


def _progress_signature(session: Session) -> tuple:
    job = _latest(session)
    if job is None:
        return session.project and (session.project.path, len(session.project.support_names()))
    return job.id, job.state, job.attempt, watch(job).count


def _progress(session: Session) -> list:
    job = _latest(session)
    if job is None:
        return ["", _before_the_first_run(session), ""]
    seen = watch(job)
    total = seen.stages["segmenter"].total if "segmenter" in seen.stages else 1
    return [_stage_list(job, seen), _status(job, seen), learning_curve(seen.loss, seen.dice, total)]


def _before_the_first_run(session: Session) -> str:
    count = len(session.project.support_names()) if session.project else 0
    if not count:
        return markup.empty_state(texts.ADAPT_EMPTY_TITLE, texts.ADAPT_NO_DATA)
    text = texts.ADAPT_READY.format(count=count, noun=texts.noun(count, "image"))
    return markup.empty_state(texts.ADAPT_READY_TITLE, text)


def _stage_list(job: Job, seen: JobWatch) -> str:
    names = _STAGES_OF.get(job.params.get("preset"), _USUAL_STAGES)
    latest = seen.latest
    entries = []
    for name in names:
        event = seen.stages.get(name)
        fraction = 0.0 if event is None else event.fraction
        state = "done" if fraction >= 1 else "now" if latest is event and event is not None else "todo"
        title, what = texts.STAGES[name]
        if name == "pairs" and names is _STAGES_OF["full"]:
            what = texts.STAGE_ENGINE_PAIRS
        steps = "" if event is None else texts.STAGE_OF.format(step=event.step, total=event.total)
        mark = texts.TAB_MARKS["done"] if state == "done" else ""
        entries.append(
            f'<li class="{state}" style="--done:{100 * fraction:.0f}%"><b>{escape(title)} {mark}</b>'
            f"<span>{escape(what)}</span><em>{escape(steps)}</em></li>"
        )
    return f'<ol class="stages">{"".join(entries)}</ol>'


def _status(job: Job, seen: JobWatch) -> str:
    state, kind, latest = texts.JOB_STATES[job.state], str(job.state), seen.latest
    if job.state is JobState.QUEUED:
        text = texts.JOB_QUEUED
    elif job.state is JobState.CANCELLING:
        text = texts.JOB_CANCELLING
    elif job.state is JobState.RUNNING:
        text = texts.JOB_STARTING if latest is None else _running_text(latest)
    elif job.state is JobState.CANCELLED:
        text = texts.JOB_CANCELLED
    elif job.state is JobState.FAILED:
        text = f"{texts.JOB_FAILED.format(reason=(job.error or '').rstrip('.'))} {texts.JOB_FAILED_FIX}"
    else:
        text = f"{texts.JOB_DONE.format(version=(job.result() or {}).get('segmenter', ''))} {_held_out_text(job)}"
    return f'<p class="status {kind}" role="status"><b>{escape(state)}</b> {escape(text)}</p>'


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


def _pictures_signature(session: Session) -> tuple:
    job = _latest(session)
    return () if job is None else (job.id, job.state.finished, tuple(sorted(watch(job).pictures.items())))


def _pictures(session: Session) -> list:
    job = _latest(session)
    found = {} if job is None else watch(job).pictures
    updates = []
    newest = next((stage for stage in _SYNTHETIC if stage in found), "pairs")
    for stage, caption in (("segmenter", texts.PICTURE_HELD_OUT), (newest, _SYNTHETIC[newest])):
        step, path = found.get(stage, (0, None))
        if path is None:
            waiting = stage == "segmenter" and job is not None and not job.state.finished
            updates += [gr.Image(value=None, visible=False), markup.waiting(texts.PICTURE_WAIT) if waiting else ""]
            continue
        with Image.open(path) as opened:
            picture = np.asarray(opened.convert("RGB"))
        parameters = {"job": job.id, "stage": stage, "step": step, **job.params}
        shown = pictures.save_picture(picture, session.folder / "pictures", parameters)
        updates += [gr.Image(shown, visible=True), markup.line(caption.format(step=step))]
    return updates


def _runs_signature(session: Session) -> tuple:
    return () if session.project is None else tuple((job.id, job.state) for job in jobs_of(session.project))


def _runs(session: Session) -> str:
    jobs = jobs_of(session.project) if session.project else []
    if not jobs:
        return ""
    rows = []
    for job in jobs[:20]:
        result = job.result() or {}
        dice = (result.get("held_out") or {}).get("dice")
        rows.append(
            (
                _local_time(job.created),
                str(job.params.get("preset", texts.UNDEFINED)),
                texts.JOB_STATES[job.state],
                result.get("segmenter") or texts.UNDEFINED,
                texts.UNDEFINED if dice is None else f"{dice:.2f}",
            )
        )
    return f"<h3>{texts.RUNS_TITLE}</h3>{markup.table([(head, '') for head in texts.RUNS_HEAD], rows)}"


def _report(session: Session) -> gr.DownloadButton:
    """The newest run as one HTML file."""
    job = _latest(session)
    if job is None or not job.state.finished:
        return gr.DownloadButton(interactive=False)
    path = session.folder / "reports" / f"{job.id}.html"
    path.parent.mkdir(exist_ok=True)
    write_summary(session.required_project(), job, path)
    return gr.DownloadButton(value=str(path), interactive=True)


def _local_time(stamp: str) -> str:
    try:
        return datetime.fromisoformat(stamp).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return texts.UNDEFINED
