"""The named amounts of work that a user chooses between."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from univg.errors import InputError
from univg.segmentation.config import NETWORKS, SegmentationConfig

# How synthetic images are drawn where nothing else is said: from the mask rendered on a background of the user's, which
# noise covers in part, and conditioned more strongly than in training.
CONDITIONING, IMAGE_STRENGTH = 1.5, 0.4


@dataclass(frozen=True)
class Preset:
    """One choice of recipe and effort.

    Attributes
    ----------
    name, description : str
    expected_minutes : float
        On two CPU cores with native bfloat16, measured unless said otherwise; see `docs/decisions.md`.
    pairs : int
        Synthetic pairs made, each of a tree of its own; 0 trains on the real images alone.
    engine_pairs : int
        Synthetic pairs drawn by the engines, which are adapted for it, instead of those.
    hold_out : bool
        Whether one support image chooses the weights before it joins the training.
    segmentation : SegmentationConfig
    minutes_at_most : float
        What a run should take on any computer: on a slower one it trains for fewer steps, see
        `univg.workflow.expected_time.fitted`.
    """

    name: str
    description: str
    expected_minutes: float
    pairs: int
    hold_out: bool
    segmentation: SegmentationConfig
    engine_pairs: int = 0
    minutes_at_most: float = math.inf

    @property
    def synthetic_drawn(self) -> int:
        """How many synthetic patches a training draws in all."""
        config = self.segmentation
        return math.ceil(config.steps * config.synthetic_until) * config.synthetic_per_step

    def with_steps(self, steps: int) -> Preset:
        """The same preset with a training of another length."""
        return replace(self, segmentation=replace(self.segmentation, steps=steps))

    def scaled_to(self, working_size: int) -> Preset:
        """The same preset for a project of another working size; patches never outgrow the images."""
        multiple = self.segmentation.size_multiple
        patch_size = min(self.segmentation.patch_size, -(-working_size // multiple) * multiple)
        segmentation = replace(self.segmentation, working_size=working_size, patch_size=patch_size)
        return replace(self, segmentation=segmentation)

    def with_network(self, network: str) -> Preset:
        """The same preset for another network, which starts from random weights: the prior fits the U-Net alone."""
        if network == self.segmentation.network:
            return self
        if network not in NETWORKS:
            raise InputError(f"Unknown network {network!r}", fix=f"Use one of: {', '.join(NETWORKS)}.")
        return replace(self, segmentation=replace(self.segmentation, network=network, start="random"))


_STANDARD = SegmentationConfig(
    start="prior",
    steps=1620,
    release_fraction=0.75,
    synthetic_until=0.1,
    schedule="constant",
    ema_decay=0.995,
    recalibrate=True,
    affine_augmentation=0.3,
)
_PLAIN = SegmentationConfig(
    inputs="grey",
    steps=1700,  # as long as the standard preset takes, its trees and pairs included
    release_fraction=0.0,
    learning_rate=1e-3,
    weight_decay=0.0,
    schedule="constant",
    dice_weight=0.0,
    ema_decay=0.0,
    affine_augmentation=0.0,
    appearance_augmentation=0.0,
)

PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "preview",
            "A first useful overlay, to see whether the images suit.",
            expected_minutes=0.87,
            minutes_at_most=1.0,
            pairs=12,
            hold_out=True,
            segmentation=replace(_STANDARD, steps=110, warmup_steps=10, schedule="cosine", ema_decay=0.95),
        ),
        Preset(
            "standard",
            "A longer training, for better masks than the preview.",
            expected_minutes=10.0,
            pairs=40,
            hold_out=True,
            segmentation=_STANDARD,
            minutes_at_most=15.0,
        ),
        Preset(
            "full",
            "Mask and image engine adapted too, and a training on pairs that they drew.",
            expected_minutes=37.0,
            pairs=0,
            hold_out=True,
            segmentation=_STANDARD,
            engine_pairs=200,
            minutes_at_most=45.0,
        ),
        Preset(
            "plain",
            "The baseline to compare with: the same network on the real images alone, without synthetic pairs.",
            expected_minutes=10.0,
            pairs=0,
            hold_out=False,
            segmentation=_PLAIN,
            minutes_at_most=15.0,
        ),
    )
}


# Judges synthetic pairs: the shortest training, on the real images alone.
CRITIC = replace(PRESETS["preview"], name="critic", description="", pairs=0)


def preset_named(name: str) -> Preset:
    """The preset called `name`; `InputError` with the choices otherwise."""
    if name not in PRESETS:
        raise InputError(f"Unknown preset {name!r}", fix=f"Use one of: {', '.join(PRESETS)}.")
    return PRESETS[name]
