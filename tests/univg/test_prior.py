from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from univg.cli import main
from univg.errors import Cancelled, InputError
from univg.io import read_image, read_mask, write_json_atomic
from univg.metrics import dice
from univg.segmentation import SegmentationConfig, Segmenter, segment, train_segmenter
from univg.segmentation.networks import build_network
from univg.segmentation.phantoms import grow_shapes
from univg.segmentation.prior import PriorConfig, load_prior, pretrain_prior, save_prior
from univg.types import Modality
from univg.weights import shipped_folder
from univg.workflow.sample import sample_unseen_images

TINY = SegmentationConfig(channels=(4, 8), patch_size=32, working_size=96, steps=6, warmup_steps=2, precision="float32")
CONFIG = PriorConfig(TINY, batch_size=2, shapes=5, validate_every=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A work folder in which the trees are grown, so that each test need not."""
    folder = tmp_path_factory.mktemp("prior")
    np.save(folder / "shapes-5-0.npy", grow_shapes(5, seed=0, workers=1))
    return folder


@pytest.fixture
def work(folder, tmp_path):
    (tmp_path / "shapes-5-0.npy").symlink_to(folder / "shapes-5-0.npy")
    return tmp_path


def equal(first, second):
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_resumed_pretraining_equals_an_uninterrupted_one(work, tmp_path_factory, folder):
    other = tmp_path_factory.mktemp("whole")
    (other / "shapes-5-0.npy").symlink_to(folder / "shapes-5-0.npy")
    steps = []
    with pytest.raises(Cancelled):
        pretrain_prior(CONFIG, work, device="cpu", should_stop=lambda: len(steps) >= 2, on_progress=steps.append)
    resumed, figures = pretrain_prior(CONFIG, work, device="cpu")
    whole, _ = pretrain_prior(CONFIG, other, device="cpu", workers=2)
    assert equal(resumed, whole)
    assert set(figures) == {"step", "dice"} and figures["step"] == 6 and 0 <= figures["dice"] <= 1


def test_checkpoint_of_another_recipe_or_start_is_refused(work, tmp_path):
    network, figures = pretrain_prior(CONFIG, work, device="cpu")
    with pytest.raises(InputError, match="other images or settings"):
        pretrain_prior(replace(CONFIG, batch_size=3), work, device="cpu")
    save_prior(network, CONFIG, figures, tmp_path)
    with pytest.raises(InputError, match="other images or settings"):
        pretrain_prior(CONFIG, work, start=load_prior(TINY, tmp_path), device="cpu")


def test_pretraining_goes_on_from_a_prior(work, tmp_path):
    network = build_network(TINY)
    save_prior(network, CONFIG, {}, tmp_path)
    still = replace(CONFIG, segmentation=replace(TINY, steps=1, learning_rate=1e-12, weight_decay=0.0))
    start = load_prior(TINY, tmp_path)
    trained, figures = pretrain_prior(still, work, start=start, device="cpu")
    assert figures["start_sha256"] == start.sha256
    for name, value in trained.named_parameters():
        torch.testing.assert_close(value, start.tensors[name], atol=1e-6, rtol=0)


def test_saved_prior_starts_a_training(tmp_path, tiny_support):
    network = build_network(TINY)
    save_prior(network, CONFIG, {"dice": 0.5}, tmp_path)
    prior = load_prior(TINY, tmp_path)
    for name, value in network.state_dict().items():
        assert torch.equal(prior.tensors[name], value.half().float() if value.is_floating_point() else value)
    recipe = replace(TINY, start="prior", steps=1, learning_rate=0.0, weight_decay=0.0, release_fraction=0.0)
    segmenter = train_segmenter(
        tiny_support.pairs, modality=tiny_support.modality, config=recipe, device="cpu", prior_folder=tmp_path
    )
    assert torch.equal(segmenter.network.head.weight, prior.tensors["head.weight"])
    assert segmenter.card["prior_sha256"] == prior.sha256


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="looks at what this process has mapped")
def test_prior_that_was_read_is_not_kept_open(tmp_path):
    save_prior(build_network(TINY), CONFIG, {}, tmp_path)
    prior = load_prior(TINY, tmp_path)
    assert str(tmp_path) not in Path("/proc/self/maps").read_text() and prior.tensors


def test_prior_is_shown_on_the_held_out_image_before_the_first_step(tmp_path, tiny_support):
    save_prior(build_network(TINY), CONFIG, {}, tmp_path)
    recipe, events, shown = replace(TINY, start="prior", steps=2), [], []
    train_segmenter(
        tiny_support.pairs[1:],
        modality=tiny_support.modality,
        held_out=tiny_support.pairs[0],
        config=recipe,
        device="cpu",
        prior_folder=tmp_path,
        on_progress=events.append,
        on_held_out=lambda step, probability: shown.append((step, probability.shape)) or f"{step}.png",
    )
    assert shown[0] == (0, (96, 96))
    assert events[0].step == 0 and events[0].picture == "0.png" and 0 <= events[0].metrics["held_out_dice"] <= 1
    assert [event.step for event in events] == [0, 1, 2]


def test_prior_of_other_channels_is_refused(tmp_path):
    save_prior(build_network(TINY), CONFIG, {}, tmp_path)
    with pytest.raises(InputError, match=r"channels \(4, 8\), the recipe \(8, 16\)"):
        load_prior(replace(TINY, channels=(8, 16)), tmp_path)


def test_missing_and_damaged_priors_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load_prior(TINY, tmp_path)
    save_prior(build_network(TINY), CONFIG, {}, tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 50)
    with pytest.raises(InputError, match="cannot be read"):
        load_prior(TINY, tmp_path)
    save_prior(build_network(TINY), CONFIG, {}, tmp_path)
    write_json_atomic(tmp_path / "prior.json", {"format": "other"})
    with pytest.raises(InputError, match="cannot be read"):
        load_prior(TINY, tmp_path)


def test_unknown_shipped_folder_is_refused():
    with pytest.raises(InputError, match="not installed"):
        shipped_folder("models", "no-such-model")


@pytest.mark.parametrize("values", [{"batch_size": 0}, {"shapes": 2}, {"validate_every": 0}])
def test_bad_settings_are_refused(values):
    with pytest.raises(ValueError):
        PriorConfig(**values)


def test_shipped_prior_finds_vessels_without_any_annotated_image():
    config = SegmentationConfig()
    network = build_network(config)
    network.load_state_dict(load_prior(config).tensors)
    segmenter = Segmenter(network.eval(), config, Modality.FUNDUS)
    for path in sample_unseen_images():  # drawn by another renderer than the phantoms
        found = segment(read_image(path), segmenter).mask
        assert dice(found, read_mask(path.parents[1] / "masks" / path.name)) > 0.6


def test_command_line_pretrains_and_refuses_nonsense(work, tmp_path_factory, capsys):
    output = tmp_path_factory.mktemp("out")
    arguments = ["pretrain", "prior", "-o", str(output), "--work", str(work), "--device", "cpu", "--shapes", "5"]
    assert main([*arguments, "--steps", "1", "--batch", "1", "--patch", "32", "--workers", "1"]) == 0
    assert "step 1: loss" in capsys.readouterr().out
    assert load_prior(SegmentationConfig(), output).sha256
    for wrong, said in (
        (("--patch", "30"), "multiple of 16"),
        (("--rate", "-1"), "learning_rate"),
        (("--start", str(output / "nowhere")), "Name a folder that"),
    ):
        assert main([*arguments, *wrong]) == 2
        assert said in capsys.readouterr().err
