"""A checkpoint in diffusers' folders as one file, with the names of the original Stable Diffusion."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

_TOP = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_IN_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_IN_AUTOENCODER = [
    (r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}"),
    (r"mid_block\.attentions\.0", "mid.attn_1"),
    (r"down_blocks\.(\d)\.resnets", r"down.\1.block"),
    (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
    (r"up_blocks\.(\d)\.resnets", lambda m: f"up.{3 - int(m[1])}.block"),
    (r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample"),
    (r"conv_shortcut", "nin_shortcut"),
    (r"conv_norm_out", "norm_out"),
    (r"group_norm", "norm"),
    (r"to_([qkv])\.", r"\1."),
    (r"to_out\.0", "proj_out"),
]


def write_single_file(folder: Path, file: Path) -> Path:
    """Write `file`, and beside it the folder of configurations that goes with it.

    The U-Net of `folder` has one residual block a level, and its autoencoder four levels.
    """
    tensors = {}
    for part, prefix, renamed in (
        ("unet", "model.diffusion_model.", _unet_name),
        ("vae", "first_stage_model.", _autoencoder_name),
        ("text_encoder", "cond_stage_model.transformer.text_model.", lambda name: name.removeprefix("text_model.")),
    ):
        for path in (folder / part).glob("*.safetensors"):
            tensors |= {prefix + renamed(name): value for name, value in load_file(path).items()}
    save_file(tensors, file)
    configs = file.with_suffix("")
    shutil.copytree(folder, configs, ignore=shutil.ignore_patterns("*.safetensors"))
    parts = {
        "vae": ["diffusers", "AutoencoderKL"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDPMScheduler"],
    }
    (configs / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline", **parts}))
    return file


def _unet_name(name: str) -> str:
    for new, old in _TOP.items():
        if name.startswith(f"{new}."):
            return name.replace(new, old, 1)
    pattern = r"(down|mid|up)_blocks?\.(?:(\d)\.)?(resnet|attention|downsampler|upsampler)s\.(\d)\.(.*)"
    where, level, kind, number, rest = re.fullmatch(pattern, name).groups()
    level, number = int(level or 0), int(number)
    if kind == "resnet":
        layer, _, rest = rest.partition(".")
        rest = f"{_IN_RESNET[layer]}.{rest}"
    if where == "mid":
        return f"middle_block.{2 * number if kind == 'resnet' else 1}.{rest}"
    if kind == "downsampler":
        return f"input_blocks.{2 * level + 2}.0.{rest.replace('conv', 'op')}"
    if kind == "upsampler":
        return f"output_blocks.{2 * level + 1}.1.{rest}"
    block = f"input_blocks.{2 * level + 1}" if where == "down" else f"output_blocks.{2 * level + number}"
    return f"{block}.{0 if kind == 'resnet' else 1}.{rest}"


def _autoencoder_name(name: str) -> str:
    for pattern, old in _IN_AUTOENCODER:
        name = re.sub(pattern, old, name)
    return name
