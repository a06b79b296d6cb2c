"""Tiny engines: real diffusers classes, a few thousand weights, never trained."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from univg.engines.folders import load_backbone
from univg.sca import generate_mask
from univg.types import Modality

SIZE = 64


@pytest.fixture(autouse=True)
def _one_torch_thread():
    torch.set_num_threads(1)


@pytest.fixture
def new_autoencoder_of_tests(tiny_autoencoder):
    """Makes the same tiny autoencoder each time."""
    return tiny_autoencoder


@pytest.fixture(scope="session")
def compact_folder(tiny_compact, tmp_path_factory):
    """A compact engine as it is shipped, with its autoencoder beside it."""
    return tiny_compact(tmp_path_factory.mktemp("models"), "masks")


@pytest.fixture
def backbone(compact_folder):
    return load_backbone(compact_folder)


@pytest.fixture(scope="session")
def masks():
    """Five masks of one odd, oblong shape."""
    return [generate_mask(Modality.OCTA, shape=(60, 81), rng=np.random.default_rng(i)) for i in range(5)]


@pytest.fixture(scope="session")
def sd_folder(tmp_path_factory):
    """A randomly initialised checkpoint in the layout of Stable Diffusion 1.5."""
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    root = tmp_path_factory.mktemp("sd15")
    torch.manual_seed(0)
    AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
        latent_channels=4,
    ).save_pretrained(root / "vae")
    UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
    ).save_pretrained(root / "unet")
    CLIPTextModel(
        CLIPTextConfig(
            vocab_size=600,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=77,
        )
    ).save_pretrained(root / "text_encoder")
    DDPMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, steps_offset=1
    ).save_pretrained(root / "scheduler")
    write_tokenizer(root / "tokenizer")
    (root / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    return root


def write_tokenizer(folder):
    """A vocabulary of letters, with the files that a CLIP tokenizer has."""
    folder.mkdir()
    letters = [chr(c) for c in range(33, 127)]
    words = letters + [f"{letter}</w>" for letter in letters] + ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "unk_token": "<|endoftext|>"})
    )
    (folder / "special_tokens_map.json").write_text(
        json.dumps(
            {
                "bos_token": "<|startoftext|>",
                "eos_token": "<|endoftext|>",
                "pad_token": "<|endoftext|>",
                "unk_token": "<|endoftext|>",
            }
        )
    )
