"""Everything that decides what a segmenter becomes, apart from the images."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields

INPUT_SETS = {"grey": 1, "grey+ridges": 5}
NETWORKS = ("unet", "dynunet", "attention-unet", "swin-unetr")

# In the folder of a segmenter: what it saw in the held-out image before that joined the training.
HELD_OUT_PICTURE = "held-out.png"


@dataclass(frozen=True)
class SegmentationConfig:
    """Recipe of one training run.

    Attributes
    ----------
    network : str
        Name in `univg.segmentation.networks.NETWORKS`.
    channels : tuple of int
        Feature channels of each U-Net level, finest first.
    inputs : {'grey', 'grey+ridges'}
        What the network sees, see `univg.segmentation.inputs`.
    start : {'random', 'prior'}
        Weights to start from; the prior fixes network, channels and inputs, see `univg.segmentation.prior`.
    working_size : int
        Longer side, in pixels, that images are scaled to before training and prediction.
    steps : int
        Optimizer steps in all.
    release_fraction : float
        Share of the steps, at the end, in which the held-out image joins the training; figures on it are taken before.
    real_per_step, synthetic_per_step : int
        Patches of each kind in a batch (section 3.4.2 pairs one real with one synthetic image).
    synthetic_until : float
        Share of the steps, from the start, in which synthetic patches take part; real ones take their place afterwards.
    patch_size : int
        Side of a training patch, in pixels of the working size; a multiple of 16.
    learning_rate, weight_decay : float
        Of AdamW (Adam when `weight_decay` is 0).
    schedule : {'constant', 'cosine'}
    warmup_steps : int
    bce_weight, dice_weight : float
        Weights of the two terms of the loss.
    ema_decay : float
        Decay of the moving average of the weights that is evaluated and kept; 0 keeps the last weights.
    recalibrate : bool
        Whether statistics of batch normalisation are taken anew for these weights, from the whole training images, see
        `univg.segmentation.predict.recalibrate`.
    affine_augmentation : float
        Share of the patches that are turned, scaled and sheared freely; the others are flipped and turned by quarters.
    appearance_augmentation : float
        Strength of random illumination, contrast, blur and noise; 0 is none, 1 is strong.
    augment_until : float
        Share of the steps, from the start, with these two; afterwards patches are only flipped and turned by quarters.
    precision : {'auto', 'float32', 'bfloat16'}
        'auto' takes bfloat16 where the processor or GPU computes it natively.
    seed : int
    """

    network: str = "unet"
    channels: tuple[int, ...] = (16, 32, 64, 128, 192)
    inputs: str = "grey+ridges"
    start: str = "random"
    working_size: int = 512
    steps: int = 750
    release_fraction: float = 0.25
    real_per_step: int = 3
    synthetic_per_step: int = 1
    synthetic_until: float = 0.5
    patch_size: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 1e-3
    schedule: str = "cosine"
    warmup_steps: int = 30
    bce_weight: float = 1.0
    dice_weight: float = 0.5
    ema_decay: float = 0.99
    recalibrate: bool = False
    affine_augmentation: float = 0.4
    appearance_augmentation: float = 0.5
    augment_until: float = 1.0
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (
            ("network", NETWORKS),
            ("inputs", tuple(INPUT_SETS)),
            ("start", ("random", "prior")),
            ("schedule", ("constant", "cosine")),
            ("precision", ("auto", "float32", "bfloat16")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"`{name}` must be one of {allowed}, got {getattr(self, name)!r}")
        for name in ("steps", "working_size", "patch_size", "real_per_step"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}")
        if len(self.channels) < 2 or min(self.channels) < 1:
            raise ValueError(f"`channels` must name at least two positive widths, got {self.channels}")
        multiple = self.size_multiple
        if self.patch_size % multiple:
            raise ValueError(f"`patch_size` must be a multiple of {multiple} for {len(self.channels)} levels")
        if self.network == "swin-unetr" and self.patch_size < 64:
            raise ValueError(f"`patch_size` must be at least 64 for {self.network}, got {self.patch_size}")
        if not 0 <= self.release_fraction < 1 or not 0 <= self.ema_decay < 1:
            raise ValueError("`release_fraction` and `ema_decay` must be in [0, 1)")
        for name in ("affine_augmentation", "appearance_augmentation", "augment_until", "synthetic_until"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must be between 0 and 1, got {getattr(self, name)}")
        for name in ("learning_rate", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` must be 0 or more, got {getattr(self, name)}")
        if self.synthetic_per_step < 0 or self.bce_weight + self.dice_weight <= 0:
            raise ValueError("`synthetic_per_step` must be 0 or more, and the loss weights not all 0")

    @property
    def size_multiple(self) -> int:
        """Image sides are padded to a multiple of this before the network sees them."""
        return 32 if self.network == "swin-unetr" else 2 ** (len(self.channels) - 1)

    def to_json(self) -> dict:
        return {**asdict(self), "channels": list(self.channels)}

    @classmethod
    def from_json(cls, data: dict) -> SegmentationConfig:
        unknown = sorted(set(data) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"unknown setting {unknown[0]!r}, probably of another version")
        return cls(**{**data, "channels": tuple(data["channels"])} if "channels" in data else data)
