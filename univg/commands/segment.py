"""``univg segment``: masks of new images."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from univg.commands.options import ProgressLine, add_device, output_folder
from univg.errors import InputError
from univg.io import read_image, read_image_info, read_provenance, sha256_file, stem_of, write_image, write_mask
from univg.io.source import choose_frame
from univg.overlay import colour_probability, overlay_mask
from univg.progress import ProgressEvent
from univg.workflow.model_versions import active_segmenter
from univg.workflow.project import Project

MADE_BY = "univg segment"


def add_parser(subparsers) -> argparse.ArgumentParser:
    """Add ``segment`` to the subcommands of the main parser."""
    parser = subparsers.add_parser("segment", help="segment images with a project's segmenter")
    parser.add_argument("images", nargs="+", metavar="IMAGE")
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
    """Segment every image, after a look at the header of each."""
    project = Project.open(args.project)
    if args.threshold is not None and not 0 < args.threshold < 1:
        raise InputError(f"--threshold must be between 0 and 1, got {args.threshold:g}")
    targets = _names_of(args.images, args.frame)
    _refuse_to_replace(targets, args)
    folder = _segmenter_folder(project, args.segmenter)

    from univg.segmentation import Segmenter, segment  # loads torch, so bad input is refused before

    segmenter = Segmenter.load(folder, args.device)
    output = output_folder(args.output)
    threshold = segmenter.threshold if args.threshold is None else args.threshold
    progress = ProgressLine()
    for number, (name, path) in enumerate(targets.items()):
        image = read_image(path, frame=args.frame)
        found = segment(image, segmenter, test_time_augmentation=args.tta)
        mask = found.probability >= threshold
        provenance = {
            "made_by": MADE_BY,
            "image_sha256": sha256_file(path),
            "segmenter": folder.name,
            "threshold": threshold,
            "test_time_augmentation": args.tta,
            "frame": args.frame,
        }
        write_mask(output / f"{name}.png", mask, provenance=provenance)
        if args.overlay:
            write_image(output / f"{name}-overlay.png", overlay_mask(image, mask), provenance=provenance)
        if args.probability:
            write_image(output / f"{name}-probability.png", found.probability, provenance=provenance)
            coloured = colour_probability(found.probability)
            write_image(output / f"{name}-probability-colour.png", np.asarray(coloured), provenance=provenance)
        progress(ProgressEvent("segment", number + 1, len(targets)))
    print(f"{len(targets)} masks in {output}")
    return 0


def _names_of(images: list[str], frame: int | None) -> dict[str, Path]:
    """Output names by stem; a file that is no image, or has no such frame, stops the run before it starts."""
    targets: dict[str, Path] = {}
    for path in map(Path, images):
        name = stem_of(path)
        if name in targets:
            raise InputError(f"Two images share the name {name!r}", path=path, fix="Segment them into two folders.")
        choose_frame(frame, read_image_info(path).frames, path)
        targets[name] = path
    return targets


def _refuse_to_replace(targets: dict[str, Path], args: argparse.Namespace) -> None:
    """`InputError` where a result would replace an image, another result, or a file that this command did not make."""
    endings = ["", *(["-overlay"] * args.overlay), *(["-probability", "-probability-colour"] * args.probability)]
    planned: set[str] = set()
    for name, image in targets.items():
        for ending in endings:
            file = Path(args.output) / f"{name}{ending}.png"
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


def _segmenter_folder(project: Project, version: str | None) -> Path:
    versions = project.segmenter_versions()
    if not versions:
        raise InputError("This project has no segmenter yet", path=project.path, fix="Run `univg adapt` first.")
    if version is not None and version not in versions:
        raise InputError(f"No segmenter {version!r}", path=project.path, fix=f"Use one of: {', '.join(versions)}.")
    return project.segmenters_folder / version if version else active_segmenter(project)
