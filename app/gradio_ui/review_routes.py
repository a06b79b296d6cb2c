"""What the script of the Review tab asks the server directly: pictures of pairs, and what to do with a pair.

Outside Gradio's queue, because a key must be answered within a tenth of a second and verdicts must keep their order.
Only pages that know the random id of a session are answered.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Annotated

from fastapi import Body, FastAPI, HTTPException, Response

from app import texts
from app.gradio_ui import review_view
from app.gradio_ui.errors import anonymous_trace
from app.gradio_ui.models import reader
from app.gradio_ui.review_board import Entry, ReviewBoard, all_entries
from app.gradio_ui.review_pictures import draw_thumbnails, picture
from app.gradio_ui.state import Session, Sessions
from univg.errors import InputError
from univg.workflow.project import Project
from univg.workflow.verdicts import Verdict

_UNCHANGING = {"Cache-Control": "private, max-age=86400, immutable"}
_log = logging.getLogger("univg.app")


def attach(app: FastAPI, sessions: Sessions) -> None:
    """Add the addresses to a running server."""

    def get_picture(session_id: str, layer: str, name: str) -> Response:
        try:
            content, media_type = picture(sessions.get(session_id).required_project(), layer, name)
        except InputError as error:
            raise HTTPException(404, error.problem) from None
        return Response(content, media_type=media_type, headers=_UNCHANGING)

    def post_act(session_id: str, act: Annotated[dict, Body()]) -> dict:
        try:
            session = sessions.get(session_id)
            return answer(session, act)
        except InputError as error:
            return {"error": str(error)}
        except Exception as error:
            _log.error("%s", anonymous_trace(error))
            return {"error": texts.UNEXPECTED.format(kind=type(error).__name__)}

    routes = len(app.router.routes)
    app.add_api_route("/review/{session_id}/act", post_act, methods=["POST"], include_in_schema=False)
    app.add_api_route("/review/{session_id}/{layer}/{name}", get_picture, include_in_schema=False)
    # Before Gradio's own, of which the last one answers to everything.
    added = app.router.routes[routes:]
    del app.router.routes[routes:]
    app.router.routes[:0] = added


def board_of(session: Session) -> ReviewBoard:
    session.required_project()
    if session.review is None:
        session.review = ReviewBoard()
    return session.review


def draw_ahead(project: Project, entries: Sequence[Entry], at: int) -> None:
    """Have the thumbnails drawn of the page of the grid with entry number `at`, and of the two after it."""
    first = at // review_view.PAGE * review_view.PAGE
    reader.submit(draw_thumbnails, project, [entry.name for entry in entries[first:][: 3 * review_view.PAGE]])


def answer(session: Session, act: dict) -> dict:
    """Do what a page asks for and say what it shows now.

    Parameters
    ----------
    session : Session
    act : dict
        ``do``: 'judge' with ``name``, ``verdict`` and ``note``; 'undo'; 'go' to ``name``; or 'step' from ``name``
        ``by`` so many. ``page``: number of the grid's page on screen, and ``shown`` of the pairs on it; ``waiting``: of
        those in waiting beside it.

    Returns
    -------
    dict
        ``name`` of the pair to show, ``said`` of what was done, ``tally`` as HTML, ``verdicts`` that may have changed
        by name, ``facts`` of the pairs concerned, ``line`` below the grid, ``grid`` as HTML where another page of it is
        on screen or pairs have joined that one, and else ``pages`` as HTML by number that should wait beside it.
    """
    project, board = session.required_project(), board_of(session)
    with board.lock:
        touched, said = _do(project, board, act)
        entry = board.on_screen(project)
        entries = board.entries(project)
        every = all_entries(project)
    if entry is None:
        return {"name": "", "said": said, "tally": review_view.tally(every), "verdicts": {}, "facts": {}, "grid": ""}
    at = {other.name: index for index, other in enumerate(entries)}
    concerned = [entries[at[name]] for name in (*touched, entry.name) if name in at]
    shown = {
        "name": entry.name,
        "said": said,
        "tally": review_view.tally(every),
        "verdicts": {other.name: str(other.verdict) for other in concerned},
        "facts": {other.name: review_view.facts(other, at[other.name] + 1, len(entries)) for other in concerned},
    }
    page = at[entry.name] // review_view.PAGE
    shown["line"] = review_view.page_line(page, len(entries))
    count = len(entries[page * review_view.PAGE :][: review_view.PAGE])
    if (page, count) != (act.get("page"), act.get("shown", count)):
        shown["grid"] = review_view.grid(session.id, project.path, entries, entry.name)
        draw_ahead(project, entries, at[entry.name])
    elif lacking := [n for n in review_view.pages_beside(page, len(entries)) if n not in (act.get("waiting") or ())]:
        shown["pages"] = review_view.pages(session.id, project.path, entries, lacking)
        draw_ahead(project, entries, at[entry.name])
    return shown


def _do(project: Project, board: ReviewBoard, act: dict) -> tuple[list[str], str]:
    """Returns the names of pairs whose verdict may be another one now, and what there is to say."""
    do, name = act.get("do"), str(act.get("name") or "")
    if do in ("judge", "go", "step"):
        if all(name != entry.name for entry in all_entries(project)):
            raise InputError("This pair is no longer in the project", fix="Reload the page.")
        board.current = name
    if do == "judge":
        board.judge_named(project, name, Verdict(str(act.get("verdict"))), str(act.get("note") or "").strip())
        return [name], ""
    if do == "undo":
        names, left = board.take_back(project)
        return [*names, *left], texts.review_left(len(left)) if left else ""
    if do == "step":
        board.move(project, 1 if act.get("by") == 1 else -1)
    return [], ""
