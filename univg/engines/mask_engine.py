"""The mask engine: vessel masks by latent diffusion, adapted to a few real ones (sections 3.2.1, 3.3.1 and 3.4.1)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from skimage.filters import apply_hysteresis_threshold
from skimage.morphology import remove_small_objects, skeletonize

from univg.engines.adapters import (
    Adapter,
    adapted_prediction,
    add_stage,
    attach_adapter,
    load_adapter,
    save_adapter,
    training_prediction,
)
from univg.engines.backbone import DiffusionBackbone, fingerprint, mask_to_picture
from univg.engines.config import AdapterConfig, DiffusionTrainConfig, SamplingConfig, check_size
from univg.engines.diffusion import noising_batch, noising_loss, sample_latents
from univg.engines.frames import from_square, random_warp, resize, to_square
from univg.errors import InputError
from univg.io import read_json, write_json_atomic
from univg.metrics import dice
from univg.progress import OnProgress, ProgressEvent, ShouldStop, StageClock, ignore_progress, never_stop
from univg.training.loop import Batch, Look, optimize, preparing
from univg.types import Modality

_CARD = "engine.json"
_FORMAT = "univg-mask-engine/1"
_WHITE, _GREY = 0.0, -0.5  # levels between -1 and 1
_SPECK = 12  # pixels of a 512 x 512 frame
_VARIANTS = 48  # augmented masks that an adaptation learns from, at least one of each

# Gets a step and masks (n, H, W) that the engine draws by then; returns the path of a picture of them, or None.
OnSamples = Callable[[int, np.ndarray], str | None]


@dataclass(frozen=True, eq=False)
class MaskEngine:
    """What draws masks of one modality.

    Attributes
    ----------
    backbone : DiffusionBackbone
    modality : Modality
    adapter : Adapter or None
        None is the pretrained engine, before it has seen any real mask.
    frame : tuple of int
        ``(height, width)`` of the masks it was adapted to; what it draws has these proportions.
    card : mapping
        What it was adapted to.
    """

    backbone: DiffusionBackbone
    modality: Modality
    adapter: Adapter | None = None
    frame: tuple[int, int] = (512, 512)
    card: Mapping = field(default_factory=dict)

    def save(self, folder: str | Path) -> None:
        """Write adapter and card to an existing folder, each atomically; the backbone stays where it is."""
        if self.adapter is not None:
            save_adapter(self.adapter, folder)
        card = {
            "format": _FORMAT,
            "modality": str(self.modality),
            "frame": list(self.frame),
            "backbone": self.backbone.name,
            "adapted": self.adapter is not None,
            "card": dict(self.card),
        }
        write_json_atomic(Path(folder) / _CARD, card)

    @classmethod
    def load(cls, folder: str | Path, backbone: DiffusionBackbone) -> MaskEngine:
        """Read what `save` wrote; `InputError` when it is missing, damaged, or made for another backbone."""
        folder = Path(folder)
        if not (folder / _CARD).is_file():
            raise InputError("No mask engine here", path=folder, fix="Adapt the mask engine first.")
        try:
            data = read_json(folder / _CARD)
            if data["format"] != _FORMAT:
                raise ValueError(f"its format is {data['format']!r}, expected {_FORMAT!r}")
            modality, frame, card = Modality(data["modality"]), tuple(map(int, data["frame"])), data["card"]
            adapted = bool(data.get("adapted", True))  # earlier cards do not say
        except (KeyError, TypeError, ValueError) as error:
            raise InputError("This mask engine cannot be read", path=folder, fix="Adapt it again.") from error
        return cls(backbone, modality, load_adapter(folder, backbone) if adapted else None, frame, card)


def finetune_mask_engine(
    masks: Sequence[np.ndarray],
    backbone: DiffusionBackbone,
    *,
    modality: Modality,
    adapter: AdapterConfig | None = None,
    config: DiffusionTrainConfig | None = None,
    size: int = 512,
    checkpoint_folder: str | Path | None = None,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
    on_samples: OnSamples | None = None,
) -> MaskEngine:
    """Adapt to a few real masks.

    Parameters
    ----------
    masks : sequence of (H, W) ndarray of bool
        Five in the paper.
    backbone : DiffusionBackbone
        On the device to train on. It stays as it is.
    modality : Modality
    adapter : AdapterConfig, optional
    config : DiffusionTrainConfig, optional
        'lora+loha' spends half of its steps on each.
    size : int
        Side in pixels of the square that masks are drawn in.
    checkpoint_folder : path-like, optional
        An existing folder; a checkpoint found there is resumed, exactly.
    on_progress, should_stop, on_samples : callable

    Returns
    -------
    MaskEngine

    Raises
    ------
    InputError
        If a mask is empty.
    Cancelled
        After saving a checkpoint, when `should_stop` says so.
    """
    if not masks:
        raise ValueError("`masks` must hold at least one mask, got none")
    check_size(size)
    for number, mask in enumerate(masks):
        if mask.dtype != np.bool_ or mask.ndim != 2:
            raise ValueError(f"`masks` must be bool (H, W) arrays, got {mask.dtype} {mask.shape}")
        if not mask.any():
            raise InputError(f"Mask {number + 1} is empty", fix="Paint its vessels, or leave it out.")
    adapter, config = adapter or AdapterConfig(), config or DiffusionTrainConfig()
    if config.gradient_checkpointing:
        raise ValueError(
            "`gradient_checkpointing` cannot be used with adapters: layers computed again would lack them; "
            "use a smaller `batch_size`"
        )
    folder = None if checkpoint_folder is None else Path(checkpoint_folder)
    kinds = adapter.kind.split("+")
    config_of_stage = replace(config, steps=max(config.steps // len(kinds), 1))
    names = ["mask engine"] if len(kinds) == 1 else [f"mask engine, {kind}" for kind in kinds]

    # 1. Augmented masks as latents
    prepared = partial(
        preparing, stage=names[0], steps=config_of_stage.steps, on_progress=on_progress, should_stop=should_stop
    )
    rng = np.random.default_rng(config.seed)
    squares = [to_square(mask, size) for mask in masks]
    count = max(_VARIANTS, len(squares))
    numbers = prepared(range(count), "Varying the masks")
    variants = np.stack([random_warp(size, modality, rng).vessels(squares[i % len(squares)]) for i in numbers])
    parts = prepared(np.array_split(variants, count // 4), "Encoding the masks")
    latents = torch.cat([backbone.encode(mask_to_picture(part), [modality] * len(part)) for part in parts])
    tokens = backbone.condition([modality])

    def batches_from(first: int, part: tuple[int, ...]) -> Iterator[Batch]:
        for step in itertools.count(first):
            rng = np.random.default_rng([config.seed, step, *part])
            chosen = latents[torch.from_numpy(rng.integers(len(latents), size=config.batch_size)).to(latents.device)]
            yield chosen, *noising_batch(chosen, backbone.scheduler, rng)

    # 2. Factors, and the loop for each stage of them
    engine = MaskEngine(backbone, modality, None, masks[0].shape)
    for number, kind in enumerate(kinds):
        generator = torch.Generator().manual_seed(config.seed + number)
        engine = replace(
            engine,
            adapter=add_stage(engine.adapter, kind, generator=generator)
            if engine.adapter
            else attach_adapter(backbone, adapter, generator=generator),
        )
        _optimize_stage(
            engine,
            partial(batches_from, part=(number,) if number else ()),  # each learns from noise of its own
            tokens,
            config_of_stage,
            stage=names[number],
            folder=folder if folder is None or len(kinds) == 1 else _subfolder(folder, kind),
            data=variants,
            on_progress=on_progress,
            should_stop=should_stop,
            on_samples=on_samples,
        )
    for stage in engine.adapter.stages:
        stage.requires_grad_(False)
    return replace(engine, card={"masks": len(masks), "training": config.to_json(), "adapter": adapter.to_json()})


def _optimize_stage(
    engine: MaskEngine, batches_from, tokens, config, *, stage, folder, data, on_progress, should_stop, on_samples
) -> None:
    predict, scheduler = training_prediction(engine.adapter), engine.backbone.scheduler

    def loss_of(latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        known = tokens.expand(len(latents), -1, -1)
        return noising_loss(
            predict, latents, noise, timesteps, known, scheduler=scheduler, min_snr_gamma=config.min_snr_gamma
        )

    def look(step: int) -> Look:
        size = data.shape[-1]
        drawn = sample_masks(engine, 3, config=SamplingConfig(scale=1.0, size=size, steps=8))
        return Look({}, on_samples(step, drawn))

    optimize(
        engine.adapter.factors(),
        loss_of,
        batches_from,
        config=config,
        stage=stage,
        folder=folder,
        fingerprint=fingerprint(engine.backbone.sha256, engine.adapter.config.to_json(), config.to_json(), stage, data),
        look=look if on_samples else None,
        look_every=max(config.steps // 4, 1),
        seconds_between_checkpoints=10.0,
        on_progress=on_progress,
        should_stop=should_stop,
    )


def sample_masks(
    engine: MaskEngine,
    count: int,
    *,
    config: SamplingConfig,
    trees: Sequence[np.ndarray] | None = None,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> np.ndarray | list[np.ndarray]:
    """Draw masks from noise, or from trees.

    Parameters
    ----------
    engine : MaskEngine
    count : int
    config : SamplingConfig
        ``scale`` is α; 0 is the pretrained engine.
    trees : sequence of (H, W) ndarray of bool, optional
        `count` starts, for example from R-SCA; ``config.strength`` says how far noise covers them.
    on_progress, should_stop : callable

    Returns
    -------
    (count, H, W) ndarray of bool
        Of ``config.size`` pixels along the longer side, in the proportions of the trees (a list of arrays where those
        differ), or of ``engine.frame`` without trees.

    Raises
    ------
    Cancelled
        When `should_stop` says so.
    """
    if count < 1:
        raise ValueError(f"`count` must be at least 1, got {count}")
    if trees is not None and len(trees) != count:
        raise ValueError(f"`trees` must hold one tree for each of the {count} masks, got {len(trees)}")
    backbone = engine.backbone
    predict = adapted_prediction(backbone, engine.adapter, config.scale)
    clock, done = StageClock(warmup_steps=1), []
    for first in range(0, count, config.batch_size):
        seeds = [config.seed + i for i in range(first, min(first + config.batch_size, count))]
        modalities, start = [engine.modality] * len(seeds), None
        if trees is not None:
            squares = np.stack([to_square(tree, config.size) for tree in trees[first : first + len(seeds)]])
            start = backbone.encode(mask_to_picture(squares), modalities)
        latents = sample_latents(
            predict,
            backbone,
            backbone.condition(modalities).detach(),
            seeds=seeds,
            config=config,
            start=start,
            should_stop=should_stop,
        )
        pictures = backbone.decode(latents, modalities).mean(1)
        done += [vessels_in(picture) for picture in pictures.cpu().numpy()]
        on_progress(clock.timed(ProgressEvent("masks", len(done), count)))
    frames = [engine.frame] * count if trees is None else [tree.shape for tree in trees]
    cut = [from_square(mask, frame) for mask, frame in zip(done, frames, strict=True)]
    return np.stack(cut) if len({mask.shape for mask in cut}) == 1 else cut


def vessels_in(picture: np.ndarray) -> np.ndarray:
    """The vessels of a drawn mask: what is white, joined by thin lines where it is grey in between, and no specks.

    A thin vessel comes out of an autoencoder grey here and there, and would fall into pieces at a single threshold; at
    a lower one all vessels would be too wide.

    Parameters
    ----------
    picture : (H, W) ndarray of float32
        -1 is background, 1 is vessel.

    Returns
    -------
    (H, W) ndarray of bool
    """
    joined = apply_hysteresis_threshold(picture, _GREY, _WHITE)
    mask = (picture > _WHITE) | skeletonize(joined)
    return remove_small_objects(mask, max_size=round(_SPECK * picture.size / 512**2), connectivity=2)


def nearest_dice(mask: np.ndarray, support: Sequence[np.ndarray]) -> float:
    """Dice of a mask with the support mask most like it; above `univg.metrics.NEAR_COPY` it counts as a copy.

    Parameters
    ----------
    mask : (H, W) ndarray of bool
    support : sequence of (H, W) ndarray of bool
        Scaled to the size of `mask`.
    """
    scaled = [resize(other, mask.shape) for other in support]
    return max(dice(mask, other) for other in scaled)


def _subfolder(folder: Path, name: str) -> Path:
    inside = folder / name
    inside.mkdir(exist_ok=True)
    return inside
