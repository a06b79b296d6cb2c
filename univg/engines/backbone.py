"""A latent-diffusion model in parts: autoencoder, U-Net, conditioning and noise schedule, alike for all sizes.

Two families share everything above this module (design: one interface, two folders). *compact* is small enough for a
processor and is trained by this project; *sd15* is Stable Diffusion 1.5, or any checkpoint in its diffusers layout,
which the user keeps. Both lie in folders as diffusers writes them; nothing is ever fetched.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderDC, AutoencoderKL, ControlNetModel, DDPMScheduler, UNet2DConditionModel
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from torch import nn

from univg.engines.config import AutoencoderConfig
from univg.errors import InputError
from univg.io import read_json, sha256_file, write_json_atomic
from univg.training.device import autocast
from univg.types import Modality
from univg.weights import shipped_folder

COMPACT = "compact"
_CARD = "backbone.json"
_FORMAT = "univg-backbone/1"
_MODALITIES = list(Modality)
_SD_PARTS = ("vae", "unet", "text_encoder", "tokenizer", "scheduler")
_PROMPTS = {
    Modality.FUNDUS: "retinal fundus vessels",
    Modality.OCTA: "OCT angiography vessels",
    Modality.OCT: "OCT vessels",
    Modality.BRAIN_DSA: "brain DSA vessels",
    Modality.CORONARY_DSA: "coronary angiography vessels",
}


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
    with _quietly():
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


# --- folders


def save_compact(backbone: DiffusionBackbone, folder: str | Path, *, figures: Mapping = {}) -> None:
    """Write U-Net, modality embedding and schedule (float16, diffusers layout) to a folder.

    The autoencoder lies in a folder of its own beside it, because two engines share it.
    """
    folder = Path(folder)
    for part, name in ((backbone.unet, "unet"), (backbone.conditioner, "modality_embedding")):
        _save_half(part, folder / name)
    backbone.scheduler.save_pretrained(folder / "scheduler")
    card = {
        "format": _FORMAT,
        "latent_mean": backbone.latent_mean.flatten(1).tolist(),
        "latent_sd": backbone.latent_sd.flatten(1).tolist(),
        "figures": dict(figures),
    }
    write_json_atomic(folder / _CARD, card)


def save_autoencoder(autoencoder: AutoencoderDC, folder: str | Path) -> None:
    """Write an autoencoder in float16, diffusers layout."""
    _save_half(autoencoder, Path(folder))


def load_backbone(
    where: str | Path = COMPACT, *, engine: str = "masks", device: torch.device | str = "cpu"
) -> DiffusionBackbone:
    """The backbone in a folder, or the shipped one.

    Parameters
    ----------
    where : str or path-like
        'compact' for the shipped weights; else a folder that holds a compact engine, Stable Diffusion 1.5 in diffusers'
        layout, or a single ``.safetensors`` checkpoint of it.
    engine : {'masks', 'images'}
        Which of the shipped compact engines.
    device : torch.device or str

    Raises
    ------
    InputError
        If files are missing, damaged, or of shapes that do not fit one another.
    """
    if where == COMPACT:
        return _load_compact(shipped_folder("models", engine), shipped_folder("models", "autoencoder")).to(
            torch.device(device)
        )
    folder = Path(where)
    if folder.is_file():
        return _load_single_file(folder).to(torch.device(device))
    if not folder.is_dir():
        raise InputError("No such backbone", path=folder, fix="Name a folder with a checkpoint, or use compact.")
    if (folder / _CARD).is_file():
        return _load_compact(folder, folder.parent / "autoencoder").to(torch.device(device))
    return _load_sd(folder).to(torch.device(device))


def save_unet(unet: UNet2DConditionModel, folder: str | Path, *, changed: Mapping[str, torch.Tensor] = {}) -> None:
    """Write a U-Net in float16, diffusers layout, with some of its weights `changed`; `unet` stays as it is."""
    _save_half(unet, Path(folder), changed)


def load_unet(folder: str | Path, *, like: UNet2DConditionModel) -> UNet2DConditionModel:
    """The U-Net in a folder, in evaluation mode, on the device of `like`, whose shapes it must have."""
    unet = _load_part(UNet2DConditionModel, Path(folder)).to(like.device, memory_format=torch.channels_last)
    shapes = [{name: value.shape for name, value in part.state_dict().items()} for part in (unet, like)]
    if shapes[0] != shapes[1]:
        raise InputError("This U-Net has other shapes than its base model", path=folder, fix="Adapt the engine again.")
    return unet


def save_controlnet(controlnet: ControlNetModel, folder: str | Path) -> None:
    """Write a ControlNet in float16, diffusers layout."""
    _save_half(controlnet, Path(folder))


def load_controlnet(folder: str | Path, backbone: DiffusionBackbone) -> ControlNetModel:
    """The ControlNet in a folder, in evaluation mode, on the device of `backbone`.

    Raises
    ------
    InputError
        If it is missing or damaged, or belongs to another U-Net.
    """
    controlnet = _load_part(ControlNetModel, Path(folder)).to(backbone.device, memory_format=torch.channels_last)
    for name in ("in_channels", "block_out_channels", "layers_per_block", "cross_attention_dim"):
        got, expected = controlnet.config[name], backbone.unet.config[name]
        if got != expected and list(np.ravel(got)) != list(np.ravel(expected)):
            raise InputError(
                f"ControlNet and U-Net do not belong together: {name} {got} and {expected}",
                path=folder,
                fix="Use the ControlNet that was made for this base model.",
            )
    return controlnet


def load_autoencoder(folder: str | Path | None = None) -> AutoencoderDC:
    """The compact autoencoder in a folder, by default the shipped one, in evaluation mode."""
    folder = shipped_folder("models", "autoencoder") if folder is None else Path(folder)
    return _load_part(AutoencoderDC, folder).to(memory_format=torch.channels_last)


def _read_statistics(values: list) -> torch.Tensor:
    table = torch.tensor(values, dtype=torch.float32)
    table = table[None] if table.ndim == 1 else table
    if table.ndim != 2 or len(table) not in (1, len(_MODALITIES)):
        raise ValueError(f"expected a row of numbers for each modality, or one for all, got {list(table.shape)}")
    return table[:, :, None, None]


def _load_compact(folder: Path, autoencoder_folder: Path) -> DiffusionBackbone:
    try:
        card = read_json(folder / _CARD)
        if card["format"] != _FORMAT:
            raise ValueError(f"its format is {card['format']!r}, expected {_FORMAT!r}")
        mean, sd = (_read_statistics(card[key]) for key in ("latent_mean", "latent_sd"))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError("This engine cannot be read", path=folder / _CARD, fix="Reinstall UniVG.") from error
    unet = _load_part(UNet2DConditionModel, folder / "unet").to(memory_format=torch.channels_last)
    autoencoder = load_autoencoder(autoencoder_folder)
    conditioner = _load_part(ModalityEmbedding, folder / "modality_embedding")
    if not autoencoder.config.latent_channels == unet.config.in_channels == mean.shape[1]:
        raise InputError(
            f"Autoencoder and U-Net do not belong together: {autoencoder.config.latent_channels} and "
            f"{unet.config.in_channels} latent channels",
            path=folder,
            fix="Put the autoencoder back that the engine was trained with.",
        )
    return DiffusionBackbone(
        COMPACT,
        autoencoder,
        unet,
        conditioner,
        _load_scheduler(folder / "scheduler"),
        mean,
        sd,
        sha256_file(folder / "unet" / "diffusion_pytorch_model.safetensors"),
        card.get("figures", {}),
    )


class _Prompts(nn.Module):
    """Tokens of a modality from a text encoder, computed once."""

    def __init__(self, tokenizer, encoder) -> None:
        super().__init__()
        prompts = tokenizer(
            [_PROMPTS[m] for m in _MODALITIES],
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        with torch.no_grad():
            tokens = encoder(prompts.input_ids)[0]
        self.register_buffer("tokens", tokens.float(), persistent=False)

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        return self.tokens[numbers]


def _load_sd(folder: Path) -> DiffusionBackbone:
    from transformers import CLIPTextModel, CLIPTokenizer

    missing = [name for name in _SD_PARTS if not (folder / name).is_dir()]
    if missing:
        raise InputError(
            f"This is no Stable Diffusion 1.5 folder: {missing[0]} is missing",
            path=folder,
            fix="Use a checkpoint in diffusers' layout, with safetensors weights.",
        )
    autoencoder = _load_part(AutoencoderKL, folder / "vae")
    unet = _load_part(UNet2DConditionModel, folder / "unet")
    with _reading(folder / "text_encoder"):
        encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", local_files_only=True, use_safetensors=True)
    with _reading(folder / "tokenizer"):
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    weights = next(iter(sorted((folder / "unet").glob("*.safetensors"))))
    return _assemble_sd(
        autoencoder, unet, encoder, tokenizer, _load_scheduler(folder / "scheduler"), folder, sha256_file(weights)
    )


def _load_single_file(path: Path) -> DiffusionBackbone:
    from diffusers import StableDiffusionPipeline

    if path.suffix != ".safetensors":
        raise InputError(
            "A single-file checkpoint must be .safetensors",
            path=path,
            fix="Pickled checkpoints can run code; convert it.",
        )
    configs = path.with_suffix("")  # diffusers cannot build a text encoder without its configuration
    if not configs.is_dir():
        raise InputError(
            "The configuration files of this checkpoint are missing",
            path=configs,
            fix="Put a folder of the same name beside it, with the JSON files of diffusers' Stable Diffusion 1.5.",
        )
    with _reading(path):
        pipeline = StableDiffusionPipeline.from_single_file(
            str(path), config=str(configs), local_files_only=True, safety_checker=None, use_safetensors=True
        )
    return _assemble_sd(
        pipeline.vae.eval(),
        pipeline.unet.eval(),
        pipeline.text_encoder,
        pipeline.tokenizer,
        DDPMScheduler.from_config(pipeline.scheduler.config),
        path,
        sha256_file(path),
    )


def _assemble_sd(autoencoder, unet, encoder, tokenizer, scheduler, where: Path, sha256: str) -> DiffusionBackbone:
    if encoder.config.hidden_size != unet.config.cross_attention_dim:
        raise InputError(
            f"Text encoder and U-Net do not belong together: widths {encoder.config.hidden_size} and "
            f"{unet.config.cross_attention_dim}",
            path=where,
            fix="Use the parts of one checkpoint.",
        )
    if autoencoder.config.latent_channels != unet.config.in_channels:
        raise InputError(
            f"Autoencoder and U-Net do not belong together: {autoencoder.config.latent_channels} and "
            f"{unet.config.in_channels} latent channels",
            path=where,
            fix="Use the parts of one checkpoint.",
        )
    channels = autoencoder.config.latent_channels
    return DiffusionBackbone(
        "sd15",
        autoencoder,
        unet,
        _Prompts(tokenizer, encoder),
        scheduler,
        torch.zeros(1, channels, 1, 1),
        torch.full((1, channels, 1, 1), 1 / autoencoder.config.scaling_factor),
        sha256,
    )


def _save_half(part: ModelMixin, folder: Path, changed: Mapping[str, torch.Tensor] = {}) -> None:
    """Write a float16 copy of `part`; the part itself stays as it is."""
    state = {**part.state_dict(), **changed}
    copy = type(part).from_config(part.config)
    copy.load_state_dict(state)
    copy.register_to_config(_name_or_path="")  # where it was once loaded from concerns nobody
    copy.half().save_pretrained(folder, safe_serialization=True)


def _load_part(kind: type[ModelMixin], folder: Path) -> ModelMixin:
    with _reading(folder):
        part = kind.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False, torch_dtype=torch.float32
        )
    return part.eval().requires_grad_(False)


def _load_scheduler(folder: Path) -> DDPMScheduler:
    with _reading(folder):
        return DDPMScheduler.from_pretrained(folder, local_files_only=True)


@contextmanager
def _quietly():
    """No warnings of diffusers."""
    level = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(level)


@contextmanager
def _reading(path: Path):
    """Turn what diffusers and transformers raise on missing or damaged files into one kind of error, quietly."""
    try:
        with _quietly():
            yield
    except (SafetensorError, RuntimeError, OSError, KeyError, TypeError, ValueError, json.JSONDecodeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"These weights cannot be read: {reason}", path=path, fix="Check that the files are complete."
        ) from error


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
