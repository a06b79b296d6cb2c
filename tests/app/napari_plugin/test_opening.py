"""Images that are opened, looked for and taken out of the list, one upon another."""

import threading

import numpy as np
import pytest

from app import texts
from app.napari_plugin.image_queue import ImageQueue, Status
from tests.app.napari_plugin.conftest import SIDE, paint_square
from tests.conftest import make_pair
from univg.errors import InputError
from univg.io import write_image
from univg.types import Modality
from univg.workflow.project import Project

pytest.importorskip("napari")
pytestmark = pytest.mark.gui

WAIT = {"timeout": 90_000}


@pytest.fixture
def gates(monkeypatch):
    """For each load in its turn, an event that it waits for once its mask is read; others do not wait."""
    events: list[threading.Event] = []
    waiting = iter(events)
    spacing_mm = ImageQueue.spacing_mm

    def read_last(queue, name):
        gate = next(waiting, None)
        assert gate is None or gate.wait(60)
        return spacing_mm(queue, name)

    monkeypatch.setattr(ImageQueue, "spacing_mm", read_last)
    yield events
    for event in events:
        event.set()


def idle(session, qtbot):
    qtbot.waitUntil(lambda: session.busy == 0, **WAIT)


def approve_others(session, *names):
    for name in names:
        session.queue.save_mask(name, np.ones((SIDE, SIDE), bool))
        session.queue.update(name, status=Status.APPROVED)


# --- one upon another


def test_an_image_asked_for_twice_keeps_what_is_painted_before_the_second_load_would_end(opened, qtbot, gates):
    gates += [threading.Event(), threading.Event()]
    opened.open_image("new-1")
    opened.open_image("new-1")
    gates[0].set()
    qtbot.waitUntil(lambda: opened.open.name == "new-1", **WAIT)
    paint_square(opened)
    opened.look()
    gates[1].set()
    idle(opened, qtbot)
    paint_square(opened, 10, 10)
    opened.save_now()
    saved = opened.queue.mask("new-1")
    assert saved[30, 30] and saved[10, 10]
    opened.labels.undo()
    opened.labels.undo()
    assert not opened.mask().any()


def test_the_image_on_screen_is_not_loaded_again_over_what_is_painted(opened, qtbot, gates):
    gates += [threading.Event()]
    opened.open_image("new-0")
    paint_square(opened)
    painted = opened.mask()
    gates[0].set()
    idle(opened, qtbot)
    assert np.array_equal(opened.mask(), painted)


def test_asking_for_the_image_on_screen_takes_back_the_wish_for_another(opened, qtbot, gates):
    gates += [threading.Event()]
    paint_square(opened)
    opened.open_image("new-1")
    opened.open_image("new-0")
    gates[0].set()
    idle(opened, qtbot)
    assert opened.open.name == "new-0" and opened.mask()[30, 30]
    assert np.array_equal(opened.open.saved, opened.mask()), "what was painted was saved all the same"


def test_a_layer_that_comes_back_while_its_image_loads_keeps_its_strokes(opened, viewer, qtbot, gates):
    gates += [threading.Event()]
    layer = opened.labels
    viewer.layers.remove(layer)
    opened.open_image("new-0")
    viewer.layers.append(layer)
    paint_square(opened)
    painted = opened.mask()
    gates[0].set()
    idle(opened, qtbot)
    assert np.array_equal(opened.mask(), painted)


def test_a_load_that_failed_can_be_repeated(opened, tiny, qtbot, heard):
    aside = tiny.files[1].rename(tiny.files[1].with_suffix(".aside"))
    opened.open_image("new-1")
    idle(opened, qtbot)
    assert any("“new-1” is not there" in text and "Add it from where it is now" in text for text, _ in heard)
    aside.rename(tiny.files[1])
    opened.open_image("new-1")
    idle(opened, qtbot)
    assert opened.open.name == "new-1"


def test_a_late_image_of_another_project_is_not_shown(session, qtbot, tiny, tmp_path, gates):
    other = Project.create(tmp_path / "other", modality=Modality.BRAIN_DSA, working_size=SIDE)
    file = tmp_path / "theirs" / "new-0.png"
    file.parent.mkdir()
    write_image(file, make_pair("x", size=SIDE, seed=99).image)
    gates += [threading.Event()]
    session.open_image("new-0")
    session.use_project(other)
    session.add_images([file])
    session.open_image("new-0")
    qtbot.waitUntil(lambda: session.open is not None, **WAIT)
    theirs = session.queue.image("new-0")
    assert np.array_equal(session.open.image, theirs)
    gates[0].set()
    idle(session, qtbot)
    assert np.array_equal(session.open.image, theirs)


# --- what is said


def test_an_error_stays_when_other_work_goes_on_and_ends(opened, viewer, qtbot):
    from app.napari_plugin.parts import Panel

    panel = Panel(viewer)
    qtbot.addWidget(panel)
    going_on, ending = threading.Event(), threading.Event()

    def fail():
        raise InputError("The file cannot be read")

    opened._work(lambda: going_on.wait(60), lambda _: opened.correct(lambda mask: ending.wait(60) and ~mask))
    assert panel.message.text() == texts.NAPARI_WORKING
    opened._work(fail, print)
    qtbot.waitUntil(lambda: "cannot be read" in panel.message.text(), **WAIT)
    going_on.set()
    qtbot.wait(100)
    ending.set()
    idle(opened, qtbot)
    assert "cannot be read" in panel.message.text()
    opened.correct(lambda mask: ~mask)
    assert panel.message.text() == texts.NAPARI_WORKING
    idle(opened, qtbot)
    assert panel.message.text() == ""


# --- the next one


def test_the_last_image_is_not_called_approved(opened):
    approve_others(opened, "new-1", "new-2")
    with pytest.raises(InputError, match="“new-0” is the only image left"):
        opened.open_next()
    opened.approve()
    with pytest.raises(InputError, match="All images are approved"):
        opened.open_next()


@pytest.mark.parametrize("painted", [False, True])
def test_the_new_model_looks_again_at_the_only_image_left(
    opened, viewer, qtbot, tiny, tiny_segmenter, monkeypatch, painted
):
    from app.napari_plugin.retrain_panel import RetrainPanel

    old, new = tiny.add_model(tiny_segmenter), tiny.add_model(tiny_segmenter)
    approve_others(opened, "new-1", "new-2")
    opened.queue.update("new-0", status=Status.SEGMENTED)
    panel = RetrainPanel(viewer)
    qtbot.addWidget(panel)
    monkeypatch.setattr(panel, "_versions", lambda: (old, new))
    panel.promote_button.setEnabled(True)
    if painted:
        paint_square(opened)
    before = opened.mask()
    panel.promote_button.click()
    qtbot.waitUntil(lambda: opened.open.found is not None, **WAIT)
    idle(opened, qtbot)
    assert opened.open.found.version == new
    assert np.array_equal(opened.mask(), before) is painted, "a correction is not replaced unasked"
    assert panel.message.text() == texts.SEG_USED.format(version=new)


# --- out of the list and back


def test_an_image_is_taken_off_the_screen_and_its_strokes_come_back_with_it(opened, viewer, qtbot, tiny):
    from app.napari_plugin.project_panel import ProjectPanel

    panel = ProjectPanel(viewer)
    qtbot.addWidget(panel)
    paint_square(opened)
    painted = opened.mask()
    panel.table.setCurrentCell(0, 0)
    panel.take_out_button.click()
    assert opened.open is None and opened.labels is None
    assert "“new-0” is out of the list" in panel.message.text()
    assert [panel.table.item(row, 0).text() for row in range(panel.table.rowCount())][:2] == ["new-1", "new-2"]
    assert tiny.files[0].is_file()
    opened.add_images(tiny.files)
    opened.open_image("new-0")
    idle(opened, qtbot)
    assert np.array_equal(opened.mask(), painted) and opened.queue.entry("new-0").status is Status.CORRECTED


def test_strokes_that_cannot_be_saved_keep_the_image_in_the_list(opened, monkeypatch):
    def full(*_):
        raise InputError("Cannot write here: disk full")

    monkeypatch.setattr("app.napari_plugin.image_queue.write_mask", full)
    paint_square(opened)
    painted = opened.mask()
    with pytest.raises(InputError, match="stays open"):
        opened.take_out("new-0")
    assert opened.queue.entry("new-0") and np.array_equal(opened.mask(), painted)
    monkeypatch.undo()


def test_an_image_that_is_taken_out_while_it_loads_is_not_shown(opened, qtbot, gates):
    gates += [threading.Event()]
    opened.open_image("new-1")
    opened.take_out("new-1")
    gates[0].set()
    idle(opened, qtbot)
    assert opened.open.name == "new-0"
