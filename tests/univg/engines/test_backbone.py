import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.univg.engines.single_file import write_single_file
from univg.engines.backbone import image_to_picture, mask_to_picture, picture_to_image, picture_to_mask
from univg.engines.config import SamplingConfig
from univg.engines.diffusion import sample_latents, unet_prediction
from univg.engines.folders import load_backbone
from univg.errors import InputError
from univg.io import sha256_file
from univg.types import Modality


def test_compact_engine_survives_the_disk(compact_folder, backbone):
    again = load_backbone(compact_folder)
    for part in ("unet", "autoencoder", "conditioner"):
        first, second = getattr(backbone, part).state_dict(), getattr(again, part).state_dict()
        assert all(torch.equal(first[name], second[name]) for name in first)
    assert again.sha256 == backbone.sha256 and len(again.sha256) == 64
    assert again.factor == 8


def test_weights_are_stored_in_half_precision_without_pickle(compact_folder):
    files = [f for f in compact_folder.rglob("*") if f.is_file()]
    assert {f.suffix for f in files} == {".json", ".safetensors"}
    assert {t.dtype for t in load_file(compact_folder / "unet" / "diffusion_pytorch_model.safetensors").values()} == {
        torch.float16
    }


def test_masks_and_images_survive_the_way_to_pictures():
    rng = np.random.default_rng(0)
    masks = rng.random((2, 8, 16)) > 0.5
    assert np.array_equal(picture_to_mask(mask_to_picture(masks)), masks)
    images = rng.random((2, 8, 16, 3), dtype=np.float32)
    assert np.allclose(picture_to_image(image_to_picture(images)), images, atol=1e-6)


def test_latents_are_an_eighth_of_the_size(backbone):
    modalities = [Modality.OCT, Modality.OCTA]
    latents = backbone.encode(torch.zeros(2, 3, 64, 96), modalities)
    assert latents.shape == (2, 4, 8, 12)
    assert backbone.decode(latents, modalities).shape == (2, 3, 64, 96)


def test_latents_are_standard_within_their_modality(backbone):
    octa = list(Modality).index(Modality.OCTA)
    sd = torch.ones(len(Modality), 4, 1, 1)
    sd[octa] = 10
    scaled = replace(backbone, latent_mean=torch.zeros_like(sd), latent_sd=sd)
    picture = torch.rand(1, 3, 64, 64).repeat(2, 1, 1, 1)
    latents = scaled.encode(picture, [Modality.FUNDUS, Modality.OCTA])
    assert torch.allclose(latents[0], 10 * latents[1], atol=1e-5)
    decoded = scaled.decode(latents, [Modality.FUNDUS, Modality.OCTA])
    assert torch.allclose(decoded[0], decoded[1], atol=1e-4)


def test_modalities_have_tokens_of_their_own(backbone):
    first, second = backbone.condition([Modality.FUNDUS, Modality.OCTA])
    assert first.shape == (2, 8) and not torch.equal(first, second)


def test_stable_diffusion_folder_is_read(sd_folder):
    backbone = load_backbone(sd_folder)
    assert backbone.name == "sd15" and backbone.factor == 8
    tokens = backbone.condition([Modality.FUNDUS, Modality.OCTA])
    assert tokens.shape == (2, 77, 16) and not torch.equal(tokens[0], tokens[1])
    config = SamplingConfig(size=64, steps=2)
    latents = sample_latents(unet_prediction(backbone), backbone, tokens[:1], seeds=[0], config=config)
    pictures = backbone.decode(latents, [Modality.FUNDUS])
    assert pictures.shape == (1, 3, 64, 64) and torch.isfinite(pictures).all()


def test_missing_backbone_is_refused(tmp_path):
    with pytest.raises(InputError, match="No such backbone"):
        load_backbone(tmp_path / "nowhere")


@pytest.mark.parametrize("part", ["vae", "unet", "text_encoder", "tokenizer", "scheduler"])
def test_folder_without_a_part_is_refused(sd_folder, tmp_path, part):
    shutil.copytree(sd_folder, tmp_path / "sd")
    shutil.rmtree(tmp_path / "sd" / part)
    with pytest.raises(InputError, match=part):
        load_backbone(tmp_path / "sd")


def test_half_written_weights_are_refused(compact_folder, tmp_path):
    shutil.copytree(compact_folder.parent, tmp_path / "models")
    weights = tmp_path / "models" / "masks" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(InputError, match="cannot be read"):
        load_backbone(tmp_path / "models" / "masks")


def test_weights_of_the_wrong_shape_are_refused(compact_folder, tmp_path):
    shutil.copytree(compact_folder.parent, tmp_path / "models")
    weights = tmp_path / "models" / "masks" / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    save_file({**tensors, "conv_in.weight": torch.zeros(3, 3)}, weights)
    with pytest.raises(InputError, match="cannot be read"):
        load_backbone(tmp_path / "models" / "masks")


def test_autoencoder_of_another_engine_is_refused(compact_folder, tmp_path):
    shutil.copytree(compact_folder.parent, tmp_path / "models")
    card = tmp_path / "models" / "masks" / "backbone.json"
    known = json.loads(card.read_text())
    card.write_text(json.dumps({**known, "latent_mean": [[0.0] * 7], "latent_sd": [[1.0] * 7]}))
    with pytest.raises(InputError, match="do not belong together"):
        load_backbone(tmp_path / "models" / "masks")


def test_pickled_checkpoint_is_refused(tmp_path):
    (tmp_path / "model.ckpt").write_bytes(b"x")
    with pytest.raises(InputError, match="safetensors"):
        load_backbone(tmp_path / "model.ckpt")


def test_single_file_without_configuration_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(InputError, match="configuration"):
        load_backbone(tmp_path / "model.safetensors")


@pytest.mark.parametrize("part", ["unet", "autoencoder", "modality_embedding"])
def test_weights_with_a_missing_tensor_are_refused_not_filled_with_random_numbers(compact_folder, tmp_path, part):
    shutil.copytree(compact_folder.parent, tmp_path / "models")
    folder = tmp_path / "models" / ("autoencoder" if part == "autoencoder" else f"masks/{part}")
    name = without_one_tensor(folder)
    with pytest.raises(InputError, match=re.escape(name)):
        load_backbone(tmp_path / "models" / "masks")


@pytest.mark.parametrize("part", ["vae", "unet", "text_encoder"])
def test_stable_diffusion_with_a_missing_tensor_is_refused(sd_folder, tmp_path, part):
    shutil.copytree(sd_folder, tmp_path / "sd")
    name = without_one_tensor(tmp_path / "sd" / part)
    with pytest.raises(InputError, match=re.escape(name.removeprefix("text_model."))):
        load_backbone(tmp_path / "sd")


def without_one_tensor(folder):
    """Take the last tensor out of the weights in `folder`; returns its name."""
    file = next(folder.glob("*.safetensors"))
    tensors = load_file(file)
    name = max(tensors)
    del tensors[name]
    save_file(tensors, file, {"format": "pt"})
    return name


def test_hash_is_of_the_weights_that_are_read(sd_folder, tmp_path):
    shutil.copytree(sd_folder, tmp_path / "sd")
    weights = tmp_path / "sd" / "unet" / "diffusion_pytorch_model.safetensors"
    shutil.copy(weights, weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
    weights.with_name("a.safetensors").write_bytes(b"of another tool")
    assert load_backbone(tmp_path / "sd").sha256 == load_backbone(sd_folder).sha256 == sha256_file(weights)
    weights.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        load_backbone(tmp_path / "sd")


def test_hash_covers_every_shard(sd_folder, tmp_path):
    shutil.copytree(sd_folder, tmp_path / "sd")
    unet, folder = load_backbone(sd_folder).unet, tmp_path / "sd" / "unet"
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"not read where an index is")
    unet.save_pretrained(folder, max_shard_size="40KB")
    first = load_backbone(tmp_path / "sd")
    assert len(list(folder.glob("*-of-*.safetensors"))) > 2
    with torch.no_grad():
        for weight in list(unet.parameters())[-1:]:
            weight += 1
    unet.save_pretrained(folder, max_shard_size="40KB")
    assert load_backbone(tmp_path / "sd").sha256 != first.sha256


def test_single_file_is_read_as_the_folder_it_was_made_of(sd_folder, tmp_path):
    folder, file = load_backbone(sd_folder), load_backbone(write_single_file(sd_folder, tmp_path / "sd.safetensors"))
    for part in ("unet", "autoencoder"):
        first, second = getattr(folder, part).state_dict(), getattr(file, part).state_dict()
        assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
        assert not any(weight.requires_grad for weight in getattr(file, part).parameters())
    assert torch.equal(folder.condition(list(Modality)), file.condition(list(Modality)))
    assert file.scheduler.config.beta_schedule == folder.scheduler.config.beta_schedule


@pytest.mark.parametrize(
    "name",
    [
        "model.diffusion_model.out.2.weight",
        "first_stage_model.decoder.conv_out.bias",
        "cond_stage_model.transformer.text_model.final_layer_norm.weight",
    ],
)
def test_single_file_with_a_missing_tensor_is_refused(sd_folder, tmp_path, name):
    file = write_single_file(sd_folder, tmp_path / "sd.safetensors")
    tensors = load_file(file)
    del tensors[name]
    save_file(tensors, file)
    with pytest.raises(InputError, match="files are complete"):
        load_backbone(file)
