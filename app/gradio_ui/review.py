"""Tab 6, Review: synthetic pairs one by one, kept or dropped by a key, and a training that minds it."""

from __future__ import annotations

import math
import shutil
from html import escape

import gradio as gr

from app import texts
from app.gradio_ui import markup, review_view
from app.gradio_ui.context import Ui
from app.gradio_ui.errors import note
from app.gradio_ui.job_watch import active_job, watch
from app.gradio_ui.review_board import FILTERS, SORTS, ReviewBoard, all_entries, counts
from app.gradio_ui.state import Session
from univg.errors import InputError
from univg.workflow.export import export_pairs
from univg.workflow.jobs import JobState, list_jobs, start_job
from univg.workflow.presets import PRESETS
from univg.workflow.verdicts import POLICY, Verdict, pairs_that_train

_AHEAD = 2
# The click comes after the page has got the new address.
_FETCH = "() => { window.setTimeout(() => document.querySelector('#review-file').click(), 150); }"
# A verdict is on the pair that the person sees, whatever the server thinks is on screen.
_WITH_NAME_ON_SCREEN = """(session, words) => {
  const stage = document.querySelector('.review-stage');
  return [session, words, stage ? stage.dataset.name : ''];
}"""


def build(ui: Ui, tab: gr.Tab) -> None:
    """Lay out the tab and wire it. Keys are in ``page.js``: they press the buttons."""
    with gr.Row(elem_classes="tab-body"):
        with gr.Column(elem_classes="controls", scale=0, min_width=300):
            progress = gr.HTML(elem_id="review-progress")
            with gr.Row():
                accept = gr.Button(texts.REVIEW_ACCEPT, variant="primary", elem_id="review-accept", min_width=80)
                reject = gr.Button(texts.REVIEW_REJECT, elem_id="review-reject", min_width=80)
                undo = gr.Button(texts.REVIEW_UNDO, elem_id="review-undo", min_width=70)
            words = gr.Textbox(label=texts.REVIEW_NOTE, info=texts.REVIEW_NOTE_HELP, max_lines=2, elem_id="review-note")
            shown = gr.Radio(
                [(texts.REVIEW_FILTERS[name], name) for name in FILTERS],
                value="all",
                label=texts.REVIEW_FILTER,
                elem_id="review-filter",
            )
            sort = gr.Dropdown(
                [(texts.REVIEW_SORTS[name], name) for name in SORTS],
                value="flagged",
                label=texts.REVIEW_SORT,
                elem_id="review-sort",
            )
            with gr.Accordion(texts.REVIEW_BULK, open=False, elem_id="review-bulk"):
                accept_all = gr.Button(texts.REVIEW_ACCEPT_ALL, size="sm", elem_id="review-accept-all")
                reject_all = gr.Button(texts.REVIEW_REJECT_ALL, size="sm", elem_id="review-reject-all")
            effort = gr.Radio(
                [(text, name) for name, text in texts.PRESET_NAMES.items()],
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
                facts = gr.HTML(elem_id="review-facts")
                opacity = gr.Slider(
                    0,
                    100,
                    60,
                    step=5,
                    label=texts.REVIEW_OPACITY,
                    elem_id="review-opacity",
                    min_width=220,
                    container=False,
                )
            grid = gr.HTML(elem_id="review-grid")
            gr.HTML(markup.line(texts.REVIEW_KEYS, "help"))
            # What keys and thumbnails press.
            with gr.Row(elem_id="review-hidden"):
                back = gr.Button("back", elem_id="review-back")
                forth = gr.Button("forth", elem_id="review-forth")
                goto = gr.Textbox(elem_id="review-goto", show_label=False)

    view = [picture, facts, grid, progress]
    ui.part(view, _signature, _view)
    ui.part([retrain, status], _retrain_signature, _retrain_state)
    quick = {"redraw": False, "show_progress": "hidden"}
    judging = {**quick, "js": _WITH_NAME_ON_SCREEN}
    ui.on(accept.click, _judge(Verdict.ACCEPTED), [words, goto], [*view, words], **judging)
    ui.on(reject.click, _judge(Verdict.REJECTED), [words, goto], [*view, words], **judging)
    ui.on(undo.click, _undo, [], view, **quick)
    ui.on(back.click, lambda session: _move(session, -1), [], view, **quick)
    ui.on(forth.click, lambda session: _move(session, 1), [], view, **quick)
    ui.on(goto.input, _go_to, [goto], view, **quick)
    ui.on(shown.input, _filter, [shown], view)
    ui.on(sort.input, _sort, [sort], view)
    ui.on(accept_all.click, lambda session: _judge_all(session, Verdict.ACCEPTED), [], view)
    ui.on(reject_all.click, lambda session: _judge_all(session, Verdict.REJECTED), [], view)
    ui.on(retrain.click, _retrain, [effort])
    prepared = ui.on(export.click, _export, [form], [exported], redraw=False)
    prepared.success(None, None, None, js=_FETCH, api_visibility="private")
    opacity.change(
        None,
        [opacity],
        None,
        js="(v) => { document.body.style.setProperty('--layer', v / 100); }",
        api_visibility="private",
    )


def board_of(session: Session) -> ReviewBoard:
    session.required_project()
    if session.review is None:
        session.review = ReviewBoard()
    return session.review


def _judge(verdict: Verdict):
    def act(session: Session, words: str, name: str) -> list:
        project, board = session.required_project(), board_of(session)
        if name in project.pair_names():
            board.current = name
        board.judge_current(project, verdict, (words or "").strip())
        return [*_view(session), ""]

    return act


def _undo(session: Session) -> list:
    board_of(session).take_back(session.required_project())
    return _view(session)


def _move(session: Session, by: int) -> list:
    board_of(session).move(session.required_project(), by)
    return _view(session)


def _go_to(session: Session, name: str) -> list:
    board = board_of(session)
    if name in session.required_project().pair_names():
        board.current = name
    return _view(session)


def _filter(session: Session, shown: str) -> list:
    board = board_of(session)
    board.shown, board.current = shown, ""
    return _view(session)


def _sort(session: Session, sort: str) -> list:
    board_of(session).sort = sort
    return _view(session)


def _judge_all(session: Session, verdict: Verdict) -> list:
    project, board = session.required_project(), board_of(session)
    entries = [entry for entry in board.entries(project) if entry.verdict is not verdict]
    board.judge_many(project, entries, verdict)
    note(texts.REVIEW_BULK_DONE.format(count=len(entries), verdict=texts.REVIEW_VERDICTS[str(verdict)]))
    return _view(session)


def _retrain(session: Session, effort: str) -> None:
    project = session.required_project()
    if not project.support_names():
        raise InputError(texts.ENGINES_NEED_PAIRS, fix=texts.TREES_COMPARE_FIX)
    start_job(project, "retrain", {"preset": effort, "seed": 0, "pairs": pairs_that_train(project)})
    note(texts.STARTED)


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
    # Not what keys change: their own answers show that, and a late redraw must not bring back an earlier pair.
    return project.path, len(project.pair_names())


def _view(session: Session) -> list:
    project = session.project
    if project is None or not project.pair_names():
        return [markup.empty_state(texts.REVIEW_EMPTY_TITLE, texts.REVIEW_EMPTY), "", "", ""]
    board, folder = board_of(session), session.folder / "review"
    entry = board.on_screen(project)
    found = counts(all_entries(project))
    bar = (
        f'<div class="review-count"><b>{texts.REVIEW_COUNT.format(**found)}</b>'
        f'<progress max="{found["all"]}" value="{found["judged"]}"></progress>'
        f"<span>{texts.REVIEW_TALLY.format(**found)}</span></div>"
    )
    if entry is None:
        return [markup.empty_state(texts.REVIEW_NONE_TITLE, texts.REVIEW_NONE), "", "", bar]
    entries = board.entries(project)
    at = [other.name for other in entries].index(entry.name)
    ahead = entries[at + 1 : at + 1 + _AHEAD] + entries[max(at - 1, 0) : at]
    agreement = "" if math.isnan(entry.agreement) else texts.REVIEW_AGREEMENT.format(agreement=entry.agreement)
    parts = [texts.REVIEW_AT.format(at=at + 1, count=len(entries)), agreement, review_view.flags_text(entry)]
    if entry.judgement.note:
        parts.append(texts.REVIEW_NOTED.format(note=entry.judgement.note))
    return [
        review_view.stage(project, entry, ahead, folder),
        markup.line(" ".join(filter(None, parts))),
        review_view.grid(project, entries, entry.name, folder),
        bar,
    ]


def _retrain_signature(session: Session) -> tuple:
    project = session.project
    if project is None:
        return ()
    job = next((job for job in list_jobs(project) if job.kind == "retrain"), None)
    running = active_job(project)
    log = project.pairs_folder / "verdicts.jsonl"
    size = log.stat().st_size if log.is_file() else 0
    return len(project.pair_names()), size, running and running.id, job and (job.id, job.state, watch(job).count)


def _retrain_state(session: Session) -> list:
    project = session.project
    if project is None or not project.pair_names():
        return [gr.Button(interactive=False), ""]
    job = next((job for job in list_jobs(project) if job.kind == "retrain"), None)
    running = active_job(project)
    kind = ""
    if job is None or (running is None and job.state is JobState.CANCELLED):
        minutes = texts.minutes(PRESETS["standard"].expected_minutes)
        text = texts.REVIEW_READY.format(count=len(pairs_that_train(project)), minutes=minutes)
    elif job.state is JobState.DONE:
        text, kind = _what_changed(job.result() or {}), "done"
    elif job.state is JobState.FAILED:
        text, kind = texts.JOB_FAILED.format(reason=(job.error or "").rstrip(".")), "failed"
    else:
        event = watch(job).latest
        kind, text = "running", texts.JOB_STARTING
        if event is not None and event.total:
            left = "" if event.seconds_left is None else texts.CHIP_LEFT.format(time=texts.duration(event.seconds_left))
            text = texts.REVIEW_RUNNING.format(percent=int(100 * event.fraction), left=left or texts.TIME_UNKNOWN)
    line = f'<p class="status {kind}" role="status">{escape(text)}</p>'
    return [gr.Button(interactive=running is None and bool(project.support_names())), line]


def _what_changed(result: dict) -> str:
    """Dice on the held-out image before and after, and how little one image says."""
    versions = result.get("versions") or {}
    texts_by_reason = texts.REVIEW_CHANGED
    reason = versions.get("reason", "first")
    values = {
        "new": result.get("segmenter", ""),
        "active": versions.get("active", ""),
        "pairs": result.get("pairs_used", 0),
        "before": versions.get("dice_before") or float("nan"),
        "after": versions.get("dice_after") or float("nan"),
    }
    return texts_by_reason.get(reason, texts_by_reason["first"]).format(**values)
