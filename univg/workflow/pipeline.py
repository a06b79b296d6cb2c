"""From five annotated images to a segmenter: the stages, in order, one call each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from univg.errors import Cancelled, InputError
from univg.io import read_json, write_json_atomic
from univg.overlay import overlay_mask
from univg.progress import OnProgress, ProgressEvent, ShouldStop, StageClock, ignore_progress, never_stop
from univg.sca import find_hub, generate_mask
from univg.segmentation import Segmenter, render_pairs, train_segmenter
from univg.segmentation.inputs import shrink_pair
from univg.types import ImageMaskPair, SupportSet
from univg.workflow.job_context import JobContext, JobPart
from univg.workflow.job_records import CHECKPOINT_FOLDER
from univg.workflow.live_pictures import SavePicture, mask_sheet, pair_sheet, saver
from univg.workflow.model_versions import name_to_hold_out, settle
from univg.workflow.presets import PRESETS, Preset
from univg.workflow.project import Project, version_of_job
from univg.workflow.verdicts import draw_from

__all__ = ["PRESETS", "Preset", "run_on_project", "run_pipeline"]

STAGES = ("trees", "pairs", "segmenter", "check")
_PICTURE_EVERY = 6  # trees or pairs


def run_pipeline(
    support: SupportSet,
    *,
    preset: Preset,
    seed: int = 0,
    synthetic: Sequence[ImageMaskPair] | None = None,
    held_out: str | None = None,
    checkpoint_folder: str | Path | None = None,
    device: str = "auto",
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
    save_picture: SavePicture | None = None,
) -> Segmenter:
    """Adapt to `support`.

    Everything random follows from `seed`; a run resumed from `checkpoint_folder` ends with the same weights as one
    that was never interrupted, on the same CPU. `synthetic` pairs made elsewhere take the place of those that are grown
    and drawn here. `held_out` names the annotated pair to keep apart; by default one is drawn.

    Raises
    ------
    Cancelled
        With the state saved, when `should_stop` says so.
    """
    rng = np.random.default_rng(seed)
    config = replace(preset.segmentation, seed=seed)

    # 1. Keep one annotated image apart, to choose the weights by
    real, kept_apart = split_held_out(support, hold_out=preset.hold_out, rng=rng, name=held_out)

    if synthetic is None:
        # 2. Grow trees conditioned on the masks that train, at most at the size that training scales them to
        sources = [shrink_pair(pair, config.working_size) for pair in real] if preset.pairs else []
        hubs = [find_hub(support.modality, pair.mask, pair.image) for pair in sources]

        def grow() -> np.ndarray:
            source = int(rng.integers(len(sources)))
            return generate_mask(support.modality, mask=sources[source].mask, hub=hubs[source], rng=rng)

        show = None if save_picture is None else lambda found: save_picture("trees", mask_sheet(found))
        masks = _counted("trees", preset.pairs, grow, on_progress, should_stop, show)

        # 3. Draw them on the backgrounds of the same images
        renderer = render_pairs(sources, masks, modality=support.modality, rng=rng)
        show = None if save_picture is None else lambda found: save_picture("pairs", pair_sheet(found))
        synthetic = _counted("pairs", preset.pairs, lambda: next(renderer), on_progress, should_stop, show)

    # 4. Train on real and synthetic together
    def show_held_out(step: int, probability: np.ndarray) -> str | None:
        return _picture_held_out(save_picture, kept_apart, step, probability) if save_picture else None

    segmenter = train_segmenter(
        real,
        synthetic,
        modality=support.modality,
        held_out=kept_apart,
        config=config,
        checkpoint_folder=checkpoint_folder,
        device=device,
        on_progress=on_progress,
        should_stop=should_stop,
        on_held_out=show_held_out,
    )

    # 5. Put on record what it was made from
    card = {**segmenter.card, "preset": preset.name, "seed": seed, "support_sha256": dict(support.sha256)}
    on_progress(ProgressEvent("check", 1, 1, metrics=_figures(segmenter)))
    return replace(segmenter, card=card)


def split_held_out(
    support: SupportSet, *, hold_out: bool, rng: np.random.Generator, name: str | None = None
) -> tuple[list[ImageMaskPair], ImageMaskPair | None]:
    """The pairs that train and the one kept out: that called `name`, or one drawn by `rng`.

    With a single pair, or none to hold out, all train.
    """
    pairs = list(support.pairs)
    if not hold_out or len(pairs) < 2:
        return pairs, None
    chosen = int(rng.integers(len(pairs)))  # drawn in any case, so that what follows stays the same
    if name is not None:
        chosen = [pair.name for pair in pairs].index(name)
    return [pair for i, pair in enumerate(pairs) if i != chosen], pairs[chosen]


def run_on_project(
    project: Project,
    preset: Preset,
    seed: int,
    device: str,
    context: JobContext | JobPart,
    *,
    synthetic: Sequence[ImageMaskPair] | None = None,
    held_out: str | None = None,
) -> dict:
    """`run_pipeline` on the annotated pairs of a project; the segmenter becomes its next version, once for each job.

    `held_out` names the pair to keep apart; by default see `held_out_name`. ``pairs_used`` of what is returned counts
    the synthetic pairs, made elsewhere or here.
    """
    made = version_of_job(project.segmenters_folder, "segmenter.json", context.folder.name)
    if made is None:
        made = _make_version(project, preset, seed, device, context, synthetic, held_out)
    version, card = made
    settled = settle(project, version)
    return {
        "segmenter": version,
        "training_steps": preset.segmentation.steps,
        "pairs_used": card["synthetic_pairs"],
        "held_out": dict(card["held_out_figures"]),
        "versions": settled.to_json(),
    }


def _make_version(
    project: Project,
    preset: Preset,
    seed: int,
    device: str,
    context: JobContext | JobPart,
    synthetic: Sequence[ImageMaskPair] | None,
    held_out: str | None,
) -> tuple[str, Mapping]:
    """Train and save; the name of the version and its card."""
    support = project.load_support()
    if held_out is None:
        held_out = held_out_name(project, support, preset, seed, context.folder / CHECKPOINT_FOLDER)
    if held_out is not None and held_out not in {pair.name for pair in support.pairs}:
        raise InputError(
            "The annotated image that this run keeps apart is no longer in the project",
            fix="Start a new run, or add the image again under its name and resume.",
        )
    segmenter = run_pipeline(
        support,
        preset=preset,
        seed=seed,
        synthetic=synthetic,
        held_out=held_out,
        checkpoint_folder=context.checkpoint_folder,
        device=device,
        on_progress=context.on_progress,
        should_stop=context.should_stop,
        save_picture=saver(context.folder),
    )
    new = project.new_segmenter_folder()
    card = {**segmenter.card, "job": context.folder.name}
    with new as folder:
        replace(segmenter, card=card).save(folder)
    return new.version, card


def held_out_name(
    project: Project, support: SupportSet, preset: Preset, seed: int, checkpoint_folder: Path
) -> str | None:
    """The pair that a job keeps apart: the one on which all versions are compared, or one drawn where there is none.

    Put on record in the checkpoint: another run may freeze an image before this one is resumed.
    """
    record = checkpoint_folder / "held_out.json"
    if not record.is_file():
        frozen = name_to_hold_out(project) if preset.hold_out and len(support) > 1 else None
        drawn = split_held_out(support, hold_out=preset.hold_out, rng=np.random.default_rng(seed), name=frozen)[1]
        write_json_atomic(record, {"name": None if drawn is None else drawn.name})
    return read_json(record)["name"]


def load_drawn(project: Project, weights: Mapping[str, float], preset: Preset, seed: int) -> list[ImageMaskPair]:
    """The synthetic pairs that a training with `preset` may draw, with their weights."""
    chosen = draw_from(weights, preset.synthetic_drawn, seed=seed)
    return [replace(project.synthetic_pair(name), weight=weight) for name, weight in chosen.items()]


def _counted(
    stage: str,
    count: int,
    make: Callable,
    on_progress: OnProgress,
    should_stop: ShouldStop,
    show: Callable[[list], str] | None,
) -> list:
    """`count` results of `make`, with progress and a few pictures; short stages are repeated, not resumed."""
    clock, results = StageClock(), []
    while len(results) < count:
        if should_stop():
            raise Cancelled
        results.append(make())
        due = show is not None and (len(results) == count or len(results) % _PICTURE_EVERY == 1)
        event = ProgressEvent(stage, len(results), count, picture=show(results) if due else None)
        on_progress(clock.timed(event))
    return results


def _figures(segmenter: Segmenter) -> dict[str, float]:
    figures = segmenter.card["held_out_figures"]
    return {f"held_out_{name}": figures[name] for name in ("dice", "cldice") if name in figures}


def _picture_held_out(save_picture: SavePicture, pair: ImageMaskPair, step: int, probability: np.ndarray) -> str:
    height, width = pair.shape
    probability = cv2.resize(probability, (width, height), interpolation=cv2.INTER_LINEAR)
    return save_picture(f"held-out-{step:05d}", overlay_mask(pair.image, probability >= 0.5))
