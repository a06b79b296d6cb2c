"""Beginning a finished or stopped adaptation again from one of its stages, with other settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from univg.errors import InputError, JobRunningError
from univg.io import read_json
from univg.workflow.jobs import Job, start_job
from univg.workflow.ledger import recorded_stages
from univg.workflow.presets import preset_named
from univg.workflow.project import Project
from univg.workflow.stages import (
    FREE_SETTINGS,
    check_setting,
    first_stale,
    from_stage_on,
    full_backbone_path,
    stage_of_setting,
    stages_of,
)

# Stage -> what its result calls the version that it made.
_MADE = {"mask-engine": "mask_engine", "image-engine": "image_engine"}
_OF_RERUN = ("given", "rerun_of", "from_stage")


def rerun_job(project: Project, job: Job, stage: str | None = None, changes: Mapping | None = None) -> Job:
    """Start a new job that takes over what `job` finished before `stage` and does the rest anew.

    Parameters
    ----------
    project : Project
    job : Job
        An ``adapt`` job of this project that is not running; it is left as it is.
    stage : str, optional
        Of `univg.workflow.stages`; by default the first one that `changes` concern, or the very first.
    changes : mapping, optional
        Settings that replace those of `job`, of `stage` or later ones; None for a setting takes its default.

    Raises
    ------
    InputError
        If there is no such stage or setting, a setting belongs to an earlier stage, an earlier stage was not finished,
        or what it made is gone or was made from other annotated images.
    """
    if not job.state.finished:
        raise JobRunningError(job.id)
    return start_job(project, "adapt", rerun_params(project, job, stage, changes))


def rerun_params(project: Project, job: Job, stage: str | None = None, changes: Mapping | None = None) -> dict:
    """The parameters of the job that `rerun_job` starts."""
    if job.kind != "adapt":
        raise InputError(f"Job {job.id} is no adaptation", fix="Name one of those: univg jobs list.")
    preset = preset_named(job.params.get("preset", "standard"))
    stages, changes = stages_of(preset), dict(changes or {})
    for setting, value in changes.items():
        if setting not in FREE_SETTINGS:
            stage_of_setting(setting, stages)
        if value is not None:
            check_setting(setting, value)
        if value is not None and setting.endswith("_backbone"):
            changes[setting] = full_backbone_path(value)
    before = {key: value for key, value in job.params.items() if key not in _OF_RERUN}
    params = {key: value for key, value in {**before, **changes}.items() if value is not None}
    changed = first_stale(before, params, stages)
    stage = stage or changed or next(iter(stages))
    redone = from_stage_on(stage, stages)
    if changed is not None and changed not in redone:
        raise InputError(
            f"A changed setting belongs to the stage {changed!r}, before {stage!r}", fix=f"Begin with {changed!r}."
        )
    params |= {"rerun_of": job.id, "from_stage": stage}
    if not preset.engine_pairs or stage == next(iter(stages)):
        return params
    kept = kept_stages(project, job)
    for name, version in _MADE.items():
        # Pairs need no record: they lie in the project under a name made of all their settings.
        if name not in redone and name not in kept:
            raise InputError(
                f"The stage {name!r} of job {job.id} gave no {version.replace('_', ' ')} that is still good",
                fix=f"Begin with {name!r}, or earlier.",
            )
    return params | {"given": {name: kept[name] for name in ("support", *_MADE) if name not in redone}}


def kept_stages(project: Project, job: Job) -> dict[str, dict]:
    """Stage -> result of what `job` finished and is still good: its images are those of now, its versions exist."""
    recorded = {**job.params.get("given", {}), **recorded_stages(job.folder)}
    if "support" not in recorded or not project.support_names():
        return {}
    if recorded["support"].get("sha256") != project.support_hashes():
        return {}
    apart = recorded["support"].get("held_out")
    learnt = {file: sha for file, sha in recorded["support"]["sha256"].items() if Path(file).stem != apart}
    good = {"support": recorded["support"]}
    for stage, folder in (("mask-engine", project.adapters_folder), ("image-engine", project.image_engines_folder)):
        version = recorded.get(stage, {}).get(_MADE[stage])
        # Images may have been others for a while, and are as they were again.
        if version and _learnt_from(folder / version) == learnt:
            good[stage] = recorded[stage]
    return good


def _learnt_from(engine: Path) -> dict | None:
    """Hashes of what an adapted engine learnt from; None where it is gone or does not say."""
    try:
        return read_json(engine / "engine.json")["card"]["support_sha256"]
    except (InputError, KeyError, TypeError):
        return None
