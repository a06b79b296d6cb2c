"""The line above the tabs: project, kind of image, device, running job, light or dark."""

from __future__ import annotations

from html import escape

import gradio as gr

from app import texts
from app.gradio_ui.context import Ui
from app.gradio_ui.devices import graphics_card
from app.gradio_ui.errors import note
from app.gradio_ui.job_watch import active_job, watch
from app.gradio_ui.state import Session
from univg.errors import InputError
from univg.workflow.device_queue import jobs_ahead
from univg.workflow.jobs import Job, JobState, cancel_job
from univg.workflow.machine import core_count

# Kinds of jobs that some button of the page goes on with.
_RESUMED = ("adapt", "image-engine", "mask-engine", "retrain")
TOGGLE_THEME = "() => { window.univg.toggleTheme(); }"


def build(ui: Ui) -> tuple[gr.Button, gr.Button, gr.HTML]:
    """Returns the buttons for the list of projects and for the guide, and a place for what the style needs to know."""
    with gr.Row(elem_id="header"):
        title = gr.HTML(elem_id="header-title")
        page_state = gr.HTML()
        chip = gr.HTML(elem_id="job-chip")
        # What is read aloud of a job, without the numbers that change with every second; see page.js.
        said = gr.HTML(elem_id="job-said", elem_classes="off-screen")
        cancel = gr.Button(texts.CANCEL, size="sm", elem_id="header-cancel", visible=False, min_width=70)
        projects = gr.Button(texts.SWITCH_PROJECT, size="sm", elem_id="switch-project", min_width=90)
        guide = gr.Button(texts.GUIDE_BUTTON, size="sm", elem_id="open-guide", min_width=60)
        theme = gr.Button(texts.THEME, size="sm", elem_id="switch-theme", min_width=100)
    theme.click(None, None, None, js=TOGGLE_THEME, api_visibility="private")

    ui.part([title], lambda s: (_project_key(s), device_text()), lambda s: [_title(s)])
    ui.part([chip, cancel], _chip_signature, lambda s: _chip(_running(s)))
    ui.part([said], lambda s: _said(_running(s)), lambda s: [escape(_said(_running(s)))])
    ui.on(cancel.click, cancel_running)
    return projects, guide, page_state


def cancel_running(session: Session) -> None:
    job = active_job(session.required_project())
    if job is None:
        raise InputError(texts.NOTHING_TO_CANCEL)
    cancel_job(job)
    note(texts.CANCEL_ASKED if job.kind in _RESUMED else texts.CANCEL_ASKED_MADE)


def device_text() -> str:
    return graphics_card() or texts.CPU.format(cores=core_count(), noun=texts.noun(core_count(), "core"))


def _project_key(session: Session) -> tuple:
    project = session.project
    return (project.path, project.modality) if project else ()


def _title(session: Session) -> str:
    project = session.project
    parts = [f'<b class="brand">{texts.APP}</b>']
    if project is None:
        parts.append(f"<span>{escape(texts.NO_PROJECT)}</span>")
    else:
        parts.append(f'<span class="project" title="{escape(str(project.path))}">{escape(project.name)}</span>')
        parts.append(f"<span>{escape(texts.MODALITIES[project.modality])}</span>")
    parts.append(f"<span>{escape(device_text())}</span>")
    return f'<div class="title">{"".join(parts)}</div>'


def _running(session: Session) -> Job | None:
    return None if session.project is None else active_job(session.project)


def _chip_signature(session: Session) -> tuple:
    job = _running(session)
    if job is None:
        return ()
    event = watch(job).latest
    if job.state is JobState.QUEUED:
        return (job.id, job.state, jobs_ahead(job.record.pid))
    return (job.id, job.state, event and (event.stage, event.step, _left(event)))


def _waiting(ahead: int | None) -> str:
    """Jobs of other projects are counted and not named: each page shows its own project only."""
    return texts.WAITING_BEHIND.format(count=ahead, noun=texts.noun(ahead, "job")) if ahead else texts.WAITING


def _left(event) -> str:
    return "" if event.seconds_left is None else texts.duration(event.seconds_left)


def _what(job: Job) -> str:
    """The work of `job`, and the stage of an adaptation."""
    event, kind = watch(job).latest, texts.JOB_KINDS[job.kind]
    if event is None or job.kind != "adapt":
        return kind
    return f"{kind}: {texts.STAGES.get(event.stage, (event.stage, ''))[0]}"


def _said(job: Job | None) -> str:
    if job is None:
        return ""
    if job.state is JobState.QUEUED:
        return texts.WAITING
    return texts.CANCELLING if job.state is JobState.CANCELLING else _what(job)


def _chip(job: Job | None) -> list:
    if job is None:
        return ["", gr.Button(visible=False)]
    event = watch(job).latest
    percent = 0
    if job.state is JobState.QUEUED:
        text = _waiting(jobs_ahead(job.record.pid))
    elif job.state is JobState.CANCELLING:
        text = texts.CANCELLING
    elif event is None:
        text = _what(job)
    else:
        percent = int(100 * event.fraction)
        text = texts.JOB_CHIP.format(what=_what(job), percent=percent)
        text = f"{text}, {texts.CHIP_LEFT.format(time=_left(event))}" if _left(event) else text
    chip = (
        f'<div class="chip" style="--done:{percent}%">'
        f'<span class="pulse" aria-hidden="true"></span>{escape(text)}</div>'
    )
    return [chip, gr.Button(visible=True, interactive=job.state is not JobState.CANCELLING)]
