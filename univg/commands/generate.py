"""``univg generate``: synthetic pairs of the adapted engines."""

from __future__ import annotations

import argparse

from univg.commands.adapt import checked_device
from univg.commands.jobs import watch
from univg.commands.options import add_device
from univg.errors import InputError
from univg.workflow.jobs import start_job
from univg.workflow.presets import CONDITIONING, IMAGE_STRENGTH
from univg.workflow.project import Project


def add_parser(subparsers) -> argparse.ArgumentParser:
    """Add ``generate`` to the subcommands of the main parser."""
    parser = subparsers.add_parser(
        "generate",
        help="draw synthetic image-mask pairs with the adapted engines",
        description="Each pair is a grown tree, a mask of it and an image of the mask, checked and written to the "
        "project. Runs as a job; the same command goes on where it stopped, a larger -n adds to it.",
    )
    parser.add_argument("--project", required=True, metavar="DIR")
    parser.add_argument("-n", required=True, type=int, metavar="N", dest="count", help="how many pairs")
    parser.add_argument(
        "--alpha",
        type=float,
        default=0.7,
        metavar="A",
        help="strength of the mask engine, 0 or more: 0 is the pretrained one, 1 the adapted one (default: 0.7)",
    )
    parser.add_argument(
        "--conditioning",
        type=float,
        default=CONDITIONING,
        metavar="C",
        help="how strongly a mask conditions its image; 1 as in training",
    )
    parser.add_argument(
        "--image-strength",
        type=float,
        default=IMAGE_STRENGTH,
        metavar="S",
        help="how far noise covers the rendered image that an image starts from; 1 starts from noise alone",
    )
    parser.add_argument("--steps", type=int, default=12, metavar="N", help="denoising steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="Dask scheduler whose workers do it; they must reach the project folder"
    )
    parser.add_argument("--detach", action="store_true", help="start the job and return at once")
    add_device(parser)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Check everything, then start the job and watch it."""
    from univg.workflow.generate import GenerateConfig  # loads torch

    project = Project.open(args.project)
    names = ("count", "seed", "alpha", "conditioning", "image_strength", "steps")
    params = {name: getattr(args, name) for name in names}
    try:
        GenerateConfig(**params)
    except ValueError as error:
        raise InputError(str(error)) from error
    if not project.support_names():
        raise InputError("The project has no annotated image", path=project.path, fix="Add some with univg adapt.")
    if not project.image_engine_versions():
        raise InputError(
            "The image engine is not adapted yet",
            path=project.path,
            fix=f"Run: univg adapt --engine images --project {args.project}",
        )
    params["device"] = checked_device(args.device)
    job = start_job(project, "generate", params | ({"scheduler": args.scheduler} if args.scheduler else {}))
    print(f"Job {job.id}: {args.count} pairs.", flush=True)
    return 0 if args.detach else watch(job)
