from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage.measure import label

from univg.engines.backbone import mask_to_picture
from univg.engines.config import AdapterConfig, DiffusionTrainConfig, SamplingConfig
from univg.engines.diffusion import sample_latents
from univg.engines.folders import load_backbone
from univg.engines.frames import from_square, random_warp, to_square
from univg.engines.mask_engine import (
    MaskEngine,
    finetune_mask_engine,
    nearest_dice,
    sample_masks,
    vessels_in,
)
from univg.errors import Cancelled, InputError
from univg.types import Modality

ADAPTER = AdapterConfig(rank=2, alpha=2, conv_rank=2, conv_alpha=2)
TRAINING = DiffusionTrainConfig(steps=4, batch_size=2, learning_rate=1e-3, precision="float32")
SAMPLING = SamplingConfig(size=64, steps=2)


def adapt(masks, backbone, **options):
    settings = {"modality": Modality.OCTA, "adapter": ADAPTER, "config": TRAINING, "size": 64}
    return finetune_mask_engine(masks, backbone, **{**settings, **options})


def factors(engine):
    return [f.detach() for stage in range(len(engine.adapter.stages)) for f in engine.adapter.factors(stage).values()]


@pytest.mark.parametrize("kind", ["lora", "loha", "lora+loha"])
def test_resumed_adaptation_equals_an_uninterrupted_one(masks, compact_folder, tmp_path, kind):
    adapter = replace(ADAPTER, kind=kind)
    steps = []
    with pytest.raises(Cancelled):
        adapt(
            masks,
            load_backbone(compact_folder),
            adapter=adapter,
            checkpoint_folder=tmp_path,
            on_progress=lambda event: event.step and steps.append(event),
            should_stop=lambda: len(steps) >= 3,
        )
    assert any(tmp_path.rglob("state.safetensors"))
    resumed = adapt(masks, load_backbone(compact_folder), adapter=adapter, checkpoint_folder=tmp_path)
    whole = adapt(masks, load_backbone(compact_folder), adapter=adapter)
    assert all(torch.equal(a, b) for a, b in zip(factors(resumed), factors(whole), strict=True))
    assert any(f.abs().sum() > 0 for name, f in whole.adapter.factors().items() if "w2_a" in name or "up" in name)


@pytest.mark.parametrize("kind", ["loha", "lora+loha"])
def test_preparation_reports_and_can_be_cancelled(masks, backbone, kind):
    events, parts = [], []
    with pytest.raises(Cancelled):
        adapt(
            masks,
            backbone,
            adapter=replace(ADAPTER, kind=kind),
            on_progress=lambda event: events.append(event) or parts.append(event.message.split(":")[0]),
            should_stop=lambda: parts.count("Encoding the masks") >= 2,
        )
    assert (parts.count("Varying the masks"), parts.count("Encoding the masks")) == (48, 2)
    assert {(e.step, e.total, e.seconds_left) for e in events} == {(0, 4 // len(kind.split("+")), None)}
    assert len({e.stage for e in events}) == 1 and events[0].stage.startswith("mask engine")


def test_parts_of_a_hybrid_learn_from_other_masks_and_noise(masks, backbone, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "univg.engines.mask_engine.optimize",
        lambda weights, loss_of, batches_from, **_: seen.append(next(iter(batches_from(1)))),
    )
    for kind in ("lora", "lora+loha"):
        adapt(masks, backbone, adapter=replace(ADAPTER, kind=kind))
    alone, first, second = seen
    assert all(torch.equal(a, b) for a, b in zip(alone, first, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_samples_on_the_way_are_drawn_one_by_one(masks, backbone, monkeypatch):
    drawn, sizes = [], []
    monkeypatch.setattr(
        "univg.engines.mask_engine.sample_latents",
        lambda *given, **options: sizes.append(len(options["seeds"])) or sample_latents(*given, **options),
    )
    adapt(masks, backbone, on_samples=lambda step, masks: drawn.append((step, len(masks))))
    assert drawn == [(1, 3), (2, 3), (3, 3), (4, 3)] and set(sizes) == {1}


def test_adaptation_leaves_the_backbone_as_it_was(masks, backbone):
    before = {name: weight.clone() for name, weight in backbone.unet.state_dict().items()}
    adapt(masks, backbone)
    assert all(torch.equal(before[name], weight) for name, weight in backbone.unet.state_dict().items())


def test_an_engine_that_is_not_adapted_survives_the_disk(masks, backbone, tmp_path):
    adapt(masks, backbone).save(tmp_path)
    MaskEngine(backbone, Modality.OCTA, frame=(64, 48), card={"a": 1}).save(tmp_path)
    again = MaskEngine.load(tmp_path, backbone)
    assert again.adapter is None and again.frame == (64, 48) and again.card == {"a": 1}


def test_an_engine_whose_adapter_is_gone_is_refused(masks, backbone, tmp_path):
    adapt(masks, backbone).save(tmp_path)
    for file in tmp_path.glob("*.safetensors"):
        file.unlink()
    with pytest.raises(InputError, match="No adapter here"):
        MaskEngine.load(tmp_path, backbone)


def test_engine_survives_the_disk(masks, compact_folder, backbone, tmp_path):
    engine = adapt(masks, backbone)
    engine.save(tmp_path)
    again = MaskEngine.load(tmp_path, load_backbone(compact_folder))
    assert (again.modality, again.frame) == (Modality.OCTA, (60, 81))
    assert np.array_equal(sample_masks(again, 1, config=SAMPLING), sample_masks(engine, 1, config=SAMPLING))


def test_masks_have_the_proportions_of_the_support(masks, backbone):
    engine = adapt(masks, backbone)
    drawn = sample_masks(engine, 3, config=SAMPLING)
    assert drawn.shape == (3, 47, 64) and drawn.dtype == np.bool_


def test_masks_from_trees_have_the_proportions_of_the_trees(backbone):
    engine, trees = MaskEngine(backbone, Modality.OCTA, frame=(60, 81)), [np.zeros((80, 80), bool)] * 2
    drawn = sample_masks(engine, 2, config=SAMPLING, trees=trees)
    assert drawn.shape == (2, 64, 64)
    mixed = sample_masks(engine, 2, config=SAMPLING, trees=[trees[0], np.zeros((32, 64), bool)])
    assert [mask.shape for mask in mixed] == [(64, 64), (32, 64)]


def test_scale_zero_draws_what_the_pretrained_engine_draws(masks, backbone):
    engine = adapt(masks, backbone)
    config = replace(SAMPLING, scale=0.0)
    bare = MaskEngine(backbone, Modality.OCTA, frame=engine.frame)
    assert np.array_equal(sample_masks(engine, 1, config=config), sample_masks(bare, 1, config=config))


def test_strength_zero_returns_the_tree_through_the_autoencoder(masks, backbone):
    engine = MaskEngine(backbone, Modality.OCTA, frame=(64, 64))
    trees = [to_square(masks[0], 64)]
    first, second = (
        sample_masks(engine, 1, config=replace(SAMPLING, strength=0.0, seed=seed), trees=trees) for seed in (0, 1)
    )
    assert np.array_equal(first, second)


def test_sampling_reports_and_can_be_cancelled(backbone):
    engine, events = MaskEngine(backbone, Modality.OCT), []
    with pytest.raises(Cancelled):
        sample_masks(engine, 5, config=SAMPLING, on_progress=events.append, should_stop=lambda: len(events) >= 2)
    assert [(e.step, e.total) for e in events] == [(1, 5), (2, 5)]


@pytest.mark.parametrize("shape", [(60, 81), (81, 60), (512, 512), (7, 300)])
def test_square_and_back(shape):
    rng = np.random.default_rng(0)
    mask = np.kron(rng.random((4, 4)) > 0.5, np.ones((-(-shape[0] // 4), -(-shape[1] // 4)), bool))[
        : shape[0], : shape[1]
    ]
    square = to_square(mask, 64)
    assert square.shape == (64, 64)
    part = from_square(square, shape)
    assert part.sum() == square.sum() and max(part.shape) == 64


@pytest.mark.parametrize("modality", list(Modality))
def test_augmented_masks_differ_but_not_much_in_density(masks, modality):
    mask = to_square(masks[0], 128)
    rng = np.random.default_rng(0)
    variants = [random_warp(128, modality, rng)(mask) for _ in range(6)]
    assert all(0.6 < v.mean() / mask.mean() < 1.5 for v in variants)
    assert len({v.tobytes() for v in variants}) == 6


def test_thin_vessels_stay_whole_where_they_are_moved():
    mask = np.zeros((256, 256), bool)
    for row in range(40, 220, 30):
        mask[row, 30:226] = True
    rng = np.random.default_rng(0)
    warps = [random_warp(256, Modality.FUNDUS, rng) for _ in range(6)]
    mask[10, 128] = True
    cut, kept = (
        [label(move(mask), connectivity=2).max() for move in moves] for moves in (warps, [w.vessels for w in warps])
    )
    assert min(cut) > 40 and kept == [7] * 6
    assert all(0.9 < warp.vessels(mask).sum() / mask.sum() < 1.3 for warp in warps)


@pytest.mark.parametrize("modality", [Modality.FUNDUS, Modality.OCTA])
def test_wide_vessels_are_moved_as_any_picture(modality):
    mask = np.zeros((256, 256), bool)
    mask[100:110, 30:226] = True
    rng = np.random.default_rng(0)
    for _ in range(6):
        warp = random_warp(256, modality, rng)
        assert (warp.vessels(mask) != warp(mask)).sum() < 6, "but for the ends"


def test_a_copy_is_known(masks):
    assert nearest_dice(masks[2], masks) == 1
    assert nearest_dice(masks[2], [masks[0]]) < 0.9


def test_every_mask_of_many_is_learnt_from(masks, backbone, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "univg.engines.mask_engine.mask_to_picture", lambda part: seen.append(len(part)) or mask_to_picture(part)
    )
    adapt([masks[i % len(masks)] for i in range(61)], backbone)
    assert sum(seen) >= 61


def test_empty_mask_is_refused(masks, backbone):
    with pytest.raises(InputError, match="Mask 2 is empty"):
        adapt([masks[0], np.zeros_like(masks[0])], backbone)


def test_no_mask_or_a_wrong_one_is_refused(masks, backbone):
    with pytest.raises(ValueError, match="at least one"):
        adapt([], backbone)
    with pytest.raises(ValueError, match="bool"):
        adapt([masks[0].astype(np.uint8)], backbone)


def test_missing_engine_is_refused(backbone, tmp_path):
    with pytest.raises(InputError, match="No mask engine"):
        MaskEngine.load(tmp_path, backbone)


def test_checkpoint_of_other_masks_is_refused(masks, backbone, tmp_path):
    adapt(masks, backbone, checkpoint_folder=tmp_path)
    with pytest.raises(InputError, match="other images or settings"):
        adapt(masks[:3], backbone, checkpoint_folder=tmp_path)


def test_stable_diffusion_is_adapted_too(masks, sd_folder, tmp_path):
    engine = adapt(masks, load_backbone(sd_folder))
    engine.save(tmp_path)
    drawn = sample_masks(MaskEngine.load(tmp_path, load_backbone(sd_folder)), 1, config=SAMPLING)
    assert drawn.shape == (1, 47, 64)


def test_gradient_checkpointing_is_refused_rather_than_ignored(masks, backbone):
    with pytest.raises(ValueError, match="gradient_checkpointing"):
        adapt(masks, backbone, config=replace(TRAINING, gradient_checkpointing=True))


def test_grey_bridges_a_vessel_and_specks_go():
    picture = np.full((512, 512), -1.0, np.float32)
    picture[100, 50:200] = 1.0
    picture[100, 90:95] = -0.2  # grey
    picture[100, 150:153] = -0.6  # too dark
    picture[300, 300:305] = 1.0  # a speck
    picture[400, 400:480] = -0.2  # grey alone is none
    found = vessels_in(picture)
    assert found[100, 50:150].all() and not found[100, 150:153].any() and found[100, 153:200].all()
    assert found.sum() == 147
    wide = np.full((512, 512), -1.0, np.float32)
    wide[100:103, 50:200], wide[99, 50:200] = 1.0, -0.2
    assert vessels_in(wide).sum() == 450, "grey makes no vessel wider"
