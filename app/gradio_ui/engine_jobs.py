"""The button that adapts an engine, and the line below it: what the job does, how it ended, and how to go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape

import gradio as gr

from app import texts
from app.gradio_ui.context import Ui
from app.gradio_ui.errors import note
from app.gradio_ui.job_watch import LEARNS_FROM, active_job, latest_job, support_digest, watch
from app.gradio_ui.models import support_key
from app.gradio_ui.state import Session
from univg.errors import InputError
from univg.workflow.jobs import Job, JobState, resume_job, start_job
from univg.workflow.project import Project


def learns_from_present(project: Project, job: Job) -> bool:
    """Whether the annotated pairs are those that `job` was started with: its checkpoint is of no use with others.

    Jobs of the command line and of earlier versions do not say, and may go on.
    """
    if "rerun_of" in job.params and "given" not in job.params:
        return True  # it began anew, with other pairs perhaps than the run whose parameters it took over
    return job.params.get(LEARNS_FROM) in (None, support_digest(project))


@dataclass(frozen=True)
class EngineJobs:
    """Jobs of one kind on the page.

    Attributes
    ----------
    kind : str
        Of `univg.workflow.jobs.JOB_KINDS`.
    label : str
        Of the button.
    ready : str
        What the line says before the first job.
    done : callable
        What it says after a job, of that job's result.
    name : str
        Prefix of the elements' ids.
    """

    kind: str
    label: str
    ready: str
    done: Callable[[Mapping[str, object]], str]
    name: str

    def build(self) -> tuple[gr.Button, gr.Button, gr.HTML]:
        button = gr.Button(self.label, variant="primary", elem_id=f"{self.name}-adapt")
        anew = gr.Button(texts.ENGINES_ANEW, size="sm", visible=False, elem_id=f"{self.name}-adapt-anew")
        return button, anew, gr.HTML(elem_id=f"{self.name}-status")

    def wire(
        self,
        ui: Ui,
        controls: tuple[gr.Button, gr.Button, gr.HTML],
        inputs: Mapping[str, gr.components.Component],
    ) -> None:
        """Have the first button start a job with `inputs` as its parameters, or go on with the one that was stopped.

        `controls` are those of `build`. The second button starts anew where the first goes on.
        """
        button, anew, _ = controls
        usual = {name: control.value for name, control in inputs.items()}

        def of_job(job: Job, name: str) -> object:
            return job.params.get(name, usual[name])

        def start(session: Session, *values: object) -> None:
            project = session.required_project()
            if not project.support_names():
                raise InputError(texts.DATA_EMPTY_TITLE, fix=texts.TREES_COMPARE_FIX)
            params = dict(zip(inputs, values, strict=True))
            start_job(project, self.kind, {**params, "seed": 0, LEARNS_FROM: support_digest(project)})
            note(texts.STARTED)

        def press(session: Session, *values: object) -> None:
            job = self.unfinished(session)
            if job is None:
                start(session, *values)
            else:  # as it was started, which the controls showed when it stopped
                resume_job(job)
                note(texts.RESUMED)

        def as_started(session: Session) -> list:
            """As the job was started that the button goes on with."""
            job = self.unfinished(session)
            return [gr.skip() if job is None else gr.update(value=of_job(job, name)) for name in inputs]

        ui.part(list(inputs.values()), lambda s: (job := self.unfinished(s)) and (job.id, job.attempt), as_started)
        ui.part(controls, self._signature, self._render)
        ui.on(button.click, press, list(inputs.values()))
        ui.on(anew.click, start, list(inputs.values()))

    def latest(self, session: Session) -> Job | None:
        return None if session.project is None else latest_job(session.project, self.kind)

    def unfinished(self, session: Session) -> Job | None:
        """The newest job, where it was stopped and learns from what the project still holds: its checkpoint counts."""
        job = self.latest(session)
        if job is None or not _was_stopped(job):
            return None
        return job if learns_from_present(session.project, job) else None

    def _signature(self, session: Session) -> tuple:
        job, project = self.latest(session), session.project
        running = project and active_job(project)
        pairs = project and support_key(project)
        return pairs, running and running.id, job and (job.id, job.state, watch(job).count)

    def _render(self, session: Session) -> list:
        project, job = session.project, self.latest(session)
        has_pairs = bool(project and project.support_names())
        running = active_job(project) if project else None
        goes_on = has_pairs and self.unfinished(session) is not None
        text, kind = (self._describe(job)) if has_pairs else (texts.ENGINES_NEED_PAIRS, "")
        if has_pairs and job is not None and _was_stopped(job):
            text = f"{text} {texts.ENGINES_GOES_ON if goes_on else texts.ENGINES_OTHER_PAIRS}"
        button = gr.Button(texts.ENGINES_GO_ON if goes_on else self.label, interactive=has_pairs and running is None)
        anew = gr.Button(visible=goes_on, interactive=running is None)
        role = "" if kind == "running" else ' role="status"'  # else it would be read aloud with every percent
        return [button, anew, f'<p class="status {kind}"{role}>{escape(text)}</p>']

    def _describe(self, job: Job | None) -> tuple[str, str]:
        if job is None:
            return self.ready, ""
        if job.state is JobState.DONE:
            return self.done(job.result() or {}), "done"
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


def _was_stopped(job: Job) -> bool:
    return job.state in (JobState.CANCELLED, JobState.FAILED)
