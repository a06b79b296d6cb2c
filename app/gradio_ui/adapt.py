"""Tab Adapt: look whether a run can go well, start it, watch it, stop it, and see the runs so far."""

from __future__ import annotations

from datetime import datetime

import gradio as gr

from app import texts
from app.gradio_ui import adapt_view, markup, pictures, run_check
from app.gradio_ui.context import Ui
from app.gradio_ui.devices import selectable
from app.gradio_ui.engine_jobs import learns_from_present
from app.gradio_ui.errors import note
from app.gradio_ui.header import cancel_running
from app.gradio_ui.job_watch import LEARNS_FROM, active_job, jobs_of, support_digest, watch
from app.gradio_ui.models import is_stale
from app.gradio_ui.numbers import checked_seed, seed_field
from app.gradio_ui.run_settings import (
    FULL,
    FullSettings,
    begin_signature,
    changes_for_rerun,
    finished_full_run,
    full_params,
    stale_from,
    stale_stages,
    take_from_job,
)
from app.gradio_ui.state import RunForm, Session
from univg.errors import InputError
from univg.workflow.expected_time import fitted, minutes_here
from univg.workflow.jobs import Job, JobState, resume_job, start_job
from univg.workflow.machine import look_at_machine
from univg.workflow.model_versions import active_segmenter
from univg.workflow.preflight import missing_weights, refuse_impossible
from univg.workflow.presets import PRESETS
from univg.workflow.rerun import rerun_job
from univg.workflow.stages import FULL_DEFAULTS, FULL_STAGES
from univg.workflow.summary import write_summary

_FIRST, _NEXT, _BASELINE = "preview", "standard", "plain"
_NAMES = {**texts.PRESET_NAMES, _BASELINE: texts.PRESET_BASELINE}


def build(ui: Ui) -> tuple[gr.Button, gr.Button]:
    """Returns the buttons that lead to the Segment tab and to the Review tab."""
    with gr.Row(elem_classes="tab-body"):
        with gr.Column(elem_classes="controls", scale=0, min_width=300):
            preset = gr.Radio(
                _preset_choices("auto"), value=_FIRST, label=texts.PRESET, info=texts.PRESET_HELP, elem_id="preset"
            )
            full_length = gr.Checkbox(False, label=texts.FULL_LENGTH, elem_id="full-length", visible=False)
            full = FullSettings()
            adapt = gr.Button(texts.ADAPT_BUTTON, variant="primary", elem_id="adapt")
            with gr.Row():
                cancel = gr.Button(texts.CANCEL, size="sm", min_width=60, elem_id="cancel", interactive=False)
                resume = gr.Button(texts.RESUME_BUTTON, size="sm", min_width=60, elem_id="resume", interactive=False)
            check = gr.HTML(elem_id="preflight")
            notice = gr.HTML(elem_id="adapt-notice")
            full.build_fields()
            with gr.Accordion(texts.ADVANCED, open=False, elem_id="adapt-advanced"):
                baseline = gr.Checkbox(
                    False,
                    label=texts.PRESET_BASELINE,
                    info=texts.PRESET_BASELINE_HELP.format(minutes=_minutes(_BASELINE, "auto")),
                    elem_id="baseline",
                )
                seed = seed_field("seed", info=texts.SEED_HELP)
                device = gr.Radio(
                    selectable(), value="auto", label=texts.DEVICE, info=texts.DEVICE_HELP, elem_id="device"
                )
        with gr.Column(elem_classes="canvas", scale=1, min_width=400):
            stages = gr.HTML(elem_id="stages")
            with gr.Row(elem_classes="strip-head"):
                status = gr.HTML(elem_id="adapt-status")
                review = gr.Button(
                    texts.REVIEW_GO.format(tab=texts.TAB_REVIEW),
                    variant="primary",
                    size="sm",
                    elem_id="go-to-review",
                    scale=0,
                    visible=False,
                )
            with gr.Row(elem_id="adapt-live"):
                with gr.Column(min_width=240, scale=3):
                    caption = gr.HTML(elem_classes="picture-caption")
                    large = gr.Image(elem_id="held-out-picture", alt_text=texts.PICTURE_ALT, **pictures.PICTURE)
                with gr.Column(min_width=240, scale=3):
                    curve = gr.HTML(elem_id="curve")
                    small_caption = gr.HTML(elem_classes="picture-caption")
                    small = gr.Image(elem_id="pair-picture", alt_text=texts.PICTURE_BEFORE_ALT, **pictures.PICTURE)
            with gr.Row(elem_classes="strip-head"):
                runs = gr.HTML(elem_id="runs")
                report = gr.DownloadButton(
                    texts.RUN_REPORT, size="sm", elem_id="run-report", scale=0, min_width=150, interactive=False
                )
                following = gr.Button(
                    texts.NEXT_SEGMENT, variant="primary", size="sm", elem_id="next-segment", scale=0, interactive=False
                )

    def take(session: Session, chosen: str, plain: bool, number: float | None, where: str, whole: bool) -> None:
        form = session.run
        form.preset, form.baseline, form.device, form.begin = chosen, plain, where, ""
        form.seed, form.full_length = None if number is None else int(number), whole

    def start(session: Session, *values) -> None:
        """As the controls stand: while one is typed in quickly, the page leaves out what it says in between."""
        take_begin, count = session.run.begin, len(form)
        take(session, *values[:count])
        full.take(session, *values[count:])
        session.run.begin = take_begin
        _start(session)
        note(texts.STARTED)

    def resume_latest(session: Session) -> None:
        job = _resumable(session)
        if job is None:
            raise InputError(texts.NOTHING_TO_RESUME, fix=texts.CHOICES_FIX)
        resume_job(job)
        note(texts.RESUMED)

    form = [preset, baseline, seed, device, full_length]
    settings = [preset, seed, full.review, *full.fields.values()]
    ui.part(settings, _project_path, _form)
    ui.part([preset], _efforts_signature, _efforts)
    ui.part([check], _check_signature, lambda session: [_check(session)])
    ui.part([adapt, cancel, resume, notice, following, review], _controls_signature, _controls)
    ui.part([stages, status, curve], _progress_signature, _progress)
    ui.part([large, caption, small, small_caption], _pictures_signature, _pictures)
    ui.part([runs, report], _runs_signature, lambda session: [_runs(session), _report(session)])
    ui.part([full_length], lambda session: _length_signature(session.run), lambda session: [_length(session.run)])
    ui.on([control.input for control in form], take, form, trigger_mode="always_last")
    ui.on(adapt.click, start, [*form, full.review, *full.fields.values()])
    ui.on(cancel.click, cancel_running)
    ui.on(resume.click, resume_latest)
    full.wire(ui)
    return following, review


def _start(session: Session) -> None:
    """Start what the controls say: anew, or from the first stage that is to be redone."""
    project, form = session.required_project(), session.run
    checked_seed(form.seed)
    name = _chosen(form)
    refuse_impossible(run_check.findings_before(project, name, form.device))
    job, stage = finished_full_run(session), stale_from(session)
    if job is not None and stage not in (None, next(iter(FULL_STAGES))):
        rerun_job(project, job, stage, changes_for_rerun(form))
    else:
        params = {"preset": name, "seed": form.seed, "device": form.device}
        if name == FULL:
            params |= full_params(form) | ({"review": True} if form.review else {})
        params |= {"full_length": True} if form.full_length else {}
        start_job(project, "adapt", {**params, LEARNS_FROM: support_digest(project)})
    form.begin = ""


def _chosen(form: RunForm) -> str:
    return _BASELINE if form.baseline else form.preset


def _project_path(session: Session):
    return session.project and session.project.path


def _form(session: Session) -> list:
    """The controls as they stand; for another project, as its last full run had them.

    Drawn for a project alone: what is being typed is on the page before it is here, and would be set back.
    """
    form = session.run
    if form.project != _project_path(session):
        form.project, form.preset = _project_path(session), _usual_preset(session)
        job = _latest(session)
        take_from_job(form, job if form.preset == FULL else None)
    settings = [form.settings.get(name, FULL_DEFAULTS[name]) for name in texts.FULL_SETTINGS]
    return [form.preset, form.seed, form.review, *settings]


def _efforts_signature(session: Session) -> tuple:
    return _project_path(session), session.run.device, session.run.full_length


def _efforts(session: Session) -> list:
    """Their names, which say how long they take; not which one is chosen."""
    return [gr.Radio(choices=_preset_choices(session.run.device, full_length=session.run.full_length))]


def _usual_preset(session: Session) -> str:
    """A first look for a project without a model, the better one afterwards; the full one goes on as that."""
    job = _latest(session)
    if job is not None and job.params.get("preset") == FULL and not missing_weights(PRESETS[FULL]):
        return FULL
    return _NEXT if session.project and session.project.segmenter_versions() else _FIRST


def _preset_choices(device: str, *, full_length: bool = False) -> list[tuple[str, str]]:
    """The full preset needs the weights of both engines."""
    names = [name for name in texts.PRESETS if not missing_weights(PRESETS[name])]
    return [
        (texts.PRESETS[name].format(minutes=_minutes(name, device, full_length=full_length)), name) for name in names
    ]


def _minutes(name: str, device: str, *, full_length: bool = False) -> str:
    return texts.minutes(minutes_here(PRESETS[name], device, full_length=full_length))


def _length_signature(form: RunForm) -> tuple:
    return _chosen(form), form.device, form.full_length


def _length(form: RunForm) -> gr.Checkbox:
    """What the time limit of the chosen preset means on this computer; nothing where it means nothing."""
    preset = PRESETS[_chosen(form)]
    steps, shorter = preset.segmentation.steps, fitted(preset, look_at_machine(".", form.device)).segmentation.steps
    if shorter == steps:
        return gr.Checkbox(visible=False)
    minutes = _minutes(preset.name, form.device, full_length=True)
    info = texts.FULL_LENGTH_HELP.format(shorter=shorter, steps=steps, minutes=minutes)
    return gr.Checkbox(value=form.full_length, info=info, visible=True)


def _check_signature(session: Session) -> tuple:
    project, form = session.project, session.run
    if project is None or active_job(project) is not None or not project.support_names():
        return ()
    return run_check.signature(project, _chosen(form), form.device)


def _check(session: Session) -> str:
    """Nothing while a job runs, and none of what an empty project is told elsewhere."""
    project, form = session.project, session.run
    if project is None or active_job(project) is not None or not project.support_names():
        return ""
    return run_check.view(project, _chosen(form), form.device)


def _latest(session: Session) -> Job | None:
    return None if session.project is None else next(iter(jobs_of(session.project)), None)


def _resumable(session: Session) -> Job | None:
    job = _latest(session)
    if job is None or job.state not in (JobState.CANCELLED, JobState.FAILED) or not job.created:
        return None
    return job if learns_from_present(session.project, job) else None


def _controls_signature(session: Session) -> tuple:
    project, job = session.project, _latest(session)
    if project is None:
        return ()
    names, versions = tuple(project.support_names()), tuple(project.segmenter_versions())
    in_use = active_segmenter(project), is_stale(project)
    running = active_job(project)
    run = running and (running.id, running.state)
    latest = job and (job.id, job.state, job.waits_for, _resumable(session) is not None)
    return project.path, names, versions, in_use, run, latest, begin_signature(session)


def _controls(session: Session) -> list:
    project = session.project
    count = len(project.support_names()) if project else 0
    running = active_job(project) if project else None
    if count == 0:
        text = texts.ADAPT_NO_DATA
    elif project.segmenter_versions() and is_stale(project):
        text = texts.ADAPT_STALE.format(version=active_segmenter(project).name)
    else:
        text = ""
    stage, job = stale_from(session), _resumable(session)
    label = texts.ADAPT_BUTTON
    if stage not in (None, next(iter(FULL_STAGES))):
        label = texts.ADAPT_FROM.format(stage=texts.FULL_STAGE_NAMES[stage])
    waits = running is None and job is not None and job.waits_for is not None
    return [
        # One thing to press: while pairs wait for a review, that is Go on.
        gr.Button(label, interactive=count > 0 and running is None, variant="secondary" if waits else "primary"),
        gr.Button(interactive=running is not None and running.state is not JobState.CANCELLING),
        gr.Button(
            texts.GO_ON_BUTTON if waits else texts.RESUME_BUTTON,
            interactive=running is None and job is not None,
            variant="primary" if waits else "secondary",
        ),
        markup.line(text, "notice"),
        gr.Button(interactive=bool(project and project.segmenter_versions())),
        gr.Button(visible=waits),
    ]


def _progress_signature(session: Session) -> tuple:
    job = _latest(session)
    if job is None:
        return session.project and (session.project.path, len(session.project.support_names()))
    of_job = job.id, job.state, job.waits_for, job.attempt, _resumable(session) is not None
    return of_job, watch(job).count, begin_signature(session)


def _progress(session: Session) -> list:
    job = _latest(session)
    if job is None:
        return ["", _before_the_first_run(session), ""]
    seen = watch(job)
    bar = adapt_view.stage_bar(job, seen, stale=stale_stages(session))
    return [bar, adapt_view.status(session.project, job, seen), adapt_view.curve(seen)]


def _before_the_first_run(session: Session) -> str:
    count = len(session.project.support_names()) if session.project else 0
    if not count:
        return markup.empty_state(texts.ADAPT_EMPTY_TITLE, texts.ADAPT_NO_DATA)
    text = texts.ADAPT_READY.format(count=count, noun=texts.noun(count, "image"))
    return markup.empty_state(texts.ADAPT_READY_TITLE, text)


def _pictures_signature(session: Session) -> tuple:
    job = _latest(session)
    return () if job is None else (job.id, job.state.finished, tuple(watch(job).pictures.items()))


def _pictures(session: Session) -> list:
    job = _latest(session)
    return adapt_view.live_pictures(session, job, None if job is None else watch(job))


def _runs_signature(session: Session) -> tuple:
    return (
        () if session.project is None else tuple((job.id, job.state, job.waits_for) for job in jobs_of(session.project))
    )


def _runs(session: Session) -> str:
    jobs = jobs_of(session.project) if session.project else []
    if not jobs:
        return ""
    rows = []
    for job in jobs[:20]:
        result, preset = job.result() or {}, str(job.params.get("preset", texts.UNDEFINED))
        dice = (result.get("held_out") or {}).get("dice")
        rows.append(
            (
                _local_time(job.created),
                _NAMES.get(preset, preset),
                texts.JOB_WAITS if job.waits_for else texts.JOB_STATES[job.state],
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
