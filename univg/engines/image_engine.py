"""The image engine: from a vessel mask to an image of it, adapted to a few pairs (sections 3.2.2, 3.3.2 and 3.4.1)."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import ControlNetModel
from diffusers.models.modeling_utils import ModelMixin

from univg.engines.backbone import (
    DiffusionBackbone,
    condition_to_picture,
    fingerprint,
    image_to_picture,
    picture_to_image,
)
from univg.engines.conditions import vessel_condition
from univg.engines.config import ImageTrainConfig, SamplingConfig, check_size
from univg.engines.diffusion import controlled_prediction, noising_batch, noising_loss, sample_latents
from univg.engines.folders import load_controlnet, load_unet, save_controlnet, save_unet
from univg.engines.frames import from_square, random_warp, to_square
from univg.engines.parts import evaluating
from univg.errors import InputError
from univg.geometry import estimate_fov
from univg.io import read_json, read_mask, write_json_atomic, write_mask
from univg.progress import OnProgress, ProgressEvent, ShouldStop, StageClock, ignore_progress, never_stop
from univg.training.loop import Batch, Look, optimize, preparing
from univg.types import ImageMaskPair, Modality, as_float

_CARD = "engine.json"
_FORMAT = "univg-image-engine/1"
_VARIANTS = 60  # augmented pairs that an adaptation learns from, at least one of each

# Gets a step, masks (n, S, S) and images (n, S, S, 3) that the engine draws of them by then; returns the path of a
# picture of them, or None.
OnSamples = Callable[[int, np.ndarray, np.ndarray], str | None]


@dataclass(frozen=True, eq=False)
class ImageEngine:
    """What draws images of one modality and look.

    Attributes
    ----------
    backbone : DiffusionBackbone
        Its U-Net may be adapted too.
    controlnet : ControlNetModel
    modality : Modality
    fields : tuple of (H, W) ndarray of bool
        Fields of view of the images it was adapted to; each image it draws gets one of them.
    surround : tuple of float
        Colour outside the field of view, in [0, 1].
    grey : bool
        Whether its images have one channel.
    unet_adapted : bool
        Whether the U-Net belongs to this engine; otherwise it is the pretrained one.
    card : mapping
        What it was adapted to.
    """

    backbone: DiffusionBackbone
    controlnet: ControlNetModel
    modality: Modality
    fields: tuple[np.ndarray, ...] = ()
    surround: tuple[float, ...] = (0.0, 0.0, 0.0)
    grey: bool = False
    unet_adapted: bool = False
    card: Mapping = field(default_factory=dict)

    def field_for(self, seed: int, shape: tuple[int, int]) -> np.ndarray:
        """The field of view, bool `shape`, that an image of `seed` gets where none is named."""
        if not self.fields:
            return np.ones(shape, bool)
        chosen = self.fields[int(np.random.default_rng(seed).integers(len(self.fields)))]
        scaled = cv2.resize(chosen.astype(np.uint8), shape[::-1], interpolation=cv2.INTER_NEAREST)
        return scaled > 0

    def save(self, folder: str | Path) -> None:
        """Write the networks (float16) and the card, which is written last, to an existing folder."""
        folder = Path(folder)
        save_controlnet(self.controlnet, folder / "controlnet")
        if self.unet_adapted:
            save_unet(self.backbone.unet, folder / "unet")
        (folder / "fields").mkdir(exist_ok=True)
        for number, seen in enumerate(self.fields):
            write_mask(folder / "fields" / f"{number:03d}.png", seen)
        card = {
            "format": _FORMAT,
            "modality": str(self.modality),
            "backbone": self.backbone.name,
            "base_sha256": self.backbone.sha256,
            "fields": len(self.fields),
            "surround": list(self.surround),
            "grey": self.grey,
            "unet_adapted": self.unet_adapted,
            "card": dict(self.card),
        }
        write_json_atomic(folder / _CARD, card)

    @classmethod
    def load(cls, folder: str | Path, backbone: DiffusionBackbone) -> ImageEngine:
        """Read what `save` wrote; `InputError` when it is missing, damaged, or made for another backbone."""
        folder = Path(folder)
        if not (folder / _CARD).is_file():
            raise InputError("No image engine here", path=folder, fix="Adapt the image engine first.")
        try:
            data = read_json(folder / _CARD)
            if data["format"] != _FORMAT:
                raise ValueError(f"its format is {data['format']!r}, expected {_FORMAT!r}")
            modality, card = Modality(data["modality"]), data["card"]
            surround, grey = tuple(map(float, data["surround"])), bool(data["grey"])
            count, adapted, base = int(data["fields"]), bool(data["unet_adapted"]), data["base_sha256"]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError("This image engine cannot be read", path=folder, fix="Adapt it again.") from error
        if base != backbone.sha256:
            raise InputError(
                "This image engine was made for another base model",
                path=folder,
                fix="Choose that one, or adapt the engine again.",
            )
        fields = tuple(read_mask(folder / "fields" / f"{number:03d}.png") for number in range(count))
        if adapted:
            backbone = replace(backbone, unet=load_unet(folder / "unet", like=backbone.unet))
        controlnet = load_controlnet(folder / "controlnet", backbone)
        return cls(backbone, controlnet, modality, fields, surround, grey, adapted, card)


def train_image_engine(
    pairs: Sequence[ImageMaskPair],
    backbone: DiffusionBackbone,
    controlnet: ControlNetModel,
    *,
    modality: Modality,
    config: ImageTrainConfig | None = None,
    size: int = 512,
    checkpoint_folder: str | Path | None = None,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
    on_samples: OnSamples | None = None,
) -> ImageEngine:
    """Adapt to a few real pairs.

    Image, mask and field of view are mirrored, turned and bent together; colours and contrast stay as they are.

    Parameters
    ----------
    pairs : sequence of ImageMaskPair
        Five in the paper.
    backbone : DiffusionBackbone
        On the device to train on, its networks frozen, as `univg.engines.folders.load_backbone` gives them. It stays as
        it is; the engine shares its U-Net unless that learns too.
    controlnet : ControlNetModel
        Pretrained, or fresh from `univg.engines.backbone.new_controlnet`, on any device: what learns is a copy.
    modality : Modality
    config : ImageTrainConfig, optional
    size : int
        Side in pixels of the square that images are drawn in.
    checkpoint_folder : path-like, optional
        An existing folder; a checkpoint found there is resumed, exactly.
    on_progress, should_stop, on_samples : callable

    Returns
    -------
    ImageEngine

    Raises
    ------
    Cancelled
        After saving a checkpoint, when `should_stop` says so.
    """
    if not pairs:
        raise ValueError("`pairs` must hold at least one pair, got none")
    check_size(size)
    config = config or ImageTrainConfig()
    fields = [pair.fov if pair.fov is not None else estimate_fov(pair.image, modality) for pair in pairs]

    # 1. Augmented pairs: latents, conditions, and where vessels are
    prepared = partial(
        preparing, stage="image engine", steps=config.steps, on_progress=on_progress, should_stop=should_stop
    )
    rng = np.random.default_rng(config.seed)
    images, conditions = [], []
    squares = [_squares(pair, seen, size) for pair, seen in zip(pairs, fields, strict=True)]
    count = max(_VARIANTS, len(squares))
    for number in prepared(range(count), "Varying the images"):
        image, mask, seen = squares[number % len(squares)]
        warp, border = random_warp(size, modality, rng), cv2.BORDER_REFLECT_101
        images.append(warp(image, border=border))
        told = vessel_condition(warp.vessels(mask, border=border), warp(seen, border=border))
        conditions.append(np.rint(told * 255).astype(np.uint8))
    images, conditions = np.stack(images), np.stack(conditions)
    parts = [image_to_picture(part) for part in np.array_split(images, count // 4)]
    parts = [part.contiguous(memory_format=torch.channels_last) for part in parts]
    parts = prepared(parts, "Encoding the images")
    latents = torch.cat([backbone.encode(part, [modality] * len(part)) for part in parts])
    tokens = backbone.condition([modality]).detach()

    # 2. Networks of its own
    own = replace(backbone, unet=copy.deepcopy(backbone.unet)) if config.train_unet else backbone
    controlnet = copy.deepcopy(controlnet).to(backbone.device)
    learning = {"controlnet": controlnet} | ({"unet": own.unet} if config.train_unet else {})
    for part in learning.values():
        part.requires_grad_(True).train()
    predict = controlled_prediction(own, controlnet)
    trained = {f"{part}.{name}": p for part, network in learning.items() for name, p in network.named_parameters()}

    def emphasis_on(told: torch.Tensor) -> torch.Tensor:
        return 1 + config.vessel_weight * torch.nn.functional.adaptive_max_pool2d(told[:, :1], latents.shape[2:])

    # Of all pairs, so that a loss does not depend on which are computed together.
    usual = float(np.mean([emphasis_on(condition_to_picture(told[None])).mean() for told in conditions]))

    def batches_from(first: int) -> Iterator[Batch]:
        for step in itertools.count(first):
            rng = np.random.default_rng([config.seed, step])
            chosen = rng.integers(count, size=config.batch_size)
            batch = latents[torch.from_numpy(chosen).to(latents.device)]
            told = condition_to_picture(conditions[chosen]).to(latents.device)
            yield batch, *noising_batch(batch, backbone.scheduler, rng), told

    def loss_of(latents, noise, timesteps, told) -> torch.Tensor:
        return noising_loss(
            partial(predict, condition=told, scale=1.0),
            latents,
            noise,
            timesteps,
            tokens.expand(len(latents), -1, -1),
            scheduler=backbone.scheduler,
            min_snr_gamma=config.min_snr_gamma,
            emphasis=emphasis_on(told) / usual,
        )

    outside = [as_colour(pair.image)[~seen] for pair, seen in zip(pairs, fields, strict=True) if not seen.all()]
    engine = ImageEngine(
        own,
        controlnet,
        modality,
        tuple(fields),
        tuple(np.median(np.concatenate(outside), axis=0).tolist()) if outside else (0.0, 0.0, 0.0),
        grey=all(pair.image.ndim == 2 for pair in pairs),
        unet_adapted=config.train_unet,
        card={"pairs": len(pairs), "training": config.to_json()},
    )

    def look(step: int) -> Look:
        masks = np.stack([mask for _, mask, _ in squares[:3]])
        sampling = SamplingConfig(scale=1.0, size=size, steps=8)
        with evaluating(*learning.values()):
            drawn = synthesize_images(engine, masks, config=sampling, fields=[seen for *_, seen in squares[:3]])
        return Look({}, on_samples(step, masks, drawn))

    # 3. The loop
    with _recomputing(own.unet, controlnet) if config.gradient_checkpointing else nullcontext():
        optimize(
            trained,
            loss_of,
            batches_from,
            config=config,
            stage="image engine",
            folder=None if checkpoint_folder is None else Path(checkpoint_folder),
            fingerprint=fingerprint(backbone.sha256, config.to_json(), images, conditions),
            look=look if on_samples else None,
            look_every=max(config.steps // 4, 1),
            seconds_between_checkpoints=20.0,
            on_progress=on_progress,
            should_stop=should_stop,
        )
    for part in learning.values():
        with torch.no_grad():
            for parameter in part.parameters():
                parameter.copy_(parameter.half())  # as `save` keeps it, so that a loaded engine draws the same
        part.requires_grad_(False).eval()
    return engine


def synthesize_images(
    engine: ImageEngine,
    masks: Sequence[np.ndarray],
    *,
    config: SamplingConfig,
    fields: Sequence[np.ndarray] | None = None,
    starts: Sequence[np.ndarray] | None = None,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> np.ndarray:
    """Draw an image of each mask.

    Parameters
    ----------
    engine : ImageEngine
    masks : sequence of (H, W) ndarray of bool
        Of one shape. For several images of a mask, name it several times.
    config : SamplingConfig
        ``scale`` is how strongly the mask conditions the image (1 as in training); image i depends on ``seed`` + i.
    fields : sequence of (H, W) ndarray of bool, optional
        Fields of view, one for each mask, vessels outside are not drawn; otherwise each gets `ImageEngine.field_for`.
    starts : sequence of (H, W) or (H, W, 3) ndarray, optional
        Images to start from, one for each mask; ``config.strength`` says how far noise covers them. Of what the
        autoencoder loses of them, images get back the part that noise does not cover: 0.6 at a strength of 0.4.
    on_progress, should_stop : callable

    Returns
    -------
    (N, H', W', 3) or (N, H', W') ndarray of uint8
        Of ``config.size`` pixels along the longer side, in the proportions of the masks; grey as the real images are.

    Raises
    ------
    Cancelled
        When `should_stop` says so.
    """
    if not len(masks):
        raise ValueError("`masks` must hold at least one mask, got none")
    shape = masks[0].shape
    if any(mask.dtype != np.bool_ or mask.shape != shape for mask in masks):
        raise ValueError("`masks` must be bool (H, W) arrays of one shape")
    for name, given in (("fields", fields), ("starts", starts)):
        if given is not None and len(given) != len(masks):
            raise ValueError(f"`{name}` must hold one for each of the {len(masks)} masks, got {len(given)}")
    backbone = engine.backbone
    predict = controlled_prediction(backbone, engine.controlnet)
    clock, done = StageClock(warmup_steps=1), []
    for first in range(0, len(masks), config.batch_size):
        numbers = range(first, min(first + config.batch_size, len(masks)))
        seen = [engine.field_for(config.seed + i, shape) if fields is None else fields[i] for i in numbers]
        seen = [to_square(part, config.size) for part in seen]
        told = [vessel_condition(to_square(masks[i], config.size), part) for i, part in zip(numbers, seen, strict=True)]
        condition = condition_to_picture(np.stack(told)).to(backbone.device)
        modalities, start, lost = [engine.modality] * len(seen), None, 0.0
        if starts is not None:
            begun = np.stack([to_square(as_colour(starts[i]), config.size) for i in numbers])
            start = backbone.encode(image_to_picture(begun).contiguous(memory_format=torch.channels_last), modalities)
            # Grain and the finest vessels do not survive the autoencoder.
            lost = begun - picture_to_image(backbone.decode(start, modalities))
        latents = sample_latents(
            partial(predict, condition=condition, scale=config.scale),
            backbone,
            backbone.condition(modalities).detach(),
            seeds=[config.seed + i for i in numbers],
            config=config,
            start=start,
            should_stop=should_stop,
        )
        images = picture_to_image(backbone.decode(latents, modalities))
        images = (images + np.float32(1 - config.strength) * lost).clip(0, 1)
        for image, part in zip(images, seen, strict=True):
            done.append(from_square(np.where(part[..., None], image, np.float32(engine.surround)), shape))
        on_progress(clock.timed(ProgressEvent("images", len(done), len(masks))))
    images = np.stack(done)
    return np.rint((images.mean(axis=3) if engine.grey else images) * 255).astype(np.uint8)


@contextmanager
def _recomputing(*networks: ModelMixin) -> Iterator[None]:
    """Gradient checkpointing until the end of a training; a U-Net that only helps may be of use elsewhere."""
    for network in networks:
        network.enable_gradient_checkpointing()
    try:
        yield
    finally:
        for network in networks:
            network.disable_gradient_checkpointing()


def as_colour(image: np.ndarray) -> np.ndarray:
    """`image` as float32 ``(H, W, 3)`` in [0, 1]; grey ones get three equal channels."""
    image = as_float(image)
    return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image


def _squares(pair: ImageMaskPair, seen: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return to_square(as_colour(pair.image), size), to_square(pair.mask, size), to_square(seen, size)
