"""Dropped files: their own names, which image belongs to which mask, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import gradio as gr

from app import texts
from univg.errors import InputError
from univg.io import Finding, PairFiles, check_pairs, read_image, read_image_info, read_mask, stem_of

MASK_ENDINGS = ("_mask", "-mask", ".mask", " mask")


@dataclass(frozen=True)
class Upload:
    """A dropped file: where it lies on the server, and the name it had."""

    path: Path
    name: str

    @property
    def stem(self) -> str:
        """The name without a known ending, checked; `InputError` when it cannot name files."""
        name = self.name.replace("\\", "/").rsplit("/", 1)[-1]
        return stem_of(name)


@dataclass(frozen=True)
class Matching:
    """Dropped images and masks brought together."""

    pairs: tuple[PairFiles, ...]
    unmasked: dict[str, Upload]
    findings: tuple[Finding, ...]


def file_drop(**options: object) -> gr.File:
    """A `gr.File` for any number of files whose handlers get `Upload`s, with the names as they were given."""
    drop = gr.File(file_count="multiple", type="filepath", **options)

    def preprocess(payload: object) -> list[Upload]:
        if payload is None:
            return []
        files = getattr(payload, "root", payload)
        files = files if isinstance(files, list) else [files]
        return [Upload(Path(file.path), file.orig_name or Path(file.path).name) for file in files]

    # On the instance: Gradio writes stub files beside the module of a subclass.
    drop.preprocess = preprocess
    return drop


def match_uploads(images: Sequence[Upload], masks: Sequence[Upload]) -> Matching:
    """Pair images and masks of equal stem; an ending such as ``_mask`` is overlooked, and said so."""
    findings: list[Finding] = []
    images_by_stem = _by_stem(images, "image", findings)
    masks_by_stem = _by_stem(masks, "mask", findings)
    pairs, unmasked = [], {}
    for stem, image in images_by_stem.items():
        mask = masks_by_stem.pop(stem, None)
        if mask is None:
            ending = next((end for end in MASK_ENDINGS if stem + end in masks_by_stem), None)
            if ending is None:
                unmasked[stem] = image
                continue
            mask = masks_by_stem.pop(stem + ending)
            note = texts.MASK_NAME_FORGIVEN.format(mask=mask.name, image=image.name)
            findings.append(Finding("ok", stem, note))
        pairs.append(PairFiles(stem, image.path, mask.path))
    findings += [
        Finding("warning", mask.name, texts.MASK_WITHOUT_IMAGE, texts.MASK_WITHOUT_IMAGE_FIX)
        for mask in masks_by_stem.values()
    ]
    return Matching(tuple(pairs), unmasked, tuple(findings))


def check_uploads(matching: Matching, *, names_taken: Sequence[str], grey_threshold: float | None) -> list[Finding]:
    """Every finding about the dropped files, in words that fit the page."""
    findings = list(matching.findings)
    if matching.pairs:
        checked = check_pairs(matching.pairs, grey_threshold=grey_threshold)
        findings += [_for_page(finding) for finding in checked if finding.subject != "set"]
    findings += [
        Finding("warning", pair.name, texts.NAME_TAKEN, texts.NAME_TAKEN_FIX)
        for pair in matching.pairs
        if pair.name in names_taken
    ]
    for name, upload in matching.unmasked.items():
        try:
            read_single_image(upload)
        except InputError as error:
            findings.append(Finding("error", upload.name, f"{error.problem}.", error.fix))
        else:
            findings.append(Finding("warning", name, texts.IMAGE_WITHOUT_MASK, texts.IMAGE_WITHOUT_MASK_FIX))
    order = {"error": 0, "warning": 1, "ok": 2}
    return sorted(findings, key=lambda finding: order[finding.level])


def usable_pairs(matching: Matching, findings: Sequence[Finding]) -> list[PairFiles]:
    """The pairs without an error among `findings`."""
    bad = {finding.subject for finding in findings if finding.level == "error"}
    return [pair for pair in matching.pairs if pair.name not in bad]


def read_single_image(upload: Upload):
    """`univg.io.read_image`, with a fix for files of several frames that a person at a page can follow."""
    _refuse_frames(upload)
    return _named(read_image, upload)


def read_single_mask(upload: Upload):
    _refuse_frames(upload)
    return _named(read_mask, upload)


def _refuse_frames(upload: Upload) -> None:
    info = _named(read_image_info, upload)
    if info.frames > 1:
        raise InputError(texts.FRAMES.format(frames=info.frames), path=upload.name, fix=texts.FRAMES_FIX)


def _named(read, upload: Upload):
    try:
        return read(upload.path)
    except InputError as error:
        fix = texts.TWO_VALUES_FIX if "grey_threshold" in error.fix else _page_fix(error.fix)
        raise InputError(error.problem, path=upload.name, fix=fix) from error


def _for_page(finding: Finding) -> Finding:
    return replace(finding, fix=_page_fix(finding.fix))


def _page_fix(fix: str) -> str:
    """Options of the library, which a page does not have, become its own controls."""
    if "grey_threshold" in fix:
        return texts.GREY_FIX.format(label=texts.ADD_GREY)
    return texts.FRAMES_FIX if "frame=" in fix else fix


def _by_stem(uploads: Sequence[Upload], what: str, findings: list[Finding]) -> dict[str, Upload]:
    found: dict[str, Upload] = {}
    for upload in uploads:
        try:
            stem = upload.stem
        except InputError as error:
            findings.append(Finding("error", upload.name, f"{error.problem}.", error.fix))
            continue
        if stem in found:
            findings.append(Finding("error", upload.name, texts.SAME_NAME.format(what=what), texts.SAME_NAME_FIX))
        else:
            found[stem] = upload
    return dict(sorted(found.items()))
