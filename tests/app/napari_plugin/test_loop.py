"""The whole loop, and what a killed process loses."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.napari_plugin.image_queue import ImageQueue, Status
from tests.app.napari_plugin.conftest import SIDE
from tests.conftest import make_pair
from univg.io import read_json
from univg.workflow.job_records import JobRecord, write_record
from univg.workflow.jobs import Job, JobState, list_jobs
from univg.workflow.model_versions import active_segmenter
from univg.workflow.project import Project

pytest.importorskip("napari")
pytestmark = pytest.mark.gui

ROOT = Path(__file__).resolve().parents[3]
WAIT = {"timeout": 120_000}


def test_segment_correct_retrain_promote_next(session, viewer, qtbot, tiny, tiny_segmenter):
    from app.napari_plugin.correct_panel import CorrectPanel
    from app.napari_plugin.retrain_panel import RetrainPanel
    from app.napari_plugin.segment_panel import SegmentPanel

    tiny.add_model(tiny_segmenter)
    correct, retrain, segment = CorrectPanel(viewer), RetrainPanel(viewer), SegmentPanel(viewer)
    for panel in (correct, retrain, segment):
        qtbot.addWidget(panel)

    # An image that never trains, approved with its true mask
    session.queue.hold_out("new-2", True)
    session.queue.save_mask("new-2", make_pair("x", size=SIDE, seed=12).mask)
    session.queue.update("new-2", status=Status.APPROVED)

    # Segment, correct by a script, approve
    session.open_image("new-0")
    qtbot.waitUntil(lambda: session.open is not None and session.open.found is not None, **WAIT)
    truth = make_pair("x", size=SIDE, seed=10).mask
    session.correct(lambda _mask: truth)
    qtbot.waitUntil(lambda: np.array_equal(session.mask(), truth), **WAIT)
    correct.approve_button.click()
    assert session.queue.entry("new-0").status is Status.APPROVED

    # Retrain: approved images join, the test image does not
    retrain.effort.setCurrentIndex(retrain.effort.findData("preview"))
    retrain.start_button.click()
    assert not retrain.start_button.isEnabled()
    qtbot.waitUntil(lambda: retrain.job is not None, **WAIT)
    assert tiny.project.support_names() == ["new-0", "pair-0", "pair-1"]
    assert session.queue.entry("new-2").frozen
    qtbot.waitUntil(lambda: retrain.job.state.finished, **WAIT)
    assert retrain.job.state is JobState.DONE, retrain.job.error
    assert retrain.curve.points_shown > 10

    # Old against new on the test image, promotion, and the next image by the new model
    qtbot.waitUntil(lambda: retrain.scores is not None, **WAIT)
    old, new = retrain.scores
    assert [score.image for score in old] == [score.image for score in new] == ["new-2"]
    assert "v002" in retrain.verdict.text() and retrain.table.rowCount() == 2
    in_use = active_segmenter(tiny.project).name  # as the job has settled it
    assert segment.model.currentData() == in_use and retrain.verdict.text().endswith(f" {in_use} is in use.")
    retrain.keep_button.click()
    assert active_segmenter(tiny.project).name == segment.model.currentData() == "v001"
    assert retrain.verdict.text().endswith(" v001 is in use.")
    qtbot.waitUntil(lambda: session.open is not None and session.open.name == "new-1", **WAIT)
    qtbot.waitUntil(lambda: session.busy == 0, **WAIT)
    retrain.promote_button.click()
    assert active_segmenter(tiny.project).name == segment.model.currentData() == "v002"

    card = read_json(active_segmenter(tiny.project) / "segmenter.json")["card"]
    assert set(card["support_sha256"]) == {
        f"{kind}/{n}.png" for kind in ("images", "masks") for n in ("new-0", "pair-0", "pair-1")
    }
    session.score_queue()
    qtbot.waitUntil(lambda: session.queue.entry("new-1").scored_by == "v002", **WAIT)


def test_a_job_started_elsewhere_is_found_watched_cancelled_and_resumed(session, viewer, qtbot, tiny):
    from app.napari_plugin.retrain_panel import RetrainPanel
    from univg.workflow.jobs import start_job

    job = start_job(tiny.project, "adapt", {"preset": "standard", "seed": 0, "device": "cpu"})
    panel = RetrainPanel(viewer)
    qtbot.addWidget(panel)
    assert panel.job.id == job.id and not panel.start_button.isEnabled()
    qtbot.waitUntil(lambda: panel._reports.latest is not None, **WAIT)
    panel.cancel_button.click()
    qtbot.waitUntil(lambda: panel.job.state is JobState.CANCELLED, **WAIT)
    panel.refresh()
    assert panel.resume_button.isEnabled()
    panel.resume_button.click()
    assert panel.job.attempt == 2 and not panel.job.state.finished
    panel.cancel_button.click()
    qtbot.waitUntil(lambda: panel.job.state.finished, **WAIT)


def test_jobs_started_elsewhere_meanwhile_are_found(session, viewer, qtbot, tiny, tiny_segmenter, monkeypatch):
    from app.napari_plugin.retrain_panel import RetrainPanel
    from app.napari_plugin.segment_panel import SegmentPanel
    from app.napari_plugin.tree_parts import ManyTrees

    monkeypatch.setattr("app.napari_plugin.job_watch.LOOK_MS", 50)
    panel, segment = RetrainPanel(viewer), SegmentPanel(viewer)
    trees = ManyTrees(session, lambda: None, lambda act: act)
    for each in (panel, segment, trees):
        qtbot.addWidget(each)
    tiny.add_model(tiny_segmenter)
    finished_job(tiny.project, "20260101-000000-adapt-0000", state=JobState.DONE, result={"segmenter": "v001"})
    qtbot.waitUntil(lambda: segment.model.currentData() == "v001", **WAIT)
    assert panel.job.id == "20260101-000000-adapt-0000" and trees.job is None

    under_way = JobRecord("adapt", {}, "2026-01-01T00:00:00+00:00", state=JobState.RUNNING).worked_on_by(os.getpid())
    earlier = finished_job(tiny.project, "20250101-000000-adapt-0000", state=JobState.CANCELLED).folder
    write_record(earlier, under_way)
    qtbot.waitUntil(lambda: panel.job.folder == earlier and panel.cancel_button.isEnabled(), **WAIT)
    write_record(earlier, replace(under_way, state=JobState.CANCELLED))
    qtbot.waitUntil(lambda: panel.resume_button.isEnabled(), **WAIT)
    write_record(earlier, replace(under_way, attempt=2))
    qtbot.waitUntil(lambda: panel.job.attempt == 2 and panel.cancel_button.isEnabled(), **WAIT)

    finished_job(tiny.project, "20260101-000002-trees-0000", kind="trees", state=JobState.DONE)
    qtbot.waitUntil(lambda: trees.job is not None, **WAIT)
    assert trees.state.text() and panel.job.folder == earlier


def test_what_a_job_put_in_use_is_told_and_said(session, viewer, qtbot, tiny, tiny_segmenter, monkeypatch):
    from app.napari_plugin.models import Score
    from app.napari_plugin.retrain_panel import RetrainPanel
    from app.napari_plugin.segment_panel import SegmentPanel
    from univg.workflow.jobs import start_job
    from univg.workflow.model_versions import promote

    tiny.add_model(tiny_segmenter)
    segment, panel = SegmentPanel(viewer), RetrainPanel(viewer)
    for each in (segment, panel):
        qtbot.addWidget(each)
    panel._watch(start_job(tiny.project, "selftest", {"steps": 20, "seconds_per_step": 0.02}))
    tiny.add_model(tiny_segmenter)
    promote(tiny.project, "v002", why="better")
    assert segment.model.currentData() == "v001"
    qtbot.waitUntil(lambda: panel.job.state.finished, **WAIT)
    qtbot.waitUntil(lambda: segment.model.currentData() == "v002", **WAIT)

    monkeypatch.setattr(panel, "_versions", lambda: ("v001", "v002"))
    panel.scores = [Score("new-2", 0.8, 0.8)], [Score("new-2", 0.7, 0.7)]
    panel._show_scores("v001", "v002")
    assert "v001 is the safer one" in panel.verdict.text() and panel.verdict.text().endswith(" v002 is in use.")
    promote(tiny.project, "v001")
    session.model_changed.emit()
    assert panel.verdict.text().endswith(" v001 is in use.")


def test_a_run_that_waits_for_a_review_says_so_and_offers_to_go_on(session, viewer, qtbot, tiny):
    from app.napari_plugin.retrain_panel import RetrainPanel

    finished_job(tiny.project, "20260101-000000-adapt-0000", state=JobState.CANCELLED, waits_for="review")
    panel = RetrainPanel(viewer)
    qtbot.addWidget(panel)
    assert "wait for your review" in panel.progress_text.text()
    assert panel.resume_button.text() == "Go on" and panel.resume_button.isEnabled()
    panel._watch(finished_job(tiny.project, "20260101-000001-adapt-0000", state=JobState.CANCELLED))
    assert panel.resume_button.text() == "Resume" and "review" not in panel.progress_text.text()


def test_the_model_of_a_run_of_the_browser_is_compared_with_the_one_before(
    session, viewer, qtbot, tiny, tiny_segmenter
):
    from app.napari_plugin.retrain_panel import RetrainPanel

    for _ in range(2):
        tiny.add_model(tiny_segmenter)
    result = {"segmenter": "v002", "versions": {"before": "v001"}}
    finished_job(tiny.project, "20260101-000000-adapt-0000", state=JobState.DONE, result=result)
    panel = RetrainPanel(viewer)
    qtbot.addWidget(panel)
    assert panel._versions() == ("v001", "v002") and panel.keep_button.isEnabled()


def finished_job(project, job_id, *, kind="adapt", **record) -> Job:
    """Of the kind that the browser starts, as its folder tells of it."""
    folder = project.jobs_folder / job_id
    folder.mkdir()
    write_record(folder, JobRecord(kind, {}, "2026-01-01T00:00:00+00:00", **record))
    return Job.load(folder)


def test_what_is_left_out_of_a_training_is_said():
    from app.napari_plugin.image_queue import TakenIn
    from app.napari_plugin.retrain_panel import _taken_in_words

    said = _taken_in_words(TakenIn(["a"], ["b"], ["c", "d"]))
    assert "1 approved image" in said and "another image of that name: “b”." in said and "“c”, “d”." in said
    assert "Left out" not in _taken_in_words(TakenIn(["a"])) and "“" not in _taken_in_words(TakenIn(["a"]))


def test_nothing_approved_cannot_train(viewer, qtbot, tmp_path):
    from app.napari_plugin.retrain_panel import RetrainPanel
    from app.napari_plugin.session import session_of
    from univg.types import Modality

    session_of(viewer).use_project(Project.create(tmp_path / "empty", modality=Modality.OCTA))
    panel = RetrainPanel(viewer)
    qtbot.addWidget(panel)
    panel.start_button.click()
    qtbot.waitUntil(lambda: "No image is approved" in panel.message.text(), **WAIT)
    assert panel.start_button.isEnabled()
    assert list_jobs(session_of(viewer).project) == []


def test_retraining_beside_another_job_changes_nothing(session, viewer, qtbot, tiny):
    from app.napari_plugin.retrain_panel import RetrainPanel
    from univg.workflow.jobs import cancel_job, start_job, wait_for

    panel = RetrainPanel(viewer)
    qtbot.addWidget(panel)
    job = start_job(tiny.project, "selftest", {"steps": 4000, "seconds_per_step": 0.02})
    session.queue.save_mask("new-0", make_pair("x", size=SIDE, seed=10).mask)
    session.queue.update("new-0", status=Status.APPROVED)
    session.queue.hold_out("new-2", True)
    panel.start_button.click()
    qtbot.waitUntil(lambda: "already working" in panel.message.text(), **WAIT)
    assert "new-0" not in tiny.project.support_names() and not session.queue.entry("new-2").frozen
    wait_for(cancel_job(job), 60)


INTERVAL, LOOK, SLACK = 0.5, 0.4, 1.5  # seconds; the last one for a busy computer

KILLED = f"""
import os, sys, time
import numpy as np
import napari
from qtpy.QtWidgets import QApplication
from app.napari_plugin import preferences
from app.napari_plugin.session import session_of
from tests.app.napari_plugin.conftest import without_a_screen
from univg.workflow.project import Project

without_a_screen()
preferences.autosave_seconds = lambda: {INTERVAL}
viewer = napari.Viewer(show=False)
session = session_of(viewer)
session.use_project(Project.open(sys.argv[1]))
session.add_images([sys.argv[2]])
session.open_image("new-0")
stroke = 0
while True:
    until = time.monotonic() + 0.05
    while time.monotonic() < until:
        QApplication.processEvents()
        time.sleep(0.002)
    if session.labels is not None and stroke < {SIDE * SIDE}:
        session.labels.data_setitem((np.array([stroke // {SIDE}]), np.array([stroke % {SIDE}])), 1)
        print(stroke, time.monotonic(), flush=True)
        stroke += 1
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_a_process_killed_amid_strokes_loses_nothing_older_than_the_interval(tiny):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "QT_QPA_PLATFORM": "offscreen"}
    command = [sys.executable, "-c", KILLED, str(tiny.project.path), str(tiny.files[0])]
    process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    painted: list[tuple[int, float]] = []
    try:
        while not painted or painted[-1][1] - painted[0][1] < 4:
            line = process.stdout.readline()
            assert line, "the viewer ended"
            stroke, when = line.split()
            painted.append((int(stroke), float(when)))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    queue = ImageQueue(Project.open(tiny.project.path))
    mask = queue.mask("new-0")
    safe = [stroke for stroke, when in painted if when < painted[-1][1] - INTERVAL - LOOK - SLACK]
    assert len(safe) > 10
    assert mask.shape == (SIDE, SIDE) and mask.reshape(-1)[safe].all()
    assert not mask.reshape(-1)[len(painted) + 5 :].any()
    assert queue.entry("new-0").status is Status.CORRECTED
