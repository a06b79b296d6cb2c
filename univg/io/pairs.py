"""Folders of images and masks: matching them by name, checking them, loading a support set."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np

from univg.errors import InputError
from univg.io.read import mask_from_values, read_image, read_image_info, read_mask, read_mask_values
from univg.io.source import SUFFIXES, FileKind, ImageInfo, identify
from univg.io.write import read_provenance, sha256_file
from univg.types import ImageMaskPair, Modality, SupportSet

MAX_STEM_LENGTH = 200
_MAX_STEM_BYTES = 240
_SMALLEST_SIDE = 64
_USUAL_COVERAGE = (0.001, 0.6)
# Grey levels around the threshold, of the range, and by how much the area of vessels may change between them.
_AROUND_THRESHOLD, _MOST_CHANGE = 0.15, 0.3

# What `univg segment` writes beside a mask.
BESIDE_MASK = ("-overlay", "-probability", "-probability-colour")

# The record of the shipped sample names it: made up to stand in for one's own images.
_SAMPLE_MAKER = "assets/make_sample.py"
_SYNTHETIC = "This image is synthetic, so its mask is no annotation to learn from or to measure with"
_SYNTHETIC_FIX = "Leave it out; `univg export` writes real pairs alone with --source real."

# Direction overrides make a name read otherwise than it is spelt.
_DIRECTION_CONTROLS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@dataclass(frozen=True)
class PairFiles:
    """The files of one annotated image."""

    name: str
    image: Path
    mask: Path
    fov: Path | None = None


@dataclass(frozen=True)
class Finding:
    """One result of a check, in words for a person.

    Attributes
    ----------
    level : {'ok', 'warning', 'error'}
        An error keeps the pair from being used.
    subject : str
        The name of the pair, or of the set.
    message : str
    fix : str
        What to do about it; empty when there is nothing to do.
    """

    level: Literal["ok", "warning", "error"]
    subject: str
    message: str
    fix: str = ""


def check_stem(name: str) -> str:
    """`name` in Unicode's composed form (NFC), if it can safely name files; `InputError` otherwise.

    Spaces and all scripts are fine. Refused: empty, leading dots (so ``..`` too), separators, ``:``, control
    characters, more than 200 characters.
    """
    fix = "Rename the file."
    # Two spellings of one accented letter would otherwise become two pairs.
    name = unicodedata.normalize("NFC", name)
    if not name.strip():
        raise InputError("A name is empty", fix=fix)
    if any(unicodedata.category(c) in ("Cc", "Cs") or c in _DIRECTION_CONTROLS for c in name):
        raise InputError(f"The name {name!a} holds control characters", fix=fix)
    if name.startswith("."):
        raise InputError(f"The name {name!r} starts with a dot", fix=fix)
    if any(c in name for c in "/\\:"):
        raise InputError(f"The name {name!r} holds one of / \\ :", fix=fix)
    if len(name) > MAX_STEM_LENGTH or len(name.encode()) > _MAX_STEM_BYTES:
        raise InputError(f"The name {name[:40]!r}… is longer than {MAX_STEM_LENGTH} characters", fix=fix)
    return name


def stem_of(path: str | PathLike[str]) -> str:
    """The name of an image file without its ending, checked by `check_stem`.

    Only endings of images are taken off: DICOM files are often named by a UID, whose last number is none.
    """
    path = Path(path)
    return check_stem(path.stem if path.suffix.lower() in SUFFIXES else path.name)


def match_pair_files(
    images_dir: str | PathLike[str],
    masks_dir: str | PathLike[str],
    fov_dir: str | PathLike[str] | None = None,
) -> list[PairFiles]:
    """Pair the images of one folder with the masks (and fields of view) of equal stem, sorted by stem.

    Masks without an image are left out; files that are no images by name are ignored.

    Raises
    ------
    InputError
        A folder is missing or holds no image, a stem occurs twice or is unusable, or an image has no mask (or
        no field of view, where a folder of them is given).
    """
    images, masks = _files_by_stem(images_dir, "image"), _files_by_stem(masks_dir, "mask")
    fovs = None if fov_dir is None else _files_by_stem(fov_dir, "field of view")
    for label, folder, files in (("mask", masks_dir, masks), ("field of view", fov_dir, fovs)):
        missing = sorted(images.keys() - files.keys()) if files is not None else []
        if missing:
            raise InputError(
                f"{len(missing)} of {len(images)} images have no {label}: {_listed(missing)}",
                path=folder,
                fix=f"Give every image a {label} of the same name (the ending may differ), or move it away.",
            )
    return [PairFiles(name, images[name], masks[name], None if fovs is None else fovs[name]) for name in sorted(images)]


def match_predictions(
    predictions_dir: str | PathLike[str],
    references_dir: str | PathLike[str],
    fov_dir: str | PathLike[str] | None = None,
    *,
    partial: bool = False,
) -> list[PairFiles]:
    """Pair predicted masks (as ``image``) with the references of equal stem, sorted by stem.

    Overlays and probabilities that `univg segment` wrote beside a mask are left out.

    Raises
    ------
    InputError
        As `match_pair_files`, or a reference has no prediction and `partial` is False.
    """
    predictions, references = _files_by_stem(predictions_dir, "mask"), _files_by_stem(references_dir, "reference")
    fovs = None if fov_dir is None else _files_by_stem(fov_dir, "field of view")
    beside = {f"{name}{ending}" for name in predictions for ending in BESIDE_MASK} - references.keys()
    names = sorted(predictions.keys() - beside)
    for label, folder, files in (("reference", references_dir, references), ("field of view", fov_dir, fovs)):
        missing = [name for name in names if name not in files] if files is not None else []
        if missing:
            raise InputError(
                f"{len(missing)} of {len(names)} masks have no {label}: {_listed(missing)}",
                path=folder,
                fix=f"Give every mask a {label} of the same name (the ending may differ), or move it away.",
            )
    missing = sorted(references.keys() - set(names))
    if missing and not partial:
        raise InputError(
            f"{len(missing)} of {len(references)} references have no mask to score: {_listed(missing)}",
            path=predictions_dir,
            fix="Segment these images too, or score the others alone with --partial.",
        )
    return [
        PairFiles(name, predictions[name], references[name], None if fovs is None else fovs[name]) for name in names
    ]


def is_synthetic(path: str | PathLike[str]) -> bool:
    """Whether the record in an image file says that it was drawn; False of the shipped sample, and without a record."""
    try:
        record = read_provenance(path) or {}
    except InputError:  # a damaged record says nothing, and a damaged picture is found when it is read
        return False
    return record.get("synthetic") is True and record.get("made_by") != _SAMPLE_MAKER


def refuse_synthetic(files: Sequence[PairFiles]) -> None:
    """Raise `InputError` when an image of `files` `is_synthetic`; only headers are read."""
    for pair in files:
        if is_synthetic(pair.image):
            raise InputError(_SYNTHETIC, path=pair.image, fix=_SYNTHETIC_FIX)


def check_pair(image: np.ndarray, mask: np.ndarray, name: str) -> list[Finding]:
    """Findings about an image and its mask; one "ok" when there is nothing to say.

    Parameters
    ----------
    image : (H, W) or (H, W, 3) ndarray
    mask : (H, W) ndarray of bool
    name : str
        The subject of the findings.
    """
    findings = []

    def found(level: Literal["warning", "error"], message: str, fix: str) -> None:
        findings.append(Finding(level, name, message, fix))

    if image.shape[:2] != mask.shape:
        found(
            "error",
            f"Image and mask differ in size: {_size(image)} against {_size(mask)} (width x height).",
            "Export both at the same size; UniVG does not resize annotations silently.",
        )
    if min(image.shape[:2]) < _SMALLEST_SIDE:
        found(
            "warning",
            f"The image is tiny, {_size(image)}.",
            f"Use images of at least {_SMALLEST_SIDE} pixels a side.",
        )
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        found("error", "The image holds NaN or infinite values.", "Replace them before loading it.")
    elif image.size and image.min() == image.max():
        found("error", "The image is constant: every pixel has the same value.", "Export it again.")
    coverage = float(mask.mean()) if mask.size else 0.0
    low, high = _USUAL_COVERAGE
    if coverage == 0:
        found("error", "The mask is empty: no pixel is marked as vessel.", "Draw the vessels, or remove it.")
    elif coverage == 1:
        found("error", "The mask is full: every pixel is marked as vessel.", "Check how it was exported.")
    elif coverage > high:
        found(
            "warning",
            f"{coverage:.0%} of the mask is vessel.",
            "Vessels must be the brighter value; the mask may be inverted.",
        )
    elif coverage < low:
        found("warning", f"Only {coverage:.2%} of the mask is vessel.", "Check that all vessels are drawn.")
    if findings:
        return findings
    kind = "colour" if image.ndim == 3 else "grey"
    return [Finding("ok", name, f"{_size(image)}, {kind}, {coverage:.1%} vessel.")]


def check_pairs(files: Sequence[PairFiles], *, grey_threshold: float | None = None) -> list[Finding]:
    """Findings about every pair and about the set, before any work is spent; bad content never raises."""
    if not files:
        return [Finding("error", "set", "There is no annotated image.", "Add one with its mask; five is best.")]
    findings = []
    first_of: dict[str, str] = {}
    for pair in files:
        found = _check_files(pair, grey_threshold=grey_threshold)
        findings += found
        if any(finding.level == "error" for finding in found):
            continue
        twin = first_of.setdefault(sha256_file(pair.image), pair.name)
        if twin != pair.name:
            message = f"This is the same image as {twin!r}."
            findings.append(Finding("warning", pair.name, message, "Remove one of them."))
    if len(files) == 1:
        findings.append(
            Finding(
                "warning",
                "set",
                "With one pair, none can be held out to measure how well the segmenter does.",
                "Add at least one more; five is best.",
            )
        )
    return findings


def load_support_set(
    images_dir: str | PathLike[str],
    masks_dir: str | PathLike[str],
    *,
    modality: Modality,
    fov_dir: str | PathLike[str] | None = None,
    grey_threshold: float | None = None,
) -> SupportSet:
    """Read every image of a folder with its mask.

    The pixel size is taken over when all files state the same one, and not at the detector.

    Parameters
    ----------
    images_dir, masks_dir, fov_dir : path-like
        Folders of files with equal stems; see `match_pair_files`.
    modality : Modality
    grey_threshold : float, optional
        Passed to `read_mask`.

    Raises
    ------
    InputError
        Any file is unusable, an image is synthetic, or a mask is empty, full or of another size than its image.
    """
    pairs, infos, sha256 = [], [], {}
    matched = match_pair_files(images_dir, masks_dir, fov_dir)
    refuse_synthetic(matched)
    for files in matched:
        image, mask, fov = _read_pair(files, grey_threshold=grey_threshold)
        for finding in check_pair(image, mask, files.name):
            if finding.level == "error":
                raise InputError(finding.message.removesuffix("."), path=files.mask, fix=finding.fix)
        pairs.append(ImageMaskPair(image, mask, files.name, fov=fov))
        infos.append(read_image_info(files.image))
        sha256[f"images/{files.name}"] = sha256_file(files.image)
        sha256[f"masks/{files.name}"] = sha256_file(files.mask)
        if files.fov is not None:
            sha256[f"fov/{files.name}"] = sha256_file(files.fov)
    return SupportSet(modality, tuple(pairs), pixel_spacing_mm=_common_spacing(infos), sha256=sha256)


def _files_by_stem(folder: str | PathLike[str], label: str) -> dict[str, Path]:
    folder = Path(folder)
    files: dict[str, Path] = {}
    for path in _image_files(folder, label):
        stem = stem_of(path)
        if stem in files:
            raise InputError(
                f"Two {label} files share the name {stem!r}: {files[stem].name!r} and {path.name!r}",
                path=folder,
                fix="Rename or remove one of them.",
            )
        files[stem] = path
    if not files:
        endings = " ".join(SUFFIXES)
        raise InputError(
            f"The folder holds no {label} file",
            path=folder,
            fix=f"Put files with these endings there: {endings}.",
        )
    return files


def _image_files(folder: Path, label: str) -> list[Path]:
    try:
        if not folder.is_dir():
            raise InputError(f"The folder of {label} files does not exist", path=folder, fix="Check its name.")
        return sorted(path for path in folder.iterdir() if _looks_like_image(path))
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"Cannot list this folder: {reason}", path=folder, fix="Check its permissions.") from error


def _looks_like_image(path: Path) -> bool:
    """By its ending; scanners write DICOM files without one, or named by a UID, whose last number is none: opened."""
    if path.name.startswith(".") or not path.is_file():
        return False
    if path.suffix and not path.suffix[1:].isdigit():
        return path.suffix.lower() in SUFFIXES
    try:
        return identify(path)[1] is FileKind.DICOM
    except InputError:
        return False


def _check_files(files: PairFiles, *, grey_threshold: float | None) -> list[Finding]:
    try:
        info = read_image_info(files.image)
        image, values = read_image(files.image), read_mask_values(files.mask)
        mask = mask_from_values(values, files.mask, grey_threshold)
        fov = None if files.fov is None else read_mask(files.fov, grey_threshold=grey_threshold)
    except InputError as error:
        where = "" if error.path is None else f" ({error.path.name})"
        return [Finding("error", files.name, f"{error.problem}{where}.", error.fix)]
    findings = [Finding("warning", files.name, note) for note in info.warnings]
    findings += check_pair(image, mask, files.name)
    if is_synthetic(files.image):
        findings.append(Finding("error", files.name, f"{_SYNTHETIC}.", _SYNTHETIC_FIX))
    if grey_threshold is not None:
        findings += _check_threshold(files, values, grey_threshold)
    if fov is not None and fov.shape != mask.shape:
        message = f"Image and field of view differ in size: {_size(image)} against {_size(fov)}."
        findings.append(Finding("error", files.name, message, "Export both at the same size."))
    elif fov is not None and not fov.any():
        findings.append(Finding("error", files.name, "The field of view is empty.", "Check its file."))
    return findings


def _check_threshold(files: PairFiles, values: np.ndarray, threshold: float) -> list[Finding]:
    """A warning when it depends much on the threshold what a grey mask marks."""
    levels = (max(threshold - _AROUND_THRESHOLD, 0.01), threshold, min(threshold + _AROUND_THRESHOLD, 0.99))
    most, chosen, least = (int(mask_from_values(values, files.mask, level).sum()) for level in levels)
    if most - least <= _MOST_CHANGE * max(chosen, 1):
        return []
    message = (
        f"Cut at {threshold:.2f}, {chosen} pixels of the mask are vessel; "
        f"at {levels[0]:.2f} it would be {most}, at {levels[2]:.2f} {least}."
    )
    return [Finding("warning", files.name, message, "Export the mask with two values, or look at it once added.")]


def _read_pair(files: PairFiles, *, grey_threshold: float | None) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    image = read_image(files.image)
    mask = read_mask(files.mask, grey_threshold=grey_threshold)
    fov = None if files.fov is None else read_mask(files.fov, grey_threshold=grey_threshold)
    return image, mask, fov


def _common_spacing(infos: Sequence[ImageInfo]) -> float | None:
    spacings = {info.object_spacing_mm for info in infos}
    return spacings.pop() if len(spacings) == 1 else None


def _listed(names: Sequence[str], *, most: int = 3) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + rest


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"
