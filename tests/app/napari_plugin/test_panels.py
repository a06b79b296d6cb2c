"""Each panel and command with a real viewer, offscreen."""

import itertools
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from app.napari_plugin.image_queue import Status
from tests.app.napari_plugin.conftest import SIDE, paint_square
from tests.conftest import make_pair
from univg.io import read_mask
from univg.sca import RECIPES, grow_scene
from univg.types import Modality

pytest.importorskip("napari")
pytestmark = pytest.mark.gui

WAIT = {"timeout": 90_000}
ROOT = Path(__file__).resolve().parents[3]

# A process of its own, since the tests themselves train.
SEGMENTS = """
import sys, time
import napari
from qtpy.QtWidgets import QApplication
from app.napari_plugin.measure_panel import MeasurePanel
from app.napari_plugin.session import session_of
from tests.app.napari_plugin.conftest import without_a_screen
from univg.workflow.project import Project

without_a_screen()
viewer = napari.Viewer(show=False)
session, panel = session_of(viewer), MeasurePanel(viewer)
session.use_project(Project.open(sys.argv[1]))
session.add_images([sys.argv[2]])
session.open_image("new-0")
while session.open is None or session.open.found is None or not panel.measures:
    QApplication.processEvents()
    time.sleep(0.01)
print("torch", "torch" in sys.modules)
"""


def idle(session, qtbot):
    qtbot.waitUntil(lambda: session.busy == 0, **WAIT)


# --- project


def test_project_panel_creates_opens_and_fills_the_queue(viewer, tiny, tmp_path, qtbot):
    from app.napari_plugin.project_panel import HELD_OUT, ProjectPanel

    panel = ProjectPanel(viewer)
    qtbot.addWidget(panel)
    assert not panel.next_button.isEnabled()
    panel.modality.setCurrentIndex(panel.modality.findData("octa"))
    panel.spacing.setValue(0.012)
    panel.create(tmp_path / "fresh")
    project = panel.session.project
    assert (project.modality, project.pixel_spacing_mm) == (Modality.OCTA, 0.012)

    panel.open_folder(tiny.project.path)
    panel.add([str(file) for file in tiny.files])
    qtbot.waitUntil(lambda: panel.table.rowCount() == 5 and "3 images" in panel.message.text(), **WAIT)
    panel.table.item(1, HELD_OUT).setCheckState(_checked())
    assert panel.session.queue.entry("new-1").held_out
    panel.table.item(4, HELD_OUT).setCheckState(_checked())  # an annotated pair
    assert "trains already" in panel.message.text()
    assert panel.table.item(4, HELD_OUT).checkState() != _checked()


def test_project_panel_opens_images_and_says_what_is_missing(session, viewer, qtbot, tmp_path):
    from app.napari_plugin.project_panel import ProjectPanel

    panel = ProjectPanel(viewer)
    qtbot.addWidget(panel)
    panel.guarded(panel.open_folder)(tmp_path / "nowhere")
    assert "no such folder" in panel.message.text()
    panel.table.setCurrentCell(2, 0)
    panel.show_button.click()
    qtbot.waitUntil(lambda: session.open is not None, **WAIT)
    assert session.open.name == "new-2"
    assert np.allclose(session.labels.scale, 0.02) and session.labels.data.shape == (SIDE, SIDE)


def test_sample_project_is_a_copy_with_its_unseen_images(viewer, qtbot, tmp_path):
    from app.napari_plugin.project_panel import ProjectPanel

    panel = ProjectPanel(viewer)
    qtbot.addWidget(panel)
    panel.open_sample(tmp_path / "mine")
    names = [entry.name for entry in panel.session.queue.entries() if entry.status is Status.UNSEEN]
    assert len(names) == 2 and len(panel.session.project.support_names()) == 5


# --- trees


def test_trees_panel_grows_what_the_controls_and_layers_say(session, viewer, qtbot, tiny):
    from app import texts
    from app.napari_plugin.trees_panel import TreesPanel

    panel = TreesPanel(viewer)
    qtbot.addWidget(panel)
    qtbot.waitUntil(lambda: session.layer("tree") is not None and not panel._newest.busy, **WAIT)
    before = session.layer("tree").data.copy()
    assert before.any() and "nodes" in panel.facts.text()

    panel.draw("obstacles")
    corners = np.array([[0, 0], [0, SIDE], [SIDE / 2, SIDE], [SIDE / 2, 0]])
    session.layer("obstacles").add_polygons([corners])
    qtbot.waitUntil(lambda: not session.layer("tree").data[2 : SIDE // 2 - 6, 2:-2].any(), **WAIT)

    panel.draw("roots")
    session.layer("roots").data = np.array([[55.0, 20.0]])
    qtbot.waitUntil(lambda: panel.scene.roots == ((55.0, 20.0),) and not panel._newest.busy, **WAIT)
    assert len(grow_scene(panel.scene).roots) == 1

    limited = session.layer("tree").data.copy()
    panel.clear_button.click()
    qtbot.waitUntil(lambda: np.array_equal(session.layer("tree").data, before), **WAIT)
    panel.clear_button.click()  # brings it back
    qtbot.waitUntil(lambda: np.array_equal(session.layer("tree").data, limited), **WAIT)
    assert panel.scene.roots == ((55.0, 20.0),) and len(panel.scene.obstacles) == 1
    assert panel.clear_button.text() == texts.TREES_CLEAR
    panel.clear_button.click()
    panel.draw("roots")
    session.layer("roots").data = np.array([[30.0, 20.0]])
    assert panel.clear_button.text() == texts.TREES_CLEAR  # what is drawn now must not be mixed with what was
    panel.clear()
    qtbot.waitUntil(lambda: np.array_equal(session.layer("tree").data, before), **WAIT)


def test_trees_panel_has_the_sliders_and_presets_of_the_browser(session, viewer, qtbot):
    from app import texts
    from app.napari_plugin.trees_panel import TreesPanel

    panel = TreesPanel(viewer)
    qtbot.addWidget(panel)
    assert list(panel.sliders) == list(texts.TREE_SLIDERS)
    panel.recipe.setCurrentIndex(panel.recipe.findData("paper"))
    assert panel.scene.config == RECIPES["paper"]
    assert panel.sliders["segment_length"].value == 15
    panel.sliders["tortuosity"].move_to(0.3)
    assert panel.scene.config.tortuosity == 0.3
    assert panel.recipe.currentText() == texts.TREES_RECIPE_CHANGED
    panel.preset_name.setText("mine")
    panel.save_button.click()
    assert panel.recipe.currentText() == texts.TREES_RECIPE_OWN.format(name="mine")
    panel.sliders["attraction_distance"].move_to(5)
    assert "“Attraction distance” (5) must" in panel.message.text() and "_" not in panel.message.text()
    assert panel.scene.config.attraction_distance != 5


def test_trees_keep_the_settings_from_image_to_image(opened, viewer, qtbot):
    from app.napari_plugin.trees_panel import TreesPanel

    panel = TreesPanel(viewer)
    qtbot.addWidget(panel)
    panel.sliders["tortuosity"].move_to(0.45)
    opened.open_image("pair-0")
    qtbot.waitUntil(lambda: panel.scene.mask_name == "pair-0", **WAIT)
    assert panel.scene.config.tortuosity == panel.sliders["tortuosity"].value == 0.45
    panel.source.setCurrentIndex(panel.source.count() - 1)
    assert panel.scene.preset and panel.scene.config.tortuosity != 0.45
    qtbot.waitUntil(lambda: not panel._newest.busy, **WAIT)


def test_a_tree_grows_along_the_mask_on_screen(opened, viewer, qtbot):
    from app.napari_plugin.trees_panel import TreesPanel

    panel = TreesPanel(viewer)
    qtbot.addWidget(panel)
    assert panel.scene.mask_name == "new-0"
    qtbot.waitUntil(lambda: opened.layer("tree") is not None, **WAIT)
    assert np.allclose(opened.layer("tree").scale, opened.labels.scale)


# --- segment


@pytest.fixture
def with_model(session, tiny, tiny_segmenter):
    tiny.add_model(tiny_segmenter)
    return session


def test_an_unseen_image_is_segmented_as_it_is_opened(with_model, qtbot):
    session = with_model
    session.open_image("new-0")
    qtbot.waitUntil(lambda: session.open is not None and session.open.found is not None, **WAIT)
    assert np.array_equal(session.mask(), session.open.found.mask(session.open.found.threshold))
    assert session.queue.entry("new-0").status is Status.SEGMENTED
    qtbot.waitUntil(lambda: session.queue.mask("new-0") is not None, **WAIT)
    assert np.array_equal(session.queue.mask("new-0"), session.mask())
    names = {"Image", "Vessels", "Probability", "Uncertainty"}
    qtbot.waitUntil(lambda: {layer.name for layer in session.viewer.layers} == names, **WAIT)
    assert session.queue.entry("new-0").status is Status.SEGMENTED
    session.labels.undo()
    assert not session.mask().any()


def test_what_is_painted_while_the_model_works_stays(with_model, qtbot, monkeypatch, heard):
    session, go_on = with_model, threading.Event()
    monkeypatch.setattr("app.napari_plugin.session.find_vessels", waiting_for(go_on))
    session.open_image("new-0")
    qtbot.waitUntil(lambda: session.labels is not None and session.open is not None, **WAIT)
    paint_square(session)
    session.look()
    painted = session.mask()
    go_on.set()
    qtbot.waitUntil(lambda: session.open.found is not None, **WAIT)
    assert painted.any() and np.array_equal(session.mask(), painted)
    assert session.queue.entry("new-0").status is Status.CORRECTED
    assert any("while the model worked" in text for text, _ in heard)
    idle(session, qtbot)


def waiting_for(event):
    """`find_vessels` that begins when `event` is set."""
    from app.napari_plugin.session import find_vessels

    def wait_and_find(*arguments, **options):
        assert event.wait(60)
        return find_vessels(*arguments, **options)

    return wait_and_find


def test_the_wheel_moves_no_slider_that_was_not_chosen(qtbot):
    from qtpy.QtCore import QPoint, QPointF, Qt
    from qtpy.QtGui import QWheelEvent
    from qtpy.QtWidgets import QApplication, QWidget

    from app.napari_plugin.parts import Slider

    slider = Slider("Threshold", "", 0, 1, 0.01)
    qtbot.addWidget(slider)
    slider.set_quietly(0.5)
    slider.show()

    def wheel():
        nowhere, down = QPointF(3, 3), QPoint(0, -120)
        buttons = (Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase)
        return QWheelEvent(nowhere, nowhere, QPoint(), down, *buttons, False)

    for inner in (slider._slider, *slider._slider.findChildren(QWidget)):
        QApplication.sendEvent(inner, wheel())
    assert slider.value == 0.5
    inner = slider._slider._slider
    inner.setFocus()
    if QApplication.focusWidget() is inner:  # a platform without a window manager may give no focus
        QApplication.sendEvent(inner, wheel())
        assert slider.value != 0.5, "one that was chosen follows the wheel"


def test_a_patient_that_is_being_typed_survives_a_change_of_the_queue(session, viewer, qtbot):
    from qtpy.QtCore import Qt
    from qtpy.QtWidgets import QLineEdit

    from app.napari_plugin.project_panel import PATIENT, ProjectPanel

    panel = ProjectPanel(viewer)
    qtbot.addWidget(panel)
    panel.show()
    row = [entry.name for entry in session.queue.entries()].index("new-0")
    panel.table.setCurrentCell(row, PATIENT)
    panel.table.editItem(panel.table.item(row, PATIENT))
    (editor,) = panel.table.findChildren(QLineEdit)
    editor.setText("Anna")
    session.queue.update("new-1", uncertainty=0.25)
    session.queue_changed.emit()  # as scoring does
    qtbot.keyClick(editor, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: session.queue.entry("new-0").patient == "Anna", **WAIT)
    qtbot.waitUntil(lambda: panel.table.item(row + 1, 2).text() == "0.250", **WAIT)


def test_the_queue_is_scored_and_the_most_uncertain_comes_next(with_model, qtbot):
    session = with_model
    session.score_queue()
    entries = lambda: session.queue.entries()[:3]  # noqa: E731
    qtbot.waitUntil(lambda: all(entry.uncertainty is not None for entry in entries()), **WAIT)
    best = max(entries(), key=lambda entry: entry.uncertainty)
    session.open_next()
    qtbot.waitUntil(lambda: session.open is not None, **WAIT)
    assert session.open.name == best.name
    idle(session, qtbot)


def test_segment_panel_threshold_region_and_views(with_model, viewer, qtbot):
    from app.napari_plugin.segment_panel import SegmentPanel

    session = with_model
    panel = SegmentPanel(viewer)
    qtbot.addWidget(panel)
    assert not panel.run_button.isEnabled()
    session.open_image("new-0")
    qtbot.waitUntil(lambda: session.open is not None and session.open.found is not None, **WAIT)
    whole = session.mask()
    panel.threshold.move_to(0.2)
    qtbot.waitUntil(lambda: session.mask().sum() > whole.sum(), **WAIT)
    session.labels.undo()
    assert np.array_equal(session.mask(), whole)
    panel.shown["uncertainty"].setChecked(True)
    qtbot.waitUntil(lambda: session.layer("uncertainty") is not None, **WAIT)
    assert session.layer("uncertainty").visible and not session.layer("probability").visible
    panel.outline.setChecked(True)
    assert session.labels.contour == 1

    panel.part_only.setChecked(True)
    panel.run_button.click()
    assert "no region" in panel.message.text()
    session.layer("roi").add_rectangles([np.array([[8, 8], [8, 40], [40, 40], [40, 8]])])
    session.labels.fill((0, 0), 1)
    painted = session.mask()
    panel.run_button.click()
    qtbot.waitUntil(lambda: session.open.found.window is not None, **WAIT)
    inside = np.zeros_like(painted)
    inside[session.open.found.window] = True
    assert np.array_equal(session.mask()[~inside], painted[~inside])
    assert not np.array_equal(session.mask()[inside], painted[inside])
    assert not session.open.found.probability[~inside].any()


def test_segment_turns_to_the_model_in_use(with_model, viewer, qtbot, tiny, tiny_segmenter, tmp_path):
    from app.napari_plugin.segment_panel import SegmentPanel
    from univg.workflow.model_versions import promote
    from univg.workflow.project import Project

    session = with_model
    panel = SegmentPanel(viewer)
    qtbot.addWidget(panel)
    tiny.add_model(tiny_segmenter)
    promote(tiny.project, "v002")
    session.model_changed.emit()
    assert panel.model.currentData() == "v002"
    panel.model.setCurrentIndex(panel.model.findData("v001"))
    session.image_changed.emit()
    assert panel.model.currentData() == "v001", "what the user chose stays while nothing else is in use"

    other = Project.create(tmp_path / "other", modality=Modality.BRAIN_DSA, working_size=SIDE)
    for _ in range(2):
        with other.new_segmenter_folder() as folder:
            tiny_segmenter.save(folder)
    session.use_project(other)
    assert panel.model.currentData() == "v002"


def test_what_was_set_in_the_controls_of_the_layer_stays(opened, viewer, qtbot):
    from app.napari_plugin.segment_panel import SegmentPanel

    opened.labels.opacity = 0.3
    panel = SegmentPanel(viewer)
    qtbot.addWidget(panel)
    assert opened.labels.opacity == 0.3 and panel.opacity.value == 30
    opened.labels.opacity, opened.labels.contour = 0.25, 2
    assert panel.opacity.value == 25 and panel.outline.isChecked()
    opened.open_image("pair-0")
    qtbot.waitUntil(lambda: opened.open.name == "pair-0", **WAIT)
    assert (opened.labels.opacity, opened.labels.contour) == (0.25, 2)
    panel.opacity.move_to(80)
    panel.outline.setChecked(False)
    assert (opened.labels.opacity, opened.labels.contour) == (0.8, 0)
    viewer.layers.remove(opened.labels)
    opened.open_image("new-1")
    qtbot.waitUntil(lambda: opened.labels is not None, **WAIT)
    assert opened.labels.opacity == 0.8, "a new layer looks as the panel says"


def test_the_box_of_the_region_goes_out_with_its_layer(opened, viewer, qtbot):
    from app.napari_plugin.segment_panel import SegmentPanel

    panel = SegmentPanel(viewer)
    qtbot.addWidget(panel)
    panel.part_only.setChecked(True)
    viewer.layers.remove(opened.layer("roi"))
    assert not panel.part_only.isChecked()
    panel.part_only.setChecked(True)
    opened.close_image()
    assert not panel.part_only.isChecked()
    panel.part_only.click()  # without an image
    assert not panel.part_only.isChecked() and "No image is open" in panel.message.text()


def test_keys_go_through_the_uncertain_segments(with_model, viewer, qtbot, heard):
    from app.napari_plugin.keys import KEYS

    session = with_model
    session.open_image("new-0")
    qtbot.waitUntil(lambda: session.open is not None and session.open.found is not None, **WAIT)
    doubts = session.open.found.doubts
    assert doubts == sorted(doubts, key=lambda doubt: -doubt.uncertainty) and len(doubts) > 1
    KEYS["Shift-E"](session)
    centre = np.array(viewer.camera.center[-2:]) / 0.02
    assert np.allclose(centre, (doubts[0].row, doubts[0].col), atol=0.5)
    KEYS["Shift-W"](session)
    assert session.open.at_doubt == len(doubts) - 1
    assert any("uncertainty" in text for text, _ in heard)
    assert {"Shift-N", "Shift-A", "Shift-E", "Shift-W"} <= {str(key).replace("+", "-") for key in viewer.keymap}


def test_keys_pressed_in_the_window_jump_between_segments(with_model, viewer, qtbot):
    from qtpy.QtCore import Qt

    session = with_model
    session.open_image("new-0")
    qtbot.waitUntil(lambda: session.open is not None and session.open.found is not None, **WAIT)
    window, shift = viewer.window._qt_viewer, Qt.KeyboardModifier.ShiftModifier
    for key, place in ((Qt.Key.Key_E, 0), (Qt.Key.Key_E, 1), (Qt.Key.Key_W, 0)):
        qtbot.keyClick(window, key, shift)
        assert session.open.at_doubt == place
        doubt = session.open.found.doubts[place]
        camera = getattr(viewer, "scene", viewer).camera
        assert np.allclose(np.array(camera.center[-2:]) / 0.02, (doubt.row, doubt.col), atol=0.5)
        assert np.allclose(session.layer("here").data, [(doubt.row, doubt.col)])
        assert viewer.layers.selection.active is session.labels
    session.open_image("new-1")
    qtbot.waitUntil(lambda: session.open.name == "new-1" and session.busy == 0, **WAIT)
    assert len(session.layer("here").data) == 0


def test_segmenting_leaves_torch_out_of_the_process_of_the_window(tiny, tiny_segmenter):
    tiny.add_model(tiny_segmenter)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "QT_QPA_PLATFORM": "offscreen"}
    command = [sys.executable, "-c", SEGMENTS, str(tiny.project.path), str(tiny.files[0])]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "torch False" in done.stdout, done.stderr


# --- correct


def use(panel, session, qtbot, tool):
    """One tool of the panel at a fixed place; returns the mask before."""
    before = session.mask()
    branch = np.argwhere(before)[len(np.argwhere(before)) // 2]
    if tool in ("specks", "spurs"):
        panel.speck.setValue(10_000)
        panel.spur.setValue(60)
        (panel.specks_button if tool == "specks" else panel.spurs_button).click()
    elif tool == "brush":
        paint_square(session)
    else:
        panel.diameter.setValue(7)
        panel.take(tool)
        if tool == "snap":
            panel.stroke(np.array([[10.0, 10.0], [30.0, 20.0], [50.0, 50.0]]))
        elif tool == "bridge":
            panel.click((5.0, 5.0))
            panel.click((5.0, 55.0))
        else:
            panel.click(tuple(branch))
    qtbot.waitUntil(lambda: session.busy == 0 and not np.array_equal(session.mask(), before), **WAIT)
    return before


@pytest.mark.parametrize("tool", ["bridge", "cut", "calibre", "snap", "specks", "spurs", "brush"])
def test_each_tool_is_one_undo_step_that_restores_exactly(opened, viewer, qtbot, tool):
    from app.napari_plugin.correct_panel import CorrectPanel

    panel = CorrectPanel(viewer)
    qtbot.addWidget(panel)
    before = use(panel, opened, qtbot, tool)
    after = opened.mask()
    panel.undo_button.click()
    assert np.array_equal(opened.mask(), before)
    panel.redo_button.click()
    assert np.array_equal(opened.mask(), after)


def test_a_row_of_corrections_is_undone_and_redone_step_by_step(opened, viewer, qtbot):
    from app.napari_plugin.correct_panel import CorrectPanel

    panel = CorrectPanel(viewer)
    qtbot.addWidget(panel)
    states = [use(panel, opened, qtbot, tool) for tool in ("brush", "bridge", "calibre", "cut", "snap", "specks")]
    states.append(opened.mask())
    for before in states[-2::-1]:
        panel.undo_button.click()
        assert np.array_equal(opened.mask(), before)
    panel.undo_button.click()  # nothing is left to undo
    assert np.array_equal(opened.mask(), states[0])
    for after in states[1:]:
        panel.redo_button.click()
        assert np.array_equal(opened.mask(), after)


def test_a_click_beside_every_vessel_says_so_and_changes_nothing(opened, viewer, qtbot):
    from app.napari_plugin.correct_panel import CorrectPanel

    panel = CorrectPanel(viewer)
    qtbot.addWidget(panel)
    opened.labels.fill((0, 0), 0)
    opened.labels.data[:] = 0
    panel.take("cut")
    panel.click((30, 30))
    qtbot.waitUntil(lambda: "no vessel" in panel.message.text(), **WAIT)
    panel.take("calibre")
    panel.guarded(panel.click)((30, 30))
    assert "width" in panel.message.text()


def test_clicks_and_strokes_of_the_mouse_reach_the_tool(opened, viewer, qtbot):
    from app.napari_plugin.mouse import Pointer

    clicks, strokes = [], []
    pointer = Pointer(opened.labels, on_click=clicks.append, on_stroke=strokes.append)
    assert opened.labels.mode == "pan_zoom" and not opened.labels.mouse_pan
    drag(opened.labels, [(0.2, 0.4)])
    drag(opened.labels, [(0.2, 0.4), (0.4, 0.4), (0.8, 0.6)], on_screen=[(20, 10), (20, 20), (30, 40)])
    assert np.allclose(clicks, [(10, 20)]) and np.allclose(strokes[0], [(10, 20), (20, 20), (40, 30)])
    pointer.let_go()
    assert opened.labels.mouse_pan
    assert not any("Pointer" in repr(callback) for callback in opened.labels.mouse_drag_callbacks)


def drag(layer, places, *, on_screen=((0, 0),), button=1):
    """As napari drives a callback: press, moves, release; False when it did not care for the press."""
    event = SimpleNamespace(type="mouse_press", position=places[0], pos=np.array(on_screen[0]), button=button)
    gestures = [callback(layer, event) for callback in layer.mouse_drag_callbacks if "Pointer" in repr(callback)]
    for gesture in gestures:
        if next(gesture, "over") == "over":
            return False
        for place, pixel in zip(places[1:], on_screen[1:], strict=True):
            event.type, event.position, event.pos = "mouse_move", place, np.array(pixel)
            next(gesture)
        event.type = "mouse_release"
        with pytest.raises(StopIteration):
            next(gesture)
    return bool(gestures)


def test_a_hand_that_trembles_clicks_on_a_large_image_too(viewer):
    from app.napari_plugin.mouse import Pointer

    layer = viewer.add_labels(np.zeros((2336, 3504), np.uint8))
    clicks, strokes = [], []
    pointer = Pointer(layer, on_click=clicks.append, on_stroke=strokes.append)
    drag(layer, [(1000.0, 1000.0), (1006.0, 1000.0)], on_screen=[(300, 300), (300, 302)])
    assert clicks == [(1000, 1000)] and not strokes
    pointer.let_go()


def test_a_drag_that_moves_the_picture_is_no_click(viewer):
    from app.napari_plugin.mouse import Pointer

    layer = viewer.add_labels(np.zeros((64, 64), np.uint8))
    clicks = []
    pointer = Pointer(layer, on_click=clicks.append)
    # The picture follows the hand, which so stays at its pixel.
    drag(layer, [(30.0, 30.0), (30.0, 30.2), (30.0, 30.0)], on_screen=[(300, 300), (330, 300), (300, 300)])
    assert not clicks
    pointer.let_go()


def test_other_buttons_are_not_for_the_tool(viewer):
    from app.napari_plugin.mouse import Pointer

    layer = viewer.add_labels(np.zeros((64, 64), np.uint8))
    clicks = []
    pointer = Pointer(layer, on_click=clicks.append)
    assert not drag(layer, [(5.0, 5.0)], button=2) and not drag(layer, [(5.0, 5.0)], button=3)
    layer.mode = "paint"
    assert not drag(layer, [(5.0, 5.0)])
    layer.mode = "pan_zoom"
    assert not clicks and drag(layer, [(5.0, 5.0)]) and clicks == [(5, 5)]
    pointer.let_go()


@pytest.mark.parametrize("tool", ["cut", "snap"])
def test_the_brush_of_napari_puts_the_tool_down(opened, viewer, qtbot, tool):
    from app.napari_plugin.correct_panel import CorrectPanel

    panel = CorrectPanel(viewer)
    qtbot.addWidget(panel)
    panel.take(tool)
    opened.labels.mode = "paint"
    assert not panel.tools[tool].isChecked() and panel.help.text() == ""
    assert not drag(opened.labels, [(0.2, 0.4)])
    assert not opened.labels.mouse_pan, "a stroke of the brush must not move the picture"
    panel.take(tool)
    assert opened.labels.mode == "pan_zoom" and panel.tools[tool].isChecked()


def test_two_tools_are_not_in_hand_at_once(opened, viewer, qtbot):
    from app.napari_plugin.correct_panel import CorrectPanel

    panel = CorrectPanel(viewer)
    qtbot.addWidget(panel)
    panel.tools["cut"].click()
    panel.tools["bridge"].click()
    assert [name for name, button in panel.tools.items() if button.isChecked()] == ["bridge"]
    panel.modes["paint"].click()
    assert opened.labels.mode == "paint" and not any(button.isChecked() for button in panel.tools.values())


# --- measurements


def test_measure_panel_follows_corrections_and_writes_csv(opened, viewer, qtbot, tmp_path):
    from app.napari_plugin.measure_panel import MeasurePanel

    panel = MeasurePanel(viewer)
    qtbot.addWidget(panel)
    qtbot.waitUntil(lambda: bool(panel.measures), **WAIT)
    density = panel.measures[0].value
    assert density == pytest.approx(100 * opened.mask().mean())
    assert "millimetres" in panel.status.text()
    panel.colour.setCurrentIndex(panel.colour.findData("calibre"))
    qtbot.waitUntil(lambda: opened.layer("centreline") is not None, **WAIT)
    opened.labels.fill((0, 0), 1)
    qtbot.waitUntil(lambda: panel.measures[0].value > density + 5, **WAIT)
    target = panel.save(tmp_path / "table")
    assert target.suffix == ".csv" and "Vessel density" in target.read_text(encoding="utf-8-sig")
    panel.colour.setCurrentIndex(0)
    qtbot.waitUntil(lambda: opened.layer("centreline") is None, **WAIT)


def test_measurements_follow_the_region_of_interest(opened, viewer, qtbot):
    from app.napari_plugin.measure_panel import MeasurePanel

    panel = MeasurePanel(viewer)
    qtbot.addWidget(panel)
    qtbot.waitUntil(lambda: bool(panel.measures), **WAIT)
    panel.part_only.setChecked(True)
    assert not panel.measures and panel.table.rowCount() == 0 and not panel.csv_button.isEnabled()
    assert "drag a rectangle" in panel.message.text()
    region = opened.layer("roi")

    def density(rows, cols):
        return pytest.approx(100 * opened.mask()[rows, cols].mean())

    region.add_rectangles([np.array([[8, 8], [8, 40], [40, 40], [40, 8]])])
    qtbot.waitUntil(lambda: bool(panel.measures), **WAIT)
    assert panel.measures[0].value == density(slice(8, 41), slice(8, 41)) and "region" in panel.status.text()
    region.data = [np.array([[20, 20], [20, 60], [60, 60], [60, 20]])]
    qtbot.waitUntil(lambda: panel.measures[0].value == density(slice(20, 61), slice(20, 61)), **WAIT)
    opened.drop_layer("roi")
    qtbot.waitUntil(lambda: "whole" in panel.status.text(), **WAIT)
    assert not panel.part_only.isChecked() and panel.measures[0].value == density(slice(None), slice(None))


def test_measure_panel_measures_other_layers_too(viewer, qtbot, tmp_path):
    """Also without a project: such as masks that another program made."""
    from app.napari_plugin.measure_panel import MeasurePanel

    panel = MeasurePanel(viewer)
    qtbot.addWidget(panel)
    mask = make_pair("x", size=SIDE, seed=4).mask
    viewer.add_labels(mask.astype(np.int32) * 7, name="theirs", scale=(20, 20), units=("um", "um"))
    viewer.add_labels(np.zeros((2, 8, 8), np.int32), name="a stack")
    assert [panel.source.itemText(at) for at in range(panel.source.count())][1:] == ["theirs"]
    panel.source.setCurrentIndex(1)
    qtbot.waitUntil(lambda: bool(panel.measures), **WAIT)
    assert panel.measures[0].value == pytest.approx(100 * mask.mean())
    assert "theirs" in panel.status.text() and "millimetres" in panel.status.text()
    calibre = next(measure for measure in panel.measures if measure.key == "calibre")
    assert calibre.unit == "mm" and calibre.value < 0.3
    viewer.layers["theirs"].fill((0, 0), 1)
    now = 100 * np.mean(viewer.layers["theirs"].data != 0)
    assert now > 100 * mask.mean()
    qtbot.waitUntil(lambda: panel.measures[0].value == pytest.approx(now), **WAIT)
    assert "theirs" in panel.save(tmp_path / "table.csv").read_text(encoding="utf-8-sig")
    viewer.layers.remove("theirs")
    qtbot.waitUntil(lambda: not panel.measures, **WAIT)


# --- saving


def test_corrections_are_saved_by_themselves(opened, qtbot, monkeypatch):
    monkeypatch.setattr("app.napari_plugin.preferences.autosave_seconds", lambda: 0.2)
    paint_square(opened)
    painted = opened.mask()
    qtbot.waitUntil(lambda: np.array_equal(opened.queue.mask("new-0"), painted), **WAIT)
    assert opened.queue.entry("new-0").status is Status.CORRECTED


def test_corrections_are_saved_once_in_an_interval(opened, qtbot, monkeypatch):
    """Not at every stroke, and all that was painted meanwhile."""
    from app.napari_plugin.image_queue import ImageQueue

    monkeypatch.setattr("app.napari_plugin.preferences.autosave_seconds", lambda: 1.5)
    writes = []
    save = ImageQueue.save_mask
    monkeypatch.setattr(ImageQueue, "save_mask", lambda *args: (writes.append(time.monotonic()), save(*args)))
    opened.save_now()
    started = time.monotonic()
    while time.monotonic() - started < 5:
        paint_square(opened, *np.random.default_rng(len(writes)).integers(5, 60, 2))
        qtbot.wait(50)
    painted = opened.mask()
    qtbot.waitUntil(lambda: np.array_equal(opened.queue.mask("new-0"), painted), **WAIT)
    assert 2 <= len(writes) <= 5
    assert all(later - earlier > 1.3 for earlier, later in itertools.pairwise(writes))


def test_the_autosave_interval_comes_from_the_preferences(npe2pm):
    if not hasattr(pytest.importorskip("napari.settings"), "get_plugin_settings"):
        pytest.skip("this napari has no page of Preferences for plugins")

    from app.napari_plugin import preferences
    from tests.app.napari_plugin.test_files import MANIFEST

    with npe2pm.tmp_plugin(manifest=str(MANIFEST)):
        assert preferences.autosave_seconds() == preferences.AUTOSAVE_SECONDS


def test_a_list_that_cannot_be_written_is_said_once_and_masks_are_saved_all_the_same(opened, qtbot, monkeypatch, heard):
    from app.napari_plugin.image_queue import ImageQueue

    monkeypatch.setattr("app.napari_plugin.preferences.autosave_seconds", lambda: 0.0)
    opened.queue.update("new-0", status=Status.APPROVED)
    with monkeypatch.context() as patch:
        patch.setattr(ImageQueue, "update", lambda *_, **__: (_ for _ in ()).throw(OSError("the disk is full")))
        paint_square(opened)
        painted = opened.mask()
        for _ in range(3):
            opened._look_by_timer()
        qtbot.waitUntil(lambda: np.array_equal(opened.queue.mask("new-0"), painted), **WAIT)
    assert len([text for text, level in heard if level == "error"]) == 1
    opened._look_by_timer()
    assert opened.queue.entry("new-0").status is Status.CORRECTED, "an approval does not stay on what was painted since"


def test_turning_to_another_image_saves_and_brings_back(opened, qtbot):
    paint_square(opened)
    painted = opened.mask()
    opened.open_image("pair-0")
    qtbot.waitUntil(lambda: opened.open is not None and opened.open.name == "pair-0", **WAIT)
    assert np.array_equal(opened.mask(), opened.project.support_pair("pair-0").mask)
    opened.open_image("new-0")
    qtbot.waitUntil(lambda: opened.open is not None and opened.open.name == "new-0", **WAIT)
    assert np.array_equal(opened.mask(), painted)


def test_closing_the_window_saves(opened, qtbot):
    from qtpy.QtCore import QEvent
    from qtpy.QtWidgets import QApplication, QMainWindow

    from app.napari_plugin.correct_panel import CorrectPanel

    window = QMainWindow()
    qtbot.addWidget(window)
    panel = CorrectPanel(opened.viewer)
    window.setCentralWidget(panel)
    window.show()
    paint_square(opened)
    painted = opened.mask()
    QApplication.sendEvent(window, QEvent(QEvent.Type.Close))
    assert np.array_equal(opened.queue.mask("new-0"), painted)


def test_a_folder_that_cannot_be_written_is_said_and_nothing_is_lost(opened, heard, monkeypatch, qtbot):
    from univg.errors import InputError

    def full(*_):
        raise InputError("Cannot write here: disk full")

    monkeypatch.setattr("app.napari_plugin.image_queue.write_mask", full)
    paint_square(opened)
    painted = opened.mask()
    assert not opened.save_now()
    assert ("Cannot write here: disk full.", "error") in heard
    with pytest.raises(InputError, match="stays open"):
        opened.use_project(opened.project)
    assert np.array_equal(opened.mask(), painted) and opened.open.name == "new-0"
    opened.open_image("new-1")
    idle(opened, qtbot)
    assert np.array_equal(opened.mask(), painted) and opened.open.name == "new-0"
    monkeypatch.undo()
    opened.close_image()
    assert np.array_equal(opened.queue.mask("new-0"), painted)


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_errors_can_be_read_on_both_themes(viewer, qtbot, theme):
    from napari.utils.theme import get_theme

    from app.napari_plugin.parts import Panel

    viewer.theme = theme
    panel = Panel(viewer)
    qtbot.addWidget(panel)
    panel.say("Something is wrong", "error")
    ground, colour = (
        _luminance(rgb)
        for rgb in (get_theme(theme).background.as_rgb_tuple(), _rgb(panel.message.styleSheet().partition("#")[2][:6]))
    )
    low, high = sorted((ground, colour))
    assert (high + 0.05) / (low + 0.05) >= 4.5


def _rgb(hexadecimal):
    return tuple(bytes.fromhex(hexadecimal))


def _luminance(rgb):
    """As WCAG 2 defines it."""
    channels = np.array(rgb[:3]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def test_editing_an_approved_image_takes_the_approval_back(opened):
    opened.approve()
    assert opened.queue.entry("new-0").status is Status.APPROVED
    paint_square(opened)
    opened.look()
    assert opened.queue.entry("new-0").status is Status.CORRECTED


def test_a_last_stroke_takes_the_approval_back_too(opened, qtbot):
    opened.approve()
    opened._timer.stop()  # the next image is opened before the next look
    paint_square(opened)
    opened.open_image("new-1")
    qtbot.waitUntil(lambda: opened.open is not None and opened.open.name == "new-1", **WAIT)
    assert opened.queue.entry("new-0").status is Status.CORRECTED


@pytest.mark.parametrize("turn_away", [True, False])
def test_a_mask_painted_in_the_browser_while_its_image_is_open_is_not_replaced_unasked(opened, qtbot, turn_away):
    opened.open_image("pair-0")
    qtbot.waitUntil(lambda: opened.open is not None and opened.open.name == "pair-0", **WAIT)
    theirs = make_pair("x", size=SIDE, seed=30).mask
    opened.project.replace_support_mask("pair-0", theirs)
    paint_square(opened)
    if turn_away:
        opened.open_image("new-0")
        qtbot.waitUntil(lambda: opened.open is not None and opened.open.name == "new-0", **WAIT)
        opened.queue.update("pair-0", status=Status.APPROVED)
    else:
        opened.approve()
    assert opened.queue.approved_into_support().painted_since == ["pair-0"]
    assert np.array_equal(opened.project.support_pair("pair-0").mask, theirs)


def test_a_stroke_is_looked_at_when_the_hand_rests(opened, monkeypatch):
    class Event:
        type, position = "mouse_press", (5.0, 5.0)

    monkeypatch.setattr("app.napari_plugin.session._HAND_RESTS_S", 60.0)
    looked = []
    opened.mask_changed.connect(lambda: looked.append(True))
    gestures = [callback for callback in opened.labels.mouse_drag_callbacks if callback == opened._dragged]
    assert len(gestures) == 1, "once, whatever was opened before"
    (drag,) = (callback(opened.labels, Event) for callback in gestures)
    next(drag)
    Event.type = "mouse_move"
    next(drag)
    paint_square(opened)
    opened.look()
    assert looked == []
    monkeypatch.setattr("app.napari_plugin.preferences.autosave_seconds", lambda: 0.0)
    opened.look()
    assert looked == [True], "a long stroke is looked at, and saved, as often as any change"
    monkeypatch.undo()
    Event.type = "mouse_release"
    with pytest.raises(StopIteration):
        next(drag)
    opened.labels.undo()
    opened.look()
    assert looked == [True, True]


# --- commands


@pytest.mark.parametrize(
    "name",
    [
        "next_image",
        "approve",
        "next_doubt",
        "previous_doubt",
        "segment_image",
        "remove_specks",
        "prune_spurs",
        "save_mask",
    ],
)
def test_commands_act_on_the_image_on_screen(with_model, viewer, qtbot, name, npe2pm, monkeypatch):
    from tests.app.napari_plugin.test_files import MANIFEST

    session = with_model
    session.open_image("new-0")
    qtbot.waitUntil(lambda: session.open is not None and session.open.found is not None, **WAIT)
    errors = []
    monkeypatch.setattr("napari.utils.notifications.show_error", errors.append)
    first = session.open.at_doubt
    session.labels.data_setitem((np.array([1]), np.array([1])), 1)  # a speck
    with npe2pm.tmp_plugin(manifest=str(MANIFEST)):
        npe2pm.commands.execute(f"univg.{name}", args=(viewer,))
    idle(session, qtbot)
    assert errors == []
    if name == "next_image":
        qtbot.waitUntil(lambda: session.open is not None and session.open.name != "new-0", **WAIT)
        idle(session, qtbot)
    elif name == "approve":
        assert session.queue.entry("new-0").status is Status.APPROVED
    elif name in ("next_doubt", "previous_doubt"):
        assert session.open.at_doubt != first
    elif name in ("segment_image", "remove_specks"):
        qtbot.waitUntil(lambda: not session.mask()[1, 1], **WAIT)
    elif name == "save_mask":
        assert session.queue.mask("new-0")[1, 1]


def test_a_command_without_an_image_says_so(session, viewer, monkeypatch):
    from app.napari_plugin import commands

    errors = []
    monkeypatch.setattr("napari.utils.notifications.show_error", errors.append)
    commands.approve(viewer)
    assert "No image is open" in errors[0]


def test_panels_open_from_the_menu_of_napari(viewer, tiny, npe2pm):
    """As napari makes them: through the manifest, with a proxy of the viewer."""
    from app.napari_plugin.session import session_of
    from tests.app.napari_plugin.test_files import MANIFEST

    with npe2pm.tmp_plugin(manifest=str(MANIFEST)):
        for name in ("Project", "Trees", "Segment", "Correct", "Retrain", "Measurements"):
            _, panel = viewer.window.add_plugin_dock_widget("univg", name)
            assert panel.session is session_of(viewer)


def test_a_closed_panel_neither_listens_nor_works(session, viewer, qtbot):
    from qtpy.compat import isalive

    from app.napari_plugin.measure_panel import MeasurePanel
    from app.napari_plugin.trees_panel import TreesPanel

    panels = [TreesPanel(viewer), MeasurePanel(viewer)]
    for panel in panels:
        viewer.window.add_dock_widget(panel)
    panels[0].draw("roots")
    for panel in panels:
        viewer.window.remove_dock_widget(panel)
    qtbot.waitUntil(lambda: not any(isalive(panel) for panel in panels), **WAIT)
    qtbot.waitUntil(lambda: not panels[0]._newest.busy, **WAIT)
    session.drop_layer("tree")
    session.layer("roots").data = np.array([[30.0, 20.0]])
    session.open_image("pair-0")
    qtbot.waitUntil(lambda: session.open is not None and session.busy == 0, **WAIT)
    qtbot.wait(500)
    assert session.layer("tree") is None

    again = TreesPanel(viewer)
    qtbot.addWidget(again)
    qtbot.waitUntil(lambda: session.layer("tree") is not None and not again._newest.busy, **WAIT)


def test_a_closed_panel_puts_its_tool_down(opened, viewer):
    from app.napari_plugin.correct_panel import CorrectPanel

    panel = CorrectPanel(viewer)
    viewer.window.add_dock_widget(panel)
    before = len(opened.labels.mouse_drag_callbacks)
    panel.take("snap")
    assert len(opened.labels.mouse_drag_callbacks) > before and not opened.labels.mouse_pan
    viewer.window.remove_dock_widget(panel)
    assert len(opened.labels.mouse_drag_callbacks) == before and opened.labels.mouse_pan


def test_a_reopened_trees_panel_follows_what_was_drawn_before(session, viewer, qtbot):
    from app.napari_plugin.trees_panel import TreesPanel

    first = TreesPanel(viewer)
    viewer.window.add_dock_widget(first)
    first.draw("roots")
    viewer.window.remove_dock_widget(first)
    again = TreesPanel(viewer)
    qtbot.addWidget(again)
    session.layer("roots").data = np.array([[55.0, 20.0]])
    qtbot.waitUntil(lambda: again.scene.roots == ((55.0, 20.0),) and not again._newest.busy, **WAIT)


def test_written_masks_are_read_by_the_library(opened):
    opened.save_now()
    opened.approve()
    assert np.array_equal(read_mask(opened.queue.folder / "masks" / "new-0.png"), make_pair("x", size=64, seed=10).mask)


def _checked():
    from qtpy.QtCore import Qt

    return Qt.CheckState.Checked
