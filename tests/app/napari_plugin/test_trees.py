"""What the Trees panel shows beside the tree: how it grew, others like it, and many of them as a job."""

import numpy as np
import pytest

from app.napari_plugin import tree_scene
from tests.app.napari_plugin.conftest import paint_square
from univg.errors import InputError
from univg.io import read_mask, read_provenance
from univg.sca import TreeScene, grow_scene, preset_for
from univg.types import Modality
from univg.workflow.jobs import JobState, list_jobs, start_job
from univg.workflow.tree_sets import tree_set_params

pytest.importorskip("napari")
pytestmark = pytest.mark.gui

WAIT = {"timeout": 90_000}


@pytest.fixture
def panel(session, viewer, qtbot):
    from app.napari_plugin.trees_panel import TreesPanel

    found = TreesPanel(viewer)
    qtbot.addWidget(found)
    qtbot.waitUntil(lambda: found.grown is not None and not found._newest.busy, **WAIT)
    return found


@pytest.fixture
def scene():
    preset = preset_for(Modality.FUNDUS)
    return TreeScene(Modality.FUNDUS, (96, 128), preset.config, 3, preset=preset.name)


@pytest.mark.parametrize("shape", [(96, 128), (900, 1200)])
def test_growth_ends_with_the_whole_tree_and_never_shrinks(scene, shape):
    from dataclasses import replace

    _, grown = tree_scene.grow(replace(scene, shape=shape), None, None)
    growth = tree_scene.growth_of(grown.tree)
    sizes = [int(growth.frame(number).sum()) for number in range(growth.frames + 1)]
    assert sizes[0] == 0 < sizes[1] and sizes == sorted(sizes) and growth.frames > 20
    assert max(growth.born.shape) <= 768
    last = growth.frame(growth.frames).astype(bool)
    if growth.factor == 1:
        assert np.array_equal(last, grown.mask)
    else:
        assert last.mean() == pytest.approx(grown.mask.mean(), rel=0.15)


def test_variations_are_the_trees_of_the_next_seeds(scene):
    from dataclasses import replace

    found = tree_scene.variations(scene, None, None)
    assert [seed for seed, _ in found] == list(range(4, 13))
    assert len({mask.tobytes() for _, mask in found}) == 9
    _, grown = tree_scene.grow(replace(scene, seed=4), None, None)
    assert np.array_equal(found[0][1] > 0, grown.mask)


def test_panel_shows_how_the_tree_grew_and_the_tree_again(panel, session, qtbot):
    tree = session.layer("tree")
    panel.animate_button.click()
    qtbot.waitUntil(lambda: session.layer("growth") is not None and session.layer("growth").visible, **WAIT)
    growth = session.layer("growth")
    assert not tree.visible
    assert np.allclose(growth.extent.world, tree.extent.world)
    seen = []
    growth.events.set_data.connect(lambda _: seen.append(int(np.asarray(growth.data).sum())))
    qtbot.waitUntil(lambda: tree.visible and not growth.visible, **WAIT)
    assert len(seen) > 20 and seen == sorted(seen)

    panel.animate_button.click()
    qtbot.waitUntil(lambda: growth.visible, **WAIT)
    panel.seed.setValue(77)  # another tree ends it
    qtbot.waitUntil(lambda: tree.visible and not growth.visible, **WAIT)


def test_a_variation_that_is_clicked_is_grown(panel, session, qtbot):
    panel.seed.setValue(5)
    panel.variations_button.click()
    qtbot.waitUntil(lambda: len(panel.variations.buttons) == 9, **WAIT)
    panel.variations.buttons[3].click()
    assert panel.seed.value() == 9
    qtbot.waitUntil(lambda: panel.scene.seed == 9 and not panel._newest.busy, **WAIT)
    assert np.array_equal(session.layer("tree").data != 0, panel.grown.mask)


def test_variations_go_when_what_they_show_has_changed(panel, session, qtbot):
    def vary():
        panel.variations_button.click()
        qtbot.waitUntil(lambda: len(panel.variations.buttons) == 9, **WAIT)

    vary()
    panel.seed.setValue(40)
    assert len(panel.variations.buttons) == 9, "another seed of the same"
    panel.sliders["tortuosity"].move_to(0.4)
    assert not panel.variations.buttons
    vary()
    panel.draw("roots")
    session.layer("roots").data = np.array([[55.0, 20.0]])
    assert not panel.variations.buttons


def test_variations_that_come_late_are_not_shown_with_another_scene(panel, qtbot):
    panel.variations_button.click()
    panel.sliders["tortuosity"].move_to(0.4)
    qtbot.waitUntil(lambda: not panel._extra.busy and not panel._newest.busy, **WAIT)
    assert not panel.variations.buttons
    panel.variations_button.click()
    panel.refresh()
    qtbot.waitUntil(lambda: not panel._extra.busy, **WAIT)
    assert not panel.variations.buttons


def test_variations_along_a_mask_go_when_it_is_painted(opened, viewer, qtbot):
    from app.napari_plugin.trees_panel import TreesPanel

    panel = TreesPanel(viewer)
    qtbot.addWidget(panel)
    panel.variations_button.click()
    qtbot.waitUntil(lambda: len(panel.variations.buttons) == 9, **WAIT)
    paint_square(opened)
    opened.look()
    assert not panel.variations.buttons


def test_seeds_that_cannot_grow_are_left_out_of_the_variations(scene, monkeypatch):
    grow = tree_scene.grow

    def grow_some(scene, mask, image):
        if scene.seed in refused:
            raise InputError("no place for a vessel")
        return grow(scene, mask, image)

    monkeypatch.setattr(tree_scene, "grow", grow_some)
    refused = {4, 7}
    assert [seed for seed, _ in tree_scene.variations(scene, None, None)] == [5, 6, 8, 9, 10, 11, 12]
    refused = set(range(4, 13))
    with pytest.raises(InputError, match="no place"):
        tree_scene.variations(scene, None, None)


def test_many_trees_are_grown_into_the_project(panel, session, qtbot, tiny):
    panel.many.count.setValue(3)
    panel.many.start_button.click()
    assert panel.message.text() == "" and not panel.many.start_button.isEnabled()
    qtbot.waitUntil(lambda: panel.many.job.state.finished, **WAIT)
    panel.many.look()
    assert panel.many.job.state is JobState.DONE, panel.many.job.error
    files = sorted((tiny.project.trees_folder / "set-001").glob("*.png"))
    assert len(files) == 3 and "3 trees in trees/set-001" in panel.many.saved.text()
    again = TreeScene.from_json(read_provenance(files[1]))
    from univg.geometry import rasterize_tree

    assert np.array_equal(rasterize_tree(grow_scene(again)), read_mask(files[1]))


def test_many_trees_started_elsewhere_are_found_and_cancelled(session, viewer, qtbot, tiny, scene):
    from app.napari_plugin.trees_panel import TreesPanel

    params = {"count": 5000, "scene": scene.to_json(), "masks": [], "folder": "set-001"}
    job = start_job(tiny.project, "trees", params)
    panel = TreesPanel(viewer)
    qtbot.addWidget(panel)
    assert panel.many.job.id == job.id and not panel.many.start_button.isEnabled()
    panel.many.cancel_button.click()
    qtbot.waitUntil(lambda: panel.many.job.state is JobState.CANCELLED, **WAIT)
    qtbot.waitUntil(lambda: panel.many.start_button.isEnabled(), **WAIT)


def test_many_trees_along_a_mask_that_was_corrected_on_screen_are_refused(session, viewer, qtbot, tiny):
    from app.napari_plugin.trees_panel import TreesPanel

    session.open_image("pair-0")
    qtbot.waitUntil(lambda: session.labels is not None and session.busy == 0, **WAIT)
    panel = TreesPanel(viewer)
    qtbot.addWidget(panel)
    assert panel.scene.mask_name == "pair-0"
    panel.many._refuse_other_mask(tiny.project, "pair-0")  # as it is in the project
    paint_square(session)
    panel.many.start_button.click()
    assert "another mask of “pair-0”" in panel.message.text() and "Approve it and retrain" in panel.message.text()
    assert panel.many.job is None and list_jobs(tiny.project) == []


def test_trees_along_a_mask_that_the_project_does_not_hold_are_refused(tiny, scene):
    from dataclasses import replace

    along = replace(scene, mask_name="new-0", preset="")
    with pytest.raises(InputError, match="new-0"):
        tree_set_params(tiny.project, along, count=3, every_mask=False)
    every = tree_set_params(tiny.project, along, count=3, every_mask=True)
    assert every["masks"] == ["pair-0", "pair-1"] and every["folder"] == "set-001"
