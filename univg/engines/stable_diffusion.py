"""Stable Diffusion 1.5 as a backbone, from a folder in diffusers' layout or a single checkpoint that the user keeps."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import nn

from univg.engines.backbone import DiffusionBackbone, fingerprint
from univg.engines.parts import check_complete, load_part, load_scheduler, reading
from univg.errors import InputError
from univg.io import read_json, sha256_file
from univg.types import Modality

_WEIGHTS = "diffusion_pytorch_model.safetensors"
_PARTS = ("vae", "unet", "text_encoder", "tokenizer", "scheduler")
_PROMPTS = {
    Modality.FUNDUS: "retinal fundus vessels",
    Modality.OCTA: "OCT angiography vessels",
    Modality.OCT: "OCT vessels",
    Modality.BRAIN_DSA: "brain DSA vessels",
    Modality.CORONARY_DSA: "coronary angiography vessels",
}


class _Prompts(nn.Module):
    """Tokens of a modality from a text encoder, computed once."""

    def __init__(self, tokenizer, encoder) -> None:
        super().__init__()
        prompts = tokenizer(
            [_PROMPTS[m] for m in Modality],
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


def load_folder(folder: Path) -> DiffusionBackbone:
    from transformers import CLIPTextModel, CLIPTokenizer

    missing = [name for name in _PARTS if not (folder / name).is_dir()]
    if missing:
        raise InputError(
            f"This is no Stable Diffusion 1.5 folder: {missing[0]} is missing",
            path=folder,
            fix="Use a checkpoint in diffusers' layout, with safetensors weights.",
        )
    autoencoder = load_part(AutoencoderKL, folder / "vae")
    unet = load_part(UNet2DConditionModel, folder / "unet")
    with reading(folder / "text_encoder"):
        encoder, loading = CLIPTextModel.from_pretrained(
            folder / "text_encoder", local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    check_complete(loading, folder / "text_encoder")
    with reading(folder / "tokenizer"):
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    scheduler = load_scheduler(folder / "scheduler")
    return _assemble(autoencoder, unet, encoder, tokenizer, scheduler, folder, _sha256_of_part(folder / "unet"))


def _sha256_of_part(folder: Path) -> str:
    """Hash of the weights that diffusers reads: the shards that an index names, else the one file without a variant."""
    index = folder / f"{_WEIGHTS}.index.json"
    if not index.is_file():
        return sha256_file(folder / _WEIGHTS)
    shards = sorted(set(read_json(index)["weight_map"].values()))
    return fingerprint([sha256_file(folder / shard) for shard in shards])


def load_single_file(path: Path) -> DiffusionBackbone:
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
    with reading(path):
        pipeline = StableDiffusionPipeline.from_single_file(
            str(path), config=str(configs), local_files_only=True, safety_checker=None, use_safetensors=True
        )
    # Other parts that lack a tensor are refused while they are read.
    lacking = [name for name, weight in pipeline.text_encoder.named_parameters() if weight.is_meta]
    check_complete({"missing_keys": lacking, "mismatched_keys": []}, path)
    return _assemble(
        pipeline.vae.eval().requires_grad_(False),
        pipeline.unet.eval().requires_grad_(False),
        pipeline.text_encoder,
        pipeline.tokenizer,
        DDPMScheduler.from_config(pipeline.scheduler.config),
        path,
        sha256_file(path),
    )


def _assemble(autoencoder, unet, encoder, tokenizer, scheduler, where: Path, sha256: str) -> DiffusionBackbone:
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
