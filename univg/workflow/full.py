"""The full preset: both engines adapted, pairs drawn by them, and a segmenter trained on what passed.

Each finished stage is put on record in the job's checkpoint, so a resumed run goes on with the first unfinished one,
and another run can begin with a later stage (`univg.workflow.rerun`).
"""

from __future__ import annotations

from collections.abc import Sequence

from univg.errors import InputError, Paused
from univg.progress import ProgressEvent
from univg.weights import is_shipped
from univg.workflow.engines import run_mask_engine_job
from univg.workflow.generate import GenerateConfig, generate_pairs
from univg.workflow.image_engines import run_image_engine_job
from univg.workflow.job_context import JobContext, JobPart
from univg.workflow.job_records import CHECKPOINT_FOLDER
from univg.workflow.ledger import Ledger
from univg.workflow.live_pictures import saver
from univg.workflow.model_versions import freeze, name_to_hold_out
from univg.workflow.pipeline import held_out_name, load_drawn, run_on_project
from univg.workflow.preflight import check_single, refuse_impossible
from univg.workflow.presets import Preset
from univg.workflow.project import Project
from univg.workflow.verdicts import barred_by_held_out, training_weights

REVIEW = "review"  # what a run waits for, when it is asked to


def run_full_job(project: Project, preset: Preset, params: dict, context: JobContext | JobPart) -> dict:
    """The work of an ``adapt`` job whose preset adapts the engines.

    The held-out image is seen by no engine and by no tree.

    Parameters
    ----------
    project : Project
    preset : Preset
    params : dict
        ``seed`` and ``device``; for each engine ``mask_backbone`` and ``mask_steps``, ``image_backbone`` and
        ``image_steps``; ``pairs``, ``pairs_seed``, ``alpha`` and ``conditioning`` of the pairs;
        ``review``, whether to wait for verdicts before the training; ``given``, the results of stages that an earlier
        run finished.

    Raises
    ------
    Paused
        Once the pairs are drawn, when a review was asked for and the job was not told to go on yet.
    """
    support = project.load_support()
    seed, device = int(params.get("seed", 0)), params.get("device", "auto")
    ledger = Ledger(context, params.get("given"))

    def choose(_: JobPart) -> dict:
        apart = held_out_name(project, support, preset, seed, context.folder / CHECKPOINT_FOLDER)
        return {"sha256": dict(support.sha256), "held_out": apart}

    begun_with = ledger.once("support", choose)
    without = begun_with["held_out"]

    def refuse_changed_images() -> None:  # by another window, too, while this runs
        refuse_other_images(begun_with, project.support_hashes())

    refuse_changed_images()
    if without is None:
        refuse_impossible(check_single(project))
    if without is not None and name_to_hold_out(project) is None:
        # An engine that is adapted while this waits would freeze another image, which the pairs of this run have seen.
        freeze(project, without)

    # 1. Engines
    engines = {}
    for kind, run in (("mask", run_mask_engine_job), ("image", run_image_engine_job)):
        settings = {"seed": seed, "device": device, "without": without, **_engine_settings(kind, params)}
        if f"{kind}-engine" in params.get("given", {}):
            context.on_progress(ProgressEvent(f"{kind} engine", 1, 1, message="Kept from an earlier run"))
        refuse_changed_images()
        engines[kind] = ledger.once(
            f"{kind}-engine", lambda part, run=run, settings=settings: run(project, settings, part)
        )

    # 2. Pairs of masks that were never annotated
    refuse_changed_images()
    drawn = generate_pairs(
        project,
        _pairs_config(preset, params, engines),
        device=device,
        without=without,
        on_progress=context.on_progress,
        should_stop=context.should_stop,
        save_picture=saver(context.folder),
    )

    # 3. What a person makes of them, where that was asked for
    if params.get("review") and not context.released:
        raise Paused(REVIEW)
    chosen = ledger.once("chosen", lambda _: {"weights": _weights_of(project, drawn["names"])})["weights"]
    count = len(drawn["names"])
    message = f"{len(chosen)} of {count} pairs train; the others were flagged or rejected."
    if len(chosen) > preset.synthetic_drawn:
        message += f" A training of this length draws {preset.synthetic_drawn} of them."
    context.on_progress(ProgressEvent("pairs", count, count, message=message))

    # 4. The segmenter
    refuse_changed_images()
    synthetic = load_drawn(project, chosen, preset, seed)
    result = run_on_project(
        project,
        preset,
        seed,
        device,
        context.within("segmenter"),
        held_out=without,
        synthetic=synthetic,
    )
    versions = {f"{kind}_engine": result[f"{kind}_engine"] for kind, result in engines.items()}
    return {**result, "pairs": count, **versions}


def refuse_other_images(recorded: dict, present: dict[str, str]) -> None:
    """Raise unless the annotated images are those that the finished stages were made from."""
    if recorded.get("sha256") != present:
        raise InputError(
            "The annotated images changed since the first stages of this run", fix="Adapt anew, from the first stage."
        )


def _weights_of(project: Project, names: Sequence[str]) -> dict[str, float]:
    """`training_weights`; `InputError` where none is left, and not for what a person or a check said of them."""
    weights = training_weights(project, names)
    barred = [] if weights else barred_by_held_out(project, names)
    if barred:
        raise InputError(
            f"{len(barred)} of {len(names)} pairs passed, but were made from the image that models are compared on now",
            fix="Adapt anew, from the first stage: it was chosen by another run, and new engines will not see it.",
        )
    return weights


def _engine_settings(kind: str, params: dict) -> dict:
    backbone = params.get(f"{kind}_backbone", "compact")
    if backbone == "compact" and not is_shipped("models", f"{kind}s"):
        raise InputError(f"The weights of the {kind} engine are not installed", fix="Use the standard preset.")
    settings = {"backbone": backbone}
    if f"{kind}_steps" in params:
        settings["steps"] = params[f"{kind}_steps"]
    return settings


def _pairs_config(preset: Preset, params: dict, engines: dict[str, dict]) -> GenerateConfig:
    chosen = {key: float(params[key]) for key in ("alpha", "conditioning") if key in params}
    try:
        return GenerateConfig(
            count=int(params.get("pairs", preset.engine_pairs)),
            seed=int(params.get("pairs_seed", params.get("seed", 0))),
            mask_engine=engines["mask"]["mask_engine"],
            image_engine=engines["image"]["image_engine"],
            **chosen,
        )
    except (TypeError, ValueError) as error:
        raise InputError(str(error)) from error
