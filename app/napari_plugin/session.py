"""What the panels of one viewer share: the project, the image being worked on, and its layers.

Panels call methods here and listen to the signals; they do not know one another. All heavy work runs in the
background and brings its result back into the window's thread.
"""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QEvent, QObject, QTimer, Signal
from qtpy.QtWidgets import QApplication, QWidget

from app import texts
from app.napari_plugin import layers, preferences, tools
from app.napari_plugin.background import Newest, in_background, in_words
from app.napari_plugin.correction import Ridges
from app.napari_plugin.helpers import MODELS, TOOLS
from app.napari_plugin.image_queue import ImageQueue, Status
from app.napari_plugin.mask_writer import MaskWriter
from app.napari_plugin.models import Found, find_vessels, load_model
from univg.errors import InputError
from univg.workflow.model_versions import active_segmenter
from univg.workflow.project import Project

if TYPE_CHECKING:
    from napari.layers import Labels, Layer
    from napari.viewer import Viewer

_TURN_MS = 60
LOOK_MS = 400  # between two looks at what is painted
_HAND_RESTS_S = 0.3
# Layers that belong to one image, and those that fit any image of the same size.
_DRAWN, _OF_ONE_SIZE = ("roots", "boundary", "obstacles", "tree"), ("roi", "centreline")


@dataclass(eq=False)
class OpenImage:
    """The image on screen.

    Attributes
    ----------
    name : str
    image : ndarray
    spacing_mm : float or None
    found : Found or None
        What the model says.
    threshold : float or None
        Where the user moved it; None is the model's.
    ridges : Ridges or None
        Computed when a tool first needs them.
    saved : ndarray
        The mask as it is on the disk.
    seen : ndarray
        The mask at the last look.
    at_doubt : int
        Which of the least certain segments is on screen; -1 before the first.
    """

    name: str
    image: np.ndarray
    spacing_mm: float | None
    saved: np.ndarray
    seen: np.ndarray
    found: Found | None = None
    threshold: float | None = None
    ridges: Ridges | None = None
    at_doubt: int = -1


@dataclass(eq=False)
class _Load:
    """An image that was asked for and is not on screen yet; each request is another one, whatever the name."""

    name: str


class Session(QObject):
    """One for each viewer; see `session_of`."""

    project_changed = Signal()
    queue_changed = Signal()
    image_changed = Signal()
    mask_changed = Signal()
    segmented = Signal()
    maps_changed = Signal()  # a layer of probability or uncertainty is new
    model_changed = Signal()  # another one is in use
    region_changed = Signal()  # the region of interest was drawn, dragged or taken away
    said = Signal(str, str)  # text, and "" or "error"; an empty text takes back "Working …" alone

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = weakref.ref(viewer)
        viewer.layers.events.removed.connect(self._layer_removed)
        self.project: Project | None = None
        self.open: OpenImage | None = None
        self.busy = 0
        self._load: _Load | None = None
        self._layers: dict[str, Layer] = {}
        self._saved_at = self._looked_at = time.monotonic()
        self._dragged_at = -math.inf
        self._saving = False
        self._problem = ""  # that the last look met
        self._writer = MaskWriter()
        self._windows: set[int] = set()
        self._scoring = Newest(self._take_score, self._fail)
        self._timer = QTimer(self)
        self._timer.setInterval(LOOK_MS)
        self._timer.timeout.connect(self._look_by_timer)
        self._timer.start()
        if QApplication.instance() is not None:
            QApplication.instance().aboutToQuit.connect(self.save_now)

    # --- the viewer and its layers

    @property
    def viewer(self) -> Viewer:
        viewer = self._viewer()
        if viewer is None:
            raise RuntimeError("The viewer is gone")
        return viewer

    def layer(self, name: str) -> Layer | None:
        """One of the layers that this plugin made; None when there is none, or the user removed it."""
        layer = self._layers.get(name)
        return layer if layer is not None and layer in self.viewer.layers else None

    def keep_layer(self, name: str, layer: Layer) -> Layer:
        """Remember `layer` in the place of an earlier one of this name, which is removed."""
        self.drop_layer(name)
        self._layers[name] = layer
        return layer

    def drop_layer(self, name: str) -> None:
        layer = self.layer(name)
        if layer is not None:
            self.viewer.layers.remove(layer)
        self._layers.pop(name, None)

    def draw_region(self) -> None:
        """Turn to the layer that the region of interest is drawn in, made where there is none."""
        current, layer = self.required_image(), self.layer("roi")
        if layer is None:
            layer = layers.add_outlines(self.viewer, name="roi", spacing_mm=current.spacing_mm)
            layer.events.data.connect(self._region_moved)
            self.keep_layer("roi", layer)
        self.viewer.layers.selection.active = layer
        layer.mode = "add_rectangle"

    def _region_moved(self, _event=None) -> None:
        self.region_changed.emit()

    def _layer_removed(self, event) -> None:
        """Here or by the user."""
        if event.value is self._layers.get("roi"):
            self.region_changed.emit()

    @property
    def labels(self) -> Labels | None:
        return self.layer("mask")

    def mask(self) -> np.ndarray | None:
        """The mask on screen, a copy; None without an image."""
        return None if self.labels is None or self.open is None else layers.mask_in(self.labels)

    def save_when_closed(self, panel: QWidget) -> None:
        """Save before the window that holds `panel` closes."""
        window = panel.window()
        if id(window) not in self._windows:
            self._windows.add(id(window))
            window.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        if event.type() == QEvent.Type.Close:
            self.save_now()
        return False

    # --- projects and the queue

    @property
    def queue(self) -> ImageQueue:
        return ImageQueue(self.required_project())

    def required_project(self) -> Project:
        if self.project is None:
            raise InputError(texts.NO_PROJECT, fix=texts.NAPARI_OPEN_FIRST)
        return self.project

    def required_image(self) -> OpenImage:
        if self.open is None or self.labels is None:
            raise InputError(texts.NAPARI_NO_IMAGE, fix=texts.NAPARI_NO_IMAGE_FIX)
        return self.open

    def use_project(self, project: Project) -> None:
        """Turn to `project`; what was open is saved first, and stays open when it cannot be."""
        self.close_image()
        self.project = project
        self.project_changed.emit()
        self.queue_changed.emit()
        TOOLS.warm_up(tools.ready)
        if self.has_model():
            MODELS.warm_up(load_model, self.model_folder())
        self.score_queue()

    def add_images(self, paths: list[str | Path]) -> list[str]:
        """Add images to the queue before this returns; for scripts."""
        names = self.queue.add(paths)
        self._images_added()
        return names

    def add_images_in_background(self, paths: list[str | Path]) -> None:
        """The same for the window: large files take a while to be looked at."""
        queue = self.queue

        def done(names: list[str]) -> None:
            self._images_added()
            self.said.emit(texts.NAPARI_ADDED.format(count=len(names), noun=texts.noun(len(names), "image")), "")

        self._work(lambda: queue.add(paths), done)

    def _images_added(self) -> None:
        self.queue_changed.emit()
        self.score_queue()

    def take_out(self, name: str) -> None:
        """Take an image out of the list, and off the screen; what was painted in it is saved first, and stays."""
        if self._on_screen(name) and not self.save_now():
            raise InputError(texts.NAPARI_STAYS_OPEN.format(name=name), fix=texts.NAPARI_STAYS_OPEN_FIX)
        self.queue.take_out(name)
        if self._load is not None and self._load.name == name:
            self._load = None
        if self.open is not None and self.open.name == name:
            self.close_image()
        self.queue_changed.emit()
        self.said.emit(texts.NAPARI_TAKEN_OUT.format(name=name), "")

    def model_folder(self, version: str | None = None) -> Path:
        """The folder of `version`, by default of the model in use; `InputError` when there is none."""
        project = self.required_project()
        folder = project.segmenters_folder / version if version else active_segmenter(project)
        if folder is None or not folder.is_dir():
            raise InputError(texts.SEG_NO_MODEL_TITLE, fix=texts.NAPARI_NO_MODEL_FIX)
        return folder

    def has_model(self) -> bool:
        return self.project is not None and active_segmenter(self.project) is not None

    def score_queue(self) -> None:
        """Let the model in use look at images that it has not scored yet, one after the other."""
        if self.project is None or not self.has_model() or self._scoring.busy:
            return
        queue, folder = self.queue, self.model_folder()
        waiting = [e for e in queue.entries() if e.status is not Status.APPROVED and e.scored_by != folder.name]
        if waiting:
            name = waiting[0].name
            self._scoring.ask(lambda: (queue, name, _score(queue, name, folder), folder.name))

    def _take_score(self, scored: tuple) -> None:
        queue, name, uncertainty, version = scored
        queue.update(name, uncertainty=uncertainty, scored_by=version)
        self.queue_changed.emit()
        QTimer.singleShot(0, self.score_queue)

    # --- the image on screen

    def open_image(self, name: str) -> None:
        """Show an image of the queue with its mask; one that has none is segmented at once.

        The one before stays on screen, and can be painted in, until the new one is loaded. Of several that are asked
        for meanwhile the last one counts.
        """
        queue = self.queue
        queue.entry(name)
        if self._load is not None and self._load.name == name:
            return
        self._load = None
        if self._on_screen(name):  # to read it again would bring back an older mask
            return
        before, unsaved, ticket = self.open, self._unsaved(), self._writer.ticket()
        known = before.saved if before is not None else None
        if unsaved is not None and not np.array_equal(unsaved[1], self.open.seen):  # `look` will see another image
            self._mark_corrected()
        load = self._load = _Load(name)

        def work() -> tuple:
            if unsaved is not None:  # before it may be read again
                self._writer.write(queue, *unsaved, ticket, known)
            return queue.image(name), queue.mask(name), queue.spacing_mm(name)

        def done(loaded: tuple) -> None:
            if unsaved is not None and before.saved is known:  # else a later one was written since
                before.saved = unsaved[1]
            if load is self._load:
                self._load = None
                self._show(name, *loaded)

        def failed(error: Exception) -> None:
            if load is self._load:  # it may be asked for again
                self._load = None
            self._fail(error)

        self._work(work, done, failed)

    def open_next(self) -> None:
        """Open the image that is worth most."""
        current = self.open.name if self.open is not None else ""
        name = self.queue.next_name(current)
        if name is None and self.queue.next_name() is not None:
            raise InputError(texts.NAPARI_LAST_LEFT.format(name=current), fix=texts.NAPARI_LAST_LEFT_FIX)
        if name is None:
            raise InputError(texts.NAPARI_ALL_APPROVED, fix=texts.NAPARI_ALL_APPROVED_FIX)
        self.open_image(name)

    def go_on(self) -> None:
        """Open the next image; where there is none, let the model in use look at the one on screen again."""
        current = self.open.name if self.open is not None else ""
        if self.queue.next_name(current) is not None:
            self.open_next()
        elif self._on_screen(current) and self.save_now():  # which also marks what was painted since the last look
            self.segment(into_mask=self.queue.entry(current).status in (Status.UNSEEN, Status.SEGMENTED))

    def close_image(self) -> None:
        """Take the image off the screen; `InputError` when its mask cannot be saved, which then stays."""
        if not self.save_now():
            raise InputError(texts.NAPARI_STAYS_OPEN.format(name=self.open.name), fix=texts.NAPARI_STAYS_OPEN_FIX)
        self._load = None
        for name in list(self._layers):
            self.drop_layer(name)
        if self.open is not None:
            self.open = None
            self.image_changed.emit()

    def _on_screen(self, name: str) -> bool:
        return self.open is not None and self.open.name == name and self.labels is not None

    def _show(self, name: str, image: np.ndarray, mask: np.ndarray | None, spacing_mm: float | None) -> None:
        if self._on_screen(name):  # its layer came back meanwhile, and may have been painted in
            return
        if mask is not None and mask.shape != image.shape[:2]:
            raise InputError(texts.NAPARI_MASK_SIZE.format(name=name), fix=texts.NAPARI_MASK_SIZE_FIX)
        if not self.save_now():  # what was painted while the new image was loaded
            raise InputError(texts.NAPARI_STAYS_OPEN.format(name=self.open.name), fix=texts.NAPARI_STAYS_OPEN_FIX)
        before, self.open = self.open, None
        for other in _DRAWN:
            self.drop_layer(other)
        empty = mask is None
        mask = np.zeros(image.shape[:2], bool) if empty else mask
        if before is not None and before.image.shape[:2] != mask.shape:
            for other in _OF_ONE_SIZE:
                self.drop_layer(other)
        self._show_layers(image, mask, spacing_mm)
        self.open = OpenImage(name, image, spacing_mm, mask, mask.copy())
        self._mark(None)
        if before is None or before.image.shape[:2] != mask.shape:
            self.viewer.reset_view()
        self.image_changed.emit()
        if self.has_model():
            self.segment(into_mask=empty or self.queue.entry(name).status is Status.UNSEEN)

    def _show_layers(self, image: np.ndarray, mask: np.ndarray, spacing_mm: float | None) -> None:
        layer = self.layer("image")
        if layers.fits(layer, image):
            layers.show_other(layer, image, spacing_mm=spacing_mm)
        else:
            layer = self.keep_layer("image", layers.add_image(self.viewer, image, spacing_mm=spacing_mm))
            self.viewer.layers.move(self.viewer.layers.index(layer), 0)
        if self.labels is not None:
            layers.show_other(self.labels, mask, spacing_mm=spacing_mm)
        else:
            labels = self.keep_layer("mask", layers.add_mask(self.viewer, mask, spacing_mm=spacing_mm))
            labels.mouse_drag_callbacks.append(self._dragged)
        for name in ("probability", "uncertainty"):
            if (layer := self.layer(name)) is not None:
                layers.show_other(layer, np.zeros(mask.shape, np.float32), spacing_mm=spacing_mm)
        self.viewer.layers.selection.active = self.labels

    def segment(
        self,
        *,
        version: str | None = None,
        augmented: bool = False,
        window: tuple[slice, slice] | None = None,
        into_mask: bool = True,
    ) -> None:
        """Let a model look at the image; its mask becomes one undo step of the mask on screen."""
        current, folder, before = self.required_image(), self.model_folder(version), self.mask()

        def work() -> tuple:
            found = find_vessels(current.image, folder, window=window, augmented=augmented)
            return current, found, before if into_mask else None

        self._work(work, self._take_found)

    def _take_found(self, result: tuple) -> None:
        current, found, before = result
        if self.open is not current or self.labels is None:
            return
        name, into_mask = current.name, before is not None
        if into_mask and not np.array_equal(self.mask(), before):  # painted in meanwhile
            into_mask = False
            self.said.emit(texts.NAPARI_PAINTED_MEANWHILE, "")
        self.open.found, self.open.at_doubt = found, -1
        self._show_maps(found)
        if into_mask:
            threshold = found.threshold if self.open.threshold is None else self.open.threshold
            layers.write_mask(self.labels, found.mask(threshold, self.mask()))
            entry = self.queue.entry(name)
            changes = {"uncertainty": found.mean_uncertainty, "scored_by": found.version} if not found.window else {}
            if entry.status in (Status.UNSEEN, Status.SEGMENTED):  # else `look` sees a correction in it
                changes["status"] = Status.SEGMENTED
                self.open.seen = self.mask()  # what a model found is no correction
                self._save_in_background(self.open.seen)
            self.queue.update(name, **changes)
            self.queue_changed.emit()
        self.segmented.emit()

    def _show_maps(self, found: Found) -> None:
        """Probability and uncertainty below the mask, as visible as the user left them."""
        missing = []
        for name, values in (("probability", found.probability), ("uncertainty", found.uncertainty)):
            layer = self.layer(name)
            if layer is not None:
                layer.data = values
            else:
                missing.append((name, values))
        # To add a layer takes napari a tenth of a second, so the window gets a turn before each.
        for turn, (name, values) in enumerate(missing, start=1):
            QTimer.singleShot(_TURN_MS * turn, partial(self._add_map, found, name, values))

    def _add_map(self, found: Found, name: str, values: np.ndarray) -> None:
        if self.open is None or self.open.found is not found or self.labels is None or self.layer(name) is not None:
            return
        active = self.viewer.layers.selection.active
        layer = layers.add_map(self.viewer, values, name=name, spacing_mm=self.open.spacing_mm, visible=False)
        self.keep_layer(name, layer)
        self.viewer.layers.move(self.viewer.layers.index(layer), self.viewer.layers.index(self.labels))
        self.viewer.layers.selection.active = active
        self.maps_changed.emit()

    def set_threshold(self, threshold: float) -> None:
        """Cut the probability elsewhere, as one undo step."""
        current = self.required_image()
        current.threshold = threshold
        if current.found is not None:
            layers.write_mask(self.labels, current.found.mask(threshold, self.mask()))
            self.look()

    def correct(self, tool: Callable[[np.ndarray], np.ndarray]) -> None:
        """Apply ``tool(mask) -> mask`` in the background; what it changed becomes one undo step.

        What is painted in the meantime stays.
        """
        current, before = self.required_image(), self.mask()

        def take(changes: tuple) -> None:
            if self.open is not current or self.labels is None:
                return
            if not layers.write_pixels(self.labels, *changes):
                self.said.emit(texts.NAPARI_NOTHING_CHANGED, "")
            self.look()

        self._work(lambda: layers.pixel_changes(before, tool(before)), take)

    def ridges(self) -> Ridges:
        """Of the open image; called from the background, since it takes a while on a large one."""
        current = self.required_image()
        if current.ridges is None:
            current.ridges = tools.find_ridges(current.image, self.required_project().modality)
        return current.ridges

    def jump(self, by: int) -> None:
        """Bring the next (or an earlier) of the least certain segments to the middle."""
        current = self.required_image()
        doubts = current.found.doubts if current.found is not None else []
        if not doubts:
            raise InputError(texts.NAPARI_NO_DOUBTS, fix=texts.NAPARI_NO_DOUBTS_FIX)
        first = current.at_doubt < 0 and by < 0
        current.at_doubt = len(doubts) - 1 if first else (current.at_doubt + by) % len(doubts)
        doubt = doubts[current.at_doubt]
        self._mark((doubt.row, doubt.col))
        layers.look_at(self.viewer, self.labels, (doubt.row, doubt.col))
        text = texts.NAPARI_DOUBT.format(at=current.at_doubt + 1, count=len(doubts), uncertainty=doubt.uncertainty)
        self.said.emit(text, "")

    def _mark(self, pixel: tuple[float, float] | None) -> None:
        """A ring around the segment that is meant."""
        layer = self.layer("here")
        if layer is None:
            if pixel is None:
                return
            layer = self.keep_layer("here", layers.add_marker(self.viewer, spacing_mm=self.open.spacing_mm))
        layers.mark(layer, pixel, spacing_mm=self.open.spacing_mm)
        self.viewer.layers.selection.active = self.labels

    def approve(self) -> None:
        """Say that the mask is right; it trains from the next retraining on."""
        current, mask = self.required_image(), self.mask()
        if not mask.any():
            raise InputError(texts.PAINT_EMPTY, fix=texts.PAINT_EMPTY_FIX)
        if not np.array_equal(mask, current.saved):
            self._write(current.name, mask)
        current.seen = mask
        self.queue.update(current.name, status=Status.APPROVED)
        self.queue_changed.emit()
        self.said.emit(texts.NAPARI_APPROVED.format(name=current.name), "")

    # --- saving

    def _dragged(self, _: Labels, event) -> Iterator[None]:
        """What napari calls at a press, at every move and at the release."""
        self._dragged_at = time.monotonic()
        yield
        while event.type == "mouse_move":
            self._dragged_at = time.monotonic()
            yield
        self._dragged_at = -math.inf

    def _look_by_timer(self) -> None:
        """What goes wrong is said once, and not at every look."""
        problem = ""
        try:
            self.look()
        except Exception as error:  # a slot that raises would end the window on some platforms
            problem = str(error)
            if problem != self._problem:
                self._fail(error)
        self._problem = problem

    def look(self) -> None:
        """See whether the mask was changed, by whatever means, and save it when the last time was long ago.

        Not in the middle of a stroke, where it would make the brush of a large image lag, unless it is a long one.
        """
        if self._viewer() is None:
            self._timer.stop()
            return
        now = time.monotonic()
        if now - self._dragged_at < _HAND_RESTS_S and now - self._looked_at < preferences.autosave_seconds():
            return
        self._looked_at = now
        mask = self.mask()
        if mask is None:
            return
        is_saved = self._saving or np.array_equal(mask, self.open.saved)
        if not is_saved and time.monotonic() - self._saved_at >= preferences.autosave_seconds():
            self._save_in_background(mask)
        if not np.array_equal(mask, self.open.seen):
            self._mark_corrected()  # last, as this may fail: then it is tried again at the next look
            self.open.seen = mask
            self.mask_changed.emit()

    def save_now(self) -> bool:
        """Write an unsaved mask before this returns; False when it could not be, which is said."""
        unsaved = self._unsaved()
        if unsaved is not None:
            try:
                if not np.array_equal(unsaved[1], self.open.seen):
                    self._mark_corrected()
                self._write(*unsaved)
            except InputError as error:
                self._fail(error)
                return False
        return True

    def _unsaved(self) -> tuple[str, np.ndarray] | None:
        """Name and mask of the image on screen when the mask is not on the disk as it is."""
        mask = self.mask() if self._viewer() is not None else None
        return None if mask is None or np.array_equal(mask, self.open.saved) else (self.open.name, mask)

    def _save_in_background(self, mask: np.ndarray) -> None:
        current, queue, ticket = self.open, self.queue, self._writer.ticket()
        self._saving, self._saved_at = True, time.monotonic()

        def done(_: object) -> None:
            self._saving = False
            current.saved = mask

        def failed(error: Exception) -> None:
            self._saving = False
            self._fail(error)

        in_background(self._writer.write, queue, current.name, mask, ticket, current.saved, done=done, failed=failed)

    def _write(self, name: str, mask: np.ndarray) -> None:
        self._writer.write(self.queue, name, mask, self._writer.ticket(), self.open.saved)
        self.open.saved = self.open.seen = mask
        self._saved_at = time.monotonic()

    def _mark_corrected(self) -> None:
        """A segmented image that was painted in is a corrected one, and one approved before needs a new look."""
        entry = self.queue.entry(self.open.name)
        if entry.status is not Status.CORRECTED:
            self.queue.update(entry.name, status=Status.CORRECTED)
            self.queue_changed.emit()

    # --- the background

    def _work(
        self,
        work: Callable[[], object],
        done: Callable[[object], None],
        failed: Callable[[Exception], None] | None = None,
    ) -> None:
        self._count(1)

        def take(result: object) -> None:
            try:
                done(result)
            except Exception as error:  # said in the panel, as those of the work itself
                self._fail(error)
            self._count(-1)  # last, so that work which follows from this is no new beginning

        def take_error(error: Exception) -> None:
            (failed or self._fail)(error)
            self._count(-1)

        in_background(work, done=take, failed=take_error)

    def _count(self, by: int) -> None:
        """Says that work has begun, and that all of it has ended, and nothing in between over what else was said."""
        before, self.busy = self.busy, self.busy + by
        if not before or not self.busy:
            self.said.emit(texts.NAPARI_WORKING if self.busy else "", "")

    def _fail(self, error: Exception) -> None:
        self.said.emit(in_words(error), "error")


_sessions: list[tuple[weakref.ref, Session]] = []


def session_of(viewer: Viewer) -> Session:
    """The session of `viewer`, made when it is first asked for."""
    viewer = getattr(viewer, "__wrapped__", viewer)  # napari hands panels a proxy
    _sessions[:] = [(reference, session) for reference, session in _sessions if reference() is not None]
    for reference, session in _sessions:
        if reference() is viewer:
            return session
    session = Session(viewer)
    _sessions.append((weakref.ref(viewer), session))
    from app.napari_plugin.keys import bind_keys

    bind_keys(viewer, session)
    return session


def _score(queue: ImageQueue, name: str, folder: Path) -> float | None:
    try:
        return find_vessels(queue.image(name), folder, rank=False).mean_uncertainty
    except InputError:  # said when somebody opens it; the others must get their turn
        return None
