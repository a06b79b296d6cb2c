"""What the controls of the page do, asked of their handlers and of the page as it is assembled."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from tests.conftest import make_pair
from univg.errors import InputError
from univg.io import read_provenance, write_json_atomic
from univg.progress import ProgressEvent
from univg.workflow import model_versions, what_changed
from univg.workflow.job_records import JobRecord, JobState
from univg.workflow.jobs import Job
from univg.workflow.model_versions import promote
from univg.workflow.project import Project

gr = pytest.importorskip("gradio")

from app import texts  # noqa: E402
from app.gradio_ui import (  # noqa: E402
    adapt,
    adapt_view,
    blocks,
    engine_jobs,
    header,
    image_studio,
    images,
    job_watch,
    mask_studio,
    masks,
    numbers,
    review,
    review_changed,
    tree_files,
    tree_studio,
    tree_view,
    trees,
    versions,
)
from app.gradio_ui.image_studio import NEW  # noqa: E402
from app.gradio_ui.state import Sessions  # noqa: E402


@pytest.fixture
def session(tmp_path):
    """A page with a project of two annotated images."""
    project = Project.create(tmp_path / "p", modality="octa", working_size=64)
    for name in "ab":
        project.add_support_pair(make_pair(name, size=64, seed=ord(name)))
    session = Sessions(tmp_path / "sessions", None).attach("")
    session.open(project)
    return session


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return blocks.build_page(Sessions(tmp_path_factory.mktemp("sessions"), None)).config


@pytest.fixture
def jobs(session, tmp_path, monkeypatch):
    """The jobs of the project as a list to fill; what is started joins it, what is resumed is noted."""
    found = []

    def add(kind, params, state=JobState.QUEUED, *, attempt=1, error=None):
        folder = tmp_path / f"job {len(found)}"
        folder.mkdir()
        found.insert(0, Job(folder, JobRecord(kind, params, "2026-01-01", attempt=attempt), state, error))

    for module in (engine_jobs, review, images, tree_files):
        monkeypatch.setattr(module, "start_job", lambda project, kind, params: add(kind, params))
        monkeypatch.setattr(module, "note", lambda text: None)
    resumed = []
    for module in (engine_jobs, review):
        monkeypatch.setattr(module, "resume_job", resumed.append)
    monkeypatch.setattr(job_watch, "list_jobs", lambda project: list(found))
    return SimpleNamespace(found=found, add=add, resumed=resumed)


def trigger_modes(page):
    """The modes of all handlers on the server, by control and event."""
    names, modes = {component["id"]: component["props"].get("elem_id") for component in page["components"]}, {}
    for dependency in page["dependencies"]:
        for at, event in dependency["targets"] if dependency["backend_fn"] else ():
            modes.setdefault((names.get(at), event), set()).add(dependency["trigger_mode"])
    return modes


def test_sliders_have_no_button_that_their_handlers_would_not_hear_of(page):
    sliders = [component for component in page["components"] if component["type"] == "slider"]
    assert len(sliders) > 20 and all(component["props"]["buttons"] == [] for component in sliders)


def test_newest_choice_counts_and_every_click_does(page):
    modes = trigger_modes(page)
    chosen = {at: mode for at, mode in modes.items() if at[1] in ("input", "change", "release", "blur")}
    fields = {f"full-{name.replace('_', '-')}" for name in texts.FULL_SETTINGS}
    fields |= {"preset", "baseline", "seed", "device", "full-length", "review-pause", "begin-with"}  # of Adapt
    fields |= {"paint-target", "paint-from-mask", "recent", "model", "segment-view", "threshold", "review-flag"}
    assert len(chosen) > 80 and fields <= {name for name, event in chosen if event == "input"}
    assert {at: mode for at, mode in chosen.items() if mode != {"always_last"}} == {}
    assert modes["tree-picture", "select"] == {"multiple"}
    assert [modes[name, "click"] for name in ("mask-reroll", "image-reroll", "tree-reroll")] == [{"once"}] * 3


def test_slider_takes_what_is_being_typed():
    made = numbers.slider(6, 80, 40, step=1)
    slider = type(made)(**made.constructor_args)  # as Gradio does with every update
    assert [slider.preprocess(value) for value in (1, 12, 900, None)] == [6, 12, 80, 6]


def test_seed_that_cannot_grow_is_said_and_not_taken(session, monkeypatch):
    grow = tree_studio.grow
    studio = tree_view.studio_of(session)
    before = studio.scene

    def grow_some(project, scene):
        if scene.seed != before.seed:
            raise ValueError("no place for a vessel")
        return grow(project, scene)

    monkeypatch.setattr(tree_studio, "grow", grow_some)
    for ask in (trees._reroll_seed, lambda session: trees._set_seed(session, 7), trees._variations):
        with pytest.raises(InputError, match="No place"):
            ask(session)
    assert studio.scene == before and not studio.history


def test_strips_go_when_what_they_show_has_changed(session, monkeypatch):
    trees._variations(session)
    trees._choose_variation(session, "3")
    assert tree_view.hide_other_variations(session) == [gr.skip()], "another seed of the same"
    trees.choose_source(session, "mask:b")
    assert tree_view.hide_other_variations(session)[0].visible is False

    monkeypatch.setattr(mask_studio, "_draw_one", lambda *_: np.zeros((8, 8), bool))
    monkeypatch.setattr(masks, "_shown", lambda session: [])
    masks._sweep(session)
    masks._settle("scale", session, 0.3)
    assert masks._hide_other_sweep(session) == [gr.skip()], "α is what was swept"
    masks._another_seed(session)
    assert masks._hide_other_sweep(session)[0].visible is False


def test_masks_drawn_while_an_image_goes_are_not_shown_as_one_sweep(session, monkeypatch):
    def draw_one(project, version, settings):
        project.remove_support_pair("b") if "b" in project.support_names() else None
        masks.studio_of(session)  # as with every tick
        return np.zeros((8, 8), bool)

    monkeypatch.setattr(mask_studio, "_draw_one", draw_one)
    with pytest.raises(InputError, match="Sweep"):
        masks._sweep(session)
    studio = masks.studio_of(session)
    assert not studio.drawn and not studio.swept, "what began with other images"
    masks._sweep(session)
    assert masks._hide_other_sweep(session) == [gr.skip()] and len(studio.drawn) == len(masks.STRIP)


def test_images_drawn_while_another_goes_are_those_that_were_asked_for(session, monkeypatch):
    def draw_one(project, studio, settings):
        project.remove_support_pair("b") if "b" in project.support_names() else None
        images.studio_of(session)
        return image_studio.Drawn(make_pair(f"seed {settings.seed}", size=64), None, 0.1)

    monkeypatch.setattr(image_studio, "_draw_one", draw_one)
    assert len(images._looks(session).value) == image_studio.LOOKS
    assert not images.studio_of(session).drawn


def test_image_of_a_removed_pair_becomes_one_of_a_new_mask(session):
    assert images.studio_of(session).settings.source == "own:a"
    session.project.remove_support_pair("a")
    assert images.studio_of(session).settings.source == NEW and images.studio_of(session).changed == 1


def test_pairs_are_drawn_with_seeds_that_are_free(session, jobs, monkeypatch):
    names = ["synthetic-0123abcd-000041", "synthetic-ffff0000-000007", "brought along"]
    monkeypatch.setattr(Project, "pair_names", lambda project: names)
    monkeypatch.setattr(Project, "image_engine_versions", lambda project: ["v001", "v002"])
    images.studio_of(session).version = ""
    with pytest.raises(InputError, match=texts.MASKS_PRETRAINED):
        images._generate(session, 5, 1.5, 12, 0.4, "cpu")
    assert not jobs.found, "the job would take the newest engine, and the page shows the pretrained one"
    images.studio_of(session).version = "v001"
    images._generate(session, 5, 1.5, 12, 0.4, "cpu")
    assert jobs.found[0].params["seed"] == 42 and jobs.found[0].params["image_engine"] == "v001"


def test_stopped_engine_goes_on_unless_its_images_changed(session, jobs):
    digest = job_watch.support_digest(session.project)
    jobs.add("mask-engine", {"adapter": "lora", job_watch.LEARNS_FROM: digest}, JobState.CANCELLED)
    button, anew, line = masks.JOBS._render(session)
    assert button.value == texts.ENGINES_GO_ON and anew.visible and "takes it up" in line
    session.project.add_support_pair(make_pair("c", size=64, seed=3))
    button, anew, line = masks.JOBS._render(session)
    assert button.value == texts.MASKS_ADAPT and not anew.visible and "begin anew" in line
    assert masks.JOBS.unfinished(session) is None


def test_stopped_training_goes_on_while_it_would_be_the_same(session, jobs):
    review._retrain(session, "standard")
    (started,) = jobs.found
    jobs.found[0] = replace(started, state=JobState.CANCELLED)
    review._choose_effort(session, "preview")
    assert review._unfinished(session) is None
    review._retrain(session, "standard")
    assert jobs.resumed == jobs.found[:1] and len(jobs.found) == 1
    jobs.found[0] = Job(started.folder, replace(started.record, attempt=2), JobState.FAILED, "damaged")
    review._retrain(session, "standard")
    assert len(jobs.found) == 2, "one that fails again does so from its checkpoint"


def test_trees_and_pairs_that_failed_say_why(session, jobs):
    for kind in ("trees", "generate"):
        jobs.add(kind, {}, JobState.FAILED, error="The disk is full.")
    assert "The job failed: The disk is full." in tree_files._saved_list(session)
    assert "The job failed: The disk is full." in images._pairs(session)[1]


@pytest.mark.parametrize("unknown", [{}, {"expected_agreement": None}, {"expected_agreement": float("nan")}])
def test_figure_that_nobody_measured_is_not_said(unknown):
    measured = images.JOBS.done({"image_engine": "v001", "agreement": 0.8, "expected_agreement": 0.7})
    assert "v001" in measured and "0.80" in measured and "0.70" in measured
    without = images.JOBS.done({"image_engine": "v001", "agreement": 0.8, **unknown})
    assert "0.80" in without and "no real image" in without and "nan" not in without and "0.00" not in without
    for jobs in (images.JOBS, masks.JOBS):
        assert "nan" not in (said := jobs.done({"agreement": None, "nearest_dice": None, **unknown})) and said
    assert "0.91" in masks.JOBS.done({"mask_engine": "v001", "nearest_dice": 0.91})


def with_models(project, *versions):
    for version in versions:
        card = {"support_sha256": {"masks/a.png": "another"}}
        (project.segmenters_folder / version).mkdir()
        write_json_atomic(project.segmenters_folder / version / "segmenter.json", {"card": card})


def test_model_in_use_is_named_and_not_the_newest(session, jobs):
    with_models(session.project, "v001", "v002")
    promote(session.project, "v002")
    before = adapt._controls_signature(session)
    promote(session.project, "v001")
    assert adapt._controls_signature(session) != before
    assert "v001" in adapt._controls(session)[3] and "v002" not in adapt._controls(session)[3]


@pytest.mark.parametrize("reason", ["better", "worse", "not comparable"])
def test_training_says_which_model_is_in_use_now(session, reason):
    with_models(session.project, "v001", "v002")
    versions = {"reason": reason, "active": "v002", "dice_before": 0.0, "dice_after": 0.9}
    result = {"segmenter": "v002", "pairs_used": 3, "versions": versions}
    promote(session.project, "v002")
    before, said = review._retrain_signature(session), review._settled(session.project, result)
    promote(session.project, "v001")
    assert "v002 is in use" in said and "v001 is in use" in review._settled(session.project, result)
    assert review._retrain_signature(session) != before and "nan" not in said


def test_second_click_on_undo_goes_back_no_further(session, monkeypatch):
    monkeypatch.setattr(versions, "note", lambda text: None)
    monkeypatch.setattr(versions, "compare_versions", lambda project: [])
    with_models(session.project, "v001", "v002")
    for version in ("v001", "v002"):
        promote(session.project, version)
    monkeypatch.setattr(versions, "compare_versions", lambda project: ["some"])
    monkeypatch.setattr(versions, "_table", lambda found: "")
    assert "v001" in versions._draw(session)[2].value
    for _ in range(2):
        versions.go_back(session)
        assert model_versions.active_segmenter(session.project).name == "v001"


def test_table_of_models_follows_the_image_they_are_compared_on(session):
    with_models(session.project, "v001")
    seen = set()
    for name in "ab":
        frozen = {"name": name, "mask_sha256": name}
        write_json_atomic(session.project.segmenters_folder / model_versions.FROZEN, frozen)
        seen.add(hash(versions._signature(session)))
    assert len(seen) == 2


def test_what_changed_follows_the_mask_it_was_measured_on(session, monkeypatch):
    asked = []
    monkeypatch.setattr(review_changed, "_versions", lambda project: ("v001", "v002"))
    monkeypatch.setattr(review_changed, "what_changed", lambda *_: asked.append(1))
    for part in ("_figures", "_both_pictures"):
        monkeypatch.setattr(review_changed, part, lambda *_: "")
    frozen = {"name": "a", "mask_sha256": session.project.support_hashes()["masks/a.png"]}
    write_json_atomic(session.project.segmenters_folder / model_versions.FROZEN, frozen)
    before = review_changed.signature(session)
    for _ in range(2):
        review_changed.draw(session)
    assert len(asked) == 1
    session.project.replace_support_mask("a", make_pair("a", size=64, seed=9).mask)
    assert review_changed.signature(session) != before

    def refuse(*_):
        raise InputError("The mask of 'a' was changed since", fix="Train again.")

    monkeypatch.setattr(review_changed, "what_changed", refuse)
    assert "was changed since" in review_changed.draw(session)


def test_pictures_to_download_name_nobody(session, tmp_path, monkeypatch):
    pair = session.project.support_pair("a")
    session.project.add_support_pair(replace(pair, name="Jane Doe"))
    images.studio_of(session).settings = image_studio.ImageSettings("own:Jane Doe")
    drawn = image_studio.Drawn(pair, None, 0.1)
    monkeypatch.setattr(image_studio, "draw", lambda project, studio, settings: [drawn])
    written = [read_provenance(path) for path in images._shown(session)[:2]]
    found = model_versions.HeldOut("Jane Doe", "1234", 0.5, 0.5)
    masks_found = {name: pair.mask for name in ("reference", "mask_before", "mask_after")}
    changed = what_changed.WhatChanged(
        "v001", "v002", found, found, pair.image, **masks_found, difference=0.0, interval=(0.0, 0.0)
    )
    review_changed._both_pictures(changed, tmp_path / "changed")
    written += [read_provenance(path) for path in (tmp_path / "changed").glob("*.png")]
    assert len(written) == 4 and "Jane" not in str(written)
    sha256 = session.project.support_hashes()["masks/Jane Doe.png"]
    assert [record["mask_sha256"] for record in written] == [sha256, sha256, "1234", "1234"]


def test_cancelling_promises_only_what_there_is(session, jobs, monkeypatch):
    said = []
    monkeypatch.setattr(header, "cancel_job", lambda job: None)
    monkeypatch.setattr(header, "note", said.append)
    for kind in ("trees", "retrain"):
        jobs.add(kind, {})
        header.cancel_running(session)
    assert said == [texts.CANCEL_ASKED_MADE, texts.CANCEL_ASKED]


@pytest.mark.parametrize("kind", ["adapt", "mask-engine"])
def test_numbers_that_count_are_not_read_aloud(session, jobs, monkeypatch, kind):
    seen = job_watch.JobWatch(session.folder)
    for module in (header, engine_jobs):
        monkeypatch.setattr(module, "watch", lambda job: seen)
    jobs.add(kind, {}, JobState.RUNNING)
    said = []
    for step in (3, 4):
        seen._take(ProgressEvent("segmenter", step, 9))
        said.append(header._said(jobs.found[0]))
        line = masks.JOBS._render(session)[2] if kind == "mask-engine" else ""
        line += adapt_view.status(session.project, jobs.found[0], seen) + header._chip(jobs.found[0])[0]
        assert 'role="status"' not in line and f"{step} of 9" in line
    assert said[0] == said[1] and texts.JOB_KINDS[kind] in said[0]


def test_emptied_seed_stays_empty_and_is_refused(session, monkeypatch):
    session.run.project, session.run.seed = session.project.path, None
    assert adapt._form(session)[1] is None
    with pytest.raises(InputError, match="got nothing"):
        adapt._start(session)
