"""A short look at the annotated images and the machine before a run: what may go wrong, and what to do about it.

Only what makes a run impossible is an error; the rest are warnings that a person may know better.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from univg.errors import InputError
from univg.io import Finding, check_pair
from univg.types import ImageMaskPair, Modality
from univg.weights import is_shipped
from univg.workflow.image_checks import FAINT, SAME_IMAGE, likeness, local_contrast, vessel_band
from univg.workflow.machine import Machine
from univg.workflow.model_versions import name_to_hold_out
from univg.workflow.presets import Preset
from univg.workflow.project import Project

BEST_COUNT = 5
SET, MACHINE = "set", "this computer"

_INVERTED = -0.5
# What a run needs at its height, in MB: measured with the presets that train a segmenter alone (1.1 to 1.9 GB);
# estimates for the engines.
_MEMORY_MB = {False: 2000, True: 5000}
_CARD_MEMORY_MB = {False: 3000, True: 8000}
_DISK_MB = {False: 200, True: 1500}
_LEAST_DISK_MB = 30  # below this not even the checkpoint fits


def preflight(
    project: Project, preset: Preset, machine: Machine, *, missing: Sequence[str] | None = None
) -> list[Finding]:
    """Findings about a run of `preset` on `project`; see `check_support`, `check_single` and `check_machine`."""
    missing = missing_weights(preset) if missing is None else missing
    single = check_single(project) if preset.engine_pairs else []
    return [
        *check_project(project, hold_out=preset.hold_out),
        *single,
        *check_machine(preset, machine, missing=missing),
    ]


def check_project(project: Project, *, hold_out: bool = True) -> list[Finding]:
    """`check_support` of the pairs in a project; a pair that cannot be read is a finding too."""
    pairs, unreadable = [], []
    for name in project.support_names():
        try:
            pairs.append(project.support_pair(name))
        except InputError as error:
            unreadable.append(Finding("error", name, f"{error.problem}.", error.fix))
    return [*unreadable, *check_support(pairs, project.modality, hold_out=hold_out)]


def check_single(project: Project) -> list[Finding]:
    """An error where the only annotated image is the one that models are compared on: no engine may see it."""
    names = project.support_names()
    if len(names) != 1 or name_to_hold_out(project) is None:
        return []
    message = "The only annotated image is the one that models are compared on, which the engines must not see."
    return [Finding("error", names[0], message, "Add another with its mask, or use the standard preset.")]


def check_support(pairs: Sequence[ImageMaskPair], modality: Modality, *, hold_out: bool = True) -> list[Finding]:
    """Findings about annotated pairs, each and together; only warnings and errors.

    Parameters
    ----------
    pairs : sequence of ImageMaskPair
    modality : Modality
        Says whether vessels are dark or bright.
    hold_out : bool
        Whether the run keeps one pair apart.
    """
    findings = _check_count(len(pairs), hold_out)
    for pair in pairs:
        findings += [found for found in check_pair(pair.image, pair.mask, pair.name) if found.level != "ok"]
    findings += _check_polarity(pairs, modality)
    findings += _check_copies(pairs, modality)
    return findings


def check_machine(preset: Preset, machine: Machine, *, missing: Sequence[str] = ()) -> list[Finding]:
    """Findings about a run of `preset` on `machine`; `missing` are the engines whose weights are not installed."""
    findings = []

    def found(level: str, message: str, fix: str) -> None:
        findings.append(Finding(level, MACHINE, message, fix))

    engines = bool(preset.engine_pairs)
    if missing:
        found(
            "error",
            f"The weights of the {' and the '.join(missing)} engine are not installed.",
            "Use the standard preset.",
        )
    if machine.available is None:
        message = f"Whether there is a usable {machine.device!r} device shows once the run begins."
        found("warning", message, "If it fails for that, choose the device cpu, or auto.")
    elif not machine.available:
        found("error", f"There is no usable {machine.device!r} device.", "Choose the device cpu, or auto.")
    disk = _DISK_MB[engines]
    if machine.free_disk_mb < disk:
        level = "error" if machine.free_disk_mb < _LEAST_DISK_MB else "warning"
        message = f"{machine.free_disk_mb:.0f} MB of the disk are free; the run may need {disk} MB."
        found(level, message, "Free some space.")
    on_card = machine.device == "cuda"
    memory = (_CARD_MEMORY_MB if on_card else _MEMORY_MB)[engines]
    if machine.available and machine.free_memory_mb < memory:
        where = "the graphics card's memory" if on_card else "memory"
        free, needed = f"{machine.free_memory_mb / 1000:.1f} GB", f"{memory / 1000:.1f} GB"
        fix = "Close what else uses it, or use cpu." if on_card else "Close what else uses it."
        found("warning", f"{free} of {where} are free; the run may need {needed}.", fix)
    return findings


def missing_weights(preset: Preset) -> list[str]:
    """The compact engines that `preset` adapts and whose weights are not here: of 'mask' and 'image'."""
    if not preset.engine_pairs:
        return []
    return [kind for kind in ("mask", "image") if not is_shipped("models", f"{kind}s")]


def blocking(findings: Sequence[Finding]) -> list[Finding]:
    """Those that make the run impossible."""
    return [finding for finding in findings if finding.level == "error"]


def refuse_impossible(findings: Sequence[Finding]) -> None:
    """Raise the first finding that makes the run impossible, as an `InputError`."""
    for finding in blocking(findings):
        subject = "" if finding.subject in (SET, MACHINE) else f"{finding.subject}: "
        raise InputError(f"{subject}{finding.message.removesuffix('.')}", fix=finding.fix)


def _check_count(count: int, hold_out: bool) -> list[Finding]:
    if count == 0:
        return [Finding("error", SET, "There is no annotated image.", "Add one with its mask; five is best.")]
    if count == 1 and hold_out:
        message = "With one pair, none can be held out to measure how well the segmenter does."
        return [Finding("warning", SET, message, "Add at least one more; five is best.")]
    if count < BEST_COUNT:
        return [Finding("warning", SET, f"There are {count} annotated images.", "Five or more are best.")]
    return []


def _check_polarity(pairs: Sequence[ImageMaskPair], modality: Modality) -> list[Finding]:
    contrasts = {pair.name: local_contrast(pair.image, pair.mask, modality) for pair in pairs}
    usual, other = ("darker", "brighter") if modality.vessels_are_dark else ("brighter", "darker")
    inverted = [name for name, contrast in contrasts.items() if contrast < _INVERTED]
    faint = [name for name, contrast in contrasts.items() if _INVERTED <= contrast < FAINT]
    if len(inverted) > len(pairs) / 2:
        message = (
            f"In {len(inverted)} of {len(pairs)} images what the masks mark is {other} than its surroundings; "
            f"in images of the kind {modality} vessels are {usual}."
        )
        return [Finding("warning", SET, message, "Check the kind of image, and whether the images are inverted.")]
    fix = "Check that the mask belongs to this image."
    found = [
        Finding("warning", name, f"What the mask marks is {other} than its surroundings, not {usual}.", fix)
        for name in inverted
    ]
    return found + [
        Finding("warning", name, "What the mask marks hardly stands out from its surroundings.", fix) for name in faint
    ]


def _check_copies(pairs: Sequence[ImageMaskPair], modality: Modality) -> list[Finding]:
    views = {pair.name: vessel_band(pair.image, modality) for pair in pairs if np.ptp(pair.image) > 0}
    return [
        Finding("warning", first, f"This is nearly the same image as {second!r}.", "Replace one of them by another.")
        for first, second in combinations(views, 2)
        if likeness(views[first], views[second]) > SAME_IMAGE
    ]
