"""``univg export``: pairs, segmenter and adapter for other software."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from univg.commands.options import ProgressLine
from univg.errors import InputError
from univg.io import write_bytes_atomic
from univg.progress import ProgressEvent
from univg.workflow.export import FORMATS, SOURCES, export_onnx, export_pairs
from univg.workflow.model_versions import active_segmenter
from univg.workflow.project import Project


def add_parser(subparsers) -> argparse.ArgumentParser:
    """Add ``export`` to the subcommands of the main parser."""
    parser = subparsers.add_parser(
        "export",
        help="write pairs, the segmenter or the mask adapter for other software",
        description="Pairs go to a plain folder, a raw data set of nnU-Net v2, or COCO; the segmenter to an ONNX file "
        "that was checked against torch; the LoHa to a file with the names of kohya's scripts.",
    )
    parser.add_argument("--project", required=True, metavar="DIR")
    parser.add_argument("what", choices=("pairs", "segmenter", "adapter"))
    parser.add_argument("-o", required=True, metavar="PATH", dest="output", help="new folder, or new file")
    parser.add_argument("--format", choices=FORMATS, help="of pairs (default: folder)")
    parser.add_argument("--source", choices=SOURCES, help="which pairs (default: both)")
    parser.add_argument("--version", metavar="V", help="of the segmenter or adapter (default: the one in use)")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Export and say what was written."""
    project, output = Project.open(args.project), Path(args.output)
    if args.what == "pairs" and args.version:
        raise InputError("--version is of the segmenter or the adapter", fix="Leave it out.")
    if args.what != "pairs" and (args.format or args.source):
        raise InputError("--format and --source are of pairs", fix="Leave them out.")
    if args.what == "pairs":
        kind, source = args.format or "folder", args.source or "both"
        notes, show = [], ProgressLine()

        def progress(event: ProgressEvent) -> None:
            notes.append(event.message)
            show(replace(event, message=""))

        count = export_pairs(project, output, kind=kind, source=source, on_progress=progress)
        print(f"{count} pairs in {output}", *filter(None, notes), sep="\n")
        return 0
    if args.what == "segmenter":
        _refuse_existing(output)
        difference = export_onnx(_segmenter(project, args.version), output)
        print(f"{output}: probabilities within {difference:.1e} of torch's")
        return 0
    sources = _adapter(project, args.version)
    # An adapter of two kinds is two files, whose changes add up.
    outputs = [output] if len(sources) == 1 else [output.with_stem(f"{output.stem}-{file.stem}") for file in sources]
    for target in outputs:
        _refuse_existing(target)
    _copy_all(sources, outputs)
    for source, target in zip(sources, outputs, strict=True):
        print(f"{target}: {source.stem} of {source.parent.name}")
    return 0


def _copy_all(sources: Sequence[Path], targets: Sequence[Path]) -> None:
    """Copy each to its target, or none: what is left of a failed export would be in the way of the next."""
    written = []
    try:
        for source, target in zip(sources, targets, strict=True):
            write_bytes_atomic(target, source.read_bytes())
            written.append(target)
    except (InputError, OSError) as error:
        for target in written:
            with suppress(OSError):
                target.unlink()
        if isinstance(error, InputError):
            raise
        raise InputError(f"Cannot read the adapter: {error.strerror}", path=source) from error


def _refuse_existing(output: Path) -> None:
    if output.exists():
        raise InputError("There is a file of that name already", path=output, fix="Name another.")


def _segmenter(project: Project, version: str | None) -> Path:
    if version and version not in project.segmenter_versions():
        raise InputError(f"There is no segmenter {version!r}", path=project.path)
    folder = project.segmenters_folder / version if version else active_segmenter(project)
    if folder is None:
        raise InputError("This project has no segmenter yet", path=project.path, fix="Run `univg adapt` first.")
    return folder


def _adapter(project: Project, version: str | None) -> list[Path]:
    if version and version not in project.mask_engine_versions():
        raise InputError(f"There is no mask engine {version!r}", path=project.path)
    folder = project.adapters_folder / version if version else project.latest_mask_engine()
    if folder is None:
        raise InputError("The mask engine is not adapted yet", path=project.path, fix="Run univg adapt --engine masks.")
    files = [file for kind in ("loha", "lora") if (file := folder / f"{kind}.safetensors").is_file()]
    if not files:
        raise InputError("The adapter is missing", path=folder, fix="Adapt the engine again.")
    return files
