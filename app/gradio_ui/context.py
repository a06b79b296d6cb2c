"""How the pages are wired: handlers that turn errors into messages, and parts that are redrawn when they change."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import gradio as gr
from gradio.events import Dependency

from app import texts
from app.gradio_ui.errors import anonymous_trace, message
from app.gradio_ui.state import Session, Sessions
from univg.errors import InputError

_log = logging.getLogger("univg.app")

# Without `show_progress_on` the page looks up every output that any event ever had, each time an event starts or ends:
# with 150 of them on a timer, its only thread was busy for a third of the time.
QUIET = {"show_progress": "hidden", "show_progress_on": [], "api_visibility": "private"}
_PROJECT = "project"  # among what a page has seen: whose parts they are


@dataclass(frozen=True)
class Part:
    """Some components that are drawn together from the state of a session.

    Attributes
    ----------
    outputs : sequence of components
    signature : callable
        Of the session; cheap, and different whenever `render` would give something else.
    render : callable
        Of the session; one value or update for each of the outputs.
    later : bool
        Whether it waits for the tick after a project was opened: it takes time, and is on a tab that is not on screen
        then.
    """

    outputs: Sequence[gr.components.Component]
    signature: Callable[[Session], Hashable]
    render: Callable[[Session], Sequence[object]]
    later: bool = False


class Ui:
    """Shared by the modules of the pages while the page is assembled."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions
        self.session_id = gr.State("")
        self._seen = gr.State({})
        self._parts: list[Part] = []
        self._dependencies: list = []

    def part(
        self,
        outputs: Sequence[gr.components.Component],
        signature: Callable[[Session], Hashable],
        render: Callable[[Session], Sequence[object]],
        *,
        later: bool = False,
    ) -> None:
        """Have `outputs` redrawn after every handler, and at every tick, when `signature` has changed."""
        self._parts.append(Part(tuple(outputs), signature, render, later))

    def on(
        self,
        triggers,
        handler: Callable,
        inputs: Sequence[gr.components.Component] = (),
        outputs: Sequence[gr.components.Component] = (),
        *,
        redraw: bool = True,
        **options: object,
    ):
        """Call ``handler(session, *values)`` on `triggers`; parts that have changed are redrawn afterwards.

        `triggers` are events of components, or what an earlier call returned: then it must have gone well.
        """
        call = self._guarded(handler, len(outputs))
        arguments = [call, [self.session_id, *inputs], list(outputs) or None]
        options = {**QUIET, **options}
        if options["show_progress"] != "hidden":
            options["show_progress_on"] = None
        if isinstance(triggers, Dependency):
            dependency = triggers.success(*arguments, **options)
        else:
            dependency = gr.on(triggers, *arguments, **options)
        if redraw:
            self._dependencies.append(dependency)
        return dependency

    def on_selected(self, strip: gr.Gallery, handler: Callable[[Session, str], object], outputs=()):
        """Call ``handler(session, caption)`` when a picture of `strip` is chosen; a caption is a name that stays."""
        guarded = self._guarded(lambda session, event: handler(session, event.value["caption"]), len(outputs))

        def call(session_id: str, event: gr.SelectData) -> object:
            return guarded(session_id, event)

        dependency = strip.select(call, [self.session_id], list(outputs) or None, **QUIET)
        self._dependencies.append(dependency)
        return dependency

    def on_clicked(self, picture: gr.Image, handler: Callable, value: gr.components.Component, outputs):
        """Call ``handler(session, value, [x, y])`` where `picture` is clicked, in pixels of the picture."""
        guarded = self._guarded(handler, len(outputs))

        def call(session_id: str, value: object, event: gr.SelectData) -> object:
            return guarded(session_id, value, event.index)

        dependency = picture.select(call, [self.session_id, value], outputs, **QUIET)
        self._dependencies.append(dependency)
        return dependency

    def live(self, triggers, handler: Callable, inputs, outputs):
        """As `on`, for sliders: only the newest value counts, and nothing else is redrawn."""
        return self.on(
            triggers, handler, inputs, outputs, redraw=False, trigger_mode="always_last", concurrency_limit=1
        )

    def finish(self, page: gr.Blocks, timer: gr.Timer, stored_id: gr.Textbox) -> None:
        """Attach redrawing to the start of the page, to every handler and to `timer`."""
        loaded = page.load(
            self._attach,
            [stored_id],
            [self.session_id, stored_id, self._seen],
            js="() => [window.sessionStorage.getItem('univg-session') || '']",
            **QUIET,
        )
        # On both outcomes of a handler: an error may have changed the state as well.
        self._dependencies += [loaded, timer]
        for dependency in self._dependencies:
            trigger = dependency.tick if isinstance(dependency, gr.Timer) else dependency.then
            trigger(
                self._redraw,
                [self.session_id, self._seen],
                [self._seen, *(output for part in self._parts for output in part.outputs)],
                concurrency_id="redraw",
                concurrency_limit=1,
                **QUIET,
            )
        stored_id.change(
            None, [stored_id], None, js="(id) => { window.sessionStorage.setItem('univg-session', id); }", **QUIET
        )
        page.unload(self._detach)

    def _attach(self, stored_id: str, request: gr.Request) -> tuple[str, str, dict]:
        session = self.sessions.attach(stored_id, request.session_hash or "")
        return session.id, session.id, {"load": True}

    def _detach(self, request: gr.Request) -> None:
        self.sessions.close(request.session_hash or "")

    def _redraw(self, session_id: str, seen: dict) -> list:
        if not session_id:
            return [gr.skip()] * (1 + sum(len(part.outputs) for part in self._parts))
        session = self.sessions.get(session_id)
        project = None if session.project is None else str(session.project.path)
        just_opened = seen.get(_PROJECT) != project
        now, updates = {_PROJECT: project}, []
        for index, part in enumerate(self._parts):
            if part.later and just_opened:
                updates += [gr.skip()] * len(part.outputs)
                continue
            try:
                signature = hash(part.signature(session))
                changed = seen.get(index) != signature
                updates += part.render(session) if changed else [gr.skip()] * len(part.outputs)
                now[index] = signature
            except InputError as error:
                # A project that was moved away must not stop the rest of the page from being drawn.
                _log.warning("A part of the page could not be drawn: %s", type(error).__name__)
                updates += [gr.skip()] * len(part.outputs)
        return [now, *updates]

    def _guarded(self, handler: Callable, count: int) -> Callable:
        def call(session_id: str, *values: object) -> object:
            try:
                result = handler(self.sessions.get(session_id), *values)
            except InputError as error:
                raise message(error) from None
            except Exception as error:
                _log.error("%s", anonymous_trace(error))
                text = texts.UNEXPECTED.format(kind=type(error).__name__)
                raise gr.Error(text, title=texts.CHECK_THIS, print_exception=False) from None
            return result if count else None

        return call
