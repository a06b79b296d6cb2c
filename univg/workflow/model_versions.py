"""Which of a project's segmenters is in use, and how they compare; none is ever replaced or deleted."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from univg.errors import InputError
from univg.io import read_json
from univg.workflow.folder_access import locked, utc_now, writing
from univg.workflow.project import Project

LOG = "active.jsonl"
WORSE_BY = 0.005  # Dice by which a new segmenter may fall short on the held-out image and still replace the old one


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
    """

    name: str
    mask_sha256: str
    dice: float
    cldice: float

    def comparable_with(self, other: HeldOut) -> bool:
        return self.name == other.name and self.mask_sha256 == other.mask_sha256 and bool(self.mask_sha256)


@dataclass(frozen=True)
class Settled:
    """Whether a new segmenter is in use now, and why.

    Attributes
    ----------
    active : str
        The version in use.
    reason : {'first', 'better', 'worse', 'not comparable'}
    old, new : HeldOut or None
    """

    active: str
    reason: str
    old: HeldOut | None
    new: HeldOut | None

    def to_json(self) -> dict:
        return {
            "active": self.active,
            "reason": self.reason,
            "dice_before": None if self.old is None else self.old.dice,
            "dice_after": None if self.new is None else self.new.dice,
        }


def active_segmenter(project: Project) -> Path | None:
    """The folder of the segmenter in use: the one promoted last, or the newest where none ever was."""
    versions = project.segmenter_versions()
    if not versions:
        return None
    promoted = [version for version in _promoted(project) if version in versions]
    return project.segmenters_folder / (promoted[-1] if promoted else versions[-1])


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
    with locked(project.path / ".lock"), writing(project.segmenters_folder), file.open("ab") as log:
        log.write(line.encode())
        log.flush()
        os.fsync(log.fileno())


def settle(project: Project, version: str) -> Settled:
    """Decide whether the new `version` replaces the segmenter in use: unless it is worse on the same held-out image."""
    in_use = active_segmenter(project)
    new = held_out_of(project.segmenters_folder / version)
    others = [v for v in project.segmenter_versions() if v != version]
    if in_use is not None and in_use.name == version:  # nothing was promoted so far
        in_use = project.segmenters_folder / others[-1] if others else None
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
    return Settled(active, reason, old, new)


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
    sha256 = str(hashes.get(f"masks/{name}.png", ""))
    return HeldOut(str(name), sha256, float(figures["dice"]), float(figures.get("cldice", float("nan"))))


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
