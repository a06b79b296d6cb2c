"""Backbones, U-Nets and ControlNets in folders: written, and read with every file checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderDC, ControlNetModel, UNet2DConditionModel

from univg.engines import stable_diffusion
from univg.engines.backbone import COMPACT, DiffusionBackbone, ModalityEmbedding
from univg.engines.parts import load_part, load_scheduler, save_half
from univg.errors import InputError
from univg.io import read_json, sha256_file, write_json_atomic
from univg.types import Modality
from univg.weights import shipped_folder

_CARD = "backbone.json"
_FORMAT = "univg-backbone/1"


def save_compact(backbone: DiffusionBackbone, folder: str | Path, *, figures: Mapping = {}) -> None:
    """Write U-Net, modality embedding and schedule (float16, diffusers layout) to a folder.

    The autoencoder lies in a folder of its own beside it, because two engines share it.
    """
    folder = Path(folder)
    for part, name in ((backbone.unet, "unet"), (backbone.conditioner, "modality_embedding")):
        save_half(part, folder / name)
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
    save_half(autoencoder, Path(folder))


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
        return stable_diffusion.load_single_file(folder).to(torch.device(device))
    if not folder.is_dir():
        raise InputError("No such backbone", path=folder, fix="Name a folder with a checkpoint, or use compact.")
    if (folder / _CARD).is_file():
        return _load_compact(folder, folder.parent / "autoencoder").to(torch.device(device))
    return stable_diffusion.load_folder(folder).to(torch.device(device))


def save_unet(unet: UNet2DConditionModel, folder: str | Path, *, changed: Mapping[str, torch.Tensor] = {}) -> None:
    """Write a U-Net in float16, diffusers layout, with some of its weights `changed`; `unet` stays as it is."""
    save_half(unet, Path(folder), changed)


def load_unet(folder: str | Path, *, like: UNet2DConditionModel) -> UNet2DConditionModel:
    """The U-Net in a folder, in evaluation mode, on the device of `like`, whose shapes it must have."""
    unet = load_part(UNet2DConditionModel, Path(folder)).to(like.device, memory_format=torch.channels_last)
    shapes = [{name: value.shape for name, value in part.state_dict().items()} for part in (unet, like)]
    if shapes[0] != shapes[1]:
        raise InputError("This U-Net has other shapes than its base model", path=folder, fix="Adapt the engine again.")
    return unet


def save_controlnet(controlnet: ControlNetModel, folder: str | Path) -> None:
    """Write a ControlNet in float16, diffusers layout."""
    save_half(controlnet, Path(folder))


def load_controlnet(folder: str | Path, backbone: DiffusionBackbone) -> ControlNetModel:
    """The ControlNet in a folder, in evaluation mode, on the device of `backbone`.

    Raises
    ------
    InputError
        If it is missing or damaged, or belongs to another U-Net.
    """
    controlnet = load_part(ControlNetModel, Path(folder)).to(backbone.device, memory_format=torch.channels_last)
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
    return load_part(AutoencoderDC, folder).to(memory_format=torch.channels_last)


def _read_statistics(values: list) -> torch.Tensor:
    table = torch.tensor(values, dtype=torch.float32)
    table = table[None] if table.ndim == 1 else table
    if table.ndim != 2 or len(table) not in (1, len(Modality)):
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
    unet = load_part(UNet2DConditionModel, folder / "unet").to(memory_format=torch.channels_last)
    autoencoder = load_autoencoder(autoencoder_folder)
    conditioner = load_part(ModalityEmbedding, folder / "modality_embedding")
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
        load_scheduler(folder / "scheduler"),
        mean,
        sd,
        sha256_file(folder / "unet" / "diffusion_pytorch_model.safetensors"),
        card.get("figures", {}),
    )
