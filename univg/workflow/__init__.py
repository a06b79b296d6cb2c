"""The product around the library: project folders, background jobs and the pipeline that runs in them."""

from __future__ import annotations

import importlib

_EXPORTS = {
    "univg.workflow.project": ("Project",),
    "univg.workflow.job_records": ("EventReader", "JobState"),
    "univg.workflow.job_context": ("JobContext",),
    "univg.workflow.jobs": (
        "JOB_KINDS",
        "Job",
        "cancel_job",
        "find_job",
        "list_jobs",
        "resume_job",
        "start_job",
        "wait_for",
    ),
    "univg.workflow.presets": ("PRESETS", "Preset"),
    "univg.workflow.pipeline": ("run_pipeline",),
}
_MODULE_OF = {name: module for module, names in _EXPORTS.items() for name in names}
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'univg.workflow' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
