import os
from dataclasses import replace

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from app import texts
from app.gradio_ui import tree_plots, tree_studio, tree_view, trees
from app.gradio_ui.state import Sessions
from app.gradio_ui.tree_studio import Studio
from tests.conftest import make_pair
from univg.errors import InputError
from univg.sca import SCAConfig, TreeScene
from univg.types import Modality
from univg.workflow.project import Project


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = Project.create(tmp_path_factory.mktemp("trees") / "p", modality=Modality.CORONARY_DSA, working_size=96)
    for number in range(2):
        project.add_support_pair(make_pair(f"pair {number}", seed=number))
    return project


def test_every_slider_is_a_parameter_whose_default_it_can_show():
    defaults = SCAConfig()
    for name, (label, help_text, low, high, step) in texts.TREE_SLIDERS.items():
        assert low <= getattr(defaults, name) <= high, name
        assert label and help_text and step > 0


def test_studio_starts_along_the_first_mask_and_lists_every_source(project):
    studio = Studio.of(project)
    assert studio.source == "mask:pair 0"
    assert tree_studio.sources(project) == [
        "mask:pair 0",
        "mask:pair 1",
        "preset:coronary-right",
        "preset:coronary-left",
    ]


def test_mask_replaced_by_one_of_another_size_still_guides(tmp_path):
    project = Project.create(tmp_path / "p", modality=Modality.CORONARY_DSA, working_size=96)
    project.add_support_pair(make_pair("a", size=64))
    session = Sessions(tmp_path / "sessions", None).attach("")
    session.open(project)
    studio = tree_view.studio_of(session)
    scene = tree_studio.with_settings(studio.scene, {"tortuosity": 0.3}, closed=False)
    studio.go_to(TreeScene(**{**vars(scene), "seed": 7, "roots": ((60.0, 60.0),)}))
    studio.corners.append((50.0, 50.0))
    project.remove_support_pair("a")
    project.add_support_pair(make_pair("a", size=48))
    after = tree_view.studio_of(session).scene
    assert after.shape == (48, 48) and tree_studio.real_mask(project, after) is not None
    assert (after.config, after.seed, after.roots) == (scene.config, 7, ()) and not studio.corners


def test_another_source_can_be_chosen_where_the_image_of_one_is_damaged(tmp_path):
    project = Project.create(tmp_path / "p", modality=Modality.CORONARY_DSA, working_size=96)
    for name in "abc":
        project.add_support_pair(make_pair(name, size=64, seed=ord(name)))

    def damage(name):
        (project.support_folder / "images" / f"{name}.png").write_bytes(b"no image")
        os.utime(project.support_folder / "masks" / f"{name}.png", ns=(1, 1))  # so that it is read anew

    session = Sessions(tmp_path / "sessions", None).attach("")
    session.open(project)
    damage("a")
    assert tree_view.studio_of(session).source == "mask:b", "the first that can be read"
    damage("b")
    picture, said = tree_view.shown_part(session)
    assert picture == gr.skip() and "b.png" in said and str(tmp_path) not in said
    assert len(tree_view.controls(session)[0].choices) == len(tree_studio.sources(project))
    with pytest.raises(InputError, match=r"a\.png"):
        trees.choose_source(session, "mask:a")
    trees.choose_source(session, "mask:c")
    assert tree_view.studio_of(session).source == "mask:c"
    damage("c")
    session.trees = None
    assert tree_view.studio_of(session).source.startswith("preset:")


def test_sliding_is_undone_as_one_step_and_corners_one_by_one(project):
    studio = Studio.of(project)
    first = studio.scene
    for value in (0.1, 0.2, 0.3):
        scene = tree_studio.with_settings(studio.scene, {"tortuosity": value}, closed=False)
        studio.go_to(scene, sliding="tortuosity")
    studio.corners += [(1.0, 1.0), (2.0, 2.0)]
    assert studio.undo() and studio.corners == [(1.0, 1.0)]
    assert studio.undo() and not studio.corners
    assert studio.undo() and studio.scene == first
    assert not studio.undo()


def test_pictures_show_tree_roots_and_drawing(project):
    studio = Studio.of(project)
    square = ((10.0, 10.0), (10.0, 30.0), (30.0, 30.0))
    scene = tree_studio.scene_from(project, "preset:coronary-left", config=studio.scene.config, seed=1)
    studio.go_to(TreeScene(**{**vars(scene), "obstacles": (square,)}), "preset:coronary-left")
    grown = tree_studio.grow(project, studio.scene)
    assert grown.copy_dice is None and grown.milliseconds > 0
    for show in texts.TREES_SHOWS:
        studio.show = show
        canvas = tree_studio.draw(project, studio, grown.mask)
        before = canvas.copy()
        assert canvas.shape == (96, 96, 3) and canvas.dtype == np.uint8
        assert (tree_studio.mark_roots(canvas, grown.tree) != before).any()


def test_growth_becomes_a_moving_picture(project, tmp_path):
    grown = tree_studio.grow(project, Studio.of(project).scene)
    with Image.open(tree_studio.animation(grown.tree, tmp_path)) as picture:
        assert picture.n_frames > 5
        last = np.asarray(picture.convert("L")).astype(int)
        picture.seek(picture.n_frames - 1)
        assert (np.asarray(picture.convert("L")) > 100).sum() >= (last > 100).sum()


def test_comparison_and_meter_are_pictures_with_words(project):
    real = tree_studio.real_measurements(project)
    generated = tree_studio.generated_measurements(project, Studio.of(project).scene, 3)
    svg = tree_plots.comparison({"generated": generated}, real)
    assert (
        svg.count("<svg") == 1
        and "currentColor" in svg
        and "Tortuosity" in svg
        and "3 generated" in svg
        and "distance" in svg
    )
    assert "12.5 %" in tree_plots.murray_meter(12.5, float("nan"))
    assert tree_plots.murray_meter(float("nan"), float("nan")) == ""


def test_parameters_that_do_not_go_together_are_refused(project):
    with pytest.raises(ValueError, match="kill_distance"):
        tree_studio.with_settings(Studio.of(project).scene, {"kill_distance": 200.0}, closed=False)


def test_errors_call_parameters_as_their_sliders_are(project, tmp_path):
    session = Sessions(tmp_path / "sessions", None).attach("")
    session.open(project)
    config = tree_view.studio_of(session).scene.config
    values = [200.0 if name == "kill_distance" else getattr(config, name) for name in tree_view.SETTINGS]
    said = trees.slide(session, False, *values)[1]
    assert "“Kill distance” (200) must be below “Attraction distance”" in said and "_" not in said
    outside = replace(tree_view.studio_of(session).scene, roots=((500.0, 3.0),))
    with pytest.raises(InputError, match="root lies outside the picture") as caught:
        tree_view.check_grows(session, outside)
    assert str(caught.value).count(".") == 1
    assert texts.tree_problem(ValueError("`boundary` and `obstacles` leave no place")).startswith("Boundary and obst")


def test_masks_are_measured_at_the_scale_of_the_trees_they_are_compared_with(project):
    own, doubled = (tree_studio.real_measurements(project, side)[0] for side in (None, 192))
    assert np.median(doubled.segment_diameters) == pytest.approx(2 * np.median(own.segment_diameters), rel=0.25)
    assert tree_studio.at_side(np.ones((50, 100), bool), 30).shape == (15, 30)
    along = Studio.of(project).scene
    assert tree_studio.compared_side(along) is None, "trees along all masks in turn, each at its own size"
    assert tree_studio.compared_side(replace(along, roots=((50.0, 50.0),))) == 96
    preset = tree_studio.scene_from(project, "preset:coronary-left", config=along.config, seed=1)
    assert tree_studio.compared_side(replace(preset, shape=(64, 128))) == 128
