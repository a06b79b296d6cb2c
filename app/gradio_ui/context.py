"""How the pages are wired: handlers that turn errors into messages, and parts that are redrawn when they change."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from html import escape

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


@dataclass
class Group:
    """Parts that are redrawn by one event.

    Gradio makes every output of an event anew on the server, changed or not, so a tick must have few of them.

    Attributes
    ----------
    seen : State
        Signatures of the parts as they are on the page, by their index, and whose project they are of.
    bell : Textbox
        Hidden; a new value asks for the group to be redrawn.
    """

    seen: gr.State
    bell: gr.Textbox
    parts: list[Part] = field(default_factory=list)

    @property
    def outputs(self) -> list[gr.components.Component]:
        return [output for part in self.parts for output in part.outputs]


class Ui:
    """Shared by the modules of the pages while the page is assembled."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions
        self.session_id = gr.State("")
        self._groups: list[Group] = []
        self._dependencies: list = []
        self._logged: set[str] = set()
        self._told: set[str] = set()  # ids of sessions that are no longer kept, whose pages have said so

    @contextmanager
    def group(self) -> Iterator[None]:
        """The parts that are declared inside are redrawn together."""
        # Placed by `finish`: Gradio shows what is hidden in the tab that a page opens with.
        self._groups.append(Group(gr.State({}), gr.Textbox(visible="hidden", render=False)))
        yield

    def part(
        self,
        outputs: Sequence[gr.components.Component],
        signature: Callable[[Session], Hashable],
        render: Callable[[Session], Sequence[object]],
        *,
        later: bool = False,
    ) -> None:
        """Have `outputs` redrawn after every handler, and at every tick, when `signature` has changed."""
        self._groups[-1].parts.append(Part(tuple(outputs), signature, render, later))

    def on(
        self,
        triggers,
        handler: Callable,
        inputs: Sequence[gr.components.Component] = (),
        outputs: Sequence[gr.components.Component] = (),
        *,
        redraw: bool = True,
        failed: bool = False,
        **options: object,
    ):
        """Call ``handler(session, *values)`` on `triggers`; parts that have changed are redrawn afterwards.

        `triggers` are events of components, or what an earlier call returned: then it must have gone well, or not well
        if `failed`.
        """
        call = self._guarded(handler, len(outputs))
        arguments = [call, [self.session_id, *inputs], list(outputs) or None]
        options = {**QUIET, **options}
        if options["show_progress"] != "hidden":
            options["show_progress_on"] = None
        if isinstance(triggers, Dependency):
            dependency = (triggers.failure if failed else triggers.success)(*arguments, **options)
        else:
            dependency = gr.on(triggers, *arguments, **options)
        if redraw:
            self._dependencies.append(dependency)
        return dependency

    def on_selected(self, strip: gr.Gallery, handler: Callable[[Session, str], object], outputs=(), **options: object):
        """Call ``handler(session, caption)`` when a picture of `strip` is chosen; a caption is a name that stays."""
        guarded = self._guarded(lambda session, event: handler(session, event.value["caption"]), len(outputs))

        def call(session_id: str, event: gr.SelectData) -> object:
            return guarded(session_id, event)

        dependency = strip.select(call, [self.session_id], list(outputs) or None, **{**QUIET, **options})
        self._dependencies.append(dependency)
        return dependency

    def on_clicked(self, picture: gr.Image, handler: Callable, value: gr.components.Component, outputs, **options):
        """Call ``handler(session, value, [x, y])`` where `picture` is clicked, in pixels of the picture."""
        guarded = self._guarded(handler, len(outputs))

        def call(session_id: str, value: object, event: gr.SelectData) -> object:
            return guarded(session_id, value, event.index)

        # Each click counts: by default one is left out while another is being answered.
        options = {**QUIET, "trigger_mode": "multiple", **options}
        dependency = picture.select(call, [self.session_id, value], outputs, **options)
        self._dependencies.append(dependency)
        return dependency

    def live(self, triggers, handler: Callable, inputs, outputs, **options: object):
        """As `on`, for sliders: only the newest value counts, and nothing else is redrawn."""
        options = {"concurrency_limit": 1, **options}
        return self.on(triggers, handler, inputs, outputs, redraw=False, trigger_mode="always_last", **options)

    def finish(self, page: gr.Blocks, timer: gr.Timer, stored_id: gr.Textbox) -> None:
        """Attach redrawing to the start of the page, to every handler and to `timer`."""
        groups = self._groups
        seen = [group.seen for group in groups]
        for group in groups:
            group.bell.render()
        page.load(
            self._attach,
            [stored_id],
            [self.session_id, stored_id, *seen],
            js="() => [window.sessionStorage.getItem('univg-session') || '']",
            **QUIET,
        ).then(
            partial(self._redraw, groups),
            [self.session_id, *seen],
            [*seen, *(output for group in groups for output in group.outputs)],
            **QUIET,
        )
        # On both outcomes of a handler: an error may have changed the state as well.
        for trigger in (timer.tick, *(dependency.then for dependency in self._dependencies)):
            trigger(
                self._ring,
                [self.session_id, *seen],
                [group.bell for group in groups],
                concurrency_id="ring",
                concurrency_limit=2,
                **QUIET,
            )
        for number, group in enumerate(groups):
            # One at a time: the page might show what an earlier one drew after what a later one did.
            group.bell.change(
                partial(self._redraw, [group]),
                [self.session_id, group.seen],
                [group.seen, *group.outputs],
                concurrency_id=f"redraw {number}",
                concurrency_limit=1,
                **QUIET,
            )
        stored_id.change(
            None, [stored_id], None, js="(id) => { window.sessionStorage.setItem('univg-session', id); }", **QUIET
        )
        page.unload(self._detach)

    def _attach(self, stored_id: str, request: gr.Request) -> list:
        session = self.sessions.attach(stored_id, request.session_hash or "")
        return [session.id, session.id, *({} for _ in self._groups)]

    def _detach(self, request: gr.Request) -> None:
        self.sessions.close(request.session_hash or "")

    def _ring(self, session_id: str, *seen: dict) -> list:
        """Ask for the groups of which a part has changed."""
        session = self._session(session_id)
        if session is None:
            return [gr.skip()] * len(self._groups)
        return [
            secrets.token_hex(4) if _has_changed(group, session, old) else gr.skip()
            for group, old in zip(self._groups, seen, strict=True)
        ]

    def _redraw(self, groups: Sequence[Group], session_id: str, *seen: dict) -> list:
        """What `groups` show now, and what of it is new; one `seen` for each."""
        session = self._session(session_id)
        if session is None:
            return [gr.skip()] * sum(1 + len(group.outputs) for group in groups)
        states, updates = [], []
        for group, old in zip(groups, seen, strict=True):
            now = {_PROJECT: _project_key(session)}
            for index, part in enumerate(group.parts):
                drawn = [gr.skip()] * len(part.outputs)
                # What cannot be drawn, as when a project was moved away, must not stop the rest of the page.
                try:
                    if not _waits(part, session, old):
                        signature = hash(part.signature(session))
                        now[index] = signature
                        if old.get(index) != signature:
                            drawn = part.render(session)
                except Exception as error:
                    now.pop(index, None)  # once more at the next tick
                    self._log_once(error)
                updates += drawn
            states.append(now)
        return [*states, *updates]

    def _session(self, session_id: str) -> Session | None:
        """None before a page has one, and when its session is no longer kept, which the page says once."""
        try:
            return self.sessions.get(session_id) if session_id else None
        except InputError as error:
            if session_id not in self._told:
                self._told.add(session_id)
                gr.Warning(escape(str(error)), title=texts.CHECK_THIS, duration=None)
            return None

    def _log_once(self, error: Exception) -> None:
        """Write down why a part could not be drawn; not anew with every tick at which it is tried again."""
        expected = isinstance(error, InputError)
        text = type(error).__name__ if expected else anonymous_trace(error)
        if text not in self._logged:
            self._logged.add(text)
            _log.log(logging.WARNING if expected else logging.ERROR, "A part of the page could not be drawn: %s", text)

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


def _has_changed(group: Group, session: Session, seen: dict) -> bool:
    if not seen:
        return False  # the page has just been opened, and its first drawing is on its way
    if seen.get(_PROJECT) != _project_key(session):
        return True
    for index, part in enumerate(group.parts):
        try:
            if seen.get(index) != hash(part.signature(session)):
                return True
        except Exception:  # the redraw says so
            continue
    return False


def _waits(part: Part, session: Session, seen: dict) -> bool:
    return part.later and seen.get(_PROJECT) != _project_key(session)


def _project_key(session: Session) -> str:
    return "" if session.project is None else str(session.project.path)
