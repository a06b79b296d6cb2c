"""Adapting the image engine to a project, and the segmenter that judges what it draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from diffusers import ControlNetModel

from univg.engines import (
    DiffusionBackbone,
    ImageEngine,
    ImageTrainConfig,
    SamplingConfig,
    load_backbone,
    load_controlnet,
    synthesize_images,
    train_image_engine,
)
from univg.engines.backbone import new_controlnet
from univg.engines.frames import resize
from univg.errors import InputError
from univg.progress import OnProgress, ProgressEvent, ShouldStop, StageClock, ignore_progress, never_stop
from univg.segmentation import Segmenter
from univg.segmentation.render import measure_appearance, render_pair
from univg.training.device import resolve_device
from univg.training.seeding import seeded
from univg.types import ImageMaskPair, SupportSet
from univg.weights import shipped_folder
from univg.workflow.engines import base_of, support_without
from univg.workflow.job_context import JobContext, JobPart
from univg.workflow.live_pictures import pair_sheet, saver
from univg.workflow.model_versions import kept_apart_in
from univg.workflow.pair_checks import check_synthetic_pair
from univg.workflow.pipeline import run_pipeline
from univg.workflow.presets import CRITIC
from univg.workflow.project import Project, version_of_job
from univg.workflow.start_trees import engine_size

CRITIC_FOLDER = "critic"
_CHECKED = 4  # images drawn at the end of an adaptation

# The paper locks Stable Diffusion and trains the ControlNet alone; the compact engine is small enough to move whole.
ADAPTATIONS = {
    "compact": ImageTrainConfig(
        steps=400, batch_size=2, learning_rate=2e-4, warmup_steps=20, ema_decay=0.98, min_snr_gamma=math.inf
    ),
    "sd15": ImageTrainConfig(steps=1500, batch_size=2, learning_rate=1e-5, train_unet=False, vessel_weight=0.0),
}


def load_base(where: str = "compact", *, device: str = "auto") -> tuple[DiffusionBackbone, ControlNetModel]:
    """The backbone of image engines with the ControlNet that comes with it, or a fresh one where none does."""
    backbone = load_backbone(where, engine="images", device=resolve_device(device))
    folder = shipped_folder("models", "images") if where == "compact" else Path(where)
    if (folder / "controlnet").is_dir():
        return backbone, load_controlnet(folder / "controlnet", backbone)
    with seeded(0):
        return backbone, new_controlnet(backbone.unet)


@dataclass(frozen=True, eq=False)
class Critic:
    """A segmenter trained on the real images alone, and its Dice on one that it had not seen; None without such one."""

    segmenter: Segmenter
    expected_agreement: float | None

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Critic:
        return cls.of(Segmenter.load(folder, device))

    @classmethod
    def of(cls, segmenter: Segmenter) -> Critic:
        dice = segmenter.card["held_out_figures"].get("dice")
        return cls(segmenter, None if dice is None else float(dice))


def train_critic(
    support: SupportSet,
    *,
    checkpoint_folder: Path | None = None,
    device: str = "auto",
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> Critic:
    """Train the judge of synthetic pairs, without any synthetic pair."""
    size = max(engine_size(max(pair.shape)) for pair in support.pairs)
    segmenter = run_pipeline(
        support,
        preset=CRITIC.scaled_to(min(size, 512)),
        checkpoint_folder=checkpoint_folder,
        device=device,
        on_progress=lambda event: on_progress(replace(event, stage="critic", picture=None)),
        should_stop=should_stop,
    )
    return Critic.of(segmenter)


def run_image_engine_job(project: Project, params: dict, context: JobContext | JobPart) -> dict:
    """The work of an ``image-engine`` job: `params` are ``steps``, ``seed``, ``device``, ``backbone`` and ``without``,
    the name of a pair that is kept apart (by default see `kept_apart_in`).

    The result has ``agreement`` and ``nearest_image`` of images drawn with the engine, and ``expected_agreement`` where
    the judge kept an image apart: with a single one to learn from there is none.
    """
    made = version_of_job(project.image_engines_folder, "engine.json", context.folder.name)
    if made is not None:
        return {"image_engine": made[0], **made[1]["figures"]}
    support = support_without(project, kept_apart_in(context, project, params))
    device = params.get("device", "auto")
    context.on_progress(ProgressEvent("image engine", 0, 0, message="Loading the engine"))
    backbone, controlnet = load_base(params.get("backbone", "compact"), device=device)
    training = ADAPTATIONS[backbone.name]
    try:
        training = replace(training, seed=int(params.get("seed", 0)), steps=int(params.get("steps", training.steps)))
    except ValueError as error:
        raise InputError(str(error)) from error
    size = engine_size(project.working_size)
    common = {"on_progress": context.on_progress, "should_stop": context.should_stop}

    # 1. The judge, from the real images alone
    critic = train_critic(
        support, checkpoint_folder=_made(context.checkpoint_folder / "critic"), device=device, **common
    )

    # 2. Adapt
    save_picture = saver(context.folder)

    def save_samples(step: int, masks: np.ndarray, images: np.ndarray) -> str:
        return save_picture(f"images-{step:05d}", pair_sheet(_as_pairs(images, masks)))

    engine = train_image_engine(
        support.pairs,
        backbone,
        controlnet.to("cpu"),  # what learns is a copy: no second one on the GPU
        modality=project.modality,
        config=training,
        size=size,
        checkpoint_folder=context.within("engine").checkpoint_folder,
        on_samples=save_samples,
        **common,
    )

    # 3. Does it draw what the masks say? Mirrored ones are new to it
    sampling = SamplingConfig(scale=1.0, size=size, seed=10_000)
    pairs = _drawn_mirrored(engine, support.pairs[:_CHECKED], sampling, **common)
    picture = save_picture("images", pair_sheet(pairs))
    context.on_progress(ProgressEvent("images", len(pairs), len(pairs), picture=picture))
    checks = [check_synthetic_pair(pair, support.pairs, critic.segmenter) for pair in pairs]
    figures = {
        "agreement": float(np.mean([check.agreement for check in checks])),
        "nearest_image": float(np.max([check.nearest_image for check in checks])),
    }
    if critic.expected_agreement is not None:
        figures["expected_agreement"] = critic.expected_agreement

    # 4. Keep
    card = {
        **engine.card,
        "base": params.get("backbone", "compact"),
        "seed": training.seed,
        "support_sha256": dict(support.sha256),
        "figures": figures,
        "job": context.folder.name,
    }
    new = project.new_image_engine_folder()
    with new as folder:
        critic.segmenter.save(_made(folder / CRITIC_FOLDER))
        replace(engine, card=card).save(folder)
    return {"image_engine": new.version, **figures}


def load_image_engine(
    project: Project, version: str | None = None, *, device: str = "auto"
) -> tuple[ImageEngine, Critic]:
    """The newest image engine of a project, or another version, with the segmenter that judges its images."""
    folder = project.latest_image_engine() if version is None else project.image_engines_folder / version
    if folder is None:
        raise InputError("The image engine is not adapted yet", path=project.path, fix="Adapt it first: Images tab.")
    chosen = resolve_device(device)
    backbone = load_backbone(base_of(folder), engine="images", device=chosen)
    return ImageEngine.load(folder, backbone), Critic.load(folder / CRITIC_FOLDER, chosen.type)


def draw_pair(
    engine: ImageEngine, mask: np.ndarray, support: SupportSet | None, config: SamplingConfig, *, name: str
) -> ImageMaskPair:
    """One image of `mask`, (H, W) bool.

    With a strength of 1 it is drawn from noise, and needs no `support`; below, from a rendered image: the mask on the
    background of an annotated image, chosen by the seed. That image then gives the size. Either way the field of view
    cuts the mask.
    """
    if config.strength >= 1:
        field = engine.field_for(config.seed, mask.shape)
        return as_pair(synthesize_images(engine, [mask], config=config, fields=[field])[0], mask & field, name)
    rng = np.random.default_rng(config.seed)
    source = support.pairs[int(rng.integers(len(support.pairs)))]
    appearance = _appearance(source, support.modality)
    start = render_pair(source, mask, appearance=appearance, rng=rng, name=name)
    drawn = synthesize_images(engine, [start.mask], config=config, fields=[appearance.fov], starts=[start.image])
    return as_pair(drawn[0], start.mask, name)


# Pairs are told apart by identity: whoever draws many of one support set passes the same.
_appearance = lru_cache(maxsize=8)(measure_appearance)


def as_pair(image: np.ndarray, mask: np.ndarray, name: str) -> ImageMaskPair:
    """A synthetic pair of an image as it was drawn and the mask that it was drawn of."""
    return ImageMaskPair(image, resize(mask, image.shape[:2]), name, synthetic=True)


def _drawn_mirrored(
    engine: ImageEngine,
    pairs: Sequence[ImageMaskPair],
    config: SamplingConfig,
    *,
    on_progress: OnProgress,
    should_stop: ShouldStop,
) -> list[ImageMaskPair]:
    """An image of each mask, mirrored with its field of view; one by one, since their shapes may differ."""
    clock, drawn = StageClock(warmup_steps=1), []
    for number, (pair, seen) in enumerate(zip(pairs, engine.fields[: len(pairs)], strict=True)):
        mask, field = (np.ascontiguousarray(part[:, ::-1]) for part in (pair.mask, seen))
        sampling = replace(config, seed=config.seed + number)
        image = synthesize_images(engine, [mask], config=sampling, fields=[field], should_stop=should_stop)[0]
        drawn.append(as_pair(image, mask, f"check-{number}"))
        on_progress(clock.timed(ProgressEvent("images", len(drawn), len(pairs))))
    return drawn


def _as_pairs(images: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> list[ImageMaskPair]:
    return [as_pair(image, mask, f"check-{i}") for i, (image, mask) in enumerate(zip(images, masks, strict=True))]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
