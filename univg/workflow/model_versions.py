"""Which of a project's segmenters is in use, and how they compare; none is ever replaced or deleted.

Versions are compared on one annotated image, the same for all: it is frozen with the first version or adapted engine.
Figures on it date from before it joined the training of a version.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from univg.errors import InputError
from univg.io import read_json, write_json_atomic
from univg.segmentation.config import NETWORKS
from univg.workflow import support_store
from univg.workflow.folder_access import append_lines, locked, utc_now, writing
from univg.workflow.project import Project

if TYPE_CHECKING:
    from univg.workflow.job_context import JobContext, JobPart

LOG = "active.jsonl"
FROZEN = "held_out.json"
DEFAULT_NETWORK = "unet"
WORSE_BY = 0.005  # Dice by which a new segmenter may fall short on the held-out image and still replace the old one


@dataclass(frozen=True)
class FrozenImage:
    """The annotated image on which all versions of a project are compared, and the hashes of its mask and picture.

    Records of earlier versions have no hash of the picture: it is empty there.
    """

    name: str
    mask_sha256: str
    image_sha256: str = ""

    @classmethod
    def among(cls, hashes: Mapping[str, str], name: str) -> FrozenImage:
        """The image called `name` among `hashes` as in `SupportSet.sha256`; what they lack is empty."""
        images = (sha for file, sha in hashes.items() if file.startswith("images/") and Path(file).stem == name)
        return cls(name, str(hashes.get(f"masks/{name}.png", "")), str(next(images, "")))

    def is_same_as(self, other: FrozenImage) -> bool:
        """Whether both have one name, mask and, where both records say, picture."""
        pictures = {self.image_sha256, other.image_sha256} - {""}
        return self.name == other.name and self.mask_sha256 == other.mask_sha256 != "" and len(pictures) < 2


@dataclass(frozen=True)
class HeldOut:
    """How a segmenter did on the image that was kept apart from its training, before the image joined it.

    Attributes
    ----------
    name : str
        Of the image.
    mask_sha256 : str
        Of its mask as it was then.
    dice, cldice : float
        NaN where not known.
    image_sha256 : str
        Of the image itself; empty where not known.
    """

    name: str
    mask_sha256: str
    dice: float
    cldice: float
    image_sha256: str = ""

    @property
    def image(self) -> FrozenImage:
        return FrozenImage(self.name, self.mask_sha256, self.image_sha256)

    def comparable_with(self, other: HeldOut) -> bool:
        return self.image.is_same_as(other.image)


@dataclass(frozen=True)
class Settled:
    """Whether a new segmenter is in use now, and why.

    Attributes
    ----------
    active : str
        The version in use.
    reason : {'first', 'better', 'worse', 'not comparable'}
    old, new : HeldOut or None
    before : str
        The version that was in use before; empty when there was none.
    """

    active: str
    reason: str
    old: HeldOut | None
    new: HeldOut | None
    before: str = ""

    def to_json(self) -> dict:
        return {
            "active": self.active,
            "reason": self.reason,
            "before": self.before,
            "dice_before": None if self.old is None else self.old.dice,
            "dice_after": None if self.new is None else self.new.dice,
        }


@dataclass(frozen=True)
class Version:
    """A segmenter as a row of a table.

    Attributes
    ----------
    name : str
        Such as ``"v002"``.
    made : datetime
        In UTC.
    real, synthetic : int
        Pairs that it was trained on, the held-out one not counted.
    figures : HeldOut or None
        On the frozen image; None where they say nothing, for the `reason`.
    reason : {'', 'trained on it', 'another mask', 'not held out'}
        Why `figures` is None: the frozen image was among those that trained; its mask, or the image itself, was
        another one then; or no image was held out at all.
    in_use : bool
    """

    name: str
    made: datetime
    real: int
    synthetic: int
    figures: HeldOut | None
    reason: str
    in_use: bool


def active_segmenter(project: Project) -> Path | None:
    """The folder of the segmenter in use: the one promoted last, or the newest where none ever was."""
    versions = project.segmenter_versions()
    if not versions:
        return None
    promoted = [version for version in _promoted(project) if version in versions]
    return project.segmenters_folder / (promoted[-1] if promoted else versions[-1])


def network_in_use(project: Project) -> str:
    """The kind of network of the segmenter in use; the U-Net where there is none, or its card cannot be read."""
    folder = active_segmenter(project)
    try:
        network = read_json(folder / "segmenter.json")["config"]["network"] if folder else DEFAULT_NETWORK
    except (InputError, KeyError, TypeError):
        return DEFAULT_NETWORK
    return network if network in NETWORKS else DEFAULT_NETWORK


def used_before(project: Project) -> str:
    """The version that was in use before the one that is now; empty when there was none."""
    active = active_segmenter(project)
    known = set(project.segmenter_versions())
    earlier = [version for version in _promoted(project) if version in known and active and version != active.name]
    return earlier[-1] if earlier else ""


def promote(project: Project, version: str, *, why: str = "chosen") -> None:
    """Use `version` from now on; the choice is appended to a log.

    Raises
    ------
    InputError
        If there is no such version.
    """
    if version not in project.segmenter_versions():
        known = ", ".join(project.segmenter_versions()) or "none"
        raise InputError(f"There is no model {version!r}", path=project.path, fix=f"There are: {known}.")
    line = json.dumps({"version": version, "time": utc_now(), "why": why}) + "\n"
    file = project.segmenters_folder / LOG
    with locked(project.path / ".lock"), writing(project.segmenters_folder):
        append_lines(file, line)


def settle(project: Project, version: str) -> Settled:
    """Decide whether the new `version` replaces the segmenter in use: unless it is worse on the same held-out image.

    Decided again, as by a job that was killed meanwhile, it stays the same.
    """
    in_use = active_segmenter(project)
    new = held_out_of(project.segmenters_folder / version)
    others = [v for v in project.segmenter_versions() if v != version]
    if in_use is not None and in_use.name == version:  # nothing was promoted so far, or this was decided before
        before = used_before(project) or (others[-1] if others else "")
        in_use = project.segmenters_folder / before if before else None
    _freeze_unless_one_is(project, new)
    if in_use is None:
        promote(project, version, why="first")
        return Settled(version, "first", None, new)
    old = held_out_of(in_use)
    if old is None or new is None or not new.comparable_with(old):
        reason, active = "not comparable", version
    elif new.dice < old.dice - WORSE_BY:
        reason, active = "worse", in_use.name
    else:
        reason, active = "better", version
    promote(project, active, why=reason)
    return Settled(active, reason, old, new, in_use.name)


def held_out_of(folder: Path) -> HeldOut | None:
    """The figures in a segmenter's card; None where no image was held out or the card cannot be read."""
    try:
        card = read_json(folder / "segmenter.json")["card"]
        name, figures = card["held_out"], card["held_out_figures"]
        hashes = card.get("support_sha256", {})
    except (InputError, KeyError, TypeError):
        return None
    if not name or "dice" not in figures:
        return None
    image, cldice = FrozenImage.among(hashes, str(name)), float(figures.get("cldice", float("nan")))
    return HeldOut(image.name, image.mask_sha256, float(figures["dice"]), cldice, image.image_sha256)


def frozen_image(project: Project) -> FrozenImage | None:
    """The image on which versions are compared; for older projects, that of their first version which held one out."""
    file = project.segmenters_folder / FROZEN
    if file.is_file():
        try:
            data = read_json(file)
            return FrozenImage(str(data["name"]), str(data["mask_sha256"]), str(data.get("image_sha256", "")))
        except (InputError, KeyError, TypeError):
            pass  # damaged: as if it had not been written
    for version in project.segmenter_versions():
        figures = held_out_of(project.segmenters_folder / version)
        if figures is not None and figures.mask_sha256:
            return figures.image
    return None


def frozen_as_now(project: Project) -> FrozenImage | None:
    """The frozen image with the hashes that its files have now; None when it is not in the project."""
    name = name_to_hold_out(project)
    return None if name is None else _image_as_now(project, name)


def name_to_hold_out(project: Project) -> str | None:
    """The frozen image, for a training to keep apart; None when it is no longer in the project.

    Whatever its mask is now: with another one, too, it is the image that nothing else has seen.
    """
    frozen = frozen_image(project)
    return frozen.name if frozen is not None and frozen.name in project.support_names() else None


def freeze(project: Project, name: str) -> None:
    """Compare versions from now on on the annotated image called `name`, as it is now."""
    chosen = _image_as_now(project, name)
    if chosen != frozen_image(project):
        with locked(project.path / ".lock"), writing(project.segmenters_folder):
            project.segmenters_folder.mkdir(exist_ok=True)
            _write_frozen(project, chosen)


def image_kept_apart(project: Project) -> str | None:
    """The image that engines and synthetic pairs must not see: the frozen one, or one that is drawn and frozen now.

    None with fewer than three pairs, of which none can be spared.
    """
    names = project.support_names()
    if len(names) < 3:
        return name_to_hold_out(project)
    name = name_to_hold_out(project) or names[int(np.random.default_rng(0).integers(len(names)))]
    freeze(project, name)
    return name


def kept_apart_in(job: JobContext | JobPart, project: Project, params: Mapping) -> str | None:
    """`image_kept_apart` for the job of an engine, put on record in its checkpoint: another may be frozen meanwhile."""
    if "without" in params:
        return params["without"]
    record = job.checkpoint_folder / "kept_apart.json"
    if not record.is_file():
        begun = any(job.checkpoint_folder.rglob("*.safetensors"))  # by an earlier version, which kept none apart
        name = None if begun else image_kept_apart(project)
        write_json_atomic(record, {"name": name})
    return read_json(record)["name"]


def compare_versions(project: Project) -> list[Version]:
    """Every version of `project`, the newest first, with its figures on the frozen image where they mean something."""
    frozen, active = frozen_image(project), active_segmenter(project)
    rows = []
    for name in reversed(project.segmenter_versions()):
        folder = project.segmenters_folder / name
        card = _card(folder)
        figures, reason = _comparable_figures(folder, card, frozen)
        rows.append(
            Version(
                name,
                datetime.fromtimestamp(folder.stat().st_mtime, UTC),
                len(card.get("train") or ()),
                int(card.get("synthetic_pairs") or 0),
                figures,
                reason,
                active is not None and active.name == name,
            )
        )
    return rows


def _comparable_figures(folder: Path, card: dict, frozen: FrozenImage | None) -> tuple[HeldOut | None, str]:
    figures = held_out_of(folder)
    if frozen is None or (figures is None and frozen.name not in (card.get("train") or ())):
        return None, "not held out"
    if figures is None or figures.name != frozen.name:
        return None, "trained on it" if frozen.name in (card.get("train") or ()) else "not held out"
    return (figures, "") if figures.image.is_same_as(frozen) else (None, "another mask")


def _freeze_unless_one_is(project: Project, held_out: HeldOut | None) -> None:
    """Freeze the image of `held_out`, unless one is that is still in the project as it was."""
    if held_out is None or not held_out.mask_sha256:
        return
    frozen, now = frozen_image(project), frozen_as_now(project)
    chosen = now if frozen is not None and now is not None and frozen.is_same_as(now) else held_out.image
    if chosen != frozen or not (project.segmenters_folder / FROZEN).is_file():
        _write_frozen(project, chosen)


def _image_as_now(project: Project, name: str) -> FrozenImage:
    return FrozenImage.among(support_store.content_hashes(project.support_folder, [name]), name)


def _write_frozen(project: Project, frozen: FrozenImage) -> None:
    write_json_atomic(project.segmenters_folder / FROZEN, {**asdict(frozen), "frozen": utc_now()})


def _card(folder: Path) -> dict:
    try:
        card = read_json(folder / "segmenter.json")["card"]
    except (InputError, KeyError, TypeError):
        return {}
    return card if isinstance(card, dict) else {}


def _promoted(project: Project) -> list[str]:
    file = project.segmenters_folder / LOG
    if not file.is_file():
        return []
    versions = []
    for line in file.read_bytes().splitlines():
        try:
            versions.append(str(json.loads(line)["version"]))
        except (ValueError, KeyError, TypeError):
            continue  # a crash tore the line
    return versions
