"""The settings of a full run on the Adapt tab, and where a run of other settings would begin."""

from __future__ import annotations

import gradio as gr

from app import texts
from app.gradio_ui.context import Ui
from app.gradio_ui.job_watch import jobs_of
from app.gradio_ui.numbers import checked_number
from app.gradio_ui.state import RunForm, Session
from univg.workflow.jobs import Job
from univg.workflow.rerun import kept_stages
from univg.workflow.stages import FULL_DEFAULTS, FULL_STAGES, first_stale, from_stage_on

FULL = "full"
_FIRST = next(iter(FULL_STAGES))
_WHOLE = ("mask_steps", "image_steps", "pairs")


class FullSettings:
    """The controls; they are on screen while the full preset is chosen."""

    def __init__(self) -> None:
        self.review = gr.Checkbox(
            False, label=texts.REVIEW_PAUSE, info=texts.REVIEW_PAUSE_HELP, elem_id="review-pause", visible=False
        )
        self.begin = gr.Radio(
            [], label=texts.BEGIN_WITH, info=texts.BEGIN_WITH_HELP, elem_id="begin-with", visible=False
        )
        self.fields: dict[str, gr.Number] = {}
        self.group: gr.Accordion | None = None

    def build_fields(self) -> None:
        """Lay out the fields, below what starts the run."""
        with gr.Accordion(texts.FULL_TITLE, open=False, elem_id="full-settings", visible=False) as self.group:
            for name, (label, info, _, _, step) in texts.FULL_SETTINGS.items():
                self.fields[name] = gr.Number(
                    FULL_DEFAULTS[name],
                    label=label,
                    info=info,
                    step=step,
                    precision=0 if name in _WHOLE else 2,
                    elem_id=f"full-{name.replace('_', '-')}",
                )

    def take(self, session: Session, review: bool, *values: float | None) -> None:
        """Keep what the controls say."""
        session.run.review = review
        session.run.settings = dict(zip(self.fields, values, strict=True))
        session.run.begin = ""

    def wire(self, ui: Ui) -> None:
        ui.on(
            [self.review.input, *(field.input for field in self.fields.values())],
            self.take,
            [self.review, *self.fields.values()],
            trigger_mode="always_last",
        )
        ui.on(self.begin.input, _begin, [self.begin], trigger_mode="always_last")
        ui.part([self.review, self.group], lambda s: _is_full(s.run), lambda s: self._visible(_is_full(s.run)))
        ui.part([self.begin], begin_signature, lambda session: [_begin_choices(session)])

    def _visible(self, shown: bool) -> list:
        return [gr.Checkbox(visible=shown), gr.Accordion(visible=shown)]


def take_from_job(form: RunForm, job: Job | None) -> None:
    """Set `form` as `job` was started, or to the usual settings."""
    params = {} if job is None else job.params
    form.settings = {name: params.get(name, FULL_DEFAULTS[name]) for name in texts.FULL_SETTINGS}
    form.review, form.seed, form.begin = bool(params.get("review")), int(params.get("seed", 0)), ""
    form.full_length = bool(params.get("full_length"))


def full_params(form: RunForm) -> dict:
    """The settings of `form` that are not the usual ones, as parameters of a job.

    Raises
    ------
    InputError
        If one is empty or out of its range.
    """
    params = {}
    for name, value in form.settings.items():
        label, _, low, high, _ = texts.FULL_SETTINGS[name]
        value = checked_number(value, label, low, high, usual=FULL_DEFAULTS[name])
        if value != FULL_DEFAULTS[name]:
            params[name] = int(value) if name in _WHOLE else float(value)
    return params


def finished_full_run(session: Session) -> Job | None:
    """The newest run of the project, when it was a full one and is over."""
    job = None if session.project is None else next(iter(jobs_of(session.project)), None)
    return job if job is not None and job.state.finished and job.params.get("preset") == FULL else None


def stale_from(session: Session) -> str | None:
    """The stage that a run as the controls stand would begin with, None where it would be a new run altogether."""
    job = finished_full_run(session)
    if job is None or not _is_full(session.run):
        return None
    changed = _first_changed(session, job)
    if changed is None and not session.run.begin:
        return None
    return session.run.begin or changed


def stale_stages(session: Session) -> list[str]:
    stage = stale_from(session)
    return [] if stage is None else from_stage_on(stage, FULL_STAGES)


def changes_for_rerun(form: RunForm) -> dict:
    """Every setting that the controls have, None where it is the usual one."""
    params = full_params(form)
    changes = {name: params.get(name) for name in FULL_DEFAULTS if name in texts.FULL_SETTINGS}
    length = {"full_length": form.full_length or None}
    return changes | length | {"seed": form.seed, "device": form.device, "review": form.review or None}


def begin_signature(session: Session) -> tuple:
    job, form = finished_full_run(session), session.run
    names = tuple(session.project.support_names()) if session.project else ()
    return (
        job and (job.id, job.state, job.attempt),
        _is_full(form),
        form.begin,
        form.seed,
        tuple(form.settings.items()),
        names,
    )


def _is_full(form: RunForm) -> bool:
    return form.preset == FULL and not form.baseline


def _first_changed(session: Session, job: Job) -> str | None:
    form = session.run
    after = {**job.params, **{name: form.settings.get(name) for name in texts.FULL_SETTINGS}, "seed": form.seed}
    after["full_length"] = form.full_length or None
    changed = first_stale(job.params, after, FULL_STAGES)
    reachable = _reachable(session, job)
    # What is not kept has to be done again too.
    return changed if changed is None or changed in reachable else reachable[-1]


def _reachable(session: Session, job: Job) -> list[str]:
    """The stages that a run could begin with: those whose earlier ones are kept."""
    kept, found = kept_stages(session.project, job), []
    for stage in FULL_STAGES:
        found.append(stage)
        if stage in ("mask-engine", "image-engine") and stage not in kept:
            break
    return found


def _begin_choices(session: Session) -> gr.Radio:
    job = finished_full_run(session)
    if job is None or not _is_full(session.run):
        return gr.Radio(visible=False)
    reachable, changed = _reachable(session, job), _first_changed(session, job)
    if changed is not None:
        reachable = reachable[: reachable.index(changed) + 1]
    value = session.run.begin if session.run.begin in reachable else changed or _FIRST
    choices = [(texts.FULL_STAGE_NAMES[stage], stage) for stage in reachable]
    return gr.Radio(choices=choices, value=value, visible=len(choices) > 1)


def _begin(session: Session, stage: str | None) -> None:
    session.run.begin = stage or ""
