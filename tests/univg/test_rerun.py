"""The full preset as jobs: the pause for a review, and beginning again from a stage. Engines are tiny."""

import math
import time
from dataclasses import replace
from shutil import copytree, rmtree

import numpy as np
import pytest

from tests.tiny_engines import write_tiny_engines
from tests.univg.test_generate import made_up_pair
from univg.cli import main
from univg.errors import InputError, JobRunningError
from univg.io import read_json, write_json_atomic
from univg.types import Modality
from univg.workflow import engines, image_engines
from univg.workflow.generate import GenerateConfig
from univg.workflow.job_records import RELEASED_FILE, JobRecord, read_record, write_record
from univg.workflow.jobs import JobState, find_job, list_jobs, resume_job, start_job, wait_for
from univg.workflow.presets import PRESETS
from univg.workflow.project import Project
from univg.workflow.rerun import kept_stages, rerun_job, rerun_params
from univg.workflow.stages import FULL_DEFAULTS, FULL_STAGES, LARGEST_SEED, MAX_PAIRS, first_stale, from_stage_on
from univg.workflow.verdicts import judge

SECONDS = 280


def test_defaults_are_those_of_the_engines():
    assert FULL_DEFAULTS["mask_steps"] == engines.ADAPTATIONS["compact"][1].steps
    assert FULL_DEFAULTS["image_steps"] == image_engines.ADAPTATIONS["compact"].steps
    assert FULL_DEFAULTS["pairs"] == PRESETS["full"].engine_pairs
    assert FULL_DEFAULTS["alpha"] == GenerateConfig(count=1).alpha


@pytest.mark.parametrize(
    ("changes", "stage"),
    [
        ({}, None),
        ({"pairs": 200, "seed": 0}, None),
        ({"device": "cuda", "review": True}, None),
        ({"seed": 1, "alpha": 0.5}, "mask-engine"),
        ({"image_steps": 10, "pairs": 9}, "image-engine"),
        ({"alpha": 0.5}, "pairs"),
        ({"network": "dynunet"}, "segmenter"),
    ],
)
def test_first_stale_stage(changes, stage):
    before = {"preset": "full", "device": "cpu"}
    assert first_stale(before, {**before, **changes}, FULL_STAGES) == stage


def test_later_stages_are_stale_too():
    assert from_stage_on("image-engine", FULL_STAGES) == ["image-engine", "pairs", "segmenter"]
    with pytest.raises(InputError, match="mask-engine, image-engine"):
        from_stage_on("trees", FULL_STAGES)


@pytest.fixture
def finished(tmp_path):
    """A project with a job as a finished full run left it; its engines are folders without content."""
    project = Project.create(tmp_path / "p", modality=Modality.CORONARY_DSA, working_size=64)
    for seed in range(2):
        project.add_support_pair(made_up_pair(seed))
    for folder in (project.adapters_folder, project.image_engines_folder):
        (folder / "v001").mkdir(parents=True)
        card = {"support_sha256": dict(project.load_support().sha256)}
        write_json_atomic(folder / "v001" / "engine.json", {"card": card})
    job = project.jobs_folder / "20260101-000000-adapt-0000"
    (job / "checkpoint").mkdir(parents=True)
    (job / "events.jsonl").touch()
    params = {"preset": "full", "seed": 0, "device": "cpu"}
    write_record(job, JobRecord("adapt", params, "2026-01-01T00:00:00+00:00", state=JobState.DONE, result={}))
    record = {
        "support": {"sha256": dict(project.load_support().sha256)},
        "mask-engine": {"mask_engine": "v001"},
        "image-engine": {"image_engine": "v001"},
        "chosen": {"weights": {}},
    }
    write_json_atomic(job / "checkpoint" / "stages.json", record)
    return project, find_job(project)


def test_what_came_before_is_taken_over_and_nothing_else(finished):
    project, job = finished
    params = rerun_params(project, job, "pairs", {"alpha": 0.4})
    assert set(params["given"]) == {"support", "mask-engine", "image-engine"}
    assert params["alpha"] == 0.4 and params["rerun_of"] == job.id and params["from_stage"] == "pairs"
    assert set(rerun_params(project, job, "image-engine")["given"]) == {"support", "mask-engine"}
    assert "given" not in rerun_params(project, job)
    assert rerun_params(project, job, None, {"pairs": 50})["from_stage"] == "pairs"


def test_backbone_is_found_before_the_job_starts_which_runs_elsewhere(finished, tmp_path, monkeypatch):
    project, job = finished
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    assert rerun_params(project, job, None, {"mask_backbone": "models"})["mask_backbone"] == str(tmp_path / "models")
    assert rerun_params(project, job, None, {"mask_backbone": "compact"})["mask_backbone"] == "compact"
    for wrong in ("nowhere", 7, ""):
        with pytest.raises(InputError, match="backbone"):
            rerun_params(project, job, None, {"image_backbone": wrong})


def test_wrong_reruns_are_refused(finished):
    project, job = finished
    for stage, changes, words in (
        ("trees", {}, "There are: mask-engine"),
        ("segmenter", {"alpha": 0.4}, "Begin with 'pairs'"),
        ("segmenter", {"speed": 2}, "no setting 'speed'"),
        ("pairs", {"pairs": "many"}, "must be a number"),
        ("segmenter", {"segmenter_steps": 0}, "a whole number from 1 on"),
        ("segmenter", {"segmenter_steps": float("inf")}, "a whole number from 1 on"),
        ("segmenter", {"full_length": "yes"}, "true or false"),
        *(
            ("pairs", {"alpha": value}, "'alpha' must be a number from 0")
            for value in (-1, math.inf, math.nan, 10**400)
        ),
        ("pairs", {"conditioning": -0.1}, "'conditioning' must be a number from 0"),
        ("pairs", {"pairs": MAX_PAIRS + 1}, f"at most {MAX_PAIRS}"),
        ("pairs", {"pairs_seed": LARGEST_SEED + 1}, f"at most {LARGEST_SEED}"),
        ("segmenter", {"segmenter_steps": 10**400}, "a whole number from 1 on"),
    ):
        with pytest.raises(InputError, match=words):
            rerun_params(project, job, stage, changes)
    rmtree(project.image_engines_folder / "v001")
    with pytest.raises(InputError, match="no image engine"):
        rerun_params(project, job, "pairs")
    assert rerun_params(project, job, "image-engine")["given"]["mask-engine"] == {"mask_engine": "v001"}


def test_nothing_is_kept_once_the_annotated_images_changed(finished):
    project, job = finished
    assert set(kept_stages(project, job)) == {"support", "mask-engine", "image-engine"}
    project.remove_support_pair("pair-1")
    assert kept_stages(project, job) == {}
    with pytest.raises(InputError, match="mask-engine"):
        rerun_params(project, job, "segmenter")


def test_an_engine_that_learnt_from_a_pair_of_the_meantime_is_not_kept(finished):
    project, job = finished
    file = project.image_engines_folder / "v001" / "engine.json"
    card = read_json(file)["card"]
    write_json_atomic(file, {"card": {"support_sha256": card["support_sha256"] | {"images/more.png": "ab"}}})
    assert set(kept_stages(project, job)) == {"support", "mask-engine"}


def test_presets_without_engines_begin_anew_with_the_same_settings(finished):
    project, job = finished
    record = replace(job.record, params={"preset": "preview", "seed": 3, "device": "cpu"})
    write_record(job.folder, record)
    params = rerun_params(project, job.refreshed(), "segmenter", {"network": "unet"})
    assert params["seed"] == 3 and "given" not in params


def test_command_line_says_what_is_wrong(finished, capsys):
    project, _ = finished
    base = ["jobs", "rerun", "--project", str(project.path)]
    assert main([*base, "--from", "trees"]) == 2 and "There are: mask-engine" in capsys.readouterr().err
    assert main([*base, "--set", "pairs"]) == 2 and "NAME=VALUE" in capsys.readouterr().err
    assert main(["jobs", "list", "--project", str(project.path), "--from", "pairs"]) == 2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_review_pause_survives_a_kill_and_later_stages_are_redone_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("UNIVG_STATE", str(tmp_path / "state"))
    mask_backbone, image_backbone = write_tiny_engines(tmp_path / "models")
    project = Project.create(tmp_path / "p", modality=Modality.CORONARY_DSA, working_size=64)
    for seed in range(3):
        project.add_support_pair(made_up_pair(seed))
    params = {
        "preset": "full",
        "mask_backbone": str(mask_backbone),
        "image_backbone": str(image_backbone),
        **{"mask_steps": 2, "image_steps": 2, "pairs": 3, "segmenter_steps": 20, "device": "cpu", "review": True},
    }

    # It stops once the pairs are drawn, and says why
    job = wait_for(start_job(project, "adapt", params), SECONDS)
    assert job.state is JobState.CANCELLED and job.waits_for == "review", job.error
    names = project.pair_names()
    assert len(names) == 3 and project.segmenter_versions() == []

    # Killed just before that was written: resuming must not train without the review
    while job.record.alive_in(job.folder):
        time.sleep(0.05)
    write_record(job.folder, replace(read_record(job.folder), state=JobState.RUNNING, waits_for=None))
    job = job.refreshed()
    assert job.state is JobState.FAILED and job.waits_for is None
    job = wait_for(resume_job(job), SECONDS)
    assert job.waits_for == "review" and not (job.folder / RELEASED_FILE).exists()

    # Going on trains with the verdicts
    judge(project, names[:2], "accepted")
    judge(project, names[2:], "rejected")
    job = wait_for(resume_job(job), SECONDS)
    assert job.state is JobState.DONE and job.waits_for is None, job.error
    assert job.result()["pairs_used"] == 2
    pictures = {event.stage for event in job.events() if event.picture}
    assert {"mask engine", "masks", "image engine", "images", "pairs", "segmenter"} <= pictures

    # From the segmenter on: engines and pairs are as they were
    again = rerun_job(project, job, "segmenter", {"segmenter_steps": 4, "review": None})
    with pytest.raises(JobRunningError):
        rerun_job(project, again)
    again = wait_for(again, SECONDS)
    assert again.state is JobState.DONE, again.error
    assert again.id != job.id and job.refreshed().result() == job.result()
    assert project.pair_names() == names and again.result()["mask_engine"] == "v001"
    assert project.mask_engine_versions() == project.image_engine_versions() == ["v001"]
    assert project.segmenter_versions() == ["v001", "v002"]
    assert [event.total for event in again.events() if event.stage == "segmenter"][-1] == 4

    # From the pairs on, with another strength: new pairs of the same engines
    assert main(["jobs", "rerun", again.id, "--project", str(project.path), "--set", "alpha=0.3"]) == 0
    last = list_jobs(project)[0]
    assert last.params["from_stage"] == "pairs" and last.state is JobState.DONE
    assert len(project.pair_names()) == 6 and project.mask_engine_versions() == ["v001"]
    settings = [project.pair_record(name)["settings"]["alpha"] for name in project.pair_names()]
    assert sorted(settings) == pytest.approx(sorted([0.3] * 3 + [0.7] * 3))

    # Copied elsewhere with the same record, other images are refused by the work itself
    copytree(project.path, tmp_path / "copy")
    other = Project.open(tmp_path / "copy")
    mask = other.support_pair("pair-0").mask
    other.replace_support_mask("pair-0", np.roll(mask, 3, axis=0))
    failed = wait_for(start_job(other, "adapt", read_json(last.folder / "job.json")["params"]), SECONDS)
    assert failed.state is JobState.FAILED and "annotated images changed" in failed.error
