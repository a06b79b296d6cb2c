from dataclasses import replace

import numpy as np
import pytest
import torch

from univg.engines.backbone import new_controlnet
from univg.engines.conditions import vessel_condition
from univg.engines.config import ImageTrainConfig, SamplingConfig
from univg.engines.diffusion import controlled_prediction, unet_prediction
from univg.engines.folders import load_backbone, load_controlnet, save_controlnet
from univg.engines.frames import from_square, to_square
from univg.engines.image_engine import ImageEngine, as_colour, synthesize_images, train_image_engine
from univg.errors import Cancelled, InputError
from univg.training.loop import NO_LOOK
from univg.types import ImageMaskPair, Modality

TRAINING = ImageTrainConfig(steps=4, batch_size=2, learning_rate=1e-3, precision="float32")
SAMPLING = SamplingConfig(scale=1.0, size=64, steps=2)


@pytest.fixture
def pairs(masks):
    """Grey pairs with dark vessels, of one oblong shape."""
    rng = np.random.default_rng(0)
    images = [np.clip(0.7 - 0.4 * mask + 0.05 * rng.standard_normal(mask.shape), 0, 1) for mask in masks]
    return [ImageMaskPair(i.astype(np.float32), m, f"p{n}") for n, (i, m) in enumerate(zip(images, masks, strict=True))]


def fresh(backbone):
    torch.manual_seed(1)
    return new_controlnet(backbone.unet)


def adapt(pairs, backbone, **options):
    settings = {"modality": Modality.CORONARY_DSA, "config": TRAINING, "size": 64}
    return train_image_engine(pairs, backbone, fresh(backbone), **{**settings, **options})


def weights(engine):
    return [*engine.controlnet.parameters(), *engine.backbone.unet.parameters()]


def test_fresh_controlnet_changes_nothing(backbone):
    noise, tokens = torch.randn(2, 4, 8, 8), backbone.condition([Modality.OCTA] * 2)
    condition = torch.rand(2, 3, 64, 64)
    told = controlled_prediction(backbone, fresh(backbone))
    with torch.no_grad():
        plain = unet_prediction(backbone)(noise, torch.tensor([5, 900]), tokens)
        for scale in (0, 1.0):
            helped = told(noise, torch.tensor([5, 900]), tokens, condition=condition, scale=scale)
            assert torch.equal(plain, helped)


@pytest.mark.parametrize("train_unet", [True, False])
def test_resumed_adaptation_equals_an_uninterrupted_one(pairs, compact_folder, tmp_path, train_unet):
    config, steps = replace(TRAINING, train_unet=train_unet), []
    with pytest.raises(Cancelled):
        adapt(
            pairs,
            load_backbone(compact_folder),
            config=config,
            checkpoint_folder=tmp_path,
            on_progress=lambda event: event.step and steps.append(event),
            should_stop=lambda: len(steps) >= 2,
        )
    assert (tmp_path / "state.safetensors").is_file()
    resumed = adapt(pairs, load_backbone(compact_folder), config=config, checkpoint_folder=tmp_path)
    whole = adapt(pairs, load_backbone(compact_folder), config=config)
    assert all(torch.equal(a, b) for a, b in zip(weights(resumed), weights(whole), strict=True))
    locked = load_backbone(compact_folder).unet
    same = all(torch.equal(a, b) for a, b in zip(whole.backbone.unet.parameters(), locked.parameters(), strict=True))
    assert same is not train_unet


@pytest.mark.parametrize("train_unet", [True, False])
def test_adaptation_leaves_what_it_starts_from_as_it_was(pairs, backbone, train_unet):
    before = [weight.clone() for weight in backbone.unet.parameters()]
    controlnet = fresh(backbone)
    began = [weight.clone() for weight in controlnet.parameters()]
    config = replace(TRAINING, train_unet=train_unet, gradient_checkpointing=True)
    train_image_engine(pairs, backbone, controlnet, modality=Modality.OCTA, config=config, size=64)
    assert all(torch.equal(a, b) for a, b in zip(before, backbone.unet.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(began, controlnet.parameters(), strict=True))
    assert not backbone.unet.training and not backbone.unet.is_gradient_checkpointing
    assert all(weight.grad is None and not weight.requires_grad for weight in backbone.unet.parameters())


def test_a_locked_unet_is_not_copied(pairs, backbone):
    locked, own = (
        adapt(pairs, backbone, config=replace(TRAINING, steps=1, train_unet=train_unet)) for train_unet in (False, True)
    )
    assert locked.backbone.unet is backbone.unet and own.backbone.unet is not backbone.unet


@pytest.mark.parametrize("train_unet", [True, False])
def test_gradient_checkpointing_learns_the_same(pairs, backbone, train_unet):
    usual, saving = (
        adapt(pairs, backbone, config=replace(TRAINING, train_unet=train_unet, gradient_checkpointing=recomputes))
        for recomputes in (False, True)
    )
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(weights(usual), weights(saving), strict=True))


def test_preparation_reports_and_can_be_cancelled(pairs, backbone):
    events, parts = [], []
    with pytest.raises(Cancelled):
        adapt(
            pairs,
            backbone,
            on_progress=lambda event: events.append(event) or parts.append(event.message.split(":")[0]),
            should_stop=lambda: parts.count("Encoding the images") >= 2,
        )
    assert (parts.count("Varying the images"), parts.count("Encoding the images")) == (60, 2)
    assert {(e.stage, e.step, e.total, e.seconds_left) for e in events} == {("image engine", 0, 4, None)}


def test_a_picture_that_memory_is_too_short_for_is_left_out(pairs, backbone, monkeypatch):
    modes, drawn, events = [], [], []

    def draw(engine, masks, *, config, **options):
        modes.append(engine.controlnet.training)
        assert config.batch_size == 1
        if len(modes) == 2:
            raise torch.OutOfMemoryError("CUDA")
        return synthesize_images(engine, masks, config=config, **options)

    monkeypatch.setattr("univg.engines.image_engine.synthesize_images", draw)
    looked = adapt(
        pairs,
        backbone,
        on_samples=lambda step, masks, images: drawn.append(step),
        on_progress=lambda event: event.step and events.append(event.message),
    )
    assert drawn == [1, 3, 4] and modes == [False] * 4
    assert events == ["", NO_LOOK, "", ""]
    assert all(torch.equal(a, b) for a, b in zip(weights(looked), weights(adapt(pairs, backbone)), strict=True))


@pytest.mark.parametrize("train_unet", [True, False])
def test_engine_survives_the_disk(pairs, masks, compact_folder, backbone, tmp_path, train_unet):
    engine = adapt(pairs, backbone, config=replace(TRAINING, train_unet=train_unet))
    engine.save(tmp_path)
    again = ImageEngine.load(tmp_path, load_backbone(compact_folder))
    assert (again.modality, again.grey, len(again.fields)) == (Modality.CORONARY_DSA, True, 5)
    first, second = (synthesize_images(e, masks[:2], config=SAMPLING) for e in (engine, again))
    assert np.array_equal(first, second)


def test_images_have_the_frame_of_their_masks_and_follow_their_seed(pairs, masks, backbone):
    engine = adapt(pairs, backbone)
    drawn = synthesize_images(engine, [masks[0], masks[0], masks[1]], config=replace(SAMPLING, batch_size=2))
    assert drawn.shape == (3, 47, 64) and drawn.dtype == np.uint8
    assert not np.array_equal(drawn[0], drawn[1])
    alone = synthesize_images(engine, [masks[1]], config=replace(SAMPLING, seed=2))
    assert np.abs(drawn[2].astype(int) - alone[0]).max() <= 1, "up to the rounding of larger batches"


def test_colour_and_field_of_view_are_those_of_the_support(masks, backbone):
    seen = np.zeros(masks[0].shape, bool)
    seen[10:50, 10:70] = True
    image = np.where(seen[..., None], np.uint8([180, 90, 40]), np.uint8([12, 0, 0])).astype(np.uint8)
    pairs = [ImageMaskPair(image, mask & seen, f"p{i}", fov=seen) for i, mask in enumerate(masks)]
    engine = adapt(pairs, backbone, modality=Modality.FUNDUS)
    drawn = synthesize_images(engine, [masks[0]], config=SAMPLING)[0]
    assert drawn.shape == (47, 64, 3)
    assert (drawn[:6] == [12, 0, 0]).all() and (drawn[-6:, :6] == [12, 0, 0]).all()
    other = np.ones(masks[0].shape, bool)
    assert not (synthesize_images(engine, [masks[0]], config=SAMPLING, fields=[other])[0][:6] == [12, 0, 0]).all()


def test_strength_zero_returns_the_start_with_all_that_the_autoencoder_loses(pairs, masks, backbone):
    engine, image = adapt(pairs, backbone), pairs[0].image
    shown, other = (
        synthesize_images(engine, masks[:1], config=replace(SAMPLING, strength=0.0, seed=seed), starts=[image])[0]
        for seed in (0, 7)
    )
    assert np.array_equal(shown, other)
    wanted = from_square(to_square(as_colour(image), SAMPLING.size), image.shape)[..., 0]
    assert np.abs(shown / 255 - wanted).max() < 0.01


def test_less_of_a_start_s_detail_comes_back_the_more_noise_covers_it(pairs, masks, backbone):
    engine, rng = adapt(pairs, backbone), np.random.default_rng(0)
    grain = rng.uniform(-0.1, 0.1, pairs[0].image.shape).astype(np.float32)
    starts = [(pairs[0].image + part).clip(0, 1) for part in (grain, -grain)]

    def kept(strength: float) -> float:
        config = replace(SAMPLING, strength=strength, steps=4)
        one, other = (synthesize_images(engine, masks[:1], config=config, starts=[start])[0] for start in starts)
        return float(np.abs(one.astype(float) - other).mean())

    assert kept(0.25) > kept(0.75) > kept(1.0)


def test_the_loss_of_a_batch_is_the_mean_of_those_of_its_parts(pairs, backbone, monkeypatch):
    found = {}

    def look_into(weights, loss_of, batches_from, **_):
        noisy = next(iter(batches_from(0)))
        with torch.no_grad():
            found["whole"] = float(loss_of(*noisy))
            found["parts"] = [float(loss_of(*(part[i : i + 1] for part in noisy))) for i in range(2)]

    monkeypatch.setattr("univg.engines.image_engine.optimize", look_into)
    empty = replace(pairs[0], mask=np.zeros_like(pairs[0].mask))
    adapt([empty, *pairs[1:]], backbone)
    assert found["whole"] == pytest.approx(np.mean(found["parts"]), rel=1e-5)


def test_every_pair_of_many_is_learnt_from(pairs, backbone, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "univg.engines.image_engine.vessel_condition", lambda *given: drawn.append(1) or vessel_condition(*given)
    )
    adapt([pairs[i % len(pairs)] for i in range(71)], backbone)
    assert len(drawn) >= 71


def test_synthesis_reports_and_can_be_cancelled(pairs, masks, backbone):
    engine, events = adapt(pairs, backbone), []
    with pytest.raises(Cancelled):
        synthesize_images(
            engine, masks, config=SAMPLING, on_progress=events.append, should_stop=lambda: len(events) >= 2
        )
    assert [(e.step, e.total) for e in events] == [(1, 5), (2, 5)]


def test_engine_of_another_base_is_refused(pairs, backbone, tmp_path):
    adapt(pairs, backbone).save(tmp_path)
    with pytest.raises(InputError, match="another base"):
        ImageEngine.load(tmp_path, replace(backbone, sha256="0" * 64))


def test_damaged_engine_is_refused(pairs, compact_folder, backbone, tmp_path):
    with pytest.raises(InputError, match="No image engine"):
        ImageEngine.load(tmp_path, backbone)
    adapt(pairs, backbone).save(tmp_path)
    file = tmp_path / "controlnet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match="cannot be read"):
        ImageEngine.load(tmp_path, load_backbone(compact_folder))
    (tmp_path / "engine.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be read"):
        ImageEngine.load(tmp_path, backbone)


def test_controlnet_of_another_unet_is_refused(backbone, sd_folder, tmp_path):
    save_controlnet(new_controlnet(load_backbone(sd_folder).unet), tmp_path)
    with pytest.raises(InputError, match="belong together"):
        load_controlnet(tmp_path, backbone)


def test_stable_diffusion_takes_the_same_road(pairs, masks, sd_folder):
    backbone = load_backbone(sd_folder)
    engine = adapt(pairs, backbone, config=replace(TRAINING, train_unet=False))
    assert synthesize_images(engine, masks[:1], config=SAMPLING).shape == (1, 47, 64)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"masks": []}, "masks"),
        ({"masks": [np.zeros((4, 4))]}, "masks"),
        ({"fields": []}, "fields"),
        ({"starts": []}, "starts"),
    ],
)
def test_wrong_arguments_are_named(pairs, masks, backbone, change, match):
    engine = ImageEngine(backbone, fresh(backbone), Modality.OCTA)
    arguments = {"masks": masks[:1], "config": SAMPLING, **change}
    with pytest.raises(ValueError, match=match):
        synthesize_images(engine, arguments.pop("masks"), **arguments)
