"""The images of a project that are worked on in napari: how far each is, and which one is worth most next.

Kept in the project's ``queue`` folder: ``queue.json``, and the masks being corrected in ``queue/masks``, each beside a
note of the project's mask that it is to replace and of the image that it was drawn on. Annotated pairs of the project
belong to the queue too; their masks stay where they are until a correction is approved.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

import numpy as np

from app import texts
from univg.errors import InputError
from univg.io import (
    check_stem,
    read_image,
    read_image_info,
    read_json,
    read_mask,
    sha256_file,
    stem_of,
    write_json_atomic,
    write_mask,
)
from univg.io.source import SUFFIXES
from univg.types import ImageMaskPair
from univg.workflow.folder_access import locked, writing
from univg.workflow.project import Project

QUEUE_SCHEMA = 2
FOLDER, FILE = "queue", "queue.json"

# Of two eyes of a person, one must not train while the other is held out.
_SIDE = re.compile(r"[ _.-]+(left|right|l|r|od|os)$", re.IGNORECASE)


class Status(StrEnum):
    UNSEEN = "unseen"
    SEGMENTED = "segmented"
    CORRECTED = "corrected"
    APPROVED = "approved"


@dataclass(frozen=True)
class QueueEntry:
    """One image.

    Attributes
    ----------
    name : str
        As that of the pair it becomes.
    file : str
        Absolute path of the image; empty for a pair that the project holds.
    status : Status
    patient : str
        Images of one patient are held out together.
    held_out : bool
        Never trains; what models are compared on.
    frozen : bool
        Whether a training has relied on that, so that it cannot be changed any more.
    uncertainty : float or None
        Mean over the frame, by the model `scored_by`.
    taken_out : bool
        Not in the list, yet remembered for when it is added again: whether it is a test image must not be lost.
    """

    name: str
    file: str = ""
    status: Status = Status.UNSEEN
    patient: str = ""
    held_out: bool = False
    frozen: bool = False
    uncertainty: float | None = None
    scored_by: str = ""
    taken_out: bool = False

    @property
    def annotated(self) -> bool:
        """Whether the project holds it as a pair."""
        return not self.file


@dataclass(frozen=True)
class TakenIn:
    """What became of the approved images, by name.

    Attributes
    ----------
    changed : list of str
        Pairs of the project that are new or got another mask.
    other_image : list of str
        Left out: the pair of that name has another image, which the mask was not drawn on.
    painted_since : list of str
        Left out: the project's mask was painted meanwhile, which must not be lost without a word.
    """

    changed: list[str] = field(default_factory=list)
    other_image: list[str] = field(default_factory=list)
    painted_since: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ImageQueue:
    """The queue of `project`; every method looks at the disk, so that two viewers may share it."""

    project: Project

    @property
    def folder(self) -> Path:
        return self.project.path / FOLDER

    def entries(self) -> list[QueueEntry]:
        """Added images in their order, then the annotated pairs that were not added here."""
        annotated = self.project.support_names()
        return [entry for entry in self._all() if not entry.taken_out or entry.name in annotated]

    def _all(self) -> list[QueueEntry]:
        """With those that were taken out of the list."""
        known = self._read()
        named = {entry.name for entry in known}
        annotated = self.project.support_names()
        pairs = [name for name in annotated if name not in named]
        known = [entry for entry in known if entry.file or entry.name in annotated]  # a pair may have been removed
        known = [replace(e, status=self._status_now(e, annotated)) for e in known]
        return known + [QueueEntry(name, status=Status.APPROVED, patient=patient_of(name)) for name in pairs]

    def entry(self, name: str) -> QueueEntry:
        """`InputError` when there is no image of this name."""
        return _named(self.entries(), name)

    def add(self, paths: Iterable[str | Path]) -> list[str]:
        """Append images by file or folder; those already there are passed over.

        One that was taken out comes back, and one whose file was moved is found again. Returns the names of all these.
        """
        files = [file for path in paths for file in _image_files(Path(path).expanduser().resolve())]
        if not files:
            raise InputError(texts.NAPARI_NO_FILES, fix=texts.NAPARI_NO_FILES_FIX)
        new: list[QueueEntry] = []
        taken = {entry.name: entry for entry in self._all()}
        listed = {entry.name for entry in self.entries()}
        for file in files:
            name = stem_of(file)
            known = taken.get(name)
            if name in listed and known.file == str(file):
                continue
            if name in listed and (known.annotated or Path(known.file).is_file()):
                raise InputError(texts.NAPARI_NAME_TAKEN.format(name=name), path=file, fix=texts.SAME_NAME_FIX)
            _refuse_frames(file)
            again = self._again(known, file) if known is not None else None
            taken[name] = again or _new_entry(name, file, taken.values())
            listed.add(name)
            new.append(taken[name])
        if new:
            self._change(lambda entries: _with(entries, new))
        return [entry.name for entry in new]

    def take_out(self, name: str) -> None:
        """Take an image out of the list; its file and its mask stay. `InputError` for a pair of the project."""
        self.entry(name)
        if name in self.project.support_names():
            raise InputError(texts.NAPARI_TAKE_OUT_PAIR.format(name=name), fix=texts.NAPARI_TAKE_OUT_PAIR_FIX)
        self.update(name, taken_out=True)

    def _again(self, entry: QueueEntry, file: Path) -> QueueEntry | None:
        """`entry` with `file` as its image; None where `file` is another picture and nothing is kept of the old one."""
        if self._is_picture_of(entry, file):
            return replace(entry, file=str(file), taken_out=False, uncertainty=None, scored_by="")
        if entry.taken_out and not self._mask_file(entry.name).is_file():
            return None
        problem = texts.NAPARI_OTHER_PICTURE.format(name=entry.name)
        raise InputError(problem, path=file, fix=texts.NAPARI_OTHER_PICTURE_FIX)

    def _is_picture_of(self, entry: QueueEntry, file: Path) -> bool:
        """Whether `file` is the image of `entry`: by its hash where that is known, else by its size."""
        mask = self._mask_file(entry.name)
        known = self._note(entry.name).get("image", "") if mask.is_file() else ""
        known = known or _hash_of(entry.file)
        if known:
            return known == sha256_file(file)
        if entry.name in self.project.support_names():
            return self._shows_pair(replace(entry, file=str(file)))
        return not mask.is_file() or _size_of(mask) == _size_of(file)

    def update(self, name: str, **values) -> QueueEntry:
        """Change fields of one image; an annotated pair is written down with it."""
        changed = replace(_named(self._all(), name), **values)
        self._change(lambda entries: _with(entries, [changed]))
        return changed

    def hold_out(self, name: str, held_out: bool) -> None:
        """Keep an image, with all of its patient, from training; `InputError` when it is too late for that."""
        chosen = self.entry(name)
        same = [entry for entry in self._all() if entry.patient == chosen.patient]
        in_project = set(self.project.support_names())
        if held_out and any(entry.name in in_project for entry in same):
            raise InputError(texts.NAPARI_HELD_TRAINED.format(name=name), fix=texts.NAPARI_HELD_TRAINED_FIX)
        if not held_out and any(entry.frozen for entry in same):
            raise InputError(texts.NAPARI_HELD_FROZEN.format(name=name), fix=texts.NAPARI_HELD_FROZEN_FIX)
        patient = chosen.patient
        self._change(lambda old: [replace(e, held_out=held_out) if e.patient == patient else e for e in old])

    def set_patient(self, name: str, patient: str) -> None:
        """Say whom an image shows; it is held out when the others of that patient are."""
        chosen, patient = self.entry(name), patient or name
        if chosen.frozen:
            raise InputError(texts.NAPARI_HELD_FROZEN.format(name=name), fix=texts.NAPARI_HELD_FROZEN_FIX)
        same = [e for e in self._all() if e.patient == patient and e.name != name] + [chosen]
        held_out = any(entry.held_out for entry in same)
        in_project = self.project.support_names()
        if held_out and any(entry.name in in_project for entry in same):
            raise InputError(texts.NAPARI_HELD_TRAINED.format(name=name), fix=texts.NAPARI_HELD_TRAINED_FIX)
        self.update(name, patient=patient, held_out=held_out)
        for entry in same:
            if entry.held_out is not held_out and entry.name != name:
                self.update(entry.name, held_out=held_out)

    def freeze(self) -> list[str]:
        """Fix which images are held out; returns their names."""
        self._change(lambda old: [e if e.taken_out else replace(e, frozen=e.held_out) for e in old])
        return [entry.name for entry in self.entries() if entry.held_out]

    def next_name(self, current: str = "") -> str | None:
        """The most uncertain image that is not approved; unscored ones come after those, in their order."""
        left = [entry for entry in self.entries() if entry.status is not Status.APPROVED and entry.name != current]
        if not left:
            return None
        return min(left, key=lambda e: (e.uncertainty is None, -(e.uncertainty or 0.0))).name

    def image(self, name: str) -> np.ndarray:
        """The pixels of an image, as `univg.io.read_image` gives them."""
        entry = self.entry(name)
        is_there = not entry.annotated and Path(entry.file).is_file()
        if not is_there and name in self.project.support_names():
            return self.project.support_pair(name).image
        if not is_there:
            problem = texts.NAPARI_FILE_GONE.format(name=name)
            raise InputError(problem, path=entry.file, fix=texts.NAPARI_FILE_GONE_FIX)
        return read_image(entry.file)

    def mask(self, name: str) -> np.ndarray | None:
        """The mask being worked on; the project's own of this image where there is none; None before the first."""
        file = self._mask_file(name)
        if file.is_file():
            return read_mask(file)
        of_pair = self._pair_mask(name)
        return of_pair if of_pair is not None and self._shows_pair(self.entry(name)) else None

    def save_mask(self, name: str, mask: np.ndarray, known: np.ndarray | None = None) -> None:
        """Write the mask being worked on, whole or not at all.

        `known` is the mask of the project that it was made from, by default the present one.
        """
        file = self._mask_file(name)
        with writing(self.folder):
            file.parent.mkdir(parents=True, exist_ok=True)
        if not file.is_file():
            self._note_known(name, self._pair_mask(name) if known is None else known)
        write_mask(file, mask)

    def spacing_mm(self, name: str) -> float | None:
        """Size of a pixel: what the file says of itself, else that of the project."""
        entry = self.entry(name)
        own = read_image_info(entry.file).object_spacing_mm if Path(entry.file).is_file() else None
        return own or self.project.pixel_spacing_mm

    def approved_into_support(self) -> TakenIn:
        """Make every approved image that is not held out an annotated pair of the project.

        The mask that was worked on then is the project's, and no longer here: where it is changed, or the pair removed,
        in the browser, that must not be undone by the next training. Where the project's was painted since this one was
        begun, this one stays, as a correction that can be approved again.
        """
        taken = TakenIn()
        in_project = set(self.project.support_names())
        for entry in self.entries():
            file = self._mask_file(entry.name)
            if entry.status is not Status.APPROVED or entry.held_out or not file.is_file():
                continue
            written = file.stat().st_mtime_ns
            mask = read_mask(file)
            if entry.name not in in_project:
                pair = ImageMaskPair(self.image(entry.name), mask, entry.name)
                self.project.add_support_pair(pair, source={"image": entry.file})
                taken.changed.append(entry.name)
            elif not self._shows_pair(entry):
                taken.other_image.append(entry.name)
                continue
            elif self._painted_since(entry.name, mask):
                self._note_known(entry.name, self._pair_mask(entry.name))  # of which the user hears now
                self.update(entry.name, status=Status.CORRECTED)
                taken.painted_since.append(entry.name)
                continue
            elif self.project.replace_support_mask(entry.name, mask) is not None:
                taken.changed.append(entry.name)
            self._note_known(entry.name, mask)
            if file.stat().st_mtime_ns == written:  # else it has been worked on again
                file.unlink()
        return taken

    def held_out_pairs(self) -> list[ImageMaskPair]:
        """Image and approved mask of each held-out image, but for patients of whom an image trains after all.

        An image that is held out here may have been added to the project elsewhere.
        """
        entries, in_project = self.entries(), self.project.support_names()
        train = {entry.patient for entry in entries if entry.name in in_project}
        names = [e.name for e in entries if e.held_out and e.status is Status.APPROVED and e.patient not in train]
        return [ImageMaskPair(self.image(name), mask, name) for name in names if (mask := self.mask(name)) is not None]

    def _status_now(self, entry: QueueEntry, annotated: Sequence[str]) -> Status:
        """That of `entry`, unless it became a pair of the project, or ceased to be one, in the browser, say."""
        if self._mask_file(entry.name).is_file() or entry.status is Status.CORRECTED:
            return entry.status
        if entry.name in annotated and self._shows_pair(entry):
            return Status.APPROVED
        return Status.UNSEEN if entry.status is Status.APPROVED else entry.status

    def _shows_pair(self, entry: QueueEntry) -> bool:
        """Whether `entry` is the image of the pair that the project holds by its name; the browser may add another one.

        Of an image that was moved away, the pair's pixels are shown.
        """
        file = Path(entry.file)
        if entry.annotated or not file.is_file():
            return True
        source, now = self.project.support_source(entry.name), file.stat()
        known = source.get("sources", {}).get("image", {}).get("sha256", "")
        return _same_image(self.project, entry.name, file, (now.st_mtime_ns, now.st_size), known, source.get("added"))

    def _pair_mask(self, name: str) -> np.ndarray | None:
        return self.project.support_pair(name).mask if name in self.project.support_names() else None

    def _painted_since(self, name: str, mask: np.ndarray) -> bool:
        """Whether the project holds another mask than the one that `mask` was made from."""
        held = self._pair_mask(name)
        if np.array_equal(held, mask):
            return False
        return self._note(name).get("replaces") != _fingerprint(held)

    def _note_known(self, name: str, mask: np.ndarray | None) -> None:
        """Of what the mask being worked on was made: the project's mask, and the image."""
        file = next((entry.file for entry in self._read() if entry.name == name), "")
        image = _hash_of(file) or self._note(name).get("image", "")
        write_json_atomic(self._note_file(name), {"replaces": _fingerprint(mask), "image": image})

    def _note(self, name: str) -> dict:
        file = self._note_file(name)
        return read_json(file) if file.is_file() else {}

    def _note_file(self, name: str) -> Path:
        return self._mask_file(name).with_suffix(".json")

    def _mask_file(self, name: str) -> Path:
        return self.folder / "masks" / f"{check_stem(name)}.png"

    def _read(self) -> list[QueueEntry]:
        file = self.folder / FILE
        if not file.is_file():
            return []
        data = read_json(file)
        try:
            if data["schema"] > QUEUE_SCHEMA:
                raise InputError(texts.NAPARI_QUEUE_NEWER, path=file, fix=texts.NAPARI_QUEUE_NEWER_FIX)
            return [QueueEntry(**{**item, "status": Status(item["status"])}) for item in data["images"]]
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(texts.NAPARI_QUEUE_DAMAGED, path=file, fix=texts.NAPARI_QUEUE_DAMAGED_FIX) from error

    def _change(self, change) -> None:
        with writing(self.folder):
            self.folder.mkdir(exist_ok=True)
        with locked(self.project.path / ".lock"):
            entries = change(self._read())
            data = {"schema": QUEUE_SCHEMA, "images": [asdict(entry) for entry in entries]}
            write_json_atomic(self.folder / FILE, data)


def patient_of(name: str) -> str:
    """The name without a trailing side such as ``_left`` or ``-OD``; it can be corrected in the list."""
    return _SIDE.sub("", name)


@lru_cache(maxsize=256)
def _same_image(
    project: Project, name: str, file: Path, _stamp: tuple[int, int], known_sha256: str, _added: str | None
) -> bool:
    """Whether `file` is the image of pair `name`: by the hash of the file it came from, else by its pixels.

    Kept while stamp and pair stay as they are, since the list asks for it again and again.
    """
    try:
        if known_sha256 == sha256_file(file):
            return True
        return project.holds_support_pair(replace(project.support_pair(name), image=read_image(file)))
    except InputError:  # another image, or one that cannot be read
        return False


def _refuse_frames(file: Path) -> None:
    frames = read_image_info(file).frames
    if frames > 1:
        raise InputError(texts.FRAMES.format(frames=frames), path=file, fix=texts.FRAMES_FIX)


def _new_entry(name: str, file: Path, others: Iterable[QueueEntry]) -> QueueEntry:
    """Held out when another image of its patient is."""
    patient = patient_of(name)
    held_out = any(other.held_out and other.patient == patient for other in others)
    return QueueEntry(name, str(file), patient=patient, held_out=held_out)


def _named(entries: Iterable[QueueEntry], name: str) -> QueueEntry:
    for entry in entries:
        if entry.name == name:
            return entry
    raise InputError(texts.NAPARI_NO_SUCH_IMAGE.format(name=name), fix=texts.NAPARI_NO_SUCH_IMAGE_FIX)


def _with(entries: Sequence[QueueEntry], changed: Sequence[QueueEntry]) -> list[QueueEntry]:
    """`entries` with those of `changed` in the place of the ones of their names, and the others after them."""
    left = {entry.name: entry for entry in changed}
    return [left.pop(entry.name, entry) for entry in entries] + list(left.values())


def _hash_of(file: str) -> str:
    """SHA-256 of `file`; empty when there is no such file."""
    return sha256_file(file) if Path(file).is_file() else ""


def _size_of(file: Path) -> tuple[int, int]:
    info = read_image_info(file)
    return info.height, info.width


def _fingerprint(mask: np.ndarray | None) -> str:
    return "" if mask is None else hashlib.sha256(np.packbits(mask)).hexdigest()


def _image_files(path: Path) -> Sequence[Path]:
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and not file.name.startswith("."))
