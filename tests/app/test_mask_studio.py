"""The Masks tab without a page: what α, seed and start do to the mask, and what is remembered."""

from dataclasses import replace

import numpy as np
import pytest

from app.gradio_ui import images, mask_studio, masks, tree_plots, tree_studio
from app.gradio_ui.mask_studio import NOISE, STRIP, MaskSettings, MaskStudio
from app.gradio_ui.state import Sessions
from tests.conftest import make_pair
from univg.errors import InputError
from univg.types import Modality
from univg.weights import is_shipped
from univg.workflow.jobs import start_job, wait_for
from univg.workflow.project import Project

pytestmark = pytest.mark.skipif(not is_shipped("models", "masks"), reason="the mask engine's weights are not here")
QUICK = MaskSettings(steps=2)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = Project.create(tmp_path_factory.mktemp("masks") / "p", modality=Modality.CORONARY_DSA, working_size=96)
    for number in range(2):
        project.add_support_pair(make_pair(f"pair {number}", seed=number))
    return project


def test_masks_are_drawn_once_and_found_again(project):
    studio = MaskStudio.of(project)
    (mask,) = mask_studio.draw(project, studio, [QUICK])
    assert mask.dtype == np.bool_ and mask.shape == (128, 128)
    assert studio.milliseconds > 0
    (again,) = mask_studio.draw(project, studio, [QUICK])
    assert again is mask


def test_seed_start_and_strength_matter(project):
    studio = MaskStudio.of(project)
    variants = [
        QUICK,
        replace(QUICK, seed=1),
        replace(QUICK, strength=0.0),
        replace(QUICK, start=NOISE),
    ]
    masks = mask_studio.draw(project, studio, variants)
    assert len({mask.tobytes() for mask in masks}) == 4


def test_strength_does_not_matter_from_noise(project):
    studio = MaskStudio.of(project)
    mask_studio.draw(project, studio, [replace(QUICK, start=NOISE, strength=0.2)])
    assert studio.found(replace(QUICK, start=NOISE, strength=0.9)) is not None


def test_scrubbing_finds_the_nearest_alpha_of_the_same_picture(project):
    studio = MaskStudio.of(project)
    assert studio.nearest_found(QUICK) is None
    mask_studio.draw(project, studio, [replace(QUICK, scale=scale) for scale in (0.0, 1.0)])
    assert studio.nearest_found(replace(QUICK, scale=0.8))[0] == 1.0
    assert studio.nearest_found(replace(QUICK, scale=0.3))[0] == 0.0
    assert studio.nearest_found(replace(QUICK, seed=5)) is None


def test_alpha_changes_nothing_before_the_adaptation(project):
    masks = mask_studio.draw(project, MaskStudio.of(project), [replace(QUICK, scale=scale) for scale in STRIP])
    assert len({mask.tobytes() for mask in masks}) == 1


def test_memory_is_bounded(project, monkeypatch):
    monkeypatch.setattr(mask_studio, "_KEPT", 3)
    studio = MaskStudio.of(project)
    mask_studio.draw(project, studio, [replace(QUICK, seed=seed) for seed in range(4)])
    assert len(studio.drawn) == 3


def test_map_puts_like_masks_near_each_other():
    rng = np.random.default_rng(0)
    left, right = np.zeros((2, 64, 64), bool)
    left[:, :20], right[:, 44:] = True, True
    groups = [[left ^ (rng.random(left.shape) < 0.02) for _ in range(4)], [right ^ (rng.random(right.shape) < 0.02)]]
    first, second = mask_studio.feature_map(groups)
    assert first.shape == (4, 2) and second.shape == (1, 2)
    assert np.ptp(first[:, 0]) < 0.2 * abs(first[:, 0].mean() - second[0, 0])
    svg = tree_plots.scatter({"engine": first, "yours": second})
    assert svg.count("<svg") == 1 and "currentColor" in svg


def test_project_without_masks_starts_from_a_preset(tmp_path):
    empty = Project.create(tmp_path / "p", modality=Modality.OCTA, working_size=96)
    assert mask_studio.start_tree(empty, 3).any()
    assert mask_studio.nearest_copy(empty, np.ones((8, 8), bool)) == 0


def test_masks_of_the_project_are_read_once_for_all_that_is_drawn(project, monkeypatch):
    mask = project.support_pair("pair 0").mask
    assert mask_studio.nearest_copy(project, mask) == 1
    monkeypatch.setattr(Project, "support_pair", lambda *_: pytest.fail("read again"))
    assert mask_studio.nearest_copy(project, ~mask) < 0.5


def test_comparison_measures_all_masks_at_the_size_of_those_drawn(project, tmp_path, monkeypatch):
    session = Sessions(tmp_path / "sessions", None).attach("")
    session.open(project)
    compared = []
    monkeypatch.setattr(mask_studio, "_draw_one", lambda *_: np.pad(np.ones((60, 128), bool), ((34, 34), (0, 0))))
    monkeypatch.setattr(tree_plots, "comparison", lambda groups, real: compared.append((*groups.values(), real)) or "")
    masks._compare(session)
    assert [len(group) for group in compared[0]] == [6, 6, 2]
    assert compared[0][2] == tree_studio.real_measurements(project, 128) != tree_studio.real_measurements(project)
    bar = np.pad(np.ones((4, 28), bool), ((14, 14), (2, 2)))
    (small,), (large,) = (mask_studio.measure([bar], side) for side in (32, 128))
    assert large.segment_diameters[0] > 2 * small.segment_diameters[0]


@pytest.mark.parametrize(("tab", "kind"), [(masks, "mask"), (images, "image")])
def test_an_engine_that_was_chosen_stays_until_a_newer_one_comes(tab, kind, project, tmp_path, monkeypatch):
    engines = ["v001", "v002"]
    monkeypatch.setattr(Project, f"{kind}_engine_versions", lambda project: list(engines))
    monkeypatch.setattr(tab, "_shown", lambda session: [])
    session = Sessions(tmp_path / "sessions", None).attach("")
    session.open(project)
    assert tab.studio_of(session).version == "v002"
    tab._choose_version(session, "v001")
    tab._first(session)  # as after a look at the list of projects
    assert tab.studio_of(session).version == "v001"
    engines.append("v003")
    tab._first(session)
    assert tab.studio_of(session).version == "v003"
    del engines[1:]
    tab._first(session)
    assert tab.studio_of(session).version == "v001", "the one on screen is gone"


@pytest.mark.slow
def test_job_adapts_the_engine_and_the_tab_takes_it(tmp_path, monkeypatch):
    monkeypatch.setenv("UNIVG_STATE", str(tmp_path / "state"))
    project = Project.create(tmp_path / "p", modality=Modality.CORONARY_DSA, working_size=64)
    for number in range(2):
        project.add_support_pair(make_pair(f"pair {number}", seed=number))
    job = wait_for(start_job(project, "mask-engine", {"steps": 8, "device": "cpu"}), timeout=200)
    assert job.error is None
    assert job.result()["mask_engine"] == "v001" and 0 <= job.result()["nearest_dice"] <= 1
    studio = MaskStudio.of(project)
    assert studio.version == "v001"
    masks = mask_studio.draw(project, studio, [replace(QUICK, scale=scale) for scale in (0.0, 1.0)])
    assert masks[0].shape == (64, 64)


@pytest.mark.parametrize("tab", [masks, images])
def test_a_control_leaves_the_other_settings_alone(tab, project, tmp_path, monkeypatch):
    """The page may still show the seed of before when another control is let go."""
    monkeypatch.setattr(tab, "_shown", lambda session: [])
    session = Sessions(tmp_path / "sessions", None).attach("")
    session.open(project)
    tab._another_seed(session)
    before = tab.studio_of(session).settings
    assert before.seed != 0
    tab._settle("steps", session, 5)
    tab._settle("strength", session, 0.3)
    assert tab.studio_of(session).settings == replace(before, steps=5, strength=0.3)
    with pytest.raises(InputError, match="Seed"):
        tab._settle("seed", session, None)
