"""``univg adapt``: five annotated images to a segmenter."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from univg.commands.jobs import watch
from univg.commands.options import add_device, add_full_length, add_grey_threshold, add_modality, add_seed
from univg.errors import InputError
from univg.io import Finding, check_pairs, load_support_set, match_pair_files
from univg.segmentation.config import NETWORKS
from univg.types import Modality
from univg.weights import is_shipped
from univg.workflow.expected_time import expected_minutes, fitted
from univg.workflow.jobs import refuse_while_running, start_job
from univg.workflow.machine import look_at_machine
from univg.workflow.preflight import preflight, refuse_impossible
from univg.workflow.presets import PRESETS, preset_named
from univg.workflow.project import SETTINGS_FILE, Project
from univg.workflow.stages import full_backbone_path


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
    parser.add_argument("--preset", metavar="P", help=f"one of {', '.join(PRESETS)} (default: standard)")
    parser.add_argument(
        "--network",
        default="unet",
        metavar="NET",
        help=f"one of {', '.join(NETWORKS)}; others than unet start from random weights (default: unet)",
    )
    parser.add_argument(
        "--engine",
        choices=("masks", "images"),
        help="adapt the mask engine or the image engine, for `univg generate`, instead of training a segmenter",
    )
    parser.add_argument(
        "--backbone",
        default="compact",
        metavar="B",
        help="of the engines: compact, the folder of Stable Diffusion 1.5, or its .safetensors file, beside which a "
        "folder of the same name holds the configuration (default: compact)",
    )
    add_seed(parser)
    add_full_length(parser)
    parser.add_argument(
        "--review",
        action="store_true",
        help="of the full preset: stop once the pairs are drawn, until they were looked through in the app",
    )
    parser.add_argument("--detach", action="store_true", help="start the job and return at once")
    add_device(parser)
    add_grey_threshold(parser)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Check everything, then start the job and watch it."""
    preset = preset_named(args.preset or "standard").with_network(args.network)
    if bool(args.images) != bool(args.masks):
        raise InputError(
            "--images and --masks belong together", fix="Give both, or neither for a project that has them."
        )
    if args.grey_threshold is not None and not args.images:
        raise InputError("--grey-threshold is of the masks to add", fix="Give --images and --masks with it.")
    device = checked_device(args.device)
    own_backbone = args.backbone != "compact"
    if own_backbone and not args.engine and not preset.engine_pairs:
        raise InputError(
            "--backbone is of an engine", fix="Give --engine masks, --engine images or --preset full with it."
        )
    if args.engine and args.network != "unet":
        raise InputError("--network is of the segmenter", fix="Leave out --engine or --network.")
    shipped = all(is_shipped("models", name) for name in ("masks", "images"))
    if preset.engine_pairs and not args.engine and not own_backbone and not shipped:
        raise InputError(
            "The weights of the engines are not installed",
            fix="Use --preset standard, or reinstall UniVG.",
        )
    if args.preset and args.engine:
        raise InputError("--preset is of the segmenter", fix="Leave out --engine or --preset.")
    if args.full_length and args.engine:
        raise InputError("--full-length is of the segmenter", fix="Leave out --engine or --full-length.")
    if args.review and (args.engine or not preset.engine_pairs):
        raise InputError("--review is of the full preset", fix="Give --preset full with it, or leave it out.")
    project, findings = _with_images(args) if args.images else (Project.open(args.project), [])
    if args.modality and Modality.parse(args.modality) is not project.modality:
        raise InputError(f"This project is of the modality {project.modality}, not {args.modality}", path=project.path)
    if not project.support_names():
        raise InputError("The project has no annotated image", path=project.path, fix="Give --images and --masks.")
    if args.engine:
        _warn(findings)
        params = {"seed": args.seed, "device": device, "backbone": _checked_backbone(args)}
        job = start_job(project, f"{args.engine[:-1]}-engine", params)
        print(f"Job {job.id}: adapting the {args.engine[:-1]} engine.", flush=True)
        return 0 if args.detach else watch(job)
    machine = look_at_machine(project.path, device)
    findings += preflight(project, preset, machine)
    _warn(findings)
    refuse_impossible(findings)
    params = {"preset": preset.name, "seed": args.seed, "device": device}
    params |= {"network": args.network} if args.network != "unet" else {}
    params |= {"full_length": True} if args.full_length else {}
    if own_backbone:
        params |= dict.fromkeys(("mask_backbone", "image_backbone"), full_backbone_path(args.backbone))
    job = start_job(project, "adapt", params | ({"review": True} if args.review else {}))
    here = preset if args.full_length else fitted(preset, machine)
    print(f"Job {job.id}: {preset.name}, about {max(expected_minutes(here, machine), 1):.0f} min.", flush=True)
    steps, shorter = preset.segmentation.steps, here.segmentation.steps
    if shorter < steps:
        print(f"{shorter:,} of {steps:,} training steps fit on this computer; --full-length does all.", flush=True)
    return 0 if args.detach else watch(job)


def checked_device(name: str) -> str:
    """`name`, unless it is no device's."""
    if name not in ("auto", "cpu", "cuda", "mps"):
        raise InputError(f"Unknown device {name!r}", fix="Use auto, cpu, cuda or mps.")
    return name


def _checked_backbone(args: argparse.Namespace) -> str:
    if args.backbone != "compact":
        return full_backbone_path(args.backbone)
    if not is_shipped("models", args.engine):
        raise InputError(
            f"The weights of the compact {args.engine[:-1]} engine are not installed",
            fix="Reinstall UniVG, or name another --backbone.",
        )
    return args.backbone


def _warn(findings: list[Finding]) -> None:
    """Print each warning once; files and project are looked at apart and may say the same."""
    for finding in dict.fromkeys(findings):
        if finding.level == "warning":
            print(f"warning: {finding.subject}: {finding.message} {finding.fix}", file=sys.stderr)


def _refuse_names_alike(names: list[str]) -> None:
    first_of: dict[str, str] = {}
    for name in names:
        other = first_of.setdefault(name.casefold(), name)
        if other != name:
            raise InputError(f"The names {other!r} and {name!r} differ by case only", fix="Rename one of the images.")


def _with_images(args: argparse.Namespace) -> tuple[Project, list[Finding]]:
    """The project, with the pairs that the command line names, and what is to be said of their files."""
    files = match_pair_files(args.images, args.masks)
    _refuse_names_alike([f.name for f in files])
    # Read before the project is made or changed, so that bad input leaves nothing behind.
    there = (Path(args.project).expanduser() / SETTINGS_FILE).exists()
    if not there and not args.modality:
        path, fix = Path(args.project), f"One of: {', '.join(Modality)}."
        raise InputError("Give --modality to make a new project", path=path, fix=fix)
    known = Project.open(args.project) if there else None
    if known is not None:
        refuse_while_running(known)
    modality = Modality.parse(args.modality) if args.modality else known.modality
    support = load_support_set(args.images, args.masks, modality=modality, grey_threshold=args.grey_threshold)
    findings = check_pairs(files, grey_threshold=args.grey_threshold)
    spacing = None if there else support.pixel_spacing_mm
    project = Project.open_or_create(args.project, modality=modality, pixel_spacing_mm=spacing)
    for pair in support:
        project.holds_support_pair(pair)  # refuses another one of its name before any is added
    sources = {f.name: {"image": f.image, "mask": f.mask} for f in files}
    for pair in support:
        project.add_support_pair(pair, source=sources[pair.name])
    return project, findings
