"""What the server keeps for each page: found again by a random id, so that a reload shows the same state."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from app import texts
from app.gradio_ui.files import Upload
from app.gradio_ui.image_studio import ImageStudio
from app.gradio_ui.mask_studio import MaskStudio
from app.gradio_ui.review_board import ReviewBoard
from app.gradio_ui.segment_board import Board
from app.gradio_ui.tree_studio import Studio
from univg.errors import InputError
from univg.workflow.project import Project

MAX_SESSIONS = 24
SECONDS_KEPT_AFTER_CLOSING = 6 * 3600.0


@dataclass
class PairView:
    """How the Data tab shows a pair."""

    selected: str = ""
    opacity: float = 0.8
    outline: bool = False


@dataclass
class SegmentView:
    """How the Segment tab shows a result."""

    mode: str = "overlay"
    opacity: float = 0.6
    model: str = ""  # the version that the user chose; empty means the one in use


@dataclass
class RunForm:
    """What the Adapt tab would start: as the controls stand.

    Attributes
    ----------
    project : Path or None
        That the controls were set for.
    preset, device : str
    baseline, review, full_length : bool
    seed : int or None
        None while its field is empty.
    settings : dict
        Of the full preset, by their names in `univg.workflow.stages`.
    begin : str
        The stage chosen to begin with; empty for the first one that is stale.
    """

    project: Path | None = None
    preset: str = "preview"
    device: str = "auto"
    baseline: bool = False
    review: bool = False
    full_length: bool = False
    seed: int | None = 0
    settings: dict = field(default_factory=dict)
    begin: str = ""


@dataclass
class Painting:
    """What is on the painter's canvas: `name`, and the dropped image when it is not in the project yet.

    `from_mask` says whether it began with the present mask, which is `started_from`, or empty; `image_sha256` is of the
    image's pixels. `in_project` is the mask that the project held then, or when the user last heard of another one.
    `id` tells what the page sends of this painting from what it sends of another.
    """

    name: str
    upload: Upload | None
    shape: tuple[int, int]
    started_from: np.ndarray
    from_mask: bool = True
    image_sha256: str = ""
    in_project: np.ndarray | None = None
    id: str = field(default_factory=partial(secrets.token_hex, 4))


@dataclass(frozen=True, eq=False)
class Draft:
    """Strokes that were not saved, and the mask that they began with."""

    mask: np.ndarray
    started_from: np.ndarray

    def fits(self, painting: Painting) -> bool:
        """Whether `painting`, on the same image, begins with the same mask."""
        return np.array_equal(self.started_from, painting.started_from)


@dataclass
class Session:
    """One page of the browser."""

    id: str
    folder: Path
    project: Project | None = None
    view: PairView = field(default_factory=PairView)
    segment_view: SegmentView = field(default_factory=SegmentView)
    unmasked: dict[str, Upload] = field(default_factory=dict)
    painting: Painting | None = None
    drafts: dict[tuple[Path, str, bool, str], Draft] = field(default_factory=dict)  # see `draft_key`
    # What the page names beside its buttons: a second click must not act on what came in its place.
    named_pair: str = ""  # the annotated pair that Remove removes
    offered_back: str = ""  # the removed pair that the button for it names
    offered_version: str = ""  # the model that "Undo: back to" names
    offers_start: bool = True  # whether the button in the header leads to the start view, and not back
    not_brought_back: set[str] = field(default_factory=set)  # removed pairs for which that was tried in vain
    run: RunForm = field(default_factory=RunForm)
    retrain_effort: str = "standard"
    looked_at_data: bool = False
    choosing_project: bool = False
    pages: set[str] = field(default_factory=set)
    left_pages: set[str] = field(default_factory=set)  # that went away, or fell asleep and may yet come back
    closed: bool = False  # by the last page that showed it, as far as is known
    used_at: float = 0.0
    kept_images: list[Upload] = field(default_factory=list)  # on the board since before a reload emptied the fields
    kept_references: list[Upload] = field(default_factory=list)
    trees: Studio | None = None
    masks: MaskStudio | None = None
    images: ImageStudio | None = None
    review: ReviewBoard | None = None
    board: Board = field(init=False)
    thumbnails: dict[tuple, str] = field(default_factory=dict)  # the files of the strip on the Segment tab

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.board = Board(self.folder / "segment")

    def open(self, project: Project) -> None:
        """Turn to `project`; what was on screen of another one is let go."""
        self.board.clear()
        self.kept_images, self.kept_references, self.thumbnails = [], [], {}
        self.project, self.choosing_project = project, False
        self.view, self.unmasked, self.painting = PairView(), {}, None
        self.segment_view.model = ""
        self.named_pair, self.offered_back, self.offered_version = "", "", ""
        self.not_brought_back = set()
        self.trees, self.masks, self.images, self.review = None, None, None, None

    def rest(self) -> None:
        """Let go of what can be made anew, as nobody looks at the page; what is on screen is there after a reload."""
        self.board.keep_arrays(False)
        for studio in (self.masks, self.images):
            if studio is not None:
                studio.keep_shown()

    @property
    def at_start(self) -> bool:
        """Whether the start view is on screen, and not the tabs."""
        return self.project is None or self.choosing_project

    def pictures_of(self, tab: str) -> Path:
        """Where the pictures of a tab are: of one folder for all, the oldest would go while they are on screen."""
        return self.folder / "pictures" / tab

    def draft_key(self, painting: Painting, from_mask: bool) -> tuple[Path, str, bool, str]:
        """What unsaved strokes are kept under: those that began with a mask and those that began empty are two, and
        those on another image of the same name wait for that one.
        """
        return self.required_project().path, painting.name, from_mask, painting.image_sha256

    def required_project(self) -> Project:
        if self.project is None:
            raise InputError("No project is open", fix="Open or create one first.")
        return self.project


class Sessions:
    """The sessions of this server, at most `MAX_SESSIONS`; a new one starts in the project opened last."""

    def __init__(self, folder: Path, project: Project | None) -> None:
        self._folder = folder
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()
        self.latest_project = project

    def attach(self, session_id: str, page: str = "") -> Session:
        """The session called `session_id`, or a new one under another id when it is not known (any more).

        `page` is Gradio's name for the page that shows it; `close` takes the same.
        """
        with self._lock:
            self._drop_old()
            session = self._sessions.get(session_id)
            if session is None:
                new_id = secrets.token_urlsafe(16)
                session = Session(new_id, self._folder / new_id, project=self.latest_project)
                self._sessions[new_id] = session
            session.pages.add(page)
            # As the fresh page shows them:
            session.painting, session.view, session.segment_view = None, PairView(session.view.selected), SegmentView()
            session.run, session.retrain_effort = RunForm(), Session.retrain_effort
            session.kept_images = [item.upload for item in session.board.items]
            session.kept_references = [item.reference for item in session.board.items if item.reference]
            if session.images is not None:
                session.images.overlay = False
            if session.trees is not None:
                session.trees.show = Studio.show
            if session.review is not None:
                session.review.list_anew(shown="all", flag="", sort="flagged")
            self._use(session)
            while len(self._sessions) > MAX_SESSIONS:
                self._remove(self._least_wanted())
            return session

    def get(self, session_id: str) -> Session:
        with self._lock:
            session = self._sessions.get(session_id)
            if session is None:
                raise InputError(texts.PAGE_FORGOTTEN, fix=texts.PAGE_FORGOTTEN_FIX)
            self._use(session)
            return session

    def close(self, page: str) -> None:
        """Note that `page` went away; a reload within some hours finds its session again."""
        with self._lock:
            for session in self._sessions.values():
                if page not in session.pages | session.left_pages:
                    continue
                session.pages.discard(page)
                session.left_pages.add(page)
                if not session.pages and not session.closed:
                    session.closed = True
                    session.rest()
            self._drop_old()

    def _use(self, session: Session) -> None:
        """Note that a page shows `session`: one that was asleep, as in a closed laptop, was taken for closed."""
        self._sessions.move_to_end(session.id)
        session.used_at = time.monotonic()
        if session.closed:
            session.closed = False
            session.board.keep_arrays(True)

    def _least_wanted(self) -> str:
        """The session that was used least recently: of those that no page shows, where there are any."""
        closed = (session.id for session in self._sessions.values() if session.closed)
        return next(closed, next(iter(self._sessions)))

    def _drop_old(self) -> None:
        limit = time.monotonic() - SECONDS_KEPT_AFTER_CLOSING
        for session in list(self._sessions.values()):
            if not session.pages and session.used_at < limit:
                self._remove(session.id)

    def _remove(self, session_id: str) -> None:
        session = self._sessions.pop(session_id)
        session.board.clear()
        shutil.rmtree(session.folder, ignore_errors=True)
