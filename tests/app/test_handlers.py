"""What the controls of the page do, asked of their handlers and of the page as it is assembled."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from tests.conftest import make_pair
from univg.errors import InputError
from univg.workflow.job_records import JobRecord, JobState
from univg.workflow.jobs import Job
from univg.workflow.project import Project

gr = pytest.importorskip("gradio")

from app import texts  # noqa: E402
from app.gradio_ui import (  # noqa: E402
    adapt,
    blocks,
    engine_jobs,
    header,
    images,
    job_watch,
    mask_studio,
    masks,
    numbers,
    review,
    tree_files,
    tree_studio,
    tree_view,
    trees,
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
    names = {component["id"]: component["props"].get("elem_id") for component in page["components"]}
    targets = ((names.get(at), event, d["trigger_mode"]) for d in page["dependencies"] for at, event in d["targets"])
    return {(name, event): mode for name, event, mode in targets}


def test_sliders_have_no_button_that_their_handlers_would_not_hear_of(page):
    sliders = [component for component in page["components"] if component["type"] == "slider"]
    assert len(sliders) > 20 and all(component["props"]["buttons"] == [] for component in sliders)


def test_newest_choice_counts_and_every_click_does(page):
    modes = trigger_modes(page)
    newest = ["mask-scale", "mask-strength", "mask-steps", "image-conditioning", "image-strength", "image-steps"]
    assert {modes[name, "release"] for name in newest} == {"always_last"}
    chosen = [
        "mask-start",
        "mask-engine",
        "image-source",
        "image-engine",
        "review-filter",
        "review-flag",
        "review-sort",
    ]
    assert {modes[name, "input"] for name in chosen} == {"always_last"}
    assert modes["tree-picture", "select"] == "multiple"
    assert {modes[name, "click"] for name in ("mask-reroll", "image-reroll", "tree-reroll")} == {"once"}


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
        with pytest.raises(InputError, match="no place"):
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


def test_image_of_a_removed_pair_becomes_one_of_a_new_mask(session):
    assert images.studio_of(session).settings.source == "own:a"
    session.project.remove_support_pair("a")
    assert images.studio_of(session).settings.source == NEW and images.studio_of(session).changed == 1


def test_pairs_are_drawn_with_seeds_that_are_free(session, jobs, monkeypatch):
    names = ["synthetic-0123abcd-000041", "synthetic-ffff0000-000007", "brought along"]
    monkeypatch.setattr(Project, "pair_names", lambda project: names)
    monkeypatch.setattr(Project, "image_engine_versions", lambda project: ["v001", "v002"])
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


def test_cancelling_promises_only_what_there_is(session, jobs, monkeypatch):
    said = []
    monkeypatch.setattr(header, "cancel_job", lambda job: None)
    monkeypatch.setattr(header, "note", said.append)
    for kind in ("trees", "retrain"):
        jobs.add(kind, {})
        header.cancel_running(session)
    assert said == [texts.CANCEL_ASKED_MADE, texts.CANCEL_ASKED]


def test_emptied_seed_stays_empty_and_is_refused(session, monkeypatch):
    session.run.project, session.run.seed = session.project.path, None
    assert adapt._form(session)[1] is None
    with pytest.raises(InputError, match="got nothing"):
        adapt._start(session)
