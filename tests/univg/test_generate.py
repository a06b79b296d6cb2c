"""Pairs of tiny engines: from adaptation to checked pairs in a project."""

from dataclasses import replace
from pathlib import Path
from shutil import copytree, rmtree
from threading import Event

import numpy as np
import pytest
import torch

from univg.cli import main
from univg.engines import ImageEngine, MaskEngine, SamplingConfig, load_backbone
from univg.engines.backbone import new_controlnet
from univg.engines.folders import save_controlnet
from univg.errors import Cancelled, InputError, Paused
from univg.io import read_json, read_provenance, write_json_atomic
from univg.sca import generate_mask
from univg.segmentation import prior_segmenter
from univg.types import ImageMaskPair, Modality, SupportSet
from univg.workflow import adapt_job, generate, image_engines, pair_checks
from univg.workflow.adapt_job import run_retrain_job
from univg.workflow.full import run_full_job
from univg.workflow.generate import GenerateConfig, generate_pairs, run_generate_job
from univg.workflow.image_checks import likeness, local_contrast, vessel_band
from univg.workflow.image_engines import (
    CRITIC_FOLDER,
    draw_pair,
    load_base,
    load_image_engine,
    run_image_engine_job,
)
from univg.workflow.job_context import JobContext
from univg.workflow.job_records import EventReader
from univg.workflow.jobs import JobState, cancel_job, resume_job, start_job, wait_for
from univg.workflow.model_versions import FROZEN, freeze, frozen_image, image_kept_apart, name_to_hold_out, promote
from univg.workflow.pair_checks import check_synthetic_pair
from univg.workflow.preflight import check_single
from univg.workflow.presets import CRITIC, preset_named
from univg.workflow.project import Project
from univg.workflow.verdicts import judge, training_choice, without_sight_of


def made_up_pair(seed, shape=(64, 64)):
    rng = np.random.default_rng(seed)
    mask = generate_mask(Modality.CORONARY_DSA, shape=shape, rng=rng)
    grey = np.clip(0.7 - 0.35 * mask + 0.04 * rng.standard_normal(shape), 0, 1)
    return ImageMaskPair(np.rint(grey * 255).astype(np.uint8), mask, f"pair-{seed}")


@pytest.fixture(scope="module")
def engines(tiny_compact, tmp_path_factory):
    """A tiny image engine in the layout of the shipped one, with its ControlNet."""
    torch.manual_seed(3)
    folder = tiny_compact(tmp_path_factory.mktemp("models"), "images")
    save_controlnet(new_controlnet(load_backbone(folder).unet), folder / "controlnet")
    return folder


@pytest.fixture(scope="module")
def adapted(engines, tmp_path_factory):
    """A project whose image engine was adapted by a job, with the least of steps."""
    root = tmp_path_factory.mktemp("project")
    project = Project.create(root / "p", modality=Modality.CORONARY_DSA, working_size=64)
    for seed in range(3):
        project.add_support_pair(made_up_pair(seed))
    job = start_job(project, "image-engine", {"steps": 2, "device": "cpu", "backbone": str(engines)})
    job = wait_for(job, timeout=300)
    assert job.state is JobState.DONE, job.error
    assert job.result()["image_engine"] == "v001" and 0 <= job.result()["agreement"] <= 1
    return project


@pytest.mark.parametrize(("kept_apart", "expected"), [(None, True), ("pair-0", False)])
def test_images_are_drawn_of_masks_of_several_sizes_and_nothing_is_expected_unmeasured(
    engines, tmp_path, monkeypatch, kept_apart, expected
):
    monkeypatch.setattr(image_engines, "CRITIC", CRITIC.with_steps(4))
    project = Project.create(tmp_path / "p", modality=Modality.CORONARY_DSA, working_size=64)
    for seed, shape in enumerate(((64, 64), (48, 64))):
        project.add_support_pair(made_up_pair(seed, shape))
    (tmp_path / "job" / "checkpoint").mkdir(parents=True)
    params = {"steps": 1, "device": "cpu", "backbone": str(engines), "without": kept_apart}
    with JobContext(tmp_path / "job") as context:
        result = run_image_engine_job(project, params, context)
    assert 0 <= result["agreement"] <= 1 and result["nearest_image"] <= 1
    assert read_json(project.image_engines_folder / "v001" / "engine.json")["card"]["job"] == "job"
    assert ("expected_agreement" in result) == expected
    critic = load_image_engine(project, device="cpu")[1]
    assert (critic.expected_agreement is not None) == expected


def hashes_of_the_image_kept_apart(project):
    support = project.load_support()
    name = name_to_hold_out(project)
    return {support.sha256[f"{kind}/{name}.png"] for kind in ("images", "masks")}


def test_engines_and_pairs_never_see_the_image_that_models_are_compared_on(project):
    apart = hashes_of_the_image_kept_apart(project)
    card = read_json(project.image_engines_folder / "v001" / "engine.json")["card"]
    assert len(card["support_sha256"]) == 4 and not apart & set(card["support_sha256"].values())
    job = wait_for(start_job(project, "generate", {"count": 2, "steps": 2, "device": "cpu"}), timeout=300)
    assert job.state is JobState.DONE, job.error
    records = [project.pair_record(name) for name in project.pair_names()]
    assert len(records) == 2 and all(len(r["support_sha256"]) == 4 for r in records)
    assert not apart & {sha for record in records for sha in record["support_sha256"]}


def test_pairs_of_an_engine_that_learnt_the_held_out_image_do_not_train(project):
    apart = hashes_of_the_image_kept_apart(project)
    file = project.image_engines_folder / "v001" / "engine.json"
    engine = read_json(file)
    engine["card"]["support_sha256"] = dict(project.load_support().sha256)  # as before one was kept apart
    write_json_atomic(file, engine)
    job = wait_for(start_job(project, "generate", {"count": 1, "steps": 2, "device": "cpu"}), timeout=300)
    assert job.state is JobState.DONE, job.error
    assert apart <= set(project.pair_record(*project.pair_names())["support_sha256"])
    assert training_choice(project)["pairs"] == []
    job = wait_for(start_job(project, "retrain", {"preset": "preview", "pairs": project.pair_names()}), timeout=300)
    assert job.state is JobState.FAILED and "that models are compared on" in job.error


def test_pairs_made_from_the_held_out_image_do_not_train(project):
    apart = hashes_of_the_image_kept_apart(project)
    old, new = dict.fromkeys(map("images/{}.png".format, "abc"), "1"), ["2", "3"]
    for number, seen in enumerate((old, new, [*new, *apart], {"images/pair-0.png": min(apart)}, None)):
        pair = made_up_pair(10 + number)
        project.add_synthetic_pair(replace(pair, synthetic=True), {} if seen is None else {"support_sha256": seen})
    names = [f"pair-{10 + number}" for number in range(5)]
    assert without_sight_of(project, names, apart) == [names[0], names[1], names[4]]
    params = {"preset": "preview", "pairs": names, "segmenter_steps": 20, "device": "cpu"}
    job = wait_for(start_job(project, "retrain", params), timeout=300)
    assert job.state is JobState.DONE, job.error
    assert job.result()["pairs_used"] == min(3, preset_named("preview").with_steps(20).synthetic_drawn)
    assert any("2 of 5 pairs" in event.message for event in job.events())


def test_rejecting_every_pair_trains_on_the_annotated_images_alone(tmp_path):
    project = Project.create(tmp_path / "p", modality=Modality.CORONARY_DSA, working_size=64)
    for seed in range(2):
        project.add_support_pair(made_up_pair(seed))
    preset = preset_named("preview")
    params = {"preset": preset.name, "segmenter_steps": 2, "device": "cpu"}

    def retrained(name):
        (tmp_path / name / "checkpoint").mkdir(parents=True)
        with JobContext(tmp_path / name) as context:
            result = run_retrain_job(project, {**params, **training_choice(project)}, context)
        card = read_json(project.segmenters_folder / result["segmenter"] / "segmenter.json")["card"]
        assert result["pairs_used"] == card["synthetic_pairs"]
        return result["pairs_used"], {event.stage for event in EventReader(tmp_path / name).read_new()}

    used, stages = retrained("without-any")
    assert used == preset.pairs and "trees" in stages, "the preset makes its own"
    project.add_synthetic_pair(replace(made_up_pair(5), synthetic=True), {})
    judge(project, ["pair-5"], "rejected")
    used, stages = retrained("all-rejected")
    assert used == 0 and "trees" not in stages


def test_full_run_freezes_the_image_it_keeps_apart_before_another_run_can_choose(engines, tmp_path):
    project = Project.create(tmp_path / "p", modality=Modality.CORONARY_DSA, working_size=64)
    for seed in range(3):
        project.add_support_pair(made_up_pair(seed))
    (tmp_path / "job" / "checkpoint").mkdir(parents=True)
    params = {"seed": 1, "device": "cpu", "mask_backbone": str(engines), "image_backbone": str(engines)}
    with JobContext(tmp_path / "job") as context:
        part = replace(context.within("all"), should_stop=lambda: True)
        with pytest.raises(Cancelled):
            run_full_job(project, preset_named("full").scaled_to(64), params, part)
        apart = read_json(part.checkpoint_folder / "stages.json")["support"]["held_out"]
    assert apart != project.support_names()[int(np.random.default_rng(0).integers(3))], "by this seed another one"
    assert image_kept_apart(project) == frozen_image(project).name == apart


def test_full_run_on_the_one_image_that_models_are_compared_on_is_refused_at_once(engines, tmp_path):
    project = Project.create(tmp_path / "p", modality=Modality.CORONARY_DSA, working_size=64)
    project.add_support_pair(made_up_pair(0))
    preset = preset_named("full").scaled_to(64)
    assert check_single(project) == [], "a single one that nothing was compared on yet may train"
    freeze(project, "pair-0")
    (tmp_path / "job" / "checkpoint").mkdir(parents=True)
    params = {"device": "cpu", "mask_backbone": str(engines), "image_backbone": str(engines)}
    with JobContext(tmp_path / "job") as context, pytest.raises(InputError, match=r"only annotated image.*Add another"):
        run_full_job(project, preset, params, context)
    assert project.mask_engine_versions() == []


def test_retraining_keeps_the_network_in_use_and_one_that_it_began_with(tmp_path, monkeypatch):
    project = Project.create(tmp_path / "p", modality=Modality.CORONARY_DSA, working_size=64)
    for seed in range(2):
        project.add_support_pair(made_up_pair(seed))
    for network in ("attention-unet", "dynunet"):
        with project.new_segmenter_folder() as folder:
            write_json_atomic(folder / "segmenter.json", {"config": {"network": network}, "card": {}})
    used = []
    monkeypatch.setattr(adapt_job, "run_on_project", lambda project, preset, *_, **__: used.append(preset))

    def retrain(name, **params):
        (tmp_path / name / "checkpoint").mkdir(parents=True, exist_ok=True)
        with JobContext(tmp_path / name) as context:
            run_retrain_job(project, {"preset": "preview", "device": "cpu", **params}, context)
        return used[-1].segmentation

    assert retrain("one").network == "dynunet"
    promote(project, "v001")
    assert retrain("one").network == "dynunet", "resumed"
    assert retrain("two").network == "attention-unet" and used[-1].segmentation.start == "random"
    assert retrain("three", network="unet").network == "unet" and used[-1].segmentation.start == "prior"


def test_full_run_says_that_all_its_pairs_have_seen_the_image_that_models_are_compared_on(project, tmp_path):
    other = next(name for name in project.support_names() if name != name_to_hold_out(project))
    given = {
        "support": {"sha256": project.support_hashes(), "held_out": other},
        "mask-engine": {"mask_engine": ""},
        "image-engine": {"image_engine": "v001"},
    }
    params = {"given": given, "pairs": 1, "device": "cpu", "mask_backbone": "kept", "image_backbone": "kept"}
    preset = preset_named("full").scaled_to(64).with_steps(2)
    (tmp_path / "job" / "checkpoint").mkdir(parents=True)
    with JobContext(tmp_path / "job") as context:
        with pytest.raises(Paused):
            run_full_job(project, preset, {**params, "review": True}, context)
        judge(project, project.pair_names(), "accepted")
        with pytest.raises(InputError, match=r"1 of 1 pairs passed.*compared on now.*Adapt anew"):
            run_full_job(project, preset, params, context)
    assert project.segmenter_versions() == []


def test_a_project_made_anew_in_the_same_place_draws_with_its_own_engine(project):
    config = GenerateConfig(count=1, steps=2)
    (name,) = generate_pairs(project, config)["names"]
    file = project.image_engines_folder / "v001" / "engine.json"
    engine = read_json(file)
    engine["card"]["support_sha256"]["images/more.png"] = "ab"
    write_json_atomic(file, engine)
    rmtree(project.pairs_folder)
    assert generate_pairs(project, config)["names"] == [name]
    assert "ab" in project.pair_record(name)["support_sha256"]


def test_pairs_of_one_engine_have_one_name_whether_it_was_named_or_is_the_newest(project):
    (name,) = generate_pairs(project, GenerateConfig(count=1, steps=2, image_engine="v001"))["names"]
    summary = generate_pairs(project, GenerateConfig(count=1, steps=2))
    assert summary["names"] == [name] and summary["made"] == 0
    assert project.pair_record(name)["settings"]["image_engine"] == "v001"


@pytest.fixture
def project(adapted, tmp_path):
    """A copy of its own for each test."""
    copytree(adapted.path, tmp_path / "p")
    return Project.open(tmp_path / "p")


@pytest.mark.slow
def test_pairs_are_written_with_their_record_and_do_not_depend_on_interruptions(project, adapted):
    config, events = GenerateConfig(count=3, seed=5, steps=2), []
    with pytest.raises(Cancelled):
        generate_pairs(project, config, on_progress=events.append, should_stop=lambda: len(events) > 1)
    assert len(project.pair_names()) == 1
    summary = generate_pairs(project, config)
    assert summary["pairs"] == 3 and summary["made"] == 2
    names = project.pair_names()
    assert names[0].endswith("000005") and len(names) == 3
    pair, record = project.synthetic_pair(names[0]), project.pair_record(names[0])
    assert pair.synthetic and pair.shape == (64, 64) and pair.image.ndim == 2
    assert record["synthetic"] and record["image_engine"] == "v001" and record["checks"]["agreement"] >= 0
    provenance = read_provenance(project.pairs_folder / "images" / f"{names[0]}.png")
    assert provenance["synthetic"] is True and provenance["settings"]["seed"] == 5
    # The same pair alone, in another copy of the project
    generate_pairs(adapted, replace(config, count=1))
    assert np.array_equal(adapted.synthetic_pair(names[0]).image, pair.image)


@pytest.mark.slow
def test_job_can_be_cancelled_and_resumed(project):
    before = set(project.pair_names())

    def made():
        return len(set(project.pair_names()) - before)

    job = start_job(project, "generate", {"count": 40, "steps": 2, "device": "cpu"})
    while not made():
        assert not job.refreshed().state.finished, job.refreshed().error
    cancel_job(job)
    job = wait_for(job, timeout=100)
    assert job.state is JobState.CANCELLED and 0 < made() < 40
    job = wait_for(resume_job(job), timeout=300)
    assert job.state is JobState.DONE and made() == 40


def test_resumed_job_draws_with_the_engines_it_began_with(engines, tmp_path):
    project = Project.create(tmp_path / "p", modality=Modality.CORONARY_DSA, working_size=64)
    for seed in range(3):
        project.add_support_pair(made_up_pair(seed))
    backbone, controlnet = load_base(str(engines), device="cpu")
    critic = prior_segmenter(project.modality)
    with project.new_image_engine_folder() as folder:  # untrained: what matters is which version draws
        ImageEngine(backbone, controlnet, project.modality, grey=True, card={"base": str(engines)}).save(folder)
        (folder / CRITIC_FOLDER).mkdir()
        replace(critic, card={**critic.card, "held_out_figures": {}}).save(folder / CRITIC_FOLDER)
    (tmp_path / "job" / "checkpoint").mkdir(parents=True)
    params = {"count": 2, "seed": 70, "steps": 2, "device": "cpu"}
    with JobContext(tmp_path / "job") as context:
        context.should_stop = lambda: len(project.pair_names()) > 0
        with pytest.raises(Cancelled):
            run_generate_job(project, params, context)
    (begun,) = project.pair_names()
    copytree(project.image_engines_folder / "v001", project.image_engines_folder / "v002")
    other = next(name for name in project.support_names() if name != name_to_hold_out(project))
    frozen = {"name": other, "mask_sha256": project.support_hashes()[f"masks/{other}.png"]}
    write_json_atomic(project.segmenters_folder / FROZEN, frozen)
    with JobContext(tmp_path / "job") as context:
        run_generate_job(project, params, context)
    names = project.pair_names()
    assert len(names) == 2 and names[0] == begun and names[1].startswith(begun[:-6])
    assert {project.pair_record(name)["image_engine"] for name in names} == {"v001"}


@pytest.mark.slow
def test_workers_of_a_cluster_draw_the_same(project, adapted):
    from distributed import LocalCluster

    config = GenerateConfig(count=2, seed=50, steps=2)
    with LocalCluster(n_workers=1, threads_per_worker=3, processes=False, dashboard_address=None) as cluster:
        assert generate_pairs(project, config, scheduler=cluster.scheduler_address)["made"] == 2
    generate_pairs(adapted, config)
    names = project.pair_names()
    assert all(np.array_equal(project.synthetic_pair(n).image, adapted.synthetic_pair(n).image) for n in names)


def test_errors_of_a_cluster_are_for_people_and_few_pairs_are_in_flight(project, monkeypatch):
    from distributed import Client, LocalCluster

    submit, sent, go_on = Client.submit, [], Event()
    monkeypatch.setattr(Client, "submit", lambda *a, **k: sent.append(submit(*a, **k)) or sent[-1])
    monkeypatch.setattr(generate, "_make_pair", lambda *_: go_on.wait(20))

    def lose_the_first():
        if sent:
            sent[0].cancel()
        return False

    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        with pytest.raises(InputError, match="connection to the Dask scheduler was lost"):
            generate_pairs(
                project, GenerateConfig(count=50), scheduler=cluster.scheduler_address, should_stop=lose_the_first
            )
        go_on.set()
    assert len(sent) < 10


def test_a_refusal_comes_back_from_a_worker_with_its_file(monkeypatch):
    def refuse(*_):
        raise InputError("It is damaged", path="a.png", fix="Draw anew.")

    monkeypatch.setattr(generate, "_make_pair", refuse)
    assert generate._make_pair_or_refuse(None, 0, "cpu") == ("It is damaged", Path("a.png"), "Draw anew.")


def test_image_can_start_from_a_rendered_one(engines):
    backbone, controlnet = load_base(str(engines), device="cpu")
    engine = ImageEngine(backbone, controlnet, Modality.CORONARY_DSA, grey=True)
    source = made_up_pair(0, (64, 64))
    seen = np.ones((64, 64), bool)
    seen[:, :20] = False
    support = SupportSet(Modality.CORONARY_DSA, (replace(source, fov=seen),))
    mask = np.zeros((128, 128), bool)
    mask[60:64] = True
    config = SamplingConfig(size=64, steps=4, scale=1.0, strength=0.3)
    drawn = draw_pair(engine, mask, support, config, name="a")
    again = draw_pair(engine, mask, support, config, name="a")
    noisier = draw_pair(engine, mask, support, replace(config, strength=0.6), name="a")
    assert drawn.shape == (64, 64) and drawn.synthetic and np.array_equal(drawn.image, again.image)
    assert not np.array_equal(drawn.image, noisier.image)
    assert drawn.mask[31, 20:].all() and not drawn.mask[:, :20].any(), "nothing outside the field"
    alone = draw_pair(engine, mask, None, replace(config, strength=1.0), name="b")
    assert alone.shape == (64, 64) and alone.mask[30:32].all()
    framed = draw_pair(replace(engine, fields=(seen,)), mask, None, replace(config, strength=1.0), name="c")
    assert framed.mask[31, 21:].all() and not framed.mask[:, :20].any()


@pytest.mark.parametrize("name", ["alpha", "conditioning", "strength", "image_strength"])
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
def test_settings_out_of_range_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"`{name}`"):
        GenerateConfig(count=1, **{name: value})


def test_what_is_missing_is_said(tmp_path, capsys):
    project = Project.create(tmp_path / "p", modality=Modality.OCTA, working_size=64)
    with pytest.raises(InputError, match="no annotated image"):
        generate_pairs(project, GenerateConfig(count=1))
    project.add_support_pair(made_up_pair(0))
    with pytest.raises(InputError, match="not adapted"):
        generate_pairs(project, GenerateConfig(count=1))
    command = ["generate", "--project", str(project.path), "-n"]
    assert main([*command, "1"]) == 2 and "adapt --engine images" in capsys.readouterr().err
    for wrong in (["0"], ["1", "--alpha", "-1"], ["1", "--steps", "0"], ["1", "--seed", "-3"]):
        assert main([*command, *wrong]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    arguments = ["adapt", "--project", str(project.path), "--engine", "images", "--backbone", str(tmp_path / "none")]
    assert main(arguments) == 2 and "No such backbone" in capsys.readouterr().err
    arguments = ["adapt", "--project", str(project.path)]
    assert main([*arguments, "--backbone", "x"]) == 2 and "--engine" in capsys.readouterr().err
    assert main([*arguments, "--engine", "masks", "--network", "dynunet"]) == 2


def test_contrast_tells_polarity():
    pair = made_up_pair(0, (128, 128))
    right = local_contrast(pair.image, pair.mask, Modality.CORONARY_DSA)
    assert right > 3 and local_contrast(pair.image, pair.mask, Modality.OCTA) < -3
    assert np.isnan(local_contrast(pair.image, np.zeros_like(pair.mask), Modality.OCTA))


def test_similarity_finds_a_mirrored_copy_only():
    first, other = made_up_pair(0, (128, 128)), made_up_pair(1, (128, 128))
    modality = Modality.CORONARY_DSA
    bands = [vessel_band(image, modality) for image in (first.image, first.image[:, ::-1], other.image)]
    assert likeness(bands[0], bands[1]) > 0.99 and likeness(bands[0], bands[2]) < 0.6


def test_flags_name_what_is_wrong():
    real, other = made_up_pair(0, (128, 128)), made_up_pair(1, (128, 128))
    critic = prior_segmenter(Modality.CORONARY_DSA)
    copied = check_synthetic_pair(real, [real, other], critic)
    assert {"copied mask", "copied image"} <= set(copied.flags)
    empty = ImageMaskPair(np.full((128, 128), 128, np.uint8), other.mask, "empty", synthetic=True)
    found = check_synthetic_pair(empty, [real], critic, expected_agreement=0.9)
    assert {"disagrees", "faint"} <= set(found.flags) and found.agreement < 0.5
    unknown = check_synthetic_pair(empty, [real], critic, expected_agreement=None)
    assert "disagrees" not in unknown.flags, "nothing to measure it by"


def test_real_pairs_are_measured_once_for_many_synthetic_ones(monkeypatch):
    measured = []
    monkeypatch.setattr(pair_checks, "vessel_band", lambda *args: measured.append(1) or vessel_band(*args))
    critic, real = prior_segmenter(Modality.CORONARY_DSA), [made_up_pair(seed) for seed in (0, 1)]
    checks = [check_synthetic_pair(made_up_pair(5), real, critic) for _ in range(3)]
    assert checks[0] == checks[2] and len(measured) == 3 + len(real)


def test_mask_engine_remembers_its_base(engines, tmp_path):
    from univg.workflow.engines import base_of

    engine = MaskEngine(load_backbone(engines), Modality.OCTA, card={"base": str(engines)})
    engine.save(tmp_path)
    assert base_of(tmp_path) == str(engines) and base_of(tmp_path / "none") == "compact"
    assert SamplingConfig().scale == 0.7


@pytest.mark.slow
def test_full_preset_adapts_both_engines_and_never_shows_them_the_held_out_image(engines, tmp_path, tiny_compact):
    project = Project.create(tmp_path / "p", modality=Modality.CORONARY_DSA, working_size=64)
    for seed in range(3):
        project.add_support_pair(made_up_pair(seed))
    preset = preset_named("full").scaled_to(64)
    preset = replace(preset, segmentation=replace(preset.segmentation, steps=8), engine_pairs=3)
    params = {
        "mask_backbone": str(tiny_compact(tmp_path / "models", "masks")),
        "image_backbone": str(engines),
        **{"mask_steps": 2, "image_steps": 2, "device": "cpu"},
    }
    (tmp_path / "job" / "checkpoint").mkdir(parents=True)
    stopped_in = []
    for stage in ("image engine", "pairs", "segmenter", None):  # stopped in these, then let go on
        with JobContext(tmp_path / "job") as context:
            seen = []
            part = replace(
                context.within("all"),
                on_progress=lambda event, seen=seen: seen.append(event),
                should_stop=lambda seen=seen, stage=stage: bool(seen) and seen[-1].stage == stage and seen[-1].step > 0,
            )
            try:
                result = run_full_job(project, preset, params, part)
            except Cancelled:
                stopped_in.append(seen[-1].stage)
    assert stopped_in == ["image engine", "pairs", "segmenter"]
    assert project.mask_engine_versions() == project.image_engine_versions() == ["v001"]
    card = read_json(project.segmenters_folder / result["segmenter"] / "segmenter.json")["card"]
    for folder in (project.adapters_folder / "v001", project.image_engines_folder / "v001"):
        seen = read_json(folder / "engine.json")["card"]
        assert seen.get("masks", seen.get("pairs")) == 2 and seen["job"] == "job"
        assert f"masks/{card['held_out']}.png" not in seen["support_sha256"]
    assert result["pairs"] == len(project.pair_names()) == 3
    assert result["pairs_used"] == card["synthetic_pairs"] <= 3
