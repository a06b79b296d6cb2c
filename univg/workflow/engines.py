"""Adapting the mask engine to a project, and what its masks are worth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from univg.engines import (
    AdapterConfig,
    DiffusionTrainConfig,
    MaskEngine,
    SamplingConfig,
    finetune_mask_engine,
    load_backbone,
    nearest_dice,
    sample_masks,
)
from univg.errors import InputError
from univg.io import read_json
from univg.metrics import NEAR_COPY
from univg.progress import ProgressEvent
from univg.segmentation.inputs import shrink_support
from univg.training.device import resolve_device
from univg.types import SupportSet
from univg.workflow.job_context import JobContext, JobPart
from univg.workflow.live_pictures import mask_sheet, saver, starts_sheet
from univg.workflow.model_versions import kept_apart_in
from univg.workflow.project import Project, version_of_job
from univg.workflow.start_trees import engine_size, grow_starts

_CHECKED = 6  # masks drawn at the end of an adaptation

# The paper's settings are for Stable Diffusion on a GPU; the compact engine has a fiftieth of its weights.
ADAPTATIONS = {
    "compact": (
        AdapterConfig(rank=8, alpha=8, conv_rank=8, conv_alpha=8),
        DiffusionTrainConfig(steps=240, batch_size=2, learning_rate=2e-3, warmup_steps=10, ema_decay=0.9),
    ),
    "sd15": (AdapterConfig(), DiffusionTrainConfig(steps=1500, batch_size=1, learning_rate=1e-4)),
}


def run_mask_engine_job(project: Project, params: dict, context: JobContext | JobPart) -> dict:
    """The work of a ``mask-engine`` job: `params` are ``adapter``, ``steps``, ``seed``, ``device``, ``backbone`` and
    ``without``, the name of a pair that is kept apart (by default see `kept_apart_in`).
    """
    made = version_of_job(project.adapters_folder, "engine.json", context.folder.name)
    if made is not None:
        return {"mask_engine": made[0], **made[1]["figures"]}
    support = support_without(project, kept_apart_in(context, project, params))
    device = resolve_device(params.get("device", "auto"))
    context.on_progress(ProgressEvent("mask engine", 0, 0, message="Loading the engine"))
    backbone = load_backbone(params.get("backbone", "compact"), engine="masks", device=device)
    adapter, training = ADAPTATIONS[backbone.name]
    try:
        adapter = replace(adapter, kind=params.get("adapter", adapter.kind))
        training = replace(training, seed=int(params.get("seed", 0)), steps=int(params.get("steps", training.steps)))
    except ValueError as error:
        raise InputError(str(error)) from error

    # 1. Adapt
    def save_samples(step: int, masks: np.ndarray) -> str:
        return saver(context.folder)(f"masks-{step:05d}", mask_sheet(list(masks)))

    engine = finetune_mask_engine(
        support.masks,
        backbone,
        modality=project.modality,
        adapter=adapter,
        config=training,
        size=engine_size(project.working_size),
        checkpoint_folder=context.checkpoint_folder,
        on_progress=context.on_progress,
        should_stop=context.should_stop,
        on_samples=save_samples,
    )

    # 2. Look for copies
    sampling = SamplingConfig(size=engine_size(project.working_size), seed=10_000)
    trees = grow_starts(shrink_support(support, sampling.size), _CHECKED, seed=sampling.seed)
    masks = sample_masks(
        engine, _CHECKED, config=sampling, trees=trees, on_progress=context.on_progress, should_stop=context.should_stop
    )
    picture = saver(context.folder)("masks", starts_sheet(trees, masks))
    context.on_progress(ProgressEvent("masks", _CHECKED, _CHECKED, picture=picture))
    copies = [nearest_dice(mask, support.masks) for mask in masks]
    figures = {"nearest_dice": float(np.median(copies)), "near_copies": sum(c > NEAR_COPY for c in copies)}

    # 3. Keep
    card = {
        **engine.card,
        "base": params.get("backbone", "compact"),
        "seed": training.seed,
        "support_sha256": dict(support.sha256),
        "figures": figures,
        "job": context.folder.name,
    }
    new = project.new_mask_engine_folder()
    with new as folder:
        replace(engine, card=card).save(folder)
    return {"mask_engine": new.version, **figures}


def support_without(project: Project, name: str | None) -> SupportSet:
    """The annotated pairs of a project but for one."""
    support = project.load_support()
    pairs = tuple(pair for pair in support.pairs if pair.name != name)
    if not pairs:
        return support
    names = {pair.name for pair in pairs}
    return replace(support, pairs=pairs, sha256={k: v for k, v in support.sha256.items() if Path(k).stem in names})


def load_mask_engine(project: Project, version: str | None = None, *, device: str = "auto") -> MaskEngine:
    """The newest mask engine of a project, another version, or the pretrained one where there is none."""
    folder = project.latest_mask_engine() if version is None else project.adapters_folder / version
    base = "compact" if folder is None else base_of(folder)
    backbone = load_backbone(base, engine="masks", device=resolve_device(device))
    if folder is None:
        names = project.support_names()
        frame = project.support_pair(names[0]).mask.shape if names else (project.working_size,) * 2
        return MaskEngine(backbone, project.modality, frame=frame)
    return MaskEngine.load(folder, backbone)


def base_of(folder: Path) -> str:
    """What an engine in a folder was adapted from: 'compact', or where a checkpoint of the user's lies."""
    try:
        return str(read_json(folder / "engine.json")["card"].get("base", "compact"))
    except (InputError, KeyError, TypeError, AttributeError):
        return "compact"  # reading the engine itself will say what is wrong
