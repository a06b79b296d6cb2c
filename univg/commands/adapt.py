"""``univg adapt``: five annotated images to a segmenter."""

from __future__ import annotations

import argparse
import sys

from univg.commands.jobs import watch
from univg.commands.options import add_device, add_grey_threshold, add_modality
from univg.errors import InputError
from univg.io import check_pairs, load_support_set, match_pair_files
from univg.types import Modality
from univg.workflow.jobs import start_job
from univg.workflow.presets import PRESETS, preset_named
from univg.workflow.project import Project


def add_parser(subparsers) -> argparse.ArgumentParser:
    """Add ``adapt`` to the subcommands of the main parser."""
    parser = subparsers.add_parser(
        "adapt",
        help="train a segmenter for your images",
        description="Runs as a job: closing the terminal does not end it, and `univg jobs` gets back to it.",
    )
    parser.add_argument("--project", required=True, metavar="DIR", help="project folder; made if it does not exist")
    parser.add_argument("--images", metavar="DIR", help="images to add to the project")
    parser.add_argument("--masks", metavar="DIR", help="their masks, of the same names")
    add_modality(parser, required=False)
    parser.add_argument(
        "--preset", default="standard", metavar="P", help=f"one of {', '.join(PRESETS)} (default: standard)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--detach", action="store_true", help="start the job and return at once")
    add_device(parser)
    add_grey_threshold(parser)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Check everything, then start the job and watch it."""
    preset = preset_named(args.preset)
    if bool(args.images) != bool(args.masks):
        raise InputError(
            "--images and --masks belong together", fix="Give both, or neither for a project that has them."
        )
    if args.device not in ("auto", "cpu", "cuda", "mps"):
        raise InputError(f"Unknown device {args.device!r}", fix="Use auto, cpu, cuda or mps.")
    project = _with_images(args) if args.images else Project.open(args.project)
    if not project.support_names():
        raise InputError("The project has no annotated image", path=project.path, fix="Give --images and --masks.")
    job = start_job(project, "adapt", {"preset": preset.name, "seed": args.seed, "device": args.device})
    print(f"Job {job.id}: {preset.name}, about {preset.expected_minutes:g} min on two CPU cores.", flush=True)
    return 0 if args.detach else watch(job)


def _with_images(args: argparse.Namespace) -> Project:
    files = match_pair_files(args.images, args.masks)
    # Read before the project is made, so that bad input leaves nothing behind.
    modality = Modality.parse(args.modality) if args.modality else Project.open(args.project).modality
    support = load_support_set(args.images, args.masks, modality=modality, grey_threshold=args.grey_threshold)
    for finding in check_pairs(files, grey_threshold=args.grey_threshold):
        if finding.level == "warning":
            print(f"warning: {finding.subject}: {finding.message} {finding.fix}", file=sys.stderr)
    project = Project.open_or_create(args.project, modality=modality)
    sources = {f.name: {"image": f.image, "mask": f.mask} for f in files}
    for pair in support:
        project.add_support_pair(pair, source=sources[pair.name])
    return project
