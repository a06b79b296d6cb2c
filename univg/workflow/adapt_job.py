"""The job behind the Adapt button: a segmenter by one of the presets."""

from __future__ import annotations

from univg.errors import InputError
from univg.progress import ProgressEvent
from univg.workflow.expected_time import preset_of_run
from univg.workflow.job_context import JobContext, JobPart
from univg.workflow.job_records import CHECKPOINT_FOLDER
from univg.workflow.ledger import Ledger
from univg.workflow.model_versions import DEFAULT_NETWORK, network_in_use
from univg.workflow.pipeline import held_out_name, load_drawn, run_on_project
from univg.workflow.presets import PRESETS, preset_named
from univg.workflow.project import Project
from univg.workflow.verdicts import hashes_of_image, training_choice, without_sight_of


def run_adapt_job(project: Project, params: dict, context: JobContext) -> dict:
    """The work of an ``adapt`` job.

    `params` are ``preset``, ``seed``, ``device``, ``network``, and ``segmenter_steps`` or ``full_length``, see
    `preset_of_run`; of a preset that adapts the engines also those of `univg.workflow.full.run_full_job`.
    """
    preset = preset_named(params["preset"]).with_network(params.get("network", DEFAULT_NETWORK))
    preset = preset.scaled_to(project.working_size)
    preset = preset_of_run(preset, params, context.checkpoint_folder)
    if preset.engine_pairs:
        from univg.workflow.full import run_full_job  # loads diffusers

        return run_full_job(project, preset, params, context)
    return run_on_project(project, preset, int(params.get("seed", 0)), params.get("device", "auto"), context)


def run_retrain_job(project: Project, params: dict, context: JobContext) -> dict:
    """The work of a ``retrain`` job: from the vessel prior, on annotated images and the synthetic pairs that passed.

    `params` are ``preset`` (standard by default), ``seed``, ``device``, ``network`` (by default that of the segmenter
    in use), ``segmenter_steps`` or ``full_length`` as for an adaptation, and ``pairs`` with their ``weights``, chosen
    when the job was made (see `univg.workflow.verdicts.training_choice`): later verdicts do not change a resumed run.
    In a project without any synthetic pair those of the preset train.
    """
    ledger = Ledger(context)

    # Both on record: another segmenter may be in use, and pairs may be drawn, before this is resumed.
    def see_network(_: JobPart) -> dict:
        return {"name": params.get("network") or network_in_use(project)}

    preset = preset_named(params.get("preset", PRESETS["standard"].name))
    preset = preset.with_network(ledger.once("network", see_network)["name"]).scaled_to(project.working_size)
    preset = preset_of_run(preset, params, context.checkpoint_folder)
    choice = params if "pairs" in params else training_choice(project)
    names = choice["pairs"]
    weights = choice.get("weights") or [1.0] * len(names)
    if len(weights) != len(names):
        raise InputError(f"The job names {len(names)} pairs and {len(weights)} weights", fix="Start a new training.")
    seed, support = int(params.get("seed", 0)), project.load_support()
    held_out = held_out_name(project, support, preset, seed, context.folder / CHECKPOINT_FOLDER)
    # Pairs that were made from the held-out image, before it was, would flatter the figures on it.
    honest = without_sight_of(project, names, hashes_of_image(support.sha256, held_out))
    if len(honest) < len(names):
        message = (
            f"{len(names) - len(honest)} of {len(names)} pairs were made from the held-out image and do not train."
        )
        context.on_progress(ProgressEvent("pairs", len(names), len(names), message=message))
    if names and not honest:
        raise InputError(
            f"All {len(names)} pairs were made from the image that models are compared on",
            fix="Adapt the engines again and draw new pairs, or train without them: univg adapt.",
        )
    weight_of = dict(zip(names, weights, strict=True))
    synthetic = load_drawn(project, {name: float(weight_of[name]) for name in honest}, preset, seed)

    # The preset makes pairs where the project has none; where none of the project's passed, none is to train.
    def see_whose(_: JobPart) -> dict:
        return {"made_here": not names and not project.pair_names()}

    made_here = ledger.once("pairs", see_whose)["made_here"]
    return run_on_project(
        project,
        preset,
        seed,
        params.get("device", "auto"),
        context,
        held_out=held_out,
        synthetic=None if made_here else synthetic,
    )
