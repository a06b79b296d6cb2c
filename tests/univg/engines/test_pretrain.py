import os
import signal
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from univg.cli import main
from univg.engines.adapters import load_adapter
from univg.engines.autoencoder import contrast_loss, pretrain_autoencoder, reconstruction_loss, sign_loss
from univg.engines.config import AutoencoderConfig
from univg.engines.folders import load_autoencoder, load_backbone, load_controlnet
from univg.engines.pretrain import (
    ImagePretrainConfig,
    PretrainConfig,
    _windows,
    latent_statistics,
    pretrain_images,
    pretrain_masks,
)
from univg.engines.streams import (
    _reframed,
    draw_images,
    draw_masks,
    in_order,
    random_crop,
    read_colour,
    training_list,
    unlabelled_images,
)
from univg.errors import Cancelled, InputError
from univg.io import write_image
from univg.segmentation.inputs import network_inputs, to_grey
from univg.segmentation.perceptual import VesselFeatures, differentiable_inputs
from univg.types import Modality

IMAGES = ImagePretrainConfig(
    steps=3,
    control_steps=4,
    batch_size=2,
    channels=(16, 32),
    layers=1,
    token_width=8,
    size=128,
    window=64,
    whole_share=0.3,
    warmup_steps=1,
    precision="float32",
)
AUTOENCODER = AutoencoderConfig(
    steps=4,
    batch_size=4,
    latent_channels=4,
    channels=(8, 8, 16),
    decoder_layers=1,
    patch_size=32,
    warmup_steps=1,
    precision="float32",
)
MASKS = PretrainConfig(
    steps=3,
    batch_size=2,
    channels=(16, 32),
    layers=1,
    token_width=8,
    size=128,
    window=64,
    warmup_steps=1,
    precision="float32",
)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unlabelled")
    rng = np.random.default_rng(0)
    for modality, shape in (("fundus", (40, 50, 3)), ("octa", (30, 30))):
        (folder / modality).mkdir()
        for i in range(2):
            write_image(folder / modality / f"{i}.png", rng.integers(0, 255, shape, dtype=np.uint8))
    return folder


def equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.slow
def test_autoencoder_resumes_exactly(images, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    steps = []
    with pytest.raises(Cancelled):
        pretrain_autoencoder(
            AUTOENCODER,
            images,
            tmp_path / "a",
            workers=0,
            device="cpu",
            on_progress=steps.append,
            should_stop=lambda: len(steps) >= 2,
        )
    resumed, figures = pretrain_autoencoder(AUTOENCODER, images, tmp_path / "a", workers=0, device="cpu")
    whole, _ = pretrain_autoencoder(AUTOENCODER, images, tmp_path / "b", workers=1, device="cpu")
    assert equal(resumed, whole)
    assert 0 <= figures["mask_dice"] <= 1 and figures["psnr"] > 0
    assert (tmp_path / "a" / "samples.png").is_file()


def test_decoder_alone_can_be_trained_on(images, new_autoencoder_of_tests, tmp_path):
    config = replace(AUTOENCODER, decoder_only=True, detail_weight=1.0, steps=2)
    before = new_autoencoder_of_tests()
    after, _ = pretrain_autoencoder(config, images, tmp_path, start=new_autoencoder_of_tests(), workers=0, device="cpu")
    assert equal(before.encoder, after.encoder) and not equal(before.decoder, after.decoder)


def test_detail_counts_what_a_blur_takes_away():
    flat, fine = torch.full((1, 3, 32, 32), 0.1), torch.zeros(1, 3, 32, 32)
    fine[..., ::2] = 0.2
    nothing = torch.zeros_like(flat)
    extra = [reconstruction_loss(p, nothing, 1.0) - reconstruction_loss(p, nothing) for p in (flat, fine)]
    assert extra[0] < 1e-6 < 0.05 < extra[1]


def test_mask_engine_resumes_exactly(new_autoencoder_of_tests, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    steps = []
    with pytest.raises(Cancelled):
        pretrain_masks(
            MASKS,
            new_autoencoder_of_tests(),
            tmp_path / "a",
            workers=0,
            device="cpu",
            on_progress=steps.append,
            should_stop=lambda: len(steps) >= 1,
        )
    resumed = pretrain_masks(MASKS, new_autoencoder_of_tests(), tmp_path / "a", workers=0, device="cpu")
    whole = pretrain_masks(MASKS, new_autoencoder_of_tests(), tmp_path / "b", workers=0, device="cpu")
    assert equal(resumed.unet, whole.unet) and equal(resumed.conditioner, whole.conditioner)
    assert (tmp_path / "a" / "samples.png").is_file()


def test_mask_engine_can_be_trained_on(new_autoencoder_of_tests, compact_folder, tmp_path):
    start = load_backbone(compact_folder)
    config = replace(MASKS, seed=1, steps=1)
    after = pretrain_masks(config, new_autoencoder_of_tests(), tmp_path, start=start, workers=0, device="cpu")
    before = load_backbone(compact_folder)
    assert not equal(before.unet, after.unet) and torch.equal(before.latent_sd, after.latent_sd)
    drift = max((a - b).abs().max() for a, b in zip(before.unet.parameters(), after.unet.parameters(), strict=True))
    assert drift < 0.01, "it begins where the other ended"


def test_another_autoencoder_brings_its_own_latent_statistics(new_autoencoder_of_tests, compact_folder, tmp_path):
    start, other = load_backbone(compact_folder), new_autoencoder_of_tests()
    with torch.no_grad():
        other.encoder.conv_out.weight.mul_(2)
    after = pretrain_masks(replace(MASKS, steps=1), other, tmp_path, start=start, workers=0, device="cpu")
    assert (after.latent_sd > 1.5 * load_backbone(compact_folder).latent_sd).any()


def test_image_engine_goes_on_from_both_of_its_networks(images, new_autoencoder_of_tests, tmp_path):
    folders = []
    for name in "abc":
        folders.append(tmp_path / name)
        folders[-1].mkdir()
    common = {"workers": 0, "device": "cpu"}
    first = replace(IMAGES, control_steps=8, learning_rate=3e-3)
    autoencoder = new_autoencoder_of_tests()
    backbone, known = pretrain_images(first, autoencoder, images, bright_is_vessel, folders[0], **common)
    before = {name: value.clone() for name, value in known.state_dict().items()}
    on = replace(IMAGES, seed=1, steps=1, control_steps=1, learning_rate=1e-6)
    on_top, after = pretrain_images(
        on, autoencoder, images, bright_is_vessel, folders[1], start=backbone, start_controlnet=known, **common
    )
    drift = max(float((after.state_dict()[name] - value).abs().max()) for name, value in before.items())
    assert 0 < drift < 1e-4, "it begins where the other ended"
    assert on_top.figures["before"]["control_steps"] == 8, "the card says what was before"


def bright_is_vessel(image, modality):
    return image.mean(axis=2)


def test_image_engine_resumes_exactly_in_either_stage(images, new_autoencoder_of_tests, tmp_path):
    def run(name, stop=None):
        (tmp_path / name).mkdir(exist_ok=True)
        steps = []
        common = (IMAGES, new_autoencoder_of_tests(), images, bright_is_vessel, tmp_path / name)
        return pretrain_images(
            *common, workers=0, device="cpu", on_progress=steps.append, should_stop=lambda: len(steps) == stop
        )

    for stop in (2, 3):  # in the first stage, then in the second
        with pytest.raises(Cancelled):
            run("a", stop)
    results = run("a"), run("b")
    (resumed, resumed_net), (whole, whole_net) = results
    assert equal(resumed.unet, whole.unet) and equal(resumed_net, whole_net)
    assert (tmp_path / "a" / "samples.png").is_file()
    assert any(block.weight.abs().sum() > 0 for block in whole_net.controlnet_down_blocks)


def test_images_and_what_is_found_in_them_belong_together(images):
    found = unlabelled_images(images)
    arguments = {"images": found, "find_vessels": bright_is_vessel, "count": 3, "size": 64}
    drawn, conditions, numbers = draw_images(0, 1, **arguments)
    again, *_ = draw_images(0, 1, **arguments)
    assert np.array_equal(drawn, again) and drawn.shape == conditions.shape == (3, 64, 64, 3)
    assert numbers == [0, 1, 2]  # OCT, of which there are none, is made of OCTA
    octa = drawn[1]
    assert np.allclose(octa[..., 0], octa[..., 2]), "grey images get no cast"
    soft = conditions[1][..., 0] / 255
    assert np.corrcoef(soft.ravel(), octa.mean(axis=2).ravel())[0, 1] > 0.3


def test_windows_of_latents_and_conditions_show_the_same_place():
    places = torch.arange(16 * 16, dtype=torch.float32).view(1, 1, 16, 16).repeat(2, 1, 1, 1)
    large = places.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    corners = np.array([[3, 5], [0, 8]])
    small, cut = _windows(places, corners, 8), _windows(large, corners * 8, 64)
    assert small[0, 0, 0, 0] == 3 * 16 + 5 and torch.equal(cut[:, :, ::8, ::8], small)


def test_statistics_are_those_of_each_modality(new_autoencoder_of_tests):
    def pictures_from(first):
        while True:
            yield torch.cat([torch.rand(1, 3, 64, 64) * 0.1, torch.rand(1, 3, 64, 64)]), [0, 1]

    mean, sd = latent_statistics(new_autoencoder_of_tests(), pictures_from, batches=2)
    assert mean.shape == sd.shape == (5, 4, 1, 1)
    assert (sd[0] < sd[1]).all() and torch.equal(sd[2], sd[4])


def test_sign_counts_wrong_pixels_alone():
    mask = -torch.ones(1, 3, 8, 8)
    mask[..., 4] = 1
    soft, wrong = 0.6 * mask, mask.clone()
    wrong[..., 0, 0] = 0.5
    losses = [float(sign_loss(picture, mask)) for picture in (mask, soft, wrong)]
    assert losses[0] == losses[1] == 0 and losses[2] == pytest.approx(1 / 64)


def test_faint_vessels_count_as_much_as_strong_ones():
    ground = torch.zeros(1, 3, 64, 64)
    lines = torch.zeros_like(ground)
    lines[..., 30:33] = 1
    lost = [float(contrast_loss(ground, ground + strength * lines)) for strength in (0.1, 1.0)]
    assert lost[0] > 0.5 * lost[1] > 0
    assert float(contrast_loss(lines, lines)) == 0


@pytest.mark.parametrize("modality", [Modality.FUNDUS, Modality.OCTA])
def test_prior_is_given_what_a_segmenter_gives_it(modality):
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.random((96, 96, 3), dtype=np.float32), (0, 0), 3)
    image = (image - image.min()) / np.ptp(image)
    wanted = network_inputs(to_grey(image, modality), "grey+ridges")
    grey = torch.from_numpy(image)[None, None, ..., 1]
    got = differentiable_inputs(1 - grey if modality.vessels_are_dark else grey)[0].numpy()
    for g, w in zip(got, wanted, strict=True):
        assert np.corrcoef(g.ravel(), w.ravel())[0, 1] > 0.999
        assert np.allclose(g.std(), w.std(), rtol=0.03)


def test_prior_notices_a_lost_vessel_more_than_noise():
    features = VesselFeatures()
    original = torch.zeros(1, 3, 64, 64)
    original[..., 28:31] = -0.4
    generator = torch.Generator().manual_seed(0)
    noisy = original + 0.01 * torch.randn(original.shape, generator=generator)
    lost = torch.zeros_like(original).requires_grad_()
    dark = torch.tensor([True])
    same, little, much = (features.distance(p, original, dark) for p in (original, noisy, lost))
    distances = [d.item() for d in (same, little, much)]
    assert distances[0] == 0 and distances[2] > 1.5 * distances[1] > 0
    much.backward()
    assert torch.isfinite(lost.grad).all() and lost.grad.abs().sum() > 0


def test_perceptual_weight_needs_a_distance(images, tmp_path):
    with pytest.raises(ValueError, match="vessel_distance"):
        pretrain_autoencoder(replace(AUTOENCODER, perceptual_weight=0.1), images, tmp_path, workers=0, device="cpu")


def test_perceptual_weight_changes_what_is_learnt(images, new_autoencoder_of_tests, tmp_path):
    after = []
    for weight in (0.0, 0.5):
        config = replace(AUTOENCODER, perceptual_weight=weight, steps=2)
        (tmp_path / str(weight)).mkdir()
        trained, _ = pretrain_autoencoder(
            config,
            images,
            tmp_path / str(weight),
            start=new_autoencoder_of_tests(),
            vessel_distance=VesselFeatures().distance,
            workers=0,
            device="cpu",
        )
        after.append(trained)
    assert not equal(*after)


def test_latents_of_masks_stay_when_anchored(images, new_autoencoder_of_tests, tmp_path):
    moved = []
    for weight in (0.0, 100.0):
        config = replace(AUTOENCODER, seed=1, anchor_weight=weight, contrast_weight=0.1, learning_rate=3e-3)
        (tmp_path / str(weight)).mkdir()
        start = new_autoencoder_of_tests()
        after, _ = pretrain_autoencoder(config, images, tmp_path / str(weight), start=start, workers=0, device="cpu")
        picture = -torch.ones(1, 3, 32, 32)
        picture[..., 10:14] = 1
        with torch.no_grad():
            before = new_autoencoder_of_tests().encode(picture).latent
            moved.append(float((after.encode(picture).latent - before).abs().mean()))
    assert moved[1] < 0.7 * moved[0]


def test_stream_repeats_itself_and_holds_all_modalities():
    first, numbers = draw_masks(0, 3, count=5, size=64)
    again, _ = draw_masks(0, 3, count=5, size=64)
    other, _ = draw_masks(0, 4, count=5, size=64)
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert sorted(numbers) == list(range(5)) and first.any(axis=(1, 2)).all()


def test_windows_of_white_images_stay_in_range(tmp_path):
    (tmp_path / "fundus").mkdir()
    white = np.full((900, 900, 3), 255, np.uint8)
    write_image(tmp_path / "fundus" / "a.png", white)
    image = read_colour(tmp_path / "fundus" / "a.png")
    for seed in range(30):
        assert _reframed(image, 512, np.random.default_rng(seed)).max() <= 1


def test_images_of_equal_names_are_all_listed(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / "fundus" / folder).mkdir(parents=True)
        write_image(tmp_path / "fundus" / folder / "001.png", np.full((8, 8), len(folder), np.uint8))
    assert sorted(training_list(tmp_path)["fundus"]) == ["one/001.png", "two/001.png"]


def test_workers_are_no_part_of_a_group_of_processes_and_leave_ctrl_c_to_their_maker(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert list(in_order(os.getenv, iter([("WORLD_SIZE",)]), workers=1, ahead=1)) == [None]
    (handler,) = in_order(signal.getsignal, iter([(signal.SIGINT,)]), workers=1, ahead=1)
    assert handler == signal.SIG_IGN


def test_workers_keep_the_order():
    items = ((i,) for i in range(7))
    assert list(in_order(str, items, workers=2, ahead=3)) == [str(i) for i in range(7)]


def test_small_pictures_are_mirrored_to_fit():
    crop = random_crop(np.arange(12.0).reshape(3, 4), 8, np.random.default_rng(0))
    assert crop.shape == (8, 8) and set(np.unique(crop)) <= set(range(12))


def test_folder_without_images_is_refused(tmp_path):
    with pytest.raises(InputError, match="No images"):
        unlabelled_images(tmp_path)


@pytest.mark.slow
def test_command_line_trains_all(images, tmp_path, capsys):
    common = ["--device", "cpu", "--workers", "1", "--steps", "1", "--batch", "2"]
    models = tmp_path / "models"
    arguments = ["pretrain", "autoencoder", "-o", str(models / "autoencoder"), "--work", str(tmp_path / "a")]
    assert main([*arguments, "--images", str(images), "--patch", "16", *common]) == 0
    assert load_autoencoder(models / "autoencoder").config.latent_channels == 16
    arguments = ["pretrain", "masks", "-o", str(models / "masks"), "--work", str(tmp_path / "m"), "--size", "64"]
    assert main([*arguments, "--autoencoder", str(models / "autoencoder"), *common]) == 0
    assert load_backbone(models / "masks").figures["steps"] == 1
    arguments = ["pretrain", "images", "-o", str(models / "images"), "--work", str(tmp_path / "i"), "--size", "64"]
    arguments += ["--autoencoder", str(models / "autoencoder"), "--images", str(images), "--control-steps", "1"]
    assert main([*arguments, *common]) == 0
    backbone = load_backbone(models / "images")
    assert load_controlnet(models / "images" / "controlnet", backbone).config.conditioning_channels == 3
    assert "psnr" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [{"size": 0}, {"size": 100}, {"size": 160}, {"channels": (20, 40)}, {"layers": 0}])
def test_sizes_that_do_not_fit_the_network_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PretrainConfig(**wrong)


def test_patches_have_to_fit_the_prior_that_compares_them():
    assert AutoencoderConfig(patch_size=40).patch_size == 40
    with pytest.raises(ValueError, match="patch_size"):
        AutoencoderConfig(patch_size=40, perceptual_weight=1.0)


def test_command_line_refuses_nonsense(tmp_path, capsys):
    arguments = ["pretrain", "masks", "-o", str(tmp_path / "o"), "--work", str(tmp_path / "w")]
    assert main([*arguments, "--steps", "0"]) == 2
    assert "steps" in capsys.readouterr().err
    assert main([*arguments, "--autoencoder", str(tmp_path / "none"), "--steps", "1"]) == 2


@pytest.mark.parametrize(
    ("extra", "words"), [(["--start", "x"], "--start"), ([], "Convert it first"), (["-o", "same"], "another folder")]
)
def test_what_a_lora_cannot_be_written_from_is_said_before_the_training(tmp_path, capsys, extra, words):
    (tmp_path / "same").mkdir()
    (tmp_path / "sd.safetensors").touch()
    backbone, output = tmp_path / "sd.safetensors", tmp_path / "out"
    if "-o" in extra:
        backbone, output, extra = tmp_path / "same", tmp_path / "same", []
    command = ["pretrain", "masks", "--backbone", str(backbone), "-o", str(output), "--work", str(tmp_path / "work")]
    assert main([*command, *extra]) == 2 and words in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


def test_merged_lora_is_a_checkpoint_that_draws_the_same(sd_folder, tmp_path):
    arguments = ["pretrain", "masks", "--backbone", str(sd_folder), "-o", str(tmp_path / "merged")]
    arguments += ["--work", str(tmp_path / "w"), "--device", "cpu", "--workers", "0", "--steps", "2", "--size", "64"]
    assert main([*arguments, "--precision", "float32"]) == 0
    base, merged = load_backbone(sd_folder), load_backbone(tmp_path / "merged")
    assert merged.name == "sd15" and merged.sha256 != base.sha256
    lora = load_adapter(tmp_path / "merged", base)
    for name, weight in lora.weights(1.0).items():
        assert torch.allclose(merged.unet.get_parameter(name), weight, atol=2e-3), name  # half precision
    assert any(f.abs().sum() > 0 for n, f in lora.factors().items() if "lora_up" in n)
    assert (tmp_path / "w" / "samples.png").is_file()


def test_lora_of_the_compact_engine_is_refused(compact_folder, tmp_path, capsys):
    arguments = ["pretrain", "masks", "--backbone", str(compact_folder), "-o", str(tmp_path), "--work", str(tmp_path)]
    assert main(arguments) == 2 and "Stable Diffusion" in capsys.readouterr().err
