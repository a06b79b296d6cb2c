import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from univg.engines.backbone import image_to_picture, mask_to_picture, picture_to_image, picture_to_mask
from univg.engines.config import SamplingConfig
from univg.engines.diffusion import sample_latents, unet_prediction
from univg.engines.folders import load_backbone
from univg.errors import InputError
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
