"""The full preset: both engines adapted, pairs drawn by them, and a segmenter trained on what passed.

Each finished stage is put on record in the job's checkpoint, so a resumed run goes on with the first unfinished one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from univg.errors import InputError
from univg.io import read_json, write_json_atomic
from univg.progress import ProgressEvent
from univg.weights import is_shipped
from univg.workflow.engines import run_mask_engine_job
from univg.workflow.generate import GenerateConfig, generate_pairs
from univg.workflow.image_engines import run_image_engine_job
from univg.workflow.job_context import JobContext, JobPart
from univg.workflow.pipeline import run_on_project, split_held_out
from univg.workflow.presets import Preset
from univg.workflow.project import Project
from univg.workflow.verdicts import pairs_that_train

_LEDGER = "stages.json"


def run_full_job(project: Project, preset: Preset, params: dict, context: JobContext) -> dict:
    """The work of an ``adapt`` job whose preset adapts the engines.

    The held-out image is seen by no engine and by no tree. `params` are ``seed``, ``device``, and for each engine
    ``mask_backbone`` and ``image_backbone``.
    """
    support = project.load_support()
    seed, device = int(params.get("seed", 0)), params.get("device", "auto")
    _, held_out = split_held_out(support, hold_out=preset.hold_out, rng=np.random.default_rng(seed))
    common = {"seed": seed, "device": device, "without": None if held_out is None else held_out.name}
    ledger = _Ledger(context)

    # 1. Engines
    engines = {}
    for kind, run in (("mask", run_mask_engine_job), ("image", run_image_engine_job)):
        backbone = params.get(f"{kind}_backbone", "compact")
        if backbone == "compact" and not is_shipped("models", f"{kind}s"):
            raise InputError(f"The weights of the {kind} engine are not installed", fix="Use the standard preset.")
        settings = {**common, "backbone": backbone}
        if f"{kind}_steps" in params:
            settings["steps"] = params[f"{kind}_steps"]
        engines[kind] = ledger.once(
            f"{kind}-engine", lambda part, run=run, settings=settings: run(project, settings, part)
        )

    # 2. Pairs of masks that were never annotated
    config = GenerateConfig(
        count=int(params.get("pairs", preset.engine_pairs)),
        seed=seed,
        mask_engine=engines["mask"]["mask_engine"],
        image_engine=engines["image"]["image_engine"],
    )
    drawn = generate_pairs(
        project,
        config,
        device=device,
        without=common["without"],
        on_progress=context.on_progress,
        should_stop=context.should_stop,
    )
    chosen = ledger.once("chosen", lambda _: {"names": pairs_that_train(project, drawn["names"])})["names"]
    message = f"{len(chosen)} of {len(drawn['names'])} pairs train; the others were flagged or rejected."
    context.on_progress(ProgressEvent("pairs", config.count, config.count, message=message))

    # 3. The segmenter
    result = run_on_project(
        project,
        preset,
        seed,
        device,
        context.within("segmenter"),
        synthetic=[project.synthetic_pair(n) for n in chosen],
    )
    return {**result, "pairs": len(drawn["names"]), "pairs_used": len(chosen), **_versions(engines)}


def _versions(engines: dict[str, dict]) -> dict[str, str]:
    return {f"{kind}_engine": result[f"{kind}_engine"] for kind, result in engines.items()}


class _Ledger:
    """Results of finished stages, in a file."""

    def __init__(self, context: JobContext) -> None:
        self._context = context
        self._file = context.checkpoint_folder / _LEDGER
        self._done = read_json(self._file) if self._file.is_file() else {}

    def once(self, stage: str, work: Callable[[JobPart], dict]) -> dict:
        """The result of `stage`, worked out only when it is not on record."""
        if stage not in self._done:
            self._done[stage] = work(self._context.within(stage))
            write_json_atomic(self._file, self._done)
        return self._done[stage]
