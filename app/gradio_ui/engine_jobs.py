"""The button that adapts an engine, and the line below it: what the job does, how it ended, and how to go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

import gradio as gr

from app import texts
from app.gradio_ui.context import Ui
from app.gradio_ui.errors import note
from app.gradio_ui.job_watch import active_job, watch
from app.gradio_ui.state import Session
from univg.errors import InputError
from univg.workflow.jobs import Job, JobState, list_jobs, resume_job, start_job


@dataclass(frozen=True)
class EngineJobs:
    """Jobs of one kind on the page.

    Attributes
    ----------
    kind : str
        Of `univg.workflow.jobs.JOB_KINDS`.
    label : str
        Of the button.
    ready, done : str
        What the line says before the first job, and after it: a format of the job's result.
    name : str
        Prefix of the elements' ids.
    """

    kind: str
    label: str
    ready: str
    done: str
    name: str

    def build(self) -> tuple[gr.Button, gr.HTML]:
        button = gr.Button(self.label, variant="primary", elem_id=f"{self.name}-adapt")
        return button, gr.HTML(elem_id=f"{self.name}-status")

    def wire(self, ui: Ui, button: gr.Button, status: gr.HTML, inputs: Mapping[str, gr.components.Component]) -> None:
        """Have the button start a job with `inputs` as its parameters, or go on with the one that was stopped."""

        usual = {name: control.value for name, control in inputs.items()}

        def of_job(job: Job, name: str) -> object:
            return job.params.get(name, usual[name])

        def press(session: Session, *values: object) -> None:
            project = session.required_project()
            if not project.support_names():
                raise InputError(texts.ENGINES_NEED_PAIRS, fix=texts.TREES_COMPARE_FIX)
            job, params = self.latest(session), dict(zip(inputs, values, strict=True))
            if job is not None and _can_go_on(job) and all(of_job(job, name) == v for name, v in params.items()):
                resume_job(job)
            else:
                start_job(project, self.kind, {**params, "seed": 0})
            note(texts.STARTED)

        def stopped(session: Session) -> Job | None:
            job = self.latest(session)
            return job if job is not None and _can_go_on(job) else None

        def controls(session: Session) -> list:
            """As the job was started that the button goes on with."""
            job = stopped(session)
            return [gr.skip() if job is None else gr.update(value=of_job(job, name)) for name in inputs]

        ui.part(list(inputs.values()), lambda s: (job := stopped(s)) and (job.id, job.attempt), controls)
        ui.part([button, status], self._signature, self._render)
        ui.on(button.click, press, list(inputs.values()))

    def latest(self, session: Session) -> Job | None:
        if session.project is None:
            return None
        return next((job for job in list_jobs(session.project) if job.kind == self.kind), None)

    def _signature(self, session: Session) -> tuple:
        job, project = self.latest(session), session.project
        running = project and active_job(project)
        pairs = project and len(project.support_names())
        return pairs, running and running.id, job and (job.id, job.state, watch(job).count)

    def _render(self, session: Session) -> list:
        project, job = session.project, self.latest(session)
        has_pairs = bool(project and project.support_names())
        running = active_job(project) if project else None
        label = texts.ENGINES_GO_ON if has_pairs and job is not None and _can_go_on(job) else self.label
        text, kind = (self._describe(job)) if has_pairs else (texts.ENGINES_NEED_PAIRS, "")
        button = gr.Button(label, interactive=has_pairs and running is None)
        return [button, f'<p class="status {kind}" role="status">{escape(text)}</p>']

    def _describe(self, job: Job | None) -> tuple[str, str]:
        if job is None:
            return self.ready, ""
        if job.state is JobState.DONE:
            return self.done.format_map(_Figures(job.result() or {})), "done"
        if job.state is JobState.FAILED:
            return texts.JOB_FAILED.format(reason=(job.error or "").rstrip(".")), "failed"
        if job.state is JobState.CANCELLED:
            return texts.ENGINES_CANCELLED, ""
        if job.state is JobState.QUEUED:
            return texts.JOB_QUEUED, "running"
        if job.state is JobState.CANCELLING:
            return texts.JOB_CANCELLING, "running"
        event = watch(job).latest
        if event is None or not event.total:
            return texts.JOB_STARTING, "running"
        left = "" if event.seconds_left is None else texts.CHIP_LEFT.format(time=texts.duration(event.seconds_left))
        stage = texts.ENGINE_STAGES.get(event.stage, event.stage)
        percent = int(100 * event.fraction)
        return texts.ENGINES_RUNNING.format(stage=stage, percent=percent, left=left or texts.TIME_UNKNOWN), "running"


class _Figures(dict):
    """A job's result; what it lacks is shown as NaN."""

    def __missing__(self, key: str) -> float:
        return float("nan")


def _can_go_on(job: Job) -> bool:
    return job.state in (JobState.CANCELLED, JobState.FAILED)
