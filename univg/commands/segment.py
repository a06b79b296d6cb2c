"""``univg segment``: masks of new images."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from univg.commands.options import ProgressLine, add_device, output_folder
from univg.errors import InputError
from univg.io import read_image, read_image_info, read_provenance, sha256_file, stem_of, write_image, write_mask
from univg.io.source import SUFFIXES, choose_frame
from univg.overlay import colour_probability, overlay_mask
from univg.progress import ProgressEvent
from univg.workflow.model_versions import active_segmenter
from univg.workflow.project import Project

MADE_BY = "univg segment"
_MAX_FILE_NAME = 255  # bytes


def add_parser(subparsers) -> argparse.ArgumentParser:
    """Add ``segment`` to the subcommands of the main parser."""
    parser = subparsers.add_parser(
        "segment",
        help="segment images with a project's segmenter",
        description="An image that cannot be read is left out and listed at the end. Results of the same image, "
        "segmenter and options that are there already are kept.",
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image file, or folder of them")
    parser.add_argument("--project", required=True, metavar="DIR")
    parser.add_argument("-o", required=True, metavar="DIR", dest="output", help="output folder")
    parser.add_argument("--segmenter", metavar="V", help="version, for example v002 (default: the one in use)")
    parser.add_argument("--threshold", type=float, metavar="T", help="probability from which a pixel is a vessel")
    parser.add_argument("--tta", action="store_true", help="average over flips and turns: slower, a little better")
    parser.add_argument("--frame", type=int, metavar="N", help="frame of a DICOM or TIFF with several, from 0")
    parser.add_argument("--overlay", action="store_true", help="also write the image with the mask on it")
    parser.add_argument("--probability", action="store_true", help="also write the vessel probability as 16-bit PNG")
    add_device(parser)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Segment every image that can be read, after a look at the header of each."""
    project = Project.open(args.project)
    if args.threshold is not None and not 0 < args.threshold < 1:
        raise InputError(f"--threshold must be between 0 and 1, got {args.threshold:g}")
    targets, failures = _names_of(_listed(args.images), args.frame)
    _refuse_to_replace(targets, args)
    folder = _segmenter_folder(project, args.segmenter)
    if not targets:
        return _report(args.output, 0, 0, failures)

    # Loads torch, so bad input is refused before.
    from univg.segmentation import Segmenter, segment
    from univg.segmentation.segmenter import weights_sha256

    segmenter = Segmenter.load(folder, args.device)
    output = output_folder(args.output)
    made_with = {
        "made_by": MADE_BY,
        "segmenter": folder.name,
        "segmenter_sha256": weights_sha256(folder),
        "threshold": segmenter.threshold if args.threshold is None else args.threshold,
        "test_time_augmentation": args.tta,
        "frame": args.frame,
    }
    progress, done, kept = ProgressLine(), 0, 0
    for number, (name, path) in enumerate(targets.items()):
        progress(ProgressEvent("segment", number, len(targets)))
        try:
            provenance = {**made_with, "image_sha256": sha256_file(path)}
            if all(_record_of(file) == provenance for file in _results_of(name, args)):
                kept += 1
                continue
            image = read_image(path, frame=args.frame)
            found = segment(image, segmenter, test_time_augmentation=args.tta)
        except InputError as error:
            failures.append(error)
            continue
        _write_results(name, image, found.probability, provenance, args)  # a full disk ends the run
        done += 1
    progress(ProgressEvent("segment", len(targets), len(targets)))
    return _report(output, done, kept, failures)


def _listed(names: Sequence[str]) -> list[Path]:
    """The files of these names; of a folder its images in order, but for what this command made."""
    files: list[Path] = []
    for name in names:
        if Path(name).is_dir():
            inside = sorted(path for path in Path(name).iterdir() if _is_image_of_folder(path))
        elif sys.platform == "win32" and set("*?") & set(name):  # other shells expand patterns themselves
            pattern = Path(name).name.replace("[", "[[]")
            inside = sorted(path for path in Path(name).parent.glob(pattern) if path.is_file())
        else:
            files.append(Path(name))
            continue
        if not inside:
            raise InputError("There is no image here", path=name, fix=f"Endings of images: {' '.join(SUFFIXES)}.")
        files += inside
    return files


def _is_image_of_folder(path: Path) -> bool:
    by_name = path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    return by_name and _record_of(path).get("made_by") != MADE_BY


def _names_of(images: Sequence[Path], frame: int | None) -> tuple[dict[str, Path], list[InputError]]:
    """Images by the names of their results, and what is wrong with those that have no such frame or are none."""
    targets: dict[str, Path] = {}
    failures: list[InputError] = []
    for path in images:
        try:
            name = stem_of(path)
            choose_frame(frame, read_image_info(path).frames, path)
        except InputError as error:
            failures.append(error)
            continue
        if name in targets:
            raise InputError(f"Two images share the name {name!r}", path=path, fix="Segment them into two folders.")
        targets[name] = path
    return targets, failures


def _results_of(name: str, args: argparse.Namespace) -> list[Path]:
    """The files that are to be made of the image called `name`, the mask first."""
    endings = ["", *(["-overlay"] * args.overlay), *(["-probability", "-probability-colour"] * args.probability)]
    return [Path(args.output) / f"{name}{ending}.png" for ending in endings]


def _refuse_to_replace(targets: dict[str, Path], args: argparse.Namespace) -> None:
    """`InputError` where a result would have too long a name, or replace an image, another result, or a file that this
    command did not make.
    """
    planned: set[str] = set()
    for name, image in targets.items():
        for file in _results_of(name, args):
            if len(file.name.encode()) > _MAX_FILE_NAME:
                raise InputError("The name of a result would be too long", path=file, fix="Rename the image.")
            if file.name.casefold() in planned:
                raise InputError(f"Two results would be called {file.name!r}", fix="Segment them into two folders.")
            planned.add(file.name.casefold())
            if not file.exists():
                continue
            if any(file.samefile(path) for path in targets.values()):
                raise InputError("The result would replace the image", path=file, fix="Name another folder with -o.")
            record, fix = _record_of(file), "Move it away, or name another folder with -o."
            if record.get("made_by") != MADE_BY:
                raise InputError("The result would replace a file that univg segment did not make", path=file, fix=fix)
            made_from = record.get("image_sha256"), record.get("frame") or 0  # of a single one, None and 0 are the same
            if made_from != (sha256_file(image), args.frame or 0):
                raise InputError("The result would replace that of another image or frame", path=file, fix=fix)


def _record_of(file: Path) -> dict:
    try:
        return read_provenance(file) or {}
    except InputError:
        return {}


def _write_results(
    name: str, image: np.ndarray, probability: np.ndarray, provenance: dict, args: argparse.Namespace
) -> None:
    mask = probability >= provenance["threshold"]
    pictures = [
        *([overlay_mask(image, mask)] if args.overlay else []),
        *([probability, np.asarray(colour_probability(probability))] if args.probability else []),
    ]
    mask_file, *others = _results_of(name, args)
    write_mask(mask_file, mask, provenance=provenance)
    for file, picture in zip(others, pictures, strict=True):
        write_image(file, picture, provenance=provenance)


def _report(output: str | Path, done: int, kept: int, failures: Sequence[InputError]) -> int:
    """Say how many masks there are now and which images have none; returns the exit code."""
    if not done + kept and len(failures) == 1:
        raise failures[0]
    print(f"{done + kept} masks in {output}" + (f", {kept} of them from before" if kept else ""))
    if not failures:
        return 0
    problem = f"univg: {len(failures)} of {done + kept + len(failures)} images could not be segmented:"
    print(problem, *failures, sep="\n  ", file=sys.stderr)
    return 2


def _segmenter_folder(project: Project, version: str | None) -> Path:
    versions = project.segmenter_versions()
    if not versions:
        raise InputError("This project has no segmenter yet", path=project.path, fix="Run `univg adapt` first.")
    if version is not None and version not in versions:
        raise InputError(f"No segmenter {version!r}", path=project.path, fix=f"Use one of: {', '.join(versions)}.")
    return project.segmenters_folder / version if version else active_segmenter(project)
