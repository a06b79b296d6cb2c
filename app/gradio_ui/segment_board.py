"""The images of the Segment tab: a queue that one thread works off, so that a closed page loses nothing."""

from __future__ import annotations

import logging
import shutil
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from app import texts
from app.gradio_ui import models, pictures
from app.gradio_ui.errors import anonymous_trace
from app.gradio_ui.files import MASK_ENDINGS, Upload, read_single_image, read_single_mask
from univg.errors import InputError
from univg.io import sha256_file
from univg.metrics import SegmentationMetrics, evaluate

MAX_IMAGES = 200
MAX_CACHED_BYTES = 256 << 20

_log = logging.getLogger("univg.app")


@dataclass(frozen=True)
class Run:
    """How a result was made."""

    version: str
    model: Path
    augmented: bool

    @property
    def label(self) -> str:
        return texts.SEG_AUGMENTED.format(version=self.version) if self.augmented else self.version


@dataclass(frozen=True)
class Item:
    """One dropped image and what became of it."""

    name: str
    upload: Upload
    reference: Upload | None = None
    state: str = "new"
    problem: str = ""
    run: Run | None = None
    shape: tuple[int, int] = (0, 0)
    seconds: float = 0.0
    model_threshold: float = 0.5
    sha256: str = ""
    figures: SegmentationMetrics | None = None
    figures_at: float | None = None
    earlier: Item | None = None  # its finished result, until another run has one
    thumbnail: np.ndarray | None = field(default=None, compare=False)
    small: np.ndarray | None = field(default=None, compare=False)  # the probability at the size of the thumbnail


@dataclass(frozen=True)
class Arrays:
    """What is needed to draw an item, at the size of its image."""

    image: np.ndarray
    probability: np.ndarray | None = None
    reference: np.ndarray | None = None

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in (self.image, self.probability, self.reference) if a is not None)


class Board:
    """The items of one page; safe to use from the thread that works and those that answer the page.

    Attributes
    ----------
    revision : int
        Counts changes, so that a page sees when to draw again.
    threshold : float or None
        Chosen by the user; None means the model's own.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._items: dict[str, Item] = {}
        self._cache: OrderedDict[str, Arrays] = OrderedDict()
        self._keeps_arrays = True
        self._generation = 0
        self._files_version = 0
        self.revision = 0
        self.selected = ""
        self.threshold: float | None = None

    @property
    def items(self) -> list[Item]:
        with self._lock:
            return list(self._items.values())

    @property
    def busy(self) -> bool:
        return any(item.state in ("waiting", "working") for item in self.items) or self.measuring

    @property
    def measuring(self) -> bool:
        """Whether figures of the present threshold are still to come."""
        return any(self._needs_figures(item) for item in self.items)

    def get(self, name: str) -> Item | None:
        with self._lock:
            return self._items.get(name)

    @property
    def selected_item(self) -> Item | None:
        with self._lock:
            return self._items.get(self.selected) or next(iter(self._items.values()), None)

    def threshold_of(self, item: Item) -> float:
        return item.model_threshold if self.threshold is None else self.threshold

    def clear(self) -> None:
        """Forget every image; work on them that has not begun is not done."""
        with self._lock:
            self._generation += 1
            self._items, self._cache = {}, OrderedDict()
            self.selected, self.threshold = "", None
            self.revision += 1
        shutil.rmtree(self._folder, ignore_errors=True)

    def keep_arrays(self, keep: bool) -> None:
        """Whether arrays stay in memory between uses: not while nobody looks, when the queue is worked off alone."""
        with self._lock:
            self._keeps_arrays = keep
            if not keep:
                self._cache.clear()

    def set_files(self, images: Sequence[Upload], references: Sequence[Upload]) -> list[str]:
        """Take the dropped files; results of images that are still there are kept. Returns problems, as sentences."""
        if len(images) > MAX_IMAGES:
            raise InputError(texts.SEG_TOO_MANY.format(got=len(images), limit=MAX_IMAGES), fix=texts.SEG_TOO_MANY_FIX)
        problems: list[str] = []
        image_files, reference_files = _stems(images, problems), _stems(references, problems)
        items = {}
        with self._lock:  # throughout: the worker must not finish an image between being read and written here
            for stem, upload in image_files.items():
                endings = ("", *MASK_ENDINGS)
                reference = next((r for end in endings if (r := reference_files.pop(stem + end, None))), None)
                old = self._items.get(stem)
                if old is None or old.upload != upload or old.state == "failed":
                    items[stem] = Item(stem, upload, reference)
                elif old.reference != reference:
                    items[stem] = replace(old, reference=reference, figures=None, problem="")
                else:
                    items[stem] = old
            self._items = items
            self._cache.clear()
            self._files_version += 1
            if self.selected not in items:
                self.selected = next(iter(items), "")
            self.revision += 1
            generation = self._generation
        problems += [f"{upload.name}: {texts.SEG_REFERENCE_ALONE}" for upload in reference_files.values()]
        for item in self.items:
            if item.thumbnail is None:
                models.reader.submit(self._preview, item.name, generation)
        self._measure_later()
        return problems

    def start(self, run: Run, device: str) -> None:
        """Queue every image that has no result of `run` yet."""
        with self._lock:
            for item in self._items.values():
                if item.state in ("waiting", "working"):
                    continue
                if item.state == "done" and item.run == run:
                    if item.problem:  # of another model, or of a reference: this result is fine
                        self._update(item.name, problem="")
                    continue
                earlier = item if item.state == "done" else item.earlier
                self._update(item.name, state="waiting", problem="", run=run, figures=None, earlier=earlier)
                models.worker.submit(self._work, item.name, run, device, self._generation)

    def stop(self) -> None:
        """Take back what waits; the image in work is finished."""
        with self._changed:
            for item in self.items:
                if item.state == "waiting":
                    self._update(item.name, **_as_before(item, state="new"))
        self._measure_later()

    def wait(self, name: str, seconds: float) -> None:
        """Return when `name` is done, or after `seconds`."""
        with self._changed:
            self._changed.wait_for(
                lambda: (item := self._items.get(name)) is None or item.state not in ("waiting", "working"), seconds
            )

    def set_threshold(self, threshold: float | None) -> None:
        """Use `threshold` for all images, or what each model chose for itself, and measure them again."""
        with self._lock:
            self.threshold = threshold
            self.revision += 1
        self._measure_later()

    def arrays(self, item: Item) -> Arrays:
        """Image, probability and reference of `item`, from memory when they were used recently."""
        with self._lock:
            version = self._files_version
            if item.name in self._cache:
                self._cache.move_to_end(item.name)
                return self._cache[item.name]
        image = read_single_image(item.upload)
        if item.state == "done":
            arrays = Arrays(image, np.load(self._probability_file(item.name)), self._read_reference(item))
        else:
            arrays = Arrays(image)
        with self._lock:
            if version == self._files_version and self._items.get(item.name) is item:
                self._remember(item.name, arrays)
        return arrays

    def _preview(self, name: str, generation: int) -> None:
        """Read the image once after it was dropped: it gets a thumbnail, or is found unusable at once."""
        item = self.get(name)
        if generation != self._generation or item is None or item.thumbnail is not None:
            return
        try:
            image = read_single_image(item.upload)
            reference = self._read_reference(item)
            _check_reference(item, image, reference)
            thumbnail = pictures.as_rgb(pictures.reduce(image, pictures.THUMBNAIL_SIDE))
            found = {"thumbnail": thumbnail, "shape": image.shape[:2]}
        except Exception as error:
            found = {"state": "failed", "problem": _reason(error)}
        with self._lock:
            current = self._items.get(name)
            unchanged = current is not None and (current.upload, current.reference) == (item.upload, item.reference)
            if unchanged and current.thumbnail is None and current.state != "done":
                self._update(name, **found)

    def _work(self, name: str, run: Run, device: str, generation: int) -> None:
        with self._lock:
            item = self._items.get(name)
            if generation != self._generation or item is None or item.state != "waiting" or item.run != run:
                return
            self._update(name, state="working")
        try:
            self._compute(item, run, device, generation)
        except Exception as error:
            with self._lock:
                current = self._in_work(item, generation)
                if current is not None:
                    self._update(name, **_as_before(current, state="failed"), problem=_problem(current, error))
        self._measure_later()

    def _compute(self, item: Item, run: Run, device: str, generation: int) -> None:
        """Segment `item` and keep the result, unless the page wants something else of it by then."""
        segmenter = models.load_segmenter(run.model, device)
        image = read_single_image(item.upload)
        reference = self._read_reference(item)
        _check_reference(item, image, reference)
        probability, seconds = models.timed_probability(image, segmenter, augmented=run.augmented)
        found = {
            "thumbnail": pictures.as_rgb(pictures.reduce(image, pictures.THUMBNAIL_SIDE)),
            "small": pictures.reduce(probability, pictures.THUMBNAIL_SIDE).astype(np.float16),
            "shape": image.shape[:2],
            "seconds": seconds,
            "model_threshold": segmenter.threshold,
            "sha256": sha256_file(item.upload.path),
        }
        with self._lock:
            current = self._in_work(item, generation)
            if current is None:
                return
            self._keep(item.name, probability)
            self._update(item.name, state="done", **found, figures=None, figures_at=None, earlier=None)
            if current.reference == item.reference:
                self._remember(item.name, Arrays(image, probability, reference))

    def _in_work(self, begun: Item, generation: int) -> Item | None:
        """`begun` as it is now; None when its image was taken away, dropped anew or is to be run by another model.

        Call it with the lock held.
        """
        current = self._items.get(begun.name)
        if generation != self._generation or current is None or current.state != "working":
            return None
        return current if (current.run, current.upload) == (begun.run, begun.upload) else None

    def _keep(self, name: str, probability: np.ndarray) -> None:
        """Write the array beside its place first: a full disk must not cost the result that is there."""
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = self._folder / ".writing.npy"  # one at a time, as the lock is held
        try:
            np.save(temporary, probability)
            temporary.replace(self._probability_file(name))
        finally:
            temporary.unlink(missing_ok=True)

    def _measure_later(self) -> None:
        for item in self.items:
            if self._needs_figures(item):
                models.worker.submit(self._measure, item.name, self._generation)

    def _measure(self, name: str, generation: int) -> None:
        item = self.get(name)
        if generation != self._generation or item is None or not self._needs_figures(item):
            return
        threshold = self.threshold_of(item)
        try:
            arrays = self.arrays(item)
            _check_reference(item, arrays.image, arrays.reference)  # it may have been dropped after the segmenting
            figures = evaluate(arrays.probability >= threshold, arrays.reference, probability=arrays.probability)
            found = {"figures": figures, "figures_at": threshold}
        except Exception as error:
            found = {"problem": _reason(error), "reference": None}
        with self._lock:
            current = self._items.get(name)
            # Meanwhile another model may have begun with the image, or another reference may have been dropped.
            if generation == self._generation and current is not None and _measured(current) == _measured(item):
                self._update(name, **found)

    def _needs_figures(self, item: Item) -> bool:
        if item.state != "done" or item.reference is None:
            return False
        return item.figures is None or item.figures_at != self.threshold_of(item)

    def _read_reference(self, item: Item) -> np.ndarray | None:
        return None if item.reference is None else read_single_mask(item.reference)

    def _update(self, name: str, **changes: object) -> None:
        with self._changed:
            if {"state", "run"} & changes.keys():
                self._cache.pop(name, None)  # it may lack the probability, or have that of another run
            if name in self._items:
                self._items[name] = replace(self._items[name], **changes)
            self.revision += 1
            self._changed.notify_all()

    def _remember(self, name: str, arrays: Arrays) -> None:
        with self._lock:
            if not self._keeps_arrays:
                return
            self._cache[name] = arrays
            self._cache.move_to_end(name)
            while len(self._cache) > 1 and sum(a.nbytes for a in self._cache.values()) > MAX_CACHED_BYTES:
                self._cache.popitem(last=False)

    def _probability_file(self, name: str) -> Path:
        return self._folder / f"{name}.npy"


def _as_before(item: Item, *, state: str) -> dict:
    """What changes when the run that `item` waited for gives nothing: back to its earlier result, or to `state`."""
    before = item.earlier
    if before is None:
        return {"state": state}
    names = ("state", "run", "seconds", "model_threshold", "sha256", "thumbnail", "small")
    return {**{name: getattr(before, name) for name in names}, "earlier": None, "figures_at": None}


def _measured(item: Item) -> tuple:
    """What figures are of: a result and a reference."""
    return item.state, item.run, item.upload, item.reference


def _reason(error: Exception) -> str:
    """Why an image failed, for people; what nobody expected goes to the log as well, without names of files."""
    if isinstance(error, InputError):
        return f"{error.problem}. {error.fix}".strip()
    _log.error("%s", anonymous_trace(error))
    return texts.UNEXPECTED.format(kind=type(error).__name__)


def _problem(item: Item, error: Exception) -> str:
    """Why a run failed, and whose result is there instead."""
    reason = _reason(error)
    if item.earlier is None or item.earlier.run is None:
        return reason
    return texts.SEG_KEPT_EARLIER.format(failed=item.run.label, reason=reason, kept=item.earlier.run.label)


def _check_reference(item: Item, image: np.ndarray, reference: np.ndarray | None) -> None:
    if reference is not None and reference.shape != image.shape[:2]:
        sizes = {"reference": item.reference.name, "got": _size(reference), "expected": _size(image)}
        raise InputError(texts.SEG_REFERENCE_SIZE.format(**sizes), fix=texts.SEG_REFERENCE_SIZE_FIX)


def _stems(files: Sequence[Upload], problems: list[str]) -> dict[str, Upload]:
    found: dict[str, Upload] = {}
    for upload in files:
        try:
            stem = upload.stem
        except InputError as error:
            problems.append(str(error))
            continue
        if stem in found:
            problems.append(f"{upload.name}: {texts.SAME_NAME.format(what='file')} {texts.SAME_NAME_FIX}")
        else:
            found[stem] = upload
    return found


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]} × {array.shape[0]}"
