"""The job behind the Adapt button: a segmenter by one of the presets."""

from __future__ import annotations

from univg.workflow.job_context import JobContext
from univg.workflow.pipeline import run_on_project
from univg.workflow.presets import PRESETS, preset_named
from univg.workflow.project import Project
from univg.workflow.verdicts import pairs_that_train


def run_adapt_job(project: Project, params: dict, context: JobContext) -> dict:
    """The work of an ``adapt`` job: `params` are ``preset``, ``seed``, ``device`` and ``network``."""
    preset = preset_named(params["preset"]).scaled_to(project.working_size).with_network(params.get("network", "unet"))
    if preset.engine_pairs:
        from univg.workflow.full import run_full_job  # loads diffusers

        return run_full_job(project, preset, params, context)
    return run_on_project(project, preset, int(params.get("seed", 0)), params.get("device", "auto"), context)


def run_retrain_job(project: Project, params: dict, context: JobContext) -> dict:
    """The work of a ``retrain`` job: from the vessel prior, on annotated images and the synthetic pairs that passed.

    `params` are ``preset`` (standard by default), ``seed``, ``device`` and ``pairs``, the names that were chosen when
    the job was made, so that later verdicts do not change a resumed run.
    """
    preset = preset_named(params.get("preset", PRESETS["standard"].name)).scaled_to(project.working_size)
    names = params["pairs"] if "pairs" in params else pairs_that_train(project)
    synthetic = [project.synthetic_pair(name) for name in names]
    result = run_on_project(
        project,
        preset,
        int(params.get("seed", 0)),
        params.get("device", "auto"),
        context,
        synthetic=synthetic or None,
    )
    return {**result, "pairs_used": len(synthetic)}
