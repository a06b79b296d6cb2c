import copy
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from univg.errors import Cancelled, InputError
from univg.geometry import resize_mask
from univg.io import read_image
from univg.metrics import dice
from univg.segmentation import SegmentationConfig, Segmenter, segment, train_segmenter
from univg.segmentation.augment import random_patch
from univg.segmentation.config import HELD_OUT_PICTURE, NETWORKS
from univg.segmentation.inputs import (
    fit_to_working_size,
    network_inputs,
    normalize_locally,
    ridge_strength,
    shrink_pair,
    shrink_support,
    to_grey,
)
from univg.segmentation.losses import segmentation_loss
from univg.segmentation.networks import _convolve_joined, build_network
from univg.segmentation.predict import TILE, predict_probability, recalibrate
from univg.segmentation.train import _drawn, _Sample, _to_sample
from univg.training.average import update_average
from univg.training.device import resolve_device
from univg.types import ImageMaskPair, Modality

TINY = SegmentationConfig(
    channels=(4, 8), working_size=96, patch_size=32, steps=8, warmup_steps=2, precision="float32", release_fraction=0.25
)


def train(support, config=TINY, **kwargs):
    return train_segmenter(
        support.pairs[:2], modality=support.modality, held_out=support.pairs[2], config=config, device="cpu", **kwargs
    )


def same_weights(first, second):
    one, two = first.network.state_dict(), second.network.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


# --- configuration


@pytest.mark.parametrize(
    "values",
    [
        {"network": "other"},
        {"inputs": "rgb"},
        {"steps": 0},
        {"patch_size": 100},
        {"release_fraction": 1.0},
        {"bce_weight": 0.0, "dice_weight": 0.0},
        {"channels": (4,)},
        {"learning_rate": -1.0},
        {"learning_rate": float("nan")},
    ],
)
def test_bad_settings_are_refused(values):
    with pytest.raises(ValueError):
        SegmentationConfig(**values)


def test_config_survives_json():
    assert SegmentationConfig.from_json(TINY.to_json()) == TINY
    with pytest.raises(ValueError, match="another version"):
        SegmentationConfig.from_json({"from_the_future": 1})


# --- inputs


def test_vessels_are_bright_for_every_modality():
    image = np.full((32, 32, 3), 200, np.uint8)
    image[:, 15:18] = 60
    for modality in Modality:
        grey = to_grey(image if modality.vessels_are_dark else 255 - image, modality)
        assert grey[16, 16] > grey[16, 2]


def test_ridges_respond_to_bright_lines_only():
    grey = np.zeros((64, 64), np.float32)
    grey[:, 31:34] = 1
    bright, dark = ridge_strength(grey, 2.0), ridge_strength(1 - grey, 2.0)
    assert bright[32, 32] > 0.2
    assert bright[32, 5] == pytest.approx(0, abs=1e-4)
    assert dark[32, 32] < 0.1 * bright[32, 32]


def test_local_normalisation_ignores_slow_illumination():
    rng = np.random.default_rng(0)
    texture = rng.standard_normal((128, 128)).astype(np.float32) * 0.05
    ramp = np.linspace(0, 1, 128, dtype=np.float32)[None]
    assert np.abs(normalize_locally(texture + ramp) - normalize_locally(texture))[20:-20, 20:-20].mean() < 0.15


@pytest.mark.parametrize("shape", [(512, 384), (100, 300), (65, 64)])
def test_working_size_is_the_longer_side(shape):
    fitted = fit_to_working_size(np.random.default_rng(0).random(shape, np.float32), 128)
    assert max(fitted.shape) == 128
    assert fitted.shape[0] / fitted.shape[1] == pytest.approx(shape[0] / shape[1], rel=0.02)


# --- augmentation and loss


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(96, 96), (40, 200), (20, 20)])
def test_patches_keep_image_and_mask_together(affine, shape):
    mask = np.zeros(shape, np.float32)
    mask[shape[0] // 3 : shape[0] // 2] = 1
    grey = 0.2 + 0.6 * mask
    for seed in range(5):
        patch, patch_mask = random_patch(grey, mask, size=64, affine=affine, rng=np.random.default_rng(seed))
        assert patch.shape == patch_mask.shape == (64, 64)
        assert set(np.unique(patch_mask)) <= {0, 1}
        if 0.05 < patch_mask.mean() < 0.95:
            assert patch[patch_mask > 0].mean() > patch[patch_mask == 0].mean()


def test_flips_and_quarter_turns_invent_no_value():
    rng = np.random.default_rng(0)
    grey = rng.random((96, 96), np.float32)
    patch, _ = random_patch(grey, np.float32(grey > 0.5), size=64, affine=False, appearance=0.0, rng=rng)
    assert np.isin(patch, grey).all()


def test_loss_is_small_when_right_and_large_when_wrong():
    target = torch.zeros(2, 1, 16, 16)
    target[:, :, 4:8] = 1
    right, wrong = (segmentation_loss(s * (20 * target - 10), target, bce_weight=1, dice_weight=1) for s in (1, -1))
    assert right < 0.01 < 5 < wrong


def test_dice_loss_alone_counts_overlap():
    target = torch.ones(1, 1, 50, 50)
    half = torch.full_like(target, 20.0)
    half[..., 25:] = -20
    loss = segmentation_loss(half, target, bce_weight=0, dice_weight=1).item()
    assert loss == pytest.approx(1 - (2 * 1250 + 50) / (3750 + 50), abs=1e-4)


# --- training


def test_training_lowers_the_loss_and_records_the_held_out_image(tiny_support):
    events = []
    segmenter = train(tiny_support, replace(TINY, steps=60, learning_rate=5e-3), on_progress=events.append)
    losses = [event.metrics["loss"] for event in events]
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    assert events[-1].step == events[-1].total == 60
    assert events[-1].seconds_left == pytest.approx(0)
    assert segmenter.card["held_out"] == "pair-2"
    assert segmenter.card["train"] == ["pair-0", "pair-1"]
    assert 0 <= segmenter.card["held_out_figures"]["dice"] <= 1


def test_what_was_seen_of_the_held_out_image_is_kept(tiny_support, tmp_path):
    segmenter = train(tiny_support, checkpoint_folder=tmp_path)
    seen = segmenter.held_out_probability
    assert dice(seen >= 0.5, tiny_support.pairs[2].mask) == segmenter.card["held_out_figures"]["dice"]
    # Also when the run ended in another process than the one that saw it
    assert np.array_equal(train(tiny_support, checkpoint_folder=tmp_path).held_out_probability, seen)
    segmenter.save(tmp_path)
    np.testing.assert_allclose(read_image(tmp_path / HELD_OUT_PICTURE), seen, atol=1e-4)


def test_weights_decide_how_often_a_pair_is_drawn():
    rng = np.random.default_rng(0)
    empty = np.zeros((8, 8), np.float32)
    light, heavy = _Sample(empty, empty, 0.25), _Sample(empty, empty, 1.0)
    drawn = [_drawn([light, heavy], rng) for _ in range(2000)]
    assert sum(sample is light for sample in drawn) == pytest.approx(400, abs=80)
    # Equal weights draw what was drawn before there were weights
    one, two = np.random.default_rng(1), np.random.default_rng(1)
    samples = [_Sample(empty, empty, 0.5) for _ in range(5)]
    assert all(_drawn(samples, one) is samples[two.integers(5)] for _ in range(20))
    with pytest.raises(ValueError, match="weight"):
        ImageMaskPair(np.zeros((8, 8), np.uint8), np.zeros((8, 8), bool), "x", weight=0)


def test_the_held_out_image_must_not_train(tiny_support):
    with pytest.raises(ValueError, match="held_out"):
        train_segmenter(tiny_support.pairs, modality=tiny_support.modality, held_out=tiny_support.pairs[0], config=TINY)


def test_the_held_out_image_changes_nothing_before_it_is_released(tiny_support):
    """Its pixels must not reach the weights, only choose among them."""
    config = replace(TINY, release_fraction=0.0, ema_decay=0.0)
    other = replace(tiny_support.pairs[2], image=255 - tiny_support.pairs[2].image)
    weights = []
    for held_out in (tiny_support.pairs[2], other):
        seen = []
        train_segmenter(
            tiny_support.pairs[:2],
            modality=tiny_support.modality,
            held_out=held_out,
            config=config,
            device="cpu",
            on_progress=lambda event, seen=seen: seen.append(event.metrics["loss"]),
        )
        weights.append(seen)
    assert weights[0] == weights[1]


def test_statistics_are_those_of_whole_images_as_they_are_segmented():
    rng = np.random.default_rng(0)
    network = build_network(TINY)
    greys = [rng.random((96, 90), dtype=np.float32) for _ in range(2)]
    recalibrate(network, greys, TINY)
    normalization = next(layer for layer in network.modules() if isinstance(layer, torch.nn.BatchNorm2d))
    first = next(layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d))
    with torch.no_grad():
        seen = [first(torch.from_numpy(network_inputs(grey, TINY.inputs))[None]) for grey in greys]
    assert torch.allclose(normalization.running_mean, torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0), atol=1e-5)
    assert torch.allclose(normalization.running_var, torch.stack([x.var((0, 2, 3)) for x in seen]).mean(0), rtol=1e-4)


def test_a_network_without_batch_normalization_is_left_as_it_is():
    network = torch.nn.Sequential(torch.nn.Conv2d(5, 4, 3), torch.nn.InstanceNorm2d(4))
    before = copy.deepcopy(network.state_dict())
    recalibrate(network, [np.random.default_rng(0).random((96, 96), dtype=np.float32)], TINY)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize("release_fraction", [0.0, 0.25])
def test_segmenter_has_statistics_of_the_images_that_it_learnt_from(tiny_support, release_fraction):
    segmenter = train(tiny_support, replace(TINY, release_fraction=release_fraction, recalibrate=True))
    again = copy.deepcopy(segmenter.network)
    learnt = tiny_support.pairs if release_fraction else tiny_support.pairs[:2]
    recalibrate(again, [to_grey(pair.image, tiny_support.modality) for pair in learnt], TINY)
    statistics = [name for name in again.state_dict() if "running" in name]
    assert statistics
    for name in statistics:
        assert torch.allclose(again.state_dict()[name], segmenter.network.state_dict()[name], atol=1e-5), name
    assert not same_weights(train(tiny_support, replace(TINY, release_fraction=release_fraction)), segmenter)


def test_same_seed_same_weights_and_another_seed_others(tiny_support):
    assert same_weights(train(tiny_support), train(tiny_support))
    assert not same_weights(train(tiny_support), train(tiny_support, replace(TINY, seed=1)))


@pytest.mark.parametrize("recalibrate", [False, True])
@pytest.mark.parametrize("stop_after", [0, 1, 3, 6, 7])
def test_cancelled_and_resumed_ends_bit_for_bit_the_same(tiny_support, tmp_path, stop_after, recalibrate):
    config, steps = replace(TINY, recalibrate=recalibrate), []
    with pytest.raises(Cancelled):
        train(
            tiny_support,
            config,
            checkpoint_folder=tmp_path,
            on_progress=steps.append,
            should_stop=lambda: len(steps) >= stop_after,
        )
    resumed = []
    again = train(tiny_support, config, checkpoint_folder=tmp_path, on_progress=resumed.append)
    assert resumed[0].step == stop_after + 1
    assert same_weights(again, train(tiny_support, config))


def test_large_pairs_shrink_with_their_masks_and_small_ones_stay(tiny_support):
    pair = tiny_support.pairs[0]
    wide = replace(
        pair,
        image=np.repeat(np.repeat(pair.image, 2, 0), 4, 1),
        mask=np.repeat(np.repeat(pair.mask, 2, 0), 4, 1),
        fov=np.ones((2 * pair.shape[0], 4 * pair.shape[1]), bool),
    )
    small = shrink_pair(wide, 96)
    assert small.shape == small.fov.shape == (48, 96) and small.image.dtype == pair.image.dtype
    assert abs(small.mask.mean() - pair.mask.mean()) < 0.05
    assert shrink_pair(pair, max(pair.shape)) is pair
    white = ImageMaskPair(np.ones((2000, 2000), np.float32), np.eye(2000, dtype=bool), "white")
    assert shrink_pair(white, 512).image.max() == 1, "resampling a white area exceeds it by rounding"
    support = replace(tiny_support, pairs=(wide,), pixel_spacing_mm=0.1)
    assert shrink_support(support, 96).pixel_spacing_mm is None and shrink_support(support, 4000) is support


def test_a_thin_vessel_is_learnt_from_at_half_the_size():
    mask = np.zeros((192, 192), bool)
    mask[:, 63] = True
    sample = _to_sample(ImageMaskPair(np.zeros((192, 192), np.uint8), mask, "thin"), Modality.FUNDUS, TINY)
    assert sample.mask.dtype == np.float32 and sample.mask.sum() == TINY.working_size
    np.testing.assert_array_equal(sample.mask, resize_mask(mask, (96, 96)))


def test_checkpoint_of_other_images_is_refused(tiny_support, tmp_path):
    train(tiny_support, checkpoint_folder=tmp_path)
    with pytest.raises(InputError, match="other images or settings"):
        train(tiny_support, replace(TINY, seed=5), checkpoint_folder=tmp_path)


def test_damaged_checkpoint_is_refused(tiny_support, tmp_path):
    train(tiny_support, checkpoint_folder=tmp_path)
    file = tmp_path / "state.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(InputError, match="damaged"):
        train(tiny_support, checkpoint_folder=tmp_path)


def test_synthetic_pairs_join_every_batch(tiny_support):
    synthetic = [replace(tiny_support.pairs[0], name="made-up", synthetic=True)]
    segmenter = train_segmenter(
        tiny_support.pairs[:1], synthetic, modality=tiny_support.modality, config=TINY, device="cpu"
    )
    assert segmenter.card["synthetic_pairs"] == 1
    assert segmenter.card["held_out"] is None


# --- keeping and using


def test_saved_and_loaded_segmenter_predicts_the_same(tiny_support, tmp_path):
    segmenter = train(tiny_support)
    segmenter.save(tmp_path)
    loaded = Segmenter.load(tmp_path)
    image = tiny_support.pairs[0].image
    np.testing.assert_array_equal(segment(image, loaded).probability, segment(image, segmenter).probability)
    assert loaded.config == segmenter.config and loaded.card == segmenter.card


@pytest.mark.parametrize("damage", ["missing", "truncated", "not json", "wrong shape", "newer"])
def test_missing_or_corrupt_segmenter_is_a_clear_error(tiny_support, tmp_path, damage):
    train(tiny_support).save(tmp_path)
    weights, card = tmp_path / "model.safetensors", tmp_path / "segmenter.json"
    if damage == "missing":
        weights.unlink()
    elif damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:200])
    elif damage == "not json":
        card.write_text("{")
    elif damage == "wrong shape":
        card.write_text(card.read_text().replace("[4, 8]", "[4, 16]").replace("4,\n", "6,\n"))
    else:
        card.write_text(card.read_text().replace("univg-segmenter/1", "univg-segmenter/9"))
    with pytest.raises(InputError, match="segmenter"):
        Segmenter.load(tmp_path)


def test_prediction_has_the_size_of_the_image_whatever_its_shape(tiny_support):
    segmenter = train(tiny_support)
    rng = np.random.default_rng(0)
    for shape in [(96, 96), (97, 65), (300, 200), (64, 80, 3)]:
        found = segment(rng.integers(0, 255, shape, np.uint8), segmenter, test_time_augmentation=True)
        assert found.probability.shape == found.mask.shape == shape[:2]
        assert found.probability.min() >= 0 and found.probability.max() <= 1


@pytest.mark.parametrize("shape", [(1, 300), (300, 1), (1, 1)])
def test_a_patch_of_a_line_is_drawn(shape):
    rng, line = np.random.default_rng(0), np.full(shape, 0.5, np.float32)
    grey, _ = random_patch(line, line, size=32, affine=True, appearance=0.0, rng=rng)
    assert np.allclose(grey, 0.5, atol=1e-3)


def test_test_time_augmentation_commutes_with_flips(tiny_support):
    network = build_network(TINY).eval()
    grey = to_grey(tiny_support.pairs[0].image, tiny_support.modality)
    first = predict_probability(grey, network, TINY, test_time_augmentation=True)
    second = predict_probability(grey[:, ::-1].copy(), network, TINY, test_time_augmentation=True)[:, ::-1]
    np.testing.assert_allclose(first, second, atol=2e-3)


def test_tiles_leave_no_seam():
    config = replace(TINY, working_size=2 * TILE)
    network = build_network(config).eval()
    grey = np.random.default_rng(0).random((TILE + 200, 900), np.float32)
    tiled = predict_probability(grey, network, config)
    inputs = torch.from_numpy(network_inputs(grey, config.inputs))[None]
    with torch.inference_mode():
        whole = network(inputs)[0, 0].sigmoid().numpy()
    np.testing.assert_allclose(tiled, whole, atol=0.02)


def test_cancelling_between_tiles(tiny_support):
    with pytest.raises(Cancelled):
        predict_probability(np.zeros((32, 32), np.float32), build_network(TINY), TINY, should_stop=lambda: True)


def test_unknown_device_is_a_clear_error():
    with pytest.raises(InputError, match="quantum"):
        resolve_device("quantum")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="cuda"):
            resolve_device("cuda")


def test_pairs_of_different_size_are_refused():
    with pytest.raises(InputError, match="differ in size"):
        ImageMaskPair(np.zeros((8, 8), np.uint8), np.zeros((8, 9), bool), "odd")


# --- a graphics card that is too small


class SmallCard(torch.nn.Module):
    """Runs out of memory on inputs larger than it holds, as a GPU does."""

    def __init__(self, network, *, holds):
        super().__init__()
        self.network, self.holds = network, holds

    def forward(self, x):
        if x.numel() > self.holds:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.network(x)


def test_training_goes_on_with_smaller_batches_when_memory_runs_out(tiny_support, monkeypatch):
    one_patch = 5 * TINY.patch_size**2
    monkeypatch.setattr(
        "univg.segmentation.train.build_network", lambda config: SmallCard(build_network(config), holds=one_patch)
    )
    monkeypatch.setattr("univg.segmentation.train.predict_probability", lambda grey, *_: np.zeros_like(grey))
    events = []
    train(tiny_support, on_progress=events.append)
    assert events[-1].step == TINY.steps
    assert any("smaller batches" in event.message for event in events)


def test_training_gives_up_when_not_even_one_patch_fits(tiny_support, monkeypatch):
    monkeypatch.setattr(
        "univg.segmentation.train.build_network", lambda config: SmallCard(build_network(config), holds=10)
    )
    with pytest.raises(torch.OutOfMemoryError):
        train(tiny_support)


def test_prediction_goes_on_with_smaller_tiles_when_memory_runs_out():
    network = build_network(TINY).eval()
    grey = np.random.default_rng(0).random((500, 500), np.float32)
    events = []
    small = SmallCard(network, holds=5 * 330**2)
    found = predict_probability(grey, small, TINY, on_progress=events.append)
    assert any("smaller tiles" in event.message for event in events)
    np.testing.assert_allclose(found, predict_probability(grey, network, TINY), atol=0.02)


def test_statistics_are_taken_from_smaller_tiles_when_memory_runs_out():
    network = build_network(TINY)
    small = SmallCard(copy.deepcopy(network), holds=5 * 330**2)
    grey = np.random.default_rng(0).random((500, 500), np.float32)
    for changed in (network, small):
        recalibrate(changed, [grey], TINY)
    for name, value in network.state_dict().items():
        assert torch.allclose(value.float(), small.network.state_dict()[name].float(), rtol=0.1, atol=0.02) or (
            "num_batches" in name
        )
    kept = {layer.momentum for layer in small.modules() if isinstance(layer, torch.nn.BatchNorm2d)}
    assert kept == {0.1}


@pytest.mark.parametrize("name", ["dynunet", "attention-unet", "swin-unetr"])
def test_every_network_gives_a_logit_for_each_pixel(name):
    pytest.importorskip("monai")
    config = SegmentationConfig(network=name, channels=(8, 16, 32), patch_size=64)
    network = build_network(config).eval()
    side = 2 * config.size_multiple
    with torch.inference_mode():
        assert network(torch.zeros(1, 5, side, 2 * side)).shape == (1, 1, side, 2 * side)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_trained_saved_and_loaded(tiny_support, tmp_path, name):
    if name != "unet":
        pytest.importorskip("monai")
    config = replace(TINY, network=name, channels=(8, 16, 32), working_size=64, patch_size=64, steps=2)
    (tmp_path / "checkpoint").mkdir()
    segmenter = train(tiny_support, config, checkpoint_folder=tmp_path / "checkpoint")
    segmenter.save(tmp_path)
    assert same_weights(Segmenter.load(tmp_path), segmenter)
    again = train(tiny_support, config, checkpoint_folder=tmp_path / "checkpoint")
    assert same_weights(again, segmenter), "a finished checkpoint holds the weights"


def test_blocks_of_dynunet_have_one_name_and_compute_as_before():
    nets = pytest.importorskip("monai.networks.nets")
    torch.manual_seed(0)
    network = build_network(SegmentationConfig(network="dynunet", channels=(8, 16, 32), patch_size=64)).eval()
    names = [name for name, _ in network.named_parameters()]
    assert list(network.state_dict()) == names
    torch.manual_seed(0)
    original = nets.DynUNet(2, 5, 1, [3] * 3, [1, 2, 2], [2, 2], filters=(8, 16, 32)).eval()
    original.to(memory_format=torch.channels_last)
    image = torch.randn(1, 5, 32, 64)
    with torch.inference_mode():
        assert torch.equal(network(image), original(image))
    moved = copy.deepcopy(network)
    for weight in moved.parameters():
        weight.data += 1
    update_average(moved.state_dict(), network.state_dict(), 0.9, step=10**6)
    for before, after in zip(network.parameters(), moved.parameters(), strict=True):
        assert torch.allclose(after - before, torch.tensor(0.9), atol=1e-5)
    moved.load_state_dict(original.state_dict())  # as it was saved on a graphics card
    assert all(torch.equal(a, b) for a, b in zip(moved.parameters(), network.parameters(), strict=True))


def test_missing_library_of_networks_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "monai.networks", None)
    with pytest.raises(InputError, match="MONAI"):
        build_network(SegmentationConfig(network="dynunet"))


def test_convolution_of_what_comes_from_below_is_that_of_its_repeated_pixels():
    torch.manual_seed(0)
    skip, below = torch.randn(2, 3, 12, 8), torch.randn(2, 5, 6, 4)
    weight = torch.randn(4, 8, 3, 3)
    joined = torch.cat([skip, torch.nn.functional.interpolate(below, scale_factor=2, mode="nearest")], dim=1)
    expected = torch.nn.functional.conv2d(joined, weight, padding=1)
    assert torch.allclose(_convolve_joined(skip, below, weight), expected, atol=1e-4)
