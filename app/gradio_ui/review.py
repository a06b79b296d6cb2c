"""Tab 6, Review: synthetic pairs one by one, kept or dropped by a key, and a training that minds it."""

from __future__ import annotations

import shutil
from contextlib import suppress
from html import escape

import gradio as gr

from app import texts
from app.gradio_ui import markup, review_changed, review_view
from app.gradio_ui.context import Ui
from app.gradio_ui.errors import note
from app.gradio_ui.job_watch import LEARNS_FROM, active_job, latest_job, support_digest, watch
from app.gradio_ui.models import reader, support_key
from app.gradio_ui.numbers import slider
from app.gradio_ui.review_board import FILTERS, FLAGS, SORTS, all_entries
from app.gradio_ui.review_routes import board_of, draw_ahead
from app.gradio_ui.state import Session
from univg.errors import InputError
from univg.workflow.expected_time import minutes_here
from univg.workflow.export import export_pairs
from univg.workflow.jobs import Job, JobState, resume_job, start_job
from univg.workflow.model_versions import active_segmenter
from univg.workflow.near_duplicates import are_compared, read_near_duplicates, update_near_duplicates
from univg.workflow.presets import PRESETS
from univg.workflow.project import Project
from univg.workflow.verdicts import POLICY, Verdict, pairs_that_train, training_choice

# A preset that adapts the engines draws its own pairs.
_EFFORTS = tuple(name for name in texts.PRESET_NAMES if not PRESETS[name].engine_pairs)
# Verdicts on all that are listed come after the choice of what is listed, of which the newest value counts.
_IN_TURN = {"concurrency_id": "review", "concurrency_limit": 1}
_CHOICE = {**_IN_TURN, "trigger_mode": "always_last"}
# The click comes after the page has got the new address.
_FETCH = "() => { window.setTimeout(() => document.querySelector('#review-file').click(), 150); }"


def build(ui: Ui, tab: gr.Tab) -> None:
    """Lay out the tab and wire it. Keys and the buttons of verdicts are in ``review.js``."""
    with gr.Row(elem_classes="tab-body"):
        with gr.Column(elem_classes="controls", scale=0, min_width=300):
            progress = gr.HTML(elem_id="review-progress")
            with gr.Row():
                accept = gr.Button(texts.REVIEW_ACCEPT, variant="primary", elem_id="review-accept", min_width=80)
                reject = gr.Button(texts.REVIEW_REJECT, elem_id="review-reject", min_width=80)
                undo = gr.Button(texts.REVIEW_UNDO, elem_id="review-undo", min_width=70)
            gr.HTML(f'<p id="review-message" role="alert" hidden data-lost="{escape(texts.REVIEW_LOST)}"></p>')
            gr.Textbox(label=texts.REVIEW_NOTE, info=texts.REVIEW_NOTE_HELP, max_lines=2, elem_id="review-note")
            shown = gr.Radio(
                [(texts.REVIEW_FILTERS[name], name) for name in FILTERS],
                value="all",
                label=texts.REVIEW_FILTER,
                elem_id="review-filter",
            )
            with gr.Row():
                flag = gr.Dropdown(
                    [(texts.REVIEW_ANY_FLAG, ""), *((texts.REVIEW_FLAGS[name], name) for name in FLAGS)],
                    value="",
                    label=texts.REVIEW_FLAG,
                    elem_id="review-flag",
                    min_width=130,
                )
                sort = gr.Dropdown(
                    [(texts.REVIEW_SORTS[name], name) for name in SORTS],
                    value="flagged",
                    label=texts.REVIEW_SORT,
                    elem_id="review-sort",
                    min_width=130,
                )
            with gr.Accordion(texts.REVIEW_BULK, open=False, elem_id="review-bulk"):
                accept_all = gr.Button(texts.REVIEW_ACCEPT_ALL, size="sm", elem_id="review-accept-all")
                reject_all = gr.Button(texts.REVIEW_REJECT_ALL, size="sm", elem_id="review-reject-all")
            effort = gr.Radio(
                [(texts.PRESET_NAMES[name], name) for name in _EFFORTS],
                value="standard",
                label=texts.PRESET,
                elem_id="review-effort",
            )
            retrain = gr.Button(texts.REVIEW_RETRAIN, elem_id="review-retrain")
            status = gr.HTML(elem_id="review-status")
            gr.HTML(markup.line(POLICY, "help"))
            with gr.Accordion(texts.REVIEW_EXPORT, open=False, elem_id="review-export"):
                form = gr.Dropdown(
                    [(text, name) for name, text in texts.REVIEW_FORMATS.items()],
                    value="folder",
                    label=texts.REVIEW_FORMAT,
                    elem_id="review-format",
                )
                export = gr.Button(texts.REVIEW_EXPORT_BUTTON, size="sm", elem_id="review-export-go")
                exported = gr.DownloadButton(elem_id="review-file", visible="hidden")
        with gr.Column(elem_classes="canvas", scale=1, min_width=400):
            picture = gr.HTML(elem_id="review-picture")
            with gr.Row(elem_classes="strip-head"):
                left = gr.Radio(
                    [(text, name) for name, text in texts.REVIEW_LEFTS.items()],
                    value="image",
                    label=texts.REVIEW_LEFT,
                    container=False,
                    elem_id="review-left",
                    min_width=170,
                )
                opacity = slider(
                    0,
                    100,
                    60,
                    step=5,
                    label=texts.REVIEW_OPACITY,
                    elem_id="review-opacity",
                    min_width=220,
                )
            grid = gr.HTML(elem_id="review-grid")
            gr.HTML(review_view.keys_dialog())
            with gr.Accordion(texts.CHANGED_TITLE, open=True, elem_id="review-changed"):
                changed = gr.HTML()

    view = [picture, grid, progress]
    ui.part([picture, grid], _signature, _pictures)
    ui.part([progress], _tally_signature, lambda session: [_tally(session)])
    ui.part([retrain, status], _retrain_signature, _retrain_state)
    ui.part([changed], review_changed.signature, lambda session: [review_changed.draw(session)])
    for button, script in (
        (accept, "judge('accepted')"),
        (reject, "judge('rejected')"),
        (undo, "undo()"),
    ):
        button.click(None, None, None, js=f"() => {{ window.univg.review.{script}; }}", api_visibility="private")
    ui.on(shown.input, lambda session, value: _list_anew(session, shown=value), [shown], view, **_CHOICE)
    ui.on(flag.input, lambda session, value: _list_anew(session, flag=value), [flag], view, **_CHOICE)
    ui.on(sort.input, lambda session, value: _list_anew(session, sort=value), [sort], view, **_CHOICE)
    ui.on(accept_all.click, lambda session: _judge_all(session, Verdict.ACCEPTED), [], view, **_IN_TURN)
    ui.on(reject_all.click, lambda session: _judge_all(session, Verdict.REJECTED), [], view, **_IN_TURN)
    ui.on(effort.input, _choose_effort, [effort], **_CHOICE)
    ui.on(retrain.click, _retrain, [effort])
    ui.on(tab.select, _look_for_near_duplicates)
    prepared = ui.on(export.click, _export, [form], [exported], redraw=False, show_progress="minimal")
    prepared.success(None, None, None, js=_FETCH, api_visibility="private")
    left.change(
        None,
        [left],
        None,
        js="(value) => { window.univg.review.showMask(value === 'mask'); }",
        api_visibility="private",
    )
    opacity.change(
        None,
        [opacity],
        None,
        js="(v) => { document.body.style.setProperty('--layer', v / 100); }",
        api_visibility="private",
    )


def _list_anew(session: Session, **choice: str) -> list:
    """Answer a control: the list is made again, from its beginning."""
    board = board_of(session)
    with board.lock:
        board.list_anew(**choice)
        if "sort" not in choice:
            board.current = ""
        return _view(session)


def _judge_all(session: Session, verdict: Verdict) -> list:
    project, board = session.required_project(), board_of(session)
    with board.lock:
        listed = board.entries(project)
        entries = [entry for entry in listed if entry.verdict is not verdict]
        if entries or not listed:  # else all are as asked
            board.judge_many(project, entries, verdict)
    count, word = len(entries), texts.REVIEW_VERDICTS[str(verdict)]
    verb = "is" if count == 1 else "are"
    note(texts.REVIEW_BULK_DONE.format(count=count, noun=texts.noun(count, "pair"), verb=verb, verdict=word))
    return _view(session)


def _look_for_near_duplicates(session: Session) -> None:
    """Compare pairs that came from elsewhere, or were made by an earlier UniVG; the page shows what is found later."""
    project = session.project
    if project is not None and project.pair_names() and not are_compared(project):
        reader.submit(_compared_quietly, project)


def _compared_quietly(project: Project) -> None:
    with suppress(InputError):  # a project that cannot be written to is reviewed without these flags
        update_near_duplicates(project)


def _retrain(session: Session, effort: str) -> None:
    project = session.required_project()
    if not project.support_names():
        raise InputError(texts.DATA_EMPTY_TITLE, fix=texts.TREES_COMPARE_FIX)
    session.retrain_effort = effort
    job = _unfinished(session)
    if job is None:
        start_job(project, "retrain", _retrain_params(session))
        note(texts.STARTED)
    else:
        resume_job(job)
        note(texts.RESUMED)


def _retrain_params(session: Session) -> dict:
    project = session.required_project()
    learns_from = {LEARNS_FROM: support_digest(project)}
    return {"preset": session.retrain_effort, "seed": 0, **training_choice(project), **learns_from}


def _unfinished(session: Session) -> Job | None:
    """The newest training, where it was stopped and one that starts now would be the same."""
    job = latest_job(session.required_project(), "retrain")
    if job is None or job.state not in (JobState.CANCELLED, JobState.FAILED):
        return None
    fails_again = job.state is JobState.FAILED and job.attempt > 1  # its checkpoint may be what is wrong
    return None if fails_again or job.params != _retrain_params(session) else job


def _choose_effort(session: Session, effort: str) -> None:
    session.retrain_effort = effort


def _export(session: Session, form: str) -> str:
    """All pairs that train, real and synthetic, as one ZIP file."""
    project = session.required_project()
    folder = session.folder / "exports"
    shutil.rmtree(folder, ignore_errors=True)
    export_pairs(project, folder / "pairs", kind=form)
    return shutil.make_archive(str(folder / f"{project.name}-{form}"), "zip", folder / "pairs")


# --- what is shown


def _signature(session: Session) -> tuple:
    project = session.project
    if project is None:
        return ()
    # Not what keys change, nor pairs that are new: the page sees to that itself, in turn with its verdicts. A late
    # redraw must not bring back an earlier pair.
    board = board_of(session)
    with board.lock:
        is_empty = not board.entries(project)
    return project.path, is_empty, len(read_near_duplicates(project))


def _tally_signature(session: Session) -> tuple:
    project = session.project
    return () if project is None else (project.path, len(project.pair_names()), len(read_near_duplicates(project)))


def _view(session: Session) -> list:
    return [*_pictures(session), _tally(session)]


def _tally(session: Session) -> str:
    entries = all_entries(session.project) if session.project is not None else []
    return review_view.tally(entries) if entries else ""


def _pictures(session: Session) -> list:
    project = session.project
    if project is None or not project.pair_names():
        return [markup.empty_state(texts.REVIEW_EMPTY_TITLE, texts.REVIEW_EMPTY), ""]
    board = board_of(session)
    with board.lock:
        entry, entries = board.on_screen(project), board.entries(project)
    if entry is None:
        return [markup.empty_state(texts.REVIEW_NONE_TITLE, texts.REVIEW_NONE), ""]
    at = [other.name for other in entries].index(entry.name)
    line = review_view.facts(entry, at + 1, len(entries))
    draw_ahead(project, entries, at)  # before anybody turns to this tab
    return [
        review_view.stage(session.id, project.path, entry, position=line),
        review_view.grid(session.id, project.path, entries, entry.name),
    ]


def _retrain_signature(session: Session) -> tuple:
    project = session.project
    if project is None:
        return ()
    job, running = latest_job(project, "retrain"), active_job(project)
    log = project.pairs_folder / "verdicts.jsonl"
    size = log.stat().st_size if log.is_file() else 0
    would_train = len(project.pair_names()), size, support_key(project), session.retrain_effort
    of_job = job and (job.id, job.state, job.attempt, watch(job).count)
    return would_train, active_segmenter(project), running and running.id, of_job


def _retrain_state(session: Session) -> list:
    project = session.project
    if project is None or not project.pair_names():
        return [gr.Button(interactive=False), ""]
    job, running = latest_job(project, "retrain"), active_job(project)
    kind = ""
    if job is None or job.state is JobState.CANCELLED:
        minutes = {name: texts.minutes(minutes_here(PRESETS[name])) for name in _EFFORTS}
        count = len(pairs_that_train(project))
        text = texts.REVIEW_READY.format(count=count, noun=texts.noun(count, "pair"), **minutes)
    elif job.state is JobState.DONE:
        text, kind = _settled(project, job.result() or {}), "done"
    elif job.state is JobState.FAILED:
        text, kind = texts.JOB_FAILED.format(reason=(job.error or "").rstrip(".")), "failed"
    elif job.state is JobState.QUEUED:
        text, kind = texts.REVIEW_QUEUED, "running"
    else:
        event = watch(job).latest
        kind, text = "running", texts.JOB_STARTING
        if event is not None and event.total:
            left = "" if event.seconds_left is None else texts.CHIP_LEFT.format(time=texts.duration(event.seconds_left))
            text = texts.REVIEW_RUNNING.format(percent=int(100 * event.fraction), left=left or texts.TIME_UNKNOWN)
    line = f'<p class="status {kind}" role="status">{escape(text)}</p>'
    label = texts.REVIEW_RETRAIN if _unfinished(session) is None else texts.REVIEW_GO_ON
    return [gr.Button(label, interactive=running is None and bool(project.support_names())), line]


def _settled(project: Project, result: dict) -> str:
    """How a training went, and which model is in use: another one may have been chosen since."""
    versions, active = result.get("versions") or {}, active_segmenter(project)
    text = texts.REVIEW_CHANGED.get(versions.get("reason"), texts.REVIEW_CHANGED["first"])
    return text.format(
        new=result.get("segmenter", ""),
        active="" if active is None else active.name,
        pairs=result.get("pairs_used", 0),
        before=versions.get("dice_before"),
        after=versions.get("dice_after"),
    )
