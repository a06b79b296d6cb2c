"""A latent-diffusion model in parts: autoencoder, U-Net, conditioning and noise schedule, alike for all sizes.

Two families share everything above this module (design: one interface, two folders). *compact* is small enough for a
processor and is trained by this project; *sd15* is Stable Diffusion 1.5, or any checkpoint in its diffusers layout,
which the user keeps. Both lie in folders as diffusers writes them; nothing is ever fetched.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from diffusers import AutoencoderDC, ControlNetModel, DDPMScheduler, UNet2DConditionModel
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from univg.engines.config import AutoencoderConfig
from univg.engines.parts import quietly
from univg.training.device import autocast
from univg.types import Modality

COMPACT = "compact"
_MODALITIES = list(Modality)


class ModalityEmbedding(ModelMixin, ConfigMixin):
    """Learned tokens that tell a U-Net the modality, in the place of a text encoder.

    Parameters
    ----------
    modalities : int
    tokens : int
        Tokens of each modality.
    width : int
        Length of a token, the U-Net's ``cross_attention_dim``.
    """

    @register_to_config
    def __init__(self, modalities: int = len(_MODALITIES), tokens: int = 4, width: int = 64) -> None:
        super().__init__()
        self.table = nn.Embedding(modalities, tokens * width)

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        """Tokens ``(batch, tokens, width)`` of modality numbers ``(batch,)``."""
        return self.table(numbers).unflatten(1, (self.config.tokens, self.config.width))


@dataclass(frozen=True, eq=False)
class DiffusionBackbone:
    """Everything that turns noise into pictures.

    Attributes
    ----------
    name : {'compact', 'sd15'}
    autoencoder : AutoencoderDC or AutoencoderKL
    unet : UNet2DConditionModel
    conditioner : torch.nn.Module
        Gives the tokens of a modality.
    scheduler : DDPMScheduler
        The noise schedule and what the U-Net predicts.
    latent_mean, latent_sd : (M, C, 1, 1) tensor
        Of the latents that the U-Net knows, before they are made standard: for each modality, or one row for all. The
        structures of a fundus photograph are ten times fainter than those of an angiogram, and with one scale for both
        noise would drown them over most of the schedule.
    sha256 : str
        Of the U-Net's weights: adapters remember it.
    """

    name: str
    autoencoder: nn.Module
    unet: UNet2DConditionModel
    conditioner: nn.Module
    scheduler: DDPMScheduler
    latent_mean: torch.Tensor
    latent_sd: torch.Tensor
    sha256: str = ""
    figures: Mapping = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    @property
    def factor(self) -> int:
        """Pixels a latent, along each axis."""
        if isinstance(self.autoencoder, AutoencoderDC):
            return self.autoencoder.spatial_compression_ratio
        return 2 ** (len(self.autoencoder.config.block_out_channels) - 1)

    def to(self, device: torch.device) -> DiffusionBackbone:
        """The same on `device`; networks are moved, not copied."""
        for part in (self.autoencoder, self.unet, self.conditioner):
            part.to(device)
        return replace(self, latent_mean=self.latent_mean.to(device), latent_sd=self.latent_sd.to(device))

    def condition(self, modalities: Sequence[Modality]) -> torch.Tensor:
        """Tokens ``(batch, tokens, width)`` that tell the U-Net what to draw."""
        return self.conditioner(torch.tensor([_MODALITIES.index(m) for m in modalities], device=self.device))

    @torch.no_grad()
    def encode(
        self, pictures: torch.Tensor, modalities: Sequence[Modality], *, precision: str = "auto"
    ) -> torch.Tensor:
        """Standardised latents ``(batch, C, H/f, W/f)`` of pictures ``(batch, 3, H, W)`` in [-1, 1]."""
        with autocast(self.device, precision):
            coded = self.autoencoder.encode(pictures.to(self.device))
        latents = coded.latent if hasattr(coded, "latent") else coded.latent_dist.mode()
        rows = self._rows(modalities)
        return (latents.float() - self.latent_mean[rows]) / self.latent_sd[rows]

    @torch.no_grad()
    def decode(self, latents: torch.Tensor, modalities: Sequence[Modality], *, precision: str = "auto") -> torch.Tensor:
        """Pictures ``(batch, 3, H, W)`` in [-1, 1] of standardised latents."""
        rows = self._rows(modalities)
        with autocast(self.device, precision):
            pictures = self.autoencoder.decode(latents * self.latent_sd[rows] + self.latent_mean[rows]).sample
        return pictures.float().clamp(-1, 1)

    def _rows(self, modalities: Sequence[Modality]) -> list[int]:
        return [_MODALITIES.index(m) if len(self.latent_mean) > 1 else 0 for m in modalities]


# --- pictures and tensors


def mask_to_picture(masks: np.ndarray) -> torch.Tensor:
    """Pictures ``(batch, 3, H, W)`` in {-1, 1} of bool masks ``(batch, H, W)``."""
    return torch.from_numpy(masks.astype(np.float32) * 2 - 1)[:, None].repeat(1, 3, 1, 1)


def picture_to_mask(pictures: torch.Tensor) -> np.ndarray:
    """Bool masks ``(batch, H, W)`` of pictures ``(batch, 3, H, W)`` in [-1, 1]."""
    return (pictures.mean(1) > 0).cpu().numpy()


def image_to_picture(images: np.ndarray) -> torch.Tensor:
    """Pictures ``(batch, 3, H, W)`` in [-1, 1] of float images ``(batch, H, W, 3)`` in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32)) * 2 - 1


def condition_to_picture(conditions: np.ndarray) -> torch.Tensor:
    """Pictures ``(batch, 3, H, W)`` in [0, 1], as ControlNets take them, of uint8 or float ``(batch, H, W, 3)``."""
    picture = torch.from_numpy(np.ascontiguousarray(conditions.transpose(0, 3, 1, 2))).float()
    return picture / 255 if conditions.dtype == np.uint8 else picture


def picture_to_image(pictures: torch.Tensor) -> np.ndarray:
    """Float32 images ``(batch, H, W, 3)`` in [0, 1] of pictures ``(batch, 3, H, W)`` in [-1, 1]."""
    return ((pictures + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy().astype(np.float32)


# --- new compact parts


def new_autoencoder(config: AutoencoderConfig) -> AutoencoderDC:
    """An untrained deep-compression autoencoder (Chen et al. 2025), 8 pixels a latent; seed torch first."""
    channels = (config.channels[0], *config.channels)
    stages = len(channels)
    return AutoencoderDC(
        in_channels=3,
        latent_channels=config.latent_channels,
        encoder_block_out_channels=channels,
        decoder_block_out_channels=channels,
        encoder_layers_per_block=(0, *[config.encoder_layers] * (stages - 1)),
        decoder_layers_per_block=(0, *[config.decoder_layers] * (stages - 1)),
        encoder_qkv_multiscales=((),) * stages,
        decoder_qkv_multiscales=((),) * stages,
    ).to(memory_format=torch.channels_last)


def new_unet(
    latent_channels: int,
    *,
    channels: tuple[int, ...],
    layers: int,
    token_width: int,
) -> UNet2DConditionModel:
    """An untrained compact U-Net; attention at every size but the largest. Seed torch first."""
    below = len(channels) - 1
    return UNet2DConditionModel(
        sample_size=64,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=channels,
        layers_per_block=layers,
        down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * below),
        up_block_types=(*["CrossAttnUpBlock2D"] * below, "UpBlock2D"),
        cross_attention_dim=token_width,
        attention_head_dim=4,
        norm_num_groups=16,
    ).to(memory_format=torch.channels_last)


def new_controlnet(unet: UNet2DConditionModel) -> ControlNetModel:
    """A ControlNet that begins as the encoder of `unet`; its last layers are zero. Seed torch first."""
    widths = (16, 32, 96, 256) if unet.config.block_out_channels[0] >= 320 else (8, 16, 32, 64)
    with quietly():
        controlnet = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=widths)
    return controlnet.to(unet.device, memory_format=torch.channels_last)


def new_scheduler() -> DDPMScheduler:
    """The schedule of compact engines: v-prediction and a signal that vanishes at the last step (Lin et al. 2024)."""
    return DDPMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
    )


def fingerprint(*parts: object) -> str:
    """A hash of settings, arrays and networks, by which a checkpoint knows its own run."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, nn.Module):
            for name, value in part.state_dict().items():
                digest.update(fingerprint(name, value.float().cpu().numpy()).encode())
        elif isinstance(part, np.ndarray):
            digest.update(f"{part.shape}{part.dtype}".encode())
            digest.update(np.ascontiguousarray(part).data)
        else:
            digest.update(json.dumps(part, sort_keys=True, default=str).encode())
    return digest.hexdigest()
