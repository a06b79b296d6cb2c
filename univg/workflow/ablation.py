"""Where the points come from: the same segmenter with different synthetic pairs (Table 3 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from univg.engines import (
    ImageEngine,
    SamplingConfig,
    finetune_mask_engine,
    load_backbone,
    sample_masks,
    train_image_engine,
)
from univg.progress import OnProgress, ShouldStop, ignore_progress, never_stop
from univg.segmentation import render_pairs
from univg.training.device import resolve_device
from univg.types import ImageMaskPair, SupportSet
from univg.workflow import engines, image_engines
from univg.workflow.pipeline import split_held_out
from univg.workflow.presets import CONDITIONING, IMAGE_STRENGTH, Preset
from univg.workflow.start_trees import grow_starts

BASELINE, NO_PRIOR = "baseline", "no prior"
# Row of the table: where masks come from, where images come from. The last trains from random weights.
ROWS = {
    BASELINE: ("", ""),
    "trees": ("trees", "render"),
    "mask engine": ("engine", "render"),
    "image engine": ("trees", "engine"),
    "all": ("engine", "engine"),
    NO_PRIOR: ("", ""),
}


def preset_of_row(preset: Preset, row: str, count: int) -> Preset:
    """`preset` as a row of the table trains it: how many pairs it has is on record, though a `PairMaker` makes them."""
    start = "random" if row == NO_PRIOR else preset.segmentation.start
    return replace(
        preset,
        pairs=count if any(ROWS[row]) else 0,
        segmentation=replace(preset.segmentation, start=start),
    )


class PairMaker:
    """Makes the synthetic pairs of a row for a split; rows of the same split share its masks and engines.

    Those of one split are kept, so all rows of it should come before another one. The held-out image of the split is
    seen by no engine and by no tree.

    Parameters
    ----------
    count : int
        Pairs a row.
    size : int
        Side that engines draw.
    folder : path-like, optional
        For the checkpoints of adaptations.
    device : {'auto', 'cpu', 'cuda', 'mps'}
    on_progress, should_stop : callable
    """

    def __init__(
        self,
        count: int,
        *,
        size: int = 512,
        folder: str | Path | None = None,
        device: str = "auto",
        on_progress: OnProgress = ignore_progress,
        should_stop: ShouldStop = never_stop,
    ) -> None:
        self.count, self.size, self.device = count, size, device
        self._folder = None if folder is None else Path(folder)
        self._common = {"on_progress": on_progress, "should_stop": should_stop}
        self._seed: int | None = None
        self._masks: dict[str, list[np.ndarray]] = {}
        self._engine: ImageEngine | None = None

    def __call__(self, row: str, support: SupportSet, seed: int) -> Sequence[ImageMaskPair]:
        """The pairs of `row` (see `ROWS`) for the split of `seed`."""
        where, how = ROWS[row]
        if not where:
            return []
        if seed != self._seed:
            self._seed, self._masks, self._engine = seed, {}, None
        pairs, _ = split_held_out(support, hold_out=True, rng=np.random.default_rng(seed))
        real = SupportSet(support.modality, tuple(pairs))
        masks = self._masks_of(where, real, seed)
        if how == "render":
            return list(render_pairs(pairs, masks, modality=support.modality, rng=np.random.default_rng([seed, 1])))
        if self._engine is None:
            self._engine = self._adapt_images(real, seed)
        config = SamplingConfig(scale=CONDITIONING, strength=IMAGE_STRENGTH, size=self.size)
        return [
            image_engines.draw_pair(self._engine, mask, real, replace(config, seed=seed + n), name=f"{row}-{n}")
            for n, mask in enumerate(masks)
        ]

    def _masks_of(self, where: str, real: SupportSet, seed: int) -> list[np.ndarray]:
        if "trees" not in self._masks:
            self._masks["trees"] = grow_starts(real, self.count, seed=1000 * seed)
        if where == "engine" and where not in self._masks:
            backbone = load_backbone(engine="masks", device=resolve_device(self.device))
            adapter, training = engines.ADAPTATIONS[backbone.name]
            engine = finetune_mask_engine(
                real.masks,
                backbone,
                modality=real.modality,
                adapter=adapter,
                config=training,
                size=self.size,
                checkpoint_folder=self._checkpoint(f"masks-{seed}"),
                **self._common,
            )
            config = SamplingConfig(size=self.size, seed=1000 * seed)
            drawn = sample_masks(engine, self.count, config=config, trees=self._masks["trees"], **self._common)
            self._masks["engine"] = list(drawn)
        return self._masks[where]

    def _adapt_images(self, real: SupportSet, seed: int) -> ImageEngine:
        backbone, controlnet = image_engines.load_base(device=self.device)
        return train_image_engine(
            real.pairs,
            backbone,
            controlnet,
            modality=real.modality,
            config=image_engines.ADAPTATIONS[backbone.name],
            size=self.size,
            checkpoint_folder=self._checkpoint(f"images-{seed}"),
            **self._common,
        )

    def _checkpoint(self, name: str) -> Path | None:
        if self._folder is None:
            return None
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder
