"""From five annotated images to a segmenter: the stages, in order, one call each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from univg.errors import Cancelled
from univg.io import write_image
from univg.overlay import overlay_mask
from univg.progress import OnProgress, ProgressEvent, ShouldStop, StageClock, ignore_progress, never_stop
from univg.sca import find_hub, generate_mask
from univg.segmentation import Segmenter, render_pairs, train_segmenter
from univg.types import ImageMaskPair, SupportSet
from univg.workflow.job_context import JobContext, JobPart
from univg.workflow.model_versions import settle
from univg.workflow.presets import PRESETS, Preset
from univg.workflow.project import Project

__all__ = ["PRESETS", "Preset", "run_on_project", "run_pipeline"]

STAGES = ("trees", "pairs", "segmenter", "check")

# Gets a name and an (H, W, 3) uint8 picture; returns where it was put.
SavePicture = Callable[[str, np.ndarray], str]


def run_pipeline(
    support: SupportSet,
    *,
    preset: Preset,
    seed: int = 0,
    synthetic: Sequence[ImageMaskPair] | None = None,
    checkpoint_folder: str | Path | None = None,
    device: str = "auto",
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
    save_picture: SavePicture | None = None,
) -> Segmenter:
    """Adapt to `support`.

    Everything random follows from `seed`; a run resumed from `checkpoint_folder` ends with the same weights as one
    that was never interrupted, on the same CPU. `synthetic` pairs made elsewhere take the place of those that are grown
    and drawn here.

    Raises
    ------
    Cancelled
        With the state saved, when `should_stop` says so.
    """
    rng = np.random.default_rng(seed)
    config = replace(preset.segmentation, seed=seed)

    # 1. Keep one annotated image apart, to choose the weights by
    real, held_out = split_held_out(support, hold_out=preset.hold_out, rng=rng)

    if synthetic is None:
        # 2. Grow trees conditioned on the masks that train
        hubs = [find_hub(support.modality, pair.mask, pair.image) for pair in real] if preset.pairs else []

        def grow() -> np.ndarray:
            source = int(rng.integers(len(real)))
            return generate_mask(support.modality, mask=real[source].mask, hub=hubs[source], rng=rng)

        masks = _counted("trees", preset.pairs, grow, on_progress, should_stop)

        # 3. Draw them on the backgrounds of the same images
        renderer = render_pairs(real, masks, modality=support.modality, rng=rng)
        synthetic = _counted("pairs", preset.pairs, lambda: next(renderer), on_progress, should_stop)
        if save_picture and synthetic:
            on_progress(
                ProgressEvent("pairs", preset.pairs, preset.pairs, picture=_picture_pair(save_picture, synthetic[0]))
            )

    # 4. Train on real and synthetic together
    def show_held_out(step: int, probability: np.ndarray) -> str | None:
        return _picture_held_out(save_picture, held_out, step, probability) if save_picture else None

    segmenter = train_segmenter(
        real,
        synthetic,
        modality=support.modality,
        held_out=held_out,
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
    support: SupportSet, *, hold_out: bool, rng: np.random.Generator
) -> tuple[list[ImageMaskPair], ImageMaskPair | None]:
    """The pairs that train and the one kept out; with a single pair, or none to hold out, all train."""
    pairs = list(support.pairs)
    if not hold_out or len(pairs) < 2:
        return pairs, None
    chosen = int(rng.integers(len(pairs)))
    return [pair for i, pair in enumerate(pairs) if i != chosen], pairs[chosen]


def run_on_project(
    project: Project,
    preset: Preset,
    seed: int,
    device: str,
    context: JobContext | JobPart,
    *,
    synthetic: Sequence[ImageMaskPair] | None = None,
) -> dict:
    """`run_pipeline` on the annotated pairs of a project; the segmenter becomes its next version."""

    def save_picture(name: str, picture: np.ndarray) -> str:
        folder = context.folder / "pictures"
        folder.mkdir(exist_ok=True)
        write_image(folder / f"{name}.png", picture)
        return f"pictures/{name}.png"

    segmenter = run_pipeline(
        project.load_support(),
        preset=preset,
        seed=seed,
        synthetic=synthetic,
        checkpoint_folder=context.checkpoint_folder,
        device=device,
        on_progress=context.on_progress,
        should_stop=context.should_stop,
        save_picture=save_picture,
    )
    new = project.new_segmenter_folder()
    with new as folder:
        segmenter.save(folder)
    settled = settle(project, new.version)
    return {
        "segmenter": new.version,
        "held_out": dict(segmenter.card["held_out_figures"]),
        "versions": settled.to_json(),
    }


def _counted(stage: str, count: int, make: Callable, on_progress: OnProgress, should_stop: ShouldStop) -> list:
    """`count` results of `make`, with progress; these stages are short and are repeated, not resumed."""
    clock, results = StageClock(), []
    while len(results) < count:
        if should_stop():
            raise Cancelled
        results.append(make())
        on_progress(clock.timed(ProgressEvent(stage, len(results), count)))
    return results


def _figures(segmenter: Segmenter) -> dict[str, float]:
    figures = segmenter.card["held_out_figures"]
    return {f"held_out_{name}": figures[name] for name in ("dice", "cldice") if name in figures}


def _picture_pair(save_picture: SavePicture, pair: ImageMaskPair) -> str:
    return save_picture(
        "pair", np.hstack([overlay_mask(pair.image, pair.mask, opacity=0.0), overlay_mask(pair.image, pair.mask)])
    )


def _picture_held_out(save_picture: SavePicture, pair: ImageMaskPair, step: int, probability: np.ndarray) -> str:
    height, width = pair.shape
    probability = cv2.resize(probability, (width, height), interpolation=cv2.INTER_LINEAR)
    return save_picture(f"held-out-{step:05d}", overlay_mask(pair.image, probability >= 0.5))
