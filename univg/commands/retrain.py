"""``univg retrain``: a new segmenter from the annotated images and the synthetic pairs that passed review."""

from __future__ import annotations

import argparse

from univg.commands.adapt import checked_device
from univg.commands.jobs import watch
from univg.commands.options import add_device, add_full_length, add_seed
from univg.errors import InputError
from univg.segmentation.config import NETWORKS
from univg.workflow.jobs import start_job
from univg.workflow.model_versions import network_in_use
from univg.workflow.presets import PRESETS, preset_named
from univg.workflow.project import Project
from univg.workflow.verdicts import POLICY, training_choice


def add_parser(subparsers) -> argparse.ArgumentParser:
    """Add ``retrain`` to the subcommands of the main parser."""
    parser = subparsers.add_parser(
        "retrain",
        help="train a new segmenter after corrections or verdicts",
        description="Starts from the vessel prior, or from random weights with another network than unet, and not from "
        f"the last segmenter. {POLICY} Runs as a job.",
    )
    parser.add_argument("--project", required=True, metavar="DIR")
    presets = [name for name, preset in PRESETS.items() if not preset.engine_pairs]
    parser.add_argument(
        "--preset", default="standard", metavar="P", help=f"one of {', '.join(presets)} (default: standard)"
    )
    parser.add_argument(
        "--network", metavar="NET", help=f"one of {', '.join(NETWORKS)} (default: that of the segmenter in use)"
    )
    add_seed(parser)
    add_full_length(parser)
    parser.add_argument("--detach", action="store_true", help="start the job and return at once")
    add_device(parser)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Check everything, then start the job and watch it."""
    preset, project = preset_named(args.preset), Project.open(args.project)
    if preset.engine_pairs:
        raise InputError("Retraining adapts no engine", fix="Use univg adapt --preset full, or another preset here.")
    if not project.support_names():
        raise InputError("The project has no annotated image", path=project.path, fix="Add some with univg adapt.")
    network = args.network or network_in_use(project)
    preset.with_network(network)  # refuses an unknown one
    choice = training_choice(project)
    params = {"preset": preset.name, "network": network, "seed": args.seed, "device": checked_device(args.device)}
    params |= choice
    params |= {"full_length": True} if args.full_length else {}
    job = start_job(project, "retrain", params)
    made, count = len(project.pair_names()), len(choice["pairs"])
    which = f"{count} of {made} synthetic pairs train" if made else f"the preset makes {preset.pairs} synthetic pairs"
    print(f"Job {job.id}: {which}.", flush=True)
    return 0 if args.detach else watch(job)
