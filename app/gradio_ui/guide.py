"""Five steps for the first use, in a strip above the tabs; where one is follows from the state of the project.

That it was closed is kept in the folder that this account's projects share, so it stays closed.
"""

from __future__ import annotations

from html import escape

import gradio as gr

from app import texts
from app.gradio_ui.context import Ui
from app.gradio_ui.errors import note
from app.gradio_ui.job_watch import jobs_of
from app.gradio_ui.state import Session
from app.gradio_ui.tabs import tab_title, tabs_of
from univg.errors import InputError
from univg.io import read_json, write_json_atomic
from univg.workflow.device_queue import state_folder
from univg.workflow.project import Project
from univg.workflow.sample import SAMPLE_MODALITY

_FILE = "guide.json"
_TAB_OF = (None, "data", "adapt", "adapt", "segment")  # of each step
_LOOK = 1  # the step that only a person can call done


class Guide:
    """The strip and its buttons."""

    def __init__(self, again: gr.Button) -> None:
        """`again` is the button elsewhere that brings the guide back."""
        self._again = again
        with gr.Row(elem_id="guide", visible=False) as self._row:
            self._strip = gr.HTML(elem_id="guide-steps")
            with gr.Row(elem_id="guide-buttons"):
                self._seen = gr.Button(texts.GUIDE_NEXT, size="sm", elem_id="guide-next", min_width=60)
                self._show = gr.Button(texts.GUIDE_SHOW, size="sm", elem_id="guide-show", min_width=60)
                self._close = gr.Button(texts.GUIDE_CLOSE, size="sm", elem_id="guide-close", min_width=60)

    def wire(self, ui: Ui, tabs: gr.Tabs) -> None:
        ui.part([self._row, self._strip, self._seen, self._show], _signature, _render)
        ui.on(self._seen.click, _look_done)
        ui.on(self._show.click, _tab_of_step, [], [tabs])
        ui.on(self._close.click, _close)
        ui.on(self._again.click, lambda session: _remember(closed=False))


def step_of(session: Session) -> int:
    """The step that comes next, from 0; their number when all are done."""
    project = session.project
    if project is None or session.at_start:
        return 0
    has_run = bool(jobs_of(project))
    if not project.segmenter_versions():
        if has_run:
            return 3
        return 2 if session.looked_at_data and project.support_names() else _LOOK
    return len(_TAB_OF) if any(item.state == "done" for item in session.board.items) else 4


def is_closed() -> bool:
    try:
        return bool(read_json(state_folder() / _FILE)["closed"])
    except (InputError, OSError, KeyError, TypeError):
        return False


def _signature(session: Session) -> tuple:
    return is_closed(), step_of(session), tabs_of(session.project)


def _render(session: Session) -> list:
    at = step_of(session)
    return [
        gr.Row(visible=not is_closed()),
        _strip(at, session.project),
        gr.Button(visible=at == _LOOK),
        gr.Button(visible=at < len(_TAB_OF) and _TAB_OF[at] is not None),
    ]


def _strip(at: int, project: Project | None) -> str:
    entries = []
    for number, (name, _) in enumerate(texts.GUIDE_STEPS):
        state = "done" if number < at else "now" if number == at else "todo"
        mark = texts.TAB_MARKS["done"] if state == "done" else str(number + 1)
        current = ' aria-current="step"' if state == "now" else ""
        entries.append(
            f'<li class="{state}"{current}><i aria-hidden="true">{mark}</i>{escape(name)}'
            f'<span class="unseen">, {texts.GUIDE_STATES[state]}</span></li>'
        )
    words = texts.GUIDE_DONE
    if at < len(_TAB_OF):
        tab = _TAB_OF[at]
        own = tab == "segment" and project is not None and project.modality is not SAMPLE_MODALITY
        words = texts.GUIDE_SEGMENT_OWN if own else texts.GUIDE_STEPS[at][1]
        words = words.format(tab=f"“{tab_title(tab, project)}”" if tab else "")
    return (
        f'<nav class="guide" aria-label="{texts.GUIDE_TITLE}"><ol>{"".join(entries)}</ol>'
        f'<p role="status">{escape(words)}</p></nav>'
    )


def _look_done(session: Session) -> None:
    session.looked_at_data = True


def _tab_of_step(session: Session) -> object:
    at = step_of(session)
    tab = _TAB_OF[at] if at < len(_TAB_OF) else None
    return gr.Tabs(selected=tab) if tab else gr.skip()


def _close(session: Session) -> None:
    _remember(closed=True)
    note(texts.GUIDE_CLOSED)


def _remember(*, closed: bool) -> None:
    folder = state_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json_atomic(folder / _FILE, {"closed": closed})
    except OSError as error:
        raise InputError(f"Cannot write here: {error.strerror}", path=folder, fix="Check its permissions.") from error
