"""Everything that decides what an engine becomes and what it makes, apart from weights and images."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from itertools import pairwise

from univg.training.loop import OptimizationConfig

ADAPTERS = ("lora", "loha", "lora+loha")
SOLVERS = ("dpm++", "unipc")
_NOISE_LEVELS = 1000  # of the schedules of all engines


@dataclass(frozen=True)
class AutoencoderConfig(OptimizationConfig):
    """Recipe of the compact autoencoder.

    Attributes
    ----------
    steps, batch_size, …
        See `univg.training.loop.OptimizationConfig`; half of a batch are masks, half images.
    latent_channels : int
    channels : tuple of int
        Features at 1/2, 1/4 and 1/8 of the size of the picture.
    encoder_layers, decoder_layers : int
        Residual blocks at each of these sizes.
    patch_size : int
        Side of a training patch in pixels, a multiple of 8.
    latent_noise : float
        Largest standard deviation of the noise added to latents, as a share of their own, so that latents made by
        diffusion, which are never exact, decode well.
    mask_share : float
        Share of the patches that are masks.
    detail_weight : float
        Weight of errors in what is left when a patch is blurred by 1 and by 2 pixels: fine and faint vessels.
    sign_weight : float
        Weight of pixels of masks that end on the wrong side of grey, or near it: all that is left when a mask is cut.
    contrast_weight : float
        Weight of errors in the fine structure of images relative to the contrast around them, which is what a segmenter
        sees: vessels of a fundus are ten times fainter than those of an angiogram.
    perceptual_weight : float
        Weight of the difference of what the vessel prior sees in an image and in what is given back.
    anchor_weight : float
        Weight of how far the latents of masks move away from those of the autoencoder that is trained on, so that mask
        engines made for it stay of use.
    decoder_only : bool
        Whether the encoder stays as it is, and so do the latents that engines know.
    """

    steps: int = 4500
    batch_size: int = 12
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    ema_decay: float = 0.998
    latent_channels: int = 16
    channels: tuple[int, ...] = (48, 96, 128)
    encoder_layers: int = 1
    decoder_layers: int = 2
    patch_size: int = 128
    latent_noise: float = 0.15
    mask_share: float = 0.5
    detail_weight: float = 0.0
    sign_weight: float = 0.0
    contrast_weight: float = 0.0
    perceptual_weight: float = 0.0
    anchor_weight: float = 0.0
    decoder_only: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patch_size < 16 or self.patch_size % 8:
            raise ValueError(f"`patch_size` must be a multiple of 8 and at least 16, got {self.patch_size}")
        if self.perceptual_weight and self.patch_size % 16:
            raise ValueError(f"`patch_size` must be a multiple of 16 for `perceptual_weight`, got {self.patch_size}")
        if len(self.channels) != 3 or self.channels[-1] % self.latent_channels:
            raise ValueError(
                f"`channels` must name three widths, the last a multiple of `latent_channels` "
                f"({self.latent_channels}), got {self.channels}"
            )
        for finer, coarser in pairwise(self.channels):
            if 4 * finer % coarser:
                raise ValueError(
                    f"each of `channels` must divide four times the one before, got {coarser} after {finer}"
                )
        for name in ("detail_weight", "sign_weight", "contrast_weight", "perceptual_weight", "anchor_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` must be 0 or more, got {getattr(self, name)}")
        for name in ("latent_noise", "mask_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must be between 0 and 1, got {getattr(self, name)}")


def check_size(size: int) -> None:
    """`ValueError` unless pictures of `size` pixels a side can be drawn."""
    if size < 64 or size % 64:
        raise ValueError(f"`size` must be a multiple of 64 and at least 64, got {size}")


@dataclass(frozen=True)
class DiffusionTrainConfig(OptimizationConfig):
    """Recipe of a diffusion training: pretraining, adaptation or ControlNet.

    Attributes
    ----------
    steps, batch_size, …
        See `univg.training.loop.OptimizationConfig`.
    min_snr_gamma : float
        Weight of a step in the loss is min(SNR, gamma) over SNR, or over SNR + 1 for v-prediction (Hang et al. 2023);
        ``inf`` weighs all steps as the prediction itself does.
    gradient_checkpointing : bool
        Trade time for memory on a GPU.
    """

    steps: int = 300
    min_snr_gamma: float = 5.0
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.min_snr_gamma > 0:
            raise ValueError(f"`min_snr_gamma` must be above 0, got {self.min_snr_gamma}")


@dataclass(frozen=True)
class ImageTrainConfig(DiffusionTrainConfig):
    """Recipe by which an image engine is adapted to a few pairs.

    Attributes
    ----------
    steps, batch_size, …
        See `DiffusionTrainConfig`.
    train_unet : bool
        Whether the U-Net learns along with its ControlNet; with Stable Diffusion it stays locked, as in the paper.
    vessel_weight : float
        By how much more than elsewhere errors on vessels count.
    """

    train_unet: bool = True
    vessel_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.vessel_weight < math.inf:
            raise ValueError(f"`vessel_weight` must be 0 or more, got {self.vessel_weight}")


@dataclass(frozen=True)
class AdapterConfig:
    """A low-rank change of the weights (section 3.3.1, eqs. 8 and 15).

    Attributes
    ----------
    kind : {'lora', 'loha', 'lora+loha'}
        'lora+loha' is the paper's hybrid: a LoRA is merged into the base, then a LoHa learnt on top of it.
    rank : int
    alpha : float
        Of linear layers and 1 x 1 convolutions; the change is scaled by alpha / rank.
    conv_rank : int
    conv_alpha : float
        Of larger convolutions; rank 0 leaves them as they are.
    """

    kind: str = "loha"
    rank: int = 32
    alpha: float = 32
    conv_rank: int = 4
    conv_alpha: float = 4

    def __post_init__(self) -> None:
        if self.kind not in ADAPTERS:
            raise ValueError(f"`kind` must be one of {ADAPTERS}, got {self.kind!r}")
        for name, least in (("rank", 1), ("conv_rank", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` must be at least {least}, got {getattr(self, name)}")
        for name in ("alpha", "conv_alpha"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` must be above 0, got {getattr(self, name)}")

    def to_json(self) -> dict:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict) -> AdapterConfig:
        unknown = sorted(set(data) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"unknown setting {unknown[0]!r}, probably of another version")
        return cls(**data)


@dataclass(frozen=True)
class SamplingConfig:
    """How pictures are drawn from an engine.

    Attributes
    ----------
    steps : int
        Denoising steps from pure noise, at most 1000; a start from a tree takes its share of them.
    scale : float
        Of a mask engine α of eq. 15: 0 is the base model, 1 the adapted one, more than 1 exaggerates. Of an image
        engine how strongly the mask conditions the image: 0 ignores it, 1 is as in training.
    strength : float
        How far a start from a tree is covered with noise: 0 returns the tree, 1 forgets it.
    solver : {'dpm++', 'unipc'}
    size : int
        Side of the picture in pixels, a multiple of 64.
    batch_size : int
        Pictures drawn at once; the result does not depend on it.
    seed : int
        Picture i of a call depends on `seed` + i alone.
    """

    steps: int = 12
    scale: float = 0.7
    strength: float = 0.45
    solver: str = "dpm++"
    size: int = 512
    batch_size: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}")
        if self.steps > _NOISE_LEVELS:
            raise ValueError(f"`steps` must be at most {_NOISE_LEVELS}, one a level of noise, got {self.steps}")
        if self.solver not in SOLVERS:
            raise ValueError(f"`solver` must be one of {SOLVERS}, got {self.solver!r}")
        if not 0 <= self.strength <= 1:
            raise ValueError(f"`strength` must be between 0 and 1, got {self.strength}")
        if not 0 <= self.scale < math.inf:
            raise ValueError(f"`scale` (α) must be 0 or more, got {self.scale}")
        check_size(self.size)
        if not 0 <= self.seed < 2**62:
            raise ValueError(f"`seed` must be between 0 and 2^62, got {self.seed}")

    def to_json(self) -> dict:
        return asdict(self)
