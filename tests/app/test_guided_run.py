"""The guided run without a browser: what the Adapt tab says and would do."""

from __future__ import annotations

from dataclasses import replace
from shutil import rmtree

import numpy as np
import pytest

from tests.conftest import make_pair
from univg.errors import InputError
from univg.io import Finding, write_image, write_json_atomic
from univg.progress import ProgressEvent
from univg.types import Modality
from univg.workflow.job_records import JobRecord, write_record
from univg.workflow.jobs import JobState, find_job
from univg.workflow.model_versions import FROZEN
from univg.workflow.project import Project
from univg.workflow.sample import create_sample_project

gr = pytest.importorskip("gradio")

from app import texts  # noqa: E402
from app.gradio_ui import adapt, adapt_view, guide, run_check, run_settings  # noqa: E402
from app.gradio_ui.job_watch import LEARNS_FROM, JobWatch, support_digest  # noqa: E402
from app.gradio_ui.state import RunForm, Sessions  # noqa: E402

DEFAULTS = {"mask_steps": 240, "image_steps": 400, "pairs": 200, "alpha": 0.7}


@pytest.fixture
def session(tmp_path, monkeypatch):
    monkeypatch.setenv("UNIVG_STATE", str(tmp_path / "state"))
    return Sessions(tmp_path / "sessions", None).attach("")


def with_full_run(session, folder, *, state=JobState.DONE, waits_for=None, params=()):
    """The session in a project whose full run is over; its engines are folders without content."""
    project = Project.create(folder, modality=Modality.CORONARY_DSA)
    for seed in range(5):
        project.add_support_pair(make_pair(f"pair {seed}", seed=seed))
    for parent in (project.adapters_folder, project.image_engines_folder):
        (parent / "v001").mkdir(parents=True)
        card = {"support_sha256": dict(project.load_support().sha256)}
        write_json_atomic(parent / "v001" / "engine.json", {"card": card})
    job = project.jobs_folder / "20260101-000000-adapt-0000"
    (job / "checkpoint").mkdir(parents=True)
    (job / "events.jsonl").touch()
    settings = {"preset": "full", "seed": 0, "device": "cpu", **dict(params)}
    record = JobRecord("adapt", settings, "2026-01-01T00:00:00+00:00", state=state, waits_for=waits_for)
    write_record(job, replace(record, result={} if state is JobState.DONE else None))
    stages = {"support": {"sha256": dict(project.load_support().sha256)}}
    stages |= {"mask-engine": {"mask_engine": "v001"}, "image-engine": {"image_engine": "v001"}}
    write_json_atomic(job / "checkpoint" / "stages.json", stages)
    session.open(project)
    session.run.project, session.run.preset, session.run.device = project.path, "full", "cpu"
    session.run.settings = dict(DEFAULTS)
    return find_job(project)


def test_changed_setting_makes_its_stage_and_later_ones_stale(session, tmp_path):
    job = with_full_run(session, tmp_path / "p")
    assert run_settings.stale_stages(session) == []
    session.run.settings["alpha"] = 0.4
    assert run_settings.stale_stages(session) == ["pairs", "segmenter"]
    bar = adapt_view.stage_bar(job, JobWatch(job.folder), stale=run_settings.stale_stages(session))
    assert bar.count("stale") == 3 and bar.index("Images") < bar.index("stale") < bar.index("Model")
    session.run.seed = 7
    assert run_settings.stale_from(session) == "mask-engine"


def test_adapt_button_begins_with_the_stale_stage(session, tmp_path, monkeypatch):
    with_full_run(session, tmp_path / "p")
    session.run.settings["alpha"] = 0.4
    assert adapt._controls(session)[0].value == "Adapt again from “Pairs”"
    started = []
    monkeypatch.setattr(adapt, "rerun_job", lambda project, job, stage, changes: started.append((stage, changes)))
    monkeypatch.setattr(adapt, "refuse_impossible", lambda findings: None)
    adapt._start(session)
    ((stage, changes),) = started
    assert stage == "pairs" and changes["alpha"] == 0.4 and changes["pairs"] is None and changes["seed"] == 0


def test_without_a_change_adapt_starts_anew(session, tmp_path, monkeypatch):
    with_full_run(session, tmp_path / "p")
    started = []
    monkeypatch.setattr(adapt, "start_job", lambda project, kind, params: started.append(params))
    monkeypatch.setattr(adapt, "refuse_impossible", lambda findings: None)
    session.run.review = True
    adapt._start(session)
    digest = support_digest(session.project)
    assert started == [{"preset": "full", "seed": 0, "device": "cpu", "review": True, LEARNS_FROM: digest}]


def test_stages_that_were_not_kept_cannot_be_begun_after(session, tmp_path):
    with_full_run(session, tmp_path / "p")
    rmtree(session.project.adapters_folder / "v001")
    session.run.settings["alpha"] = 0.4
    assert run_settings.stale_from(session) == "mask-engine"


def test_setting_out_of_range_is_refused_with_its_name(session, tmp_path):
    with_full_run(session, tmp_path / "p")
    session.run.settings["pairs"] = None
    with pytest.raises(InputError, match="Pairs to draw"):
        run_settings.full_params(session.run)


def test_run_that_waits_says_what_to_do_and_offers_it(session, tmp_path):
    params = {"review": True}
    job = with_full_run(session, tmp_path / "p", state=JobState.CANCELLED, waits_for="review", params=params)
    seen = JobWatch(job.folder)
    seen._take(ProgressEvent("pairs", 12, 12))
    said = adapt_view.status(session.project, job, seen)
    assert "12 pairs wait for your review" in said and "Review" in said and texts.GO_ON_BUTTON in said
    assert texts.STAGE_WAITS in adapt_view.stage_bar(job, seen)
    button, _, go_on, _, _, review = adapt._controls(session)
    assert go_on.value == texts.GO_ON_BUTTON and go_on.interactive and go_on.variant == "primary"
    assert review.visible and button.variant == "secondary"


@pytest.mark.parametrize("state", [JobState.CANCELLED, JobState.FAILED])
def test_run_of_other_pairs_is_not_resumed(session, tmp_path, state):
    job = with_full_run(session, tmp_path / "p", state=state)
    assert adapt._resumable(session), "a run that does not say what it learns from"
    for digest, goes_on in ((support_digest(session.project), True), ("of others", False)):
        write_record(job.folder, replace(job.record, params={**job.params, LEARNS_FROM: digest}))
        job = find_job(session.project)
        said = adapt_view.status(session.project, job, JobWatch(job.folder))
        assert bool(adapt._resumable(session)) is adapt._controls(session)[2].interactive is goes_on
        assert (texts.ENGINES_OTHER_PAIRS in said, "Resume" in said) == (not goes_on, goes_on)
    seen = adapt._controls_signature(session), adapt._progress_signature(session)
    write_record(job.folder, replace(job.record, params={**job.params, LEARNS_FROM: support_digest(session.project)}))
    assert adapt._controls_signature(session) != seen[0] and adapt._progress_signature(session) != seen[1]
    write_record(job.folder, replace(job.record, params={**job.params, LEARNS_FROM: "of others", "rerun_of": "x"}))
    assert adapt._resumable(session), "one that began anew took over the parameters of a run of other pairs"


def test_advice_of_an_error_is_not_followed_by_another(session, tmp_path):
    job = with_full_run(session, tmp_path / "p", state=JobState.FAILED)
    for error, advised in (("Mask 'a' is empty. Paint it.", False), ("The process ended; resume goes on", True)):
        said = adapt_view.status(session.project, replace(job, error=error), JobWatch(job.folder))
        assert (texts.JOB_FAILED_FIX in said) is advised


def test_runs_are_listed_by_the_names_on_the_controls(session, tmp_path):
    job = with_full_run(session, tmp_path / "p", params={"preset": "plain"})
    assert texts.PRESET_BASELINE in adapt._runs(session)
    write_record(job.folder, replace(job.record, params={"preset": "full"}))
    assert f"<td>{texts.PRESET_NAMES['full']}</td>" in adapt._runs(session)


def test_pictures_and_curve_are_those_of_the_present_stage(session, tmp_path):
    job = with_full_run(session, tmp_path / "p")
    seen = JobWatch(job.folder)
    for name in ("masks", "pairs", "held"):
        (job.folder / "pictures").mkdir(exist_ok=True)
        write_image(job.folder / "pictures" / f"{name}.png", np.zeros((8, 8, 3), np.uint8))

    def captions():
        updates = adapt_view.live_pictures(session, job, seen)
        return updates[1], updates[3]

    for step in (1, 2):
        event = ProgressEvent("mask engine", step, 2, metrics={"loss": 0.5}, picture="pictures/masks.png")
        seen._take(event)
    assert "step 2" in captions()[0] and "Learning: Masks" in adapt_view.curve(seen)
    seen._take(ProgressEvent("masks", 6, 6))
    assert 'class="done"' in adapt_view.stage_bar(job, seen)
    seen._take(ProgressEvent("pairs", 5, 12, picture="pictures/pairs.png"))
    assert texts.PICTURE_PAIR in captions()[0] and "step 2" in captions()[1]
    seen._take(ProgressEvent("segmenter", 3, 9, metrics={"loss": 0.2}, picture="pictures/held.png"))
    assert "Held-out" in captions()[0] and texts.PICTURE_PAIR in captions()[1]
    assert "Learning: Model" in adapt_view.curve(seen)


def test_every_control_has_a_value_without_a_project_too(session, tmp_path):
    without = adapt._form(session)
    assert len(without) == 3 + len(texts.FULL_SETTINGS) and None not in without
    with_full_run(session, tmp_path / "p", params={"alpha": 0.4, "seed": 5, "review": True})
    session.run = RunForm()
    controls = adapt._form(session)
    shown_as_full = adapt._usual_preset(session) == "full"  # where the weights of both engines are
    assert controls[1:] == ([5, True, 240, 400, 200, 0.4] if shown_as_full else [0, False, 240, 400, 200, 0.7])


def test_check_is_one_line_of_good_news_or_a_list(tmp_path):
    project = create_sample_project(tmp_path / "sample")
    run_check.findings_before(project, "preview", "cpu")
    assert texts.PREFLIGHT_OK.format(count=5) in run_check.view(project, "preview", "cpu")
    project.remove_support_pair("sample-2")
    findings = run_check.findings_before(project, "preview", "cpu")
    assert [finding.level for finding in findings] == ["warning"]
    assert "4 annotated images" in run_check.view(project, "preview", "cpu")


def test_check_calls_things_as_the_controls_do(session, tmp_path, monkeypatch):
    with_full_run(session, tmp_path / "p")
    project = session.project
    found = [Finding("warning", "a", f"In images of the kind {project.modality} vessels are darker.", "Check it.")]
    found += [Finding("error", "this computer", "There is none.", "Choose the device cpu, or auto.")]
    monkeypatch.setattr(run_check, "check_machine", lambda *_, missing: found)
    for name in project.support_names()[1:]:
        project.remove_support_pair(name)
    write_json_atomic(project.segmenters_folder / FROZEN, {"name": "pair 0", "mask_sha256": "1234"})
    fixes = " ".join(finding.fix for finding in run_check.findings_before(project, "full", "cpu"))
    assert "the effort Standard" in fixes and "Automatic" in fixes and "preset" not in fixes
    assert texts.MODALITIES[project.modality] in run_check.view(project, "full", "cpu")


def test_guide_follows_the_project_and_stays_closed(session, tmp_path):
    assert guide.step_of(session) == 0 and not guide.is_closed()
    session.open(create_sample_project(tmp_path / "sample"))
    assert guide.step_of(session) == 1
    guide._look_done(session)
    assert guide.step_of(session) == 2
    project = session.project
    job = project.jobs_folder / "20260101-000000-adapt-0000"
    (job / "checkpoint").mkdir(parents=True)
    write_record(job, JobRecord("adapt", {"preset": "preview"}, "2026-01-01T00:00:00+00:00", state=JobState.DONE))
    assert guide.step_of(session) == 3
    (project.segmenters_folder / "v001").mkdir(parents=True)
    assert guide.step_of(session) == 4
    of_another_kind = Project.create(tmp_path / "octa", modality=Modality.OCTA)
    assert "sample" in guide._strip(4, project) and "sample" not in guide._strip(4, of_another_kind)
    assert 'aria-current="step"' in guide._strip(4, project) and "<script" not in guide._strip(5, project)
    guide._remember(closed=True)
    assert guide.is_closed()
    guide._remember(closed=False)
    assert not guide.is_closed()
