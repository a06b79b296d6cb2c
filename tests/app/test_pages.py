"""What the pages are made of, without a browser."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.app.conftest import wait_until_it_answers
from tests.conftest import make_pair
from univg.errors import InputError, JobRunningError
from univg.io import read_provenance, write_image, write_json_atomic, write_mask
from univg.progress import ProgressEvent
from univg.workflow.job_records import JobState
from univg.workflow.project import Project
from univg.workflow.sample import sample_folder

gr = pytest.importorskip("gradio")

from app import texts  # noqa: E402
from app.csv_cells import harmless  # noqa: E402
from app.gradio_ui import (  # noqa: E402
    blocks,
    context,
    data,
    engine_jobs,
    errors,
    image_studio,
    images,
    job_watch,
    markup,
    mask_studio,
    masks,
    models,
    paint,
    pictures,
    plots,
    projects,
    segment,
    segment_board,
    segment_views,
    server,
    start,
    tree_view,
    versions,
)
from app.gradio_ui.files import Upload, check_uploads, match_uploads, usable_pairs  # noqa: E402
from app.gradio_ui.paint import painted_mask  # noqa: E402
from app.gradio_ui.segment_board import Board, Item, Run  # noqa: E402
from app.gradio_ui.state import MAX_SESSIONS, Sessions  # noqa: E402


def upload(name, folder=Path("nowhere")):
    return Upload(folder / name, name)


def test_masks_are_matched_by_stem_and_by_a_mask_ending():
    images = [upload("a.png"), upload("b.jpg"), upload("c.tif")]
    masks = [upload("a.png"), upload("b_mask.png"), upload("d.png")]
    matching = match_uploads(images, masks)
    assert [pair.name for pair in matching.pairs] == ["a", "b"]
    assert list(matching.unmasked) == ["c"]
    said = {finding.subject: finding.level for finding in matching.findings}
    assert said == {"b": "ok", "d.png": "warning"}


def test_second_file_of_a_name_is_refused_and_the_first_kept():
    matching = match_uploads([upload("a.png"), upload("a.jpg")], [upload("a.png")])
    assert len(matching.pairs) == 1
    assert [finding.level for finding in matching.findings] == ["error"]


@pytest.mark.parametrize("name", ["..png", "a\x07.png", ".png"])
def test_unusable_name_is_a_finding(name):
    assert match_uploads([upload(name)], []).findings[0].level == "error"


def test_folders_of_a_dropped_name_are_left_out():
    assert upload("../../etc/passwd.png").stem == "passwd"


def test_only_pairs_without_an_error_are_usable(tmp_path):
    mask = np.zeros((80, 80), bool)
    mask[20:25] = True
    image = np.arange(6400, dtype=np.uint8).reshape(80, 80)
    for name in ("good", "empty"):
        write_image(tmp_path / f"{name}.png", image)
        write_mask(tmp_path / f"{name}_mask.png", mask if name == "good" else np.zeros_like(mask))
    images = [upload(f"{name}.png", tmp_path) for name in ("good", "empty")]
    masks = [upload(f"{name}_mask.png", tmp_path) for name in ("good", "empty")]
    matching = match_uploads(images, masks)
    findings = check_uploads(matching, names_taken=["good"], grey_threshold=None)
    assert [pair.name for pair in usable_pairs(matching, findings)] == ["good"]
    assert findings[0].level == "error" and findings[0].subject == "empty"
    assert any(finding.message == texts.NAME_TAKEN for finding in findings)


def test_painted_mask_is_where_a_layer_is_more_than_half_opaque():
    layer = np.zeros((2, 3, 4), np.uint8)
    layer[0, :, 3] = (127, 128, 255)
    mask = painted_mask({"background": None, "layers": [layer], "composite": None})
    assert mask.tolist() == [[False, True, True], [False, False, False]]
    assert painted_mask({"layers": []}) is None


def test_names_of_files_are_escaped_everywhere():
    name = "<img src=x onerror=alert(1)>"
    board_row = markup.table([("Image", "")], [(name, "1")])
    problems = markup.problems_list([name])
    toast = errors.message(InputError(name, path=f"{name}.png", fix=name)).message
    for text in (board_row, problems, toast, markup.line(name), markup.empty_state(name, name)):
        assert "<img" not in text and "&lt;img" in text


def test_message_names_the_file_without_its_folders():
    error = InputError("The file is empty", path="/home/someone/secret/eye.png", fix="Export it again.")
    message = errors.message(error).message
    assert message == "The file is empty (eye.png). Export it again."


def test_job_that_is_running_is_named_in_words():
    said = errors.message(JobRunningError("20260101-120000-image-engine-0a1b")).message
    assert texts.JOB_KINDS["image-engine"] in said and "0a1b" not in said


def test_log_of_an_unexpected_error_holds_no_message():
    name = "".join(["47", "11"])  # the source line is part of the trace
    try:
        raise RuntimeError(f"patient {name}.png")
    except RuntimeError as error:
        assert "4711" not in errors.anonymous_trace(error)


def test_curve_has_both_lines_and_survives_odd_values():
    svg = plots.learning_curve([(1, 0.9), (2, 0.4)], [(2, 0.5)], total=10)
    assert svg.count("<polyline") == 2
    assert texts.CURVE_EMPTY in plots.learning_curve([], [], total=0)
    assert "<polyline" in plots.learning_curve([(1, 0.0)], [], total=0)


def test_many_steps_are_thinned():
    svg = plots.learning_curve([(step, 1.0) for step in range(5000)], [], total=5000)
    assert len(svg) < 20_000


def test_watch_drops_steps_that_a_resumed_job_repeats(tmp_path):
    watch = job_watch.JobWatch(tmp_path)
    for step in (1, 2, 3, 2, 3, 4):
        watch._take(ProgressEvent("segmenter", step, 10, metrics={"loss": float(step)}))
    assert [step for step, _ in watch.loss] == [1, 2, 3, 4]


def test_watch_shows_no_picture_outside_the_job_folder(tmp_path):
    (tmp_path / "job").mkdir()
    write_image(tmp_path / "other.png", np.zeros((8, 8), np.uint8))
    watch = job_watch.JobWatch(tmp_path / "job")
    watch._take(ProgressEvent("pairs", 1, 1, picture="../other.png"))
    assert not watch.pictures


def test_pictures_carry_their_parameters_and_are_made_once(tmp_path):
    picture = np.zeros((8, 8, 3), np.uint8)
    path = pictures.save_picture(picture, tmp_path, {"threshold": 0.5})
    assert read_provenance(path) == {"threshold": 0.5}
    assert pictures.save_picture(picture, tmp_path, {"threshold": 0.5}) == path
    assert pictures.save_picture(picture, tmp_path, {"threshold": 0.6}) != path


def test_pictures_of_one_tab_cost_no_other_tab_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "KEPT", 3)
    session = Sessions(tmp_path / "sessions", None).attach("")
    on_screen = Path(pictures.save_picture(np.zeros((8, 8), np.uint8), session.pictures_of("data")))
    folder = session.pictures_of("segment")
    original = Path(pictures.save_picture(np.zeros((8, 8), np.uint8), folder))
    for number in range(1, 9):
        os.utime(original, ns=(1, 1))  # as if it had been there for long
        assert pictures.save_picture(np.zeros((8, 8), np.uint8), folder) == str(original)
        result = Path(pictures.save_picture(np.full((8, 8), number, np.uint8), folder))
        assert original.is_file() and result.is_file()
    assert on_screen.is_file() and len(list(folder.iterdir())) == 3


def test_pictures_are_handed_out_though_the_clock_of_the_disk_stands_still(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "KEPT", 2)
    monkeypatch.setattr(pictures, "_written_at", lambda path: 0.0)
    assert all(Path(pictures.save_picture(np.full((8, 8), n, np.uint8), tmp_path)).is_file() for n in range(9))


def test_threads_save_pictures_beside_one_another(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "KEPT", 5)
    same = np.zeros((8, 8), np.uint8)
    with ThreadPoolExecutor(4) as pool:
        saved = [pool.submit(pictures.save_picture, same, tmp_path, {"n": n % 20}) for n in range(400)]
    assert not [error for error in (future.exception() for future in saved) if error]
    assert len(list(tmp_path.iterdir())) == 5


def test_large_pictures_are_reduced_for_the_screen_only():
    mask = np.zeros((3000, 1500), bool)
    mask[1000:2000] = True
    reduced = pictures.reduce(mask)
    assert reduced.shape == (2048, 1024) and reduced.dtype == bool
    assert abs(reduced.mean() - mask.mean()) < 0.01
    assert pictures.reduce(np.ones((50, 40), np.float32)).shape == (50, 40)


def test_project_names_go_to_the_projects_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("UNIVG_PROJECTS", str(tmp_path))
    assert projects.new_project_path("Eyes 2026") == tmp_path / "Eyes 2026"
    assert projects.new_project_path(str(tmp_path / "x")) == tmp_path / "x"
    for bad in ("", "  ", "../x", "a/b"):
        with pytest.raises(InputError):
            projects.new_project_path(bad)


def test_sample_copies_get_new_names(monkeypatch, tmp_path):
    monkeypatch.setenv("UNIVG_PROJECTS", str(tmp_path))
    assert [projects.create_sample().name for _ in range(2)] == ["Sample", "Sample 2"]


def test_sessions_are_found_again_and_bounded(tmp_path):
    sessions = Sessions(tmp_path, None)
    first = sessions.attach("", "page 1")
    assert sessions.attach(first.id, "page 2") is first
    assert sessions.attach("unknown") is not first
    for _ in range(MAX_SESSIONS):
        sessions.attach("")
    assert sessions.attach(first.id) is not first
    assert not first.folder.exists()
    with pytest.raises(InputError):
        sessions.get(first.id)


def test_closed_pages_make_room_before_one_that_is_in_use(tmp_path):
    sessions = Sessions(tmp_path, None)
    in_use, closed = sessions.attach("", "in use"), [sessions.attach("", f"page {n}") for n in range(MAX_SESSIONS - 1)]
    sessions.close("page 1")
    sessions.attach("")
    assert in_use.folder.exists() and not closed[1].folder.exists()
    sessions.get(closed[0].id)
    sessions.attach("")
    assert not in_use.folder.exists(), "of those that are open, the one not used for longest"
    sessions.get(closed[0].id)


def test_page_that_slept_is_in_use_again_and_can_be_closed(tmp_path, monkeypatch):
    sessions = Sessions(tmp_path, None)
    session, other = sessions.attach("", "page"), sessions.attach("", "another page")
    sessions.close("page")  # so it looked while the computer slept
    assert sessions.get(session.id) is session and not session.closed
    sessions.close("another page")
    assert other.closed and not session.closed
    sessions.close("page")
    assert session.closed
    sessions.get(session.id)  # the last word of a page that is gone
    now = time.monotonic()
    monkeypatch.setattr("app.gradio_ui.state.time.monotonic", lambda: now + 7 * 3600)
    assert sessions.attach(session.id) is not session


def test_page_whose_session_is_gone_says_so_once(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(context.gr, "Warning", lambda text, **_: said.append(text))
    sessions = Sessions(tmp_path / "sessions", None)
    with gr.Blocks():
        ui, shown = context.Ui(sessions), gr.HTML()
        with ui.group():
            ui.part([shown], lambda session: 1, lambda session: ["drawn"])
    session = sessions.attach("")
    seen, _ = ui._redraw(ui._groups, session.id, {})
    sessions._remove(session.id)
    for _ in range(3):
        assert ui._ring(session.id, seen) == [gr.skip()]
        assert ui._redraw(ui._groups, session.id, seen) == [gr.skip()] * 2
    assert len(said) == 1 and "Reload this page" in said[0]
    assert ui._ring("", seen) == [gr.skip()] and len(said) == 1, "a page that is being opened"


def test_closed_session_is_dropped_after_its_time(tmp_path, monkeypatch):
    sessions = Sessions(tmp_path, None)
    session = sessions.attach("", "page")
    sessions.close("page")
    assert sessions.attach(session.id, "page") is session
    sessions.close("page")
    now = time.monotonic()
    monkeypatch.setattr("app.gradio_ui.state.time.monotonic", lambda: now + 7 * 3600)
    assert sessions.attach(session.id) is not session


def test_board_keeps_what_is_still_dropped_and_reports_the_rest(tmp_path):
    board = Board(tmp_path / "board")
    images = sorted((sample_folder() / "unseen" / "images").glob("*.png"))
    masks = sorted((sample_folder() / "unseen" / "masks").glob("*.png"))
    uploads = [Upload(path, path.name) for path in images]
    problems = board.set_files(uploads, [Upload(masks[0], masks[0].name), upload("other.png")])
    assert [item.name for item in board.items] == ["unseen-1", "unseen-2"]
    assert board.get("unseen-1").reference is not None and board.get("unseen-2").reference is None
    assert len(problems) == 1 and "other.png" in problems[0]
    board.set_files(uploads[1:], [])
    assert [item.name for item in board.items] == ["unseen-2"] and board.selected == "unseen-2"
    board.clear()
    assert not board.items


def test_unusable_image_on_the_board_says_why(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"")
    board = Board(tmp_path / "board")
    board.set_files([Upload(tmp_path / "broken.png", "broken.png")], [])
    deadline = time.monotonic() + 20
    while board.get("broken").state == "new" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert board.get("broken").state == "failed"
    assert "0 bytes" in board.get("broken").problem


def test_model_that_cannot_be_read_fails_the_image_and_not_the_board(tmp_path):
    path = next((sample_folder() / "unseen" / "images").glob("*.png"))
    board = Board(tmp_path / "board")
    board.set_files([Upload(path, path.name)], [])
    board.start(Run("v001", tmp_path / "no model", False), "cpu")
    board.wait(path.stem, 60)
    assert board.get(path.stem).state == "failed"
    assert not board.busy


def test_figures_of_a_model_are_not_shown_under_the_next_one(tmp_path, monkeypatch):
    found, began, go_on = {}, threading.Event(), threading.Event()

    def probability(image, segmenter, *, augmented):
        return np.full(image.shape[:2], 0.9 if augmented else 0.1, np.float32), 0.0

    def evaluate(mask, reference, *, probability):
        began.set()
        assert go_on.wait(60)
        return found.setdefault(round(float(probability.mean()), 1), object())

    monkeypatch.setattr(models, "load_segmenter", lambda folder, device: SimpleNamespace(threshold=0.5))
    monkeypatch.setattr(models, "timed_probability", probability)
    monkeypatch.setattr(segment_board, "evaluate", evaluate)
    monkeypatch.setattr(models, "worker", ThreadPoolExecutor(2))
    path = next((sample_folder() / "unseen" / "images").glob("*.png"))
    reference = next((sample_folder() / "unseen" / "masks").glob(f"{path.stem}*"))
    board = Board(tmp_path / "board")
    board.set_files([Upload(path, path.name)], [Upload(reference, reference.name)])
    board.start(Run("v001", tmp_path, False), "cpu")
    assert began.wait(60)
    board.start(Run("v002", tmp_path, True), "cpu")
    board.wait(path.stem, 60)
    go_on.set()
    deadline = time.monotonic() + 60
    while board.busy and time.monotonic() < deadline:
        time.sleep(0.01)
    assert board.get(path.stem).run.version == "v002" and board.get(path.stem).figures is found[0.9]


def stub_models(monkeypatch, probability):
    monkeypatch.setattr(models, "load_segmenter", lambda folder, device: SimpleNamespace(threshold=0.5))
    monkeypatch.setattr(models, "timed_probability", probability)
    monkeypatch.setattr(models, "worker", ThreadPoolExecutor(1))


def test_stopping_or_failing_leaves_the_results_of_the_run_before(tmp_path, monkeypatch):
    go_on = threading.Event()

    def probability(image, segmenter, *, augmented):
        if augmented:
            assert go_on.wait(60)
            raise MemoryError
        return np.full(image.shape[:2], 0.1, np.float32), 0.0

    stub_models(monkeypatch, probability)
    paths = sorted((sample_folder() / "unseen" / "images").glob("*.png"))
    board, (first, second) = Board(tmp_path / "board"), [path.stem for path in paths]
    board.set_files([Upload(path, path.name) for path in paths], [])
    board.start(Run("v001", tmp_path, False), "cpu")
    for name in (first, second):
        board.wait(name, 60)
    board.start(Run("v002", tmp_path, True), "cpu")
    for name in (first, second):  # as the page does
        assert board.arrays(board.get(name)).probability is None, "a result that waits for another model is not shown"
    board.stop()
    go_on.set()
    board.wait(first, 60)
    for name in (first, second):
        item = board.get(name)
        assert (item.state, item.run.version) == ("done", "v001") and bool(item.problem) is (name == first)
        assert float(board.arrays(item).probability.mean()) == pytest.approx(0.1)


def unseen(count=1):
    paths = sorted((sample_folder() / "unseen" / "images").glob("*.png"))[:count]
    masks = [path.parents[1] / "masks" / path.name for path in paths]
    return [Upload(path, path.name) for path in paths], [Upload(path, path.name) for path in masks]


def wait_while_busy(board):
    deadline = time.monotonic() + 60
    while board.busy and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.mark.parametrize("fails", [False, True])
def test_image_dropped_anew_while_a_model_is_at_it_gets_nothing_of_that_model(tmp_path, monkeypatch, fails):
    began, go_on = threading.Event(), threading.Event()

    def probability(image, segmenter, *, augmented):
        if not augmented:
            began.set()
            assert go_on.wait(60)
            if fails:
                raise MemoryError
        return np.full(image.shape[:2], 0.9 if augmented else 0.1, np.float32), 0.0

    stub_models(monkeypatch, probability)
    (image,), _ = unseen()
    board = Board(tmp_path / "board")
    board.set_files([image], [])
    board.start(Run("v001", tmp_path, False), "cpu")
    assert began.wait(60)
    board.set_files([], [])
    board.set_files([image], [])
    board.start(Run("v002", tmp_path, True), "cpu")
    go_on.set()
    board.wait(image.stem, 60)
    item = board.get(image.stem)
    assert (item.state, item.run.version, item.problem) == ("done", "v002", "")
    assert float(board.arrays(item).probability.mean()) == pytest.approx(0.9)


def test_full_disk_fails_the_image_and_keeps_the_result_before(tmp_path, monkeypatch):
    stub_models(monkeypatch, lambda image, _, *, augmented: (np.full(image.shape[:2], 0.1, np.float32), 0.0))
    (image,), _ = unseen()
    board = Board(tmp_path / "board")
    board.set_files([image], [])
    save = np.save

    def save_half(file, array):
        save(file, array[:10])
        raise OSError("No space left on device")

    for version, saving, state in (("v000", save_half, "failed"), ("v001", save, "done"), ("v002", save_half, "done")):
        monkeypatch.setattr(segment_board.np, "save", saving)
        board.start(Run(version, tmp_path, False), "cpu")
        board.wait(image.stem, 60)
        assert board.get(image.stem).state == state
    item = board.get(image.stem)
    assert item.run.version == "v001" and board.arrays(item).probability.shape == item.shape
    assert len(list((tmp_path / "board").iterdir())) == 1


def test_problem_is_shown_above_the_result_of_an_earlier_model(tmp_path, monkeypatch):
    def probability(image, segmenter, *, augmented):
        if augmented:
            raise MemoryError
        return np.full(image.shape[:2], 0.1, np.float32), 0.0

    stub_models(monkeypatch, probability)
    session = Sessions(tmp_path / "sessions", None).attach("")
    (image,), _ = unseen()
    session.board.set_files([image], [])
    for version, augmented in (("v001", False), ("v002", True)):
        session.board.start(Run(version, tmp_path, augmented), "cpu")
        session.board.wait(image.stem, 60)

    def status():
        items = session.board.items
        return segment._status(session, items, items, [], [])

    assert "Model v001." in status() and "v002 (averaged) failed" in status() and "MemoryError" in status()
    session.board.start(Run("v001", tmp_path, False), "cpu")  # what is there already
    assert "v002" not in status()


def test_reference_that_cannot_be_measured_against_is_said(tmp_path, monkeypatch):
    stub_models(monkeypatch, lambda image, _, *, augmented: (np.full(image.shape[:2], 0.1, np.float32), 0.0))
    session = Sessions(tmp_path / "sessions", None).attach("")
    (image,), _ = unseen()
    session.board.set_files([image], [])
    session.board.start(Run("v001", tmp_path, False), "cpu")
    session.board.wait(image.stem, 60)
    (tmp_path / f"{image.stem}.png").write_bytes(b"no mask")
    session.board.set_files([image], [upload(f"{image.stem}.png", tmp_path)])
    wait_while_busy(session.board)
    items = session.board.items
    assert "Model v001." in (said := segment._status(session, items, items, [], [])) and 'class="error"' in said


def segmented(tmp_path, monkeypatch, probability=0.6, reference=True):
    """A session with one image, done."""
    stub_models(monkeypatch, lambda image, _, *, augmented: (np.full(image.shape[:2], probability, np.float32), 0.0))
    session = Sessions(tmp_path / "sessions", None).attach("")
    images, references = unseen()
    session.board.set_files(images, references if reference else [])
    session.board.start(Run("v001", tmp_path, False), "cpu")
    wait_while_busy(session.board)
    return session


def test_reference_of_another_size_dropped_afterwards_is_said(tmp_path, monkeypatch):
    session = segmented(tmp_path, monkeypatch, reference=False)
    (item,) = session.board.items
    write_mask(tmp_path / item.upload.name, np.eye(32, dtype=bool))
    session.board.set_files([item.upload], [upload(item.upload.name, tmp_path)])
    wait_while_busy(session.board)
    assert "is 32 × 32, its image" in session.board.get(item.name).problem


def test_figures_beside_the_picture_are_those_of_the_threshold(tmp_path, monkeypatch):
    session = segmented(tmp_path, monkeypatch)
    board = session.board
    assert "Dice" in segment._facts(board, board.selected_item)
    board.threshold = 0.3
    said = segment._facts(board, board.selected_item)
    assert "Dice" not in said and said.endswith("Measuring.")


def test_way_back_to_the_threshold_of_the_model(tmp_path, monkeypatch, wired):
    session = segmented(tmp_path, monkeypatch)
    draw = wired.parts["threshold"].render
    slider, own = draw(session)
    assert slider == 0.5 and not own.visible
    session.board.set_threshold(0.9)
    slider, own = draw(session)
    assert slider == 0.9 and own.visible and "0.50" in own.value
    session.board.set_threshold(None)
    assert draw(session)[0] == 0.5 and not draw(session)[1].visible


def test_closed_page_lets_go_of_its_arrays_and_a_reload_shows_what_it_showed(tmp_path, monkeypatch):
    stub_models(monkeypatch, lambda image, _, *, augmented: (np.full(image.shape[:2], 0.6, np.float32), 0.0))
    monkeypatch.setattr(mask_studio, "_draw_one", lambda *_: np.eye(64, dtype=bool))
    pair = make_pair("a", size=64)
    monkeypatch.setattr(image_studio, "_draw_one", lambda *_: image_studio.Drawn(pair, None, 0.1))
    project = Project.create(tmp_path / "p", modality="octa", working_size=64)
    project.add_support_pair(pair)
    sessions = Sessions(tmp_path / "sessions", None)
    session = sessions.attach("", "page")
    session.open(project)
    board, (dropped, references) = session.board, unseen(2)
    board.set_files(dropped[:1], references[:1])
    board.start(Run("v001", tmp_path, False), "cpu")
    wait_while_busy(board)
    masks._sweep(session)
    masks._shown(session)
    images._looks(session)

    def shown():
        return segment._picture(session), masks._first(session)[:4], images._first(session)

    before = shown()
    assert board._cache and len(session.masks.drawn) > 6 and len(session.images.drawn) == image_studio.LOOKS
    sessions.close("page")
    assert not board._cache and len(session.masks.drawn) == len(session.images.drawn) == 1
    board.set_files(dropped, references)  # the queue goes on when nobody looks
    board.start(Run("v001", tmp_path, False), "cpu")
    wait_while_busy(board)
    assert not board._cache and all(item.figures is not None for item in board.items)

    assert sessions.attach(session.id, "page anew") is session
    monkeypatch.setattr(mask_studio, "_draw_one", None)
    monkeypatch.setattr(image_studio, "_draw_one", None)
    assert shown() == before and board._cache


def test_strip_is_drawn_only_for_what_changes_it_and_agrees_with_the_picture(tmp_path, monkeypatch, wired):
    session = segmented(tmp_path, monkeypatch)
    board, strip = session.board, wired.parts["segment-strip"]
    (item,) = board.items
    before, drawn = strip.signature(session), segment_views.thumbnail(board, item)
    session.segment_view.mode, board.selected = "mask", item.name
    board._update(item.name, problem="of no concern")
    assert strip.signature(session) == before
    paths = [strip.render(session)[0].value[0]["image"]["path"] for _ in range(2)]
    written = list((session.folder / "thumbnails").glob("*/*"))
    assert paths[0] == paths[1] and len(written) == 1, "written once"
    assert item.name not in paths[0], "no file name in an address"
    with monkeypatch.context() as patch:
        patch.setattr(segment_views, "thumbnail", None)
        strip.render(session)  # nothing is drawn again
    board.set_threshold(0.9)
    assert strip.signature(session) != before
    assert not np.array_equal(segment_views.thumbnail(board, item), drawn)


def test_model_that_was_chosen_stays_chosen_until_one_is_put_to_use(tmp_path, monkeypatch):
    project = Project.create(tmp_path / "p", modality="octa")
    session = Sessions(tmp_path / "sessions", None).attach("")
    session.open(project)
    for version in ("v001", "v002"):
        (project.segmenters_folder / version).mkdir(parents=True)
    assert segment._models(session)[2].value == "v002"
    session.segment_view.model = "v001"
    (project.segmenters_folder / "v003").mkdir()
    assert segment._models(session)[2].value == "v001"
    versions.use(session, "v002")
    assert segment._models(session)[2].value == "v002"


def test_no_mean_is_taken_over_results_of_different_models(tmp_path, monkeypatch):
    def probability(image, segmenter, *, augmented):
        return np.full(image.shape[:2], 0.9, np.float32), 0.0

    stub_models(monkeypatch, probability)
    images, masks = unseen(2)
    board = Board(tmp_path / "board")
    board.set_files(images, masks)
    board.start(Run("v001", tmp_path, False), "cpu")
    wait_while_busy(board)
    assert "Mean (n = 2)" in (of_one := segment_views.figures_table(board)) and "v001" in of_one
    board._update(images[1].stem, run=Run("v002", tmp_path, False))
    mixed = segment_views.figures_table(board)
    assert "v002" in mixed and "Mean (n" not in mixed and texts.FIGURES_MIXED in mixed


def test_table_is_drawn_anew_with_another_reference(tmp_path, monkeypatch):
    stub_models(monkeypatch, lambda image, _, *, augmented: (np.full(image.shape[:2], 0.9, np.float32), 0.0))
    session = Sessions(tmp_path / "sessions", None).attach("")
    (image,), (mask,) = unseen()
    session.board.set_files([image], [mask])
    session.board.start(Run("v001", tmp_path, False), "cpu")
    wait_while_busy(session.board)
    before = segment._figures_signature(session)
    height, width = session.board.get(image.stem).shape
    write_mask(tmp_path / mask.name, np.arange(height * width).reshape(height, width) % 7 == 0)
    session.board.set_files([image], [upload(mask.name, tmp_path)])
    wait_while_busy(session.board)
    assert hash(segment._figures_signature(session)) != hash(before)


def made_anew(card):
    """A card as of another model, in the place of one that was deleted."""
    card.unlink(missing_ok=True)
    card.parent.mkdir(parents=True, exist_ok=True)
    write_json_atomic(card, {"card": {"support_sha256": {"masks/a.png": secrets.token_hex(4)}}})


def test_model_made_anew_in_the_place_of_a_deleted_one_is_loaded_anew(tmp_path, monkeypatch):
    from univg import segmentation

    monkeypatch.setattr(segmentation.Segmenter, "load", lambda folder, device: object())
    folder = tmp_path / "segmenters" / "v001"
    made_anew(folder / "segmenter.json")
    first, trained_on = models.load_segmenter(folder, "cpu"), models._trained_on(folder, models.model_stamp(folder))
    assert models.load_segmenter(folder, "cpu") is first
    made_anew(folder / "segmenter.json")
    os.utime(folder / "segmenter.json", ns=(1, 1))  # the clock of a file system may be coarse, and the test is quick
    assert models.load_segmenter(folder, "cpu") is not first
    assert models._trained_on(folder, models.model_stamp(folder)) != trained_on


def test_engines_made_anew_in_the_place_of_deleted_ones_are_others(tmp_path, monkeypatch):
    project = Project.create(tmp_path / "p", modality="octa", working_size=64)
    project.add_support_pair(make_pair("a", size=64))
    monkeypatch.setattr(mask_studio, "_engine", lambda *key: key)

    def ask(*key):
        raise InputError(repr(key))

    monkeypatch.setattr(image_studio, "_engine", ask)
    studio = image_studio.ImageStudio(image_studio.ImageSettings("own:a"), version="v001")
    seen = []
    for stamp in (1, 2):
        for parent in (project.adapters_folder, project.image_engines_folder):
            made_anew(parent / "v001" / "engine.json")
            os.utime(parent / "v001" / "engine.json", ns=(stamp, stamp))
        with pytest.raises(InputError) as asked:
            image_studio._draw_one(project, studio, studio.settings)
        seen.append((mask_studio.engine_of(project, "v001"), asked.value.problem, image_studio.state_of(project)))
    assert all(before != after for before, after in zip(*seen, strict=True))


def test_files_dropped_after_a_reload_take_the_place_of_those_of_their_name(monkeypatch):
    said = []
    monkeypatch.setattr(segment, "note", said.append)
    kept = [upload("a.png"), upload("b.png")]
    assert segment._still_kept(kept, []) == kept
    assert segment._still_kept(kept, [Upload(Path("elsewhere/b.png"), "b.png")]) == kept[:1] and not said
    assert segment._still_kept(kept, [upload("b.tif")]) == kept[:1]
    assert said == [texts.SEG_KEPT_REPLACED.format(new="b.tif", old="b.png")]
    assert segment._still_kept([upload("a_mask.png")], [upload("a.png")], segment.MASK_ENDINGS) == []


def test_images_from_before_a_reload_are_named_and_can_be_removed(tmp_path, wired):
    sessions = Sessions(tmp_path / "sessions", None)
    session = sessions.attach("")
    images, references = unseen(2)
    session.board.set_files(images, references[:1])
    assert not wired.parts["segment-kept"].render(session)[1].visible
    assert sessions.attach(session.id) is session
    line, button = wired.parts["segment-kept"].render(session)
    assert "2 images, 1 reference mask" in line and button.visible
    wired.handlers["take_files"](session, [], references)
    assert len(session.board.items) == 2
    wired.handlers["forget_kept"](session, [], [])
    assert not session.board.items and not wired.parts["segment-kept"].render(session)[1].visible


def test_folders_of_killed_servers_are_removed(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for pid in (ended.pid, os.getpid()):
        (tmp_path / f"{server._FOLDER}{pid}-x").mkdir()
        (tmp_path / f"{server._FOLDER}{pid}-x" / "image.png").touch()
    kept = [f"{server._FOLDER}{os.getpid()}-x", f"{server._FOLDER}notes", f"univg-app-elsewhere-{ended.pid}-x"]
    for name in kept[1:]:
        (tmp_path / name).mkdir()
    server.remove_left_behind(tmp_path)
    assert sorted(folder.name for folder in tmp_path.iterdir()) == sorted(kept)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGHUP")
@pytest.mark.parametrize("ignored", [False, True])
def test_closing_the_terminal_ends_the_server_but_not_under_nohup_and_nothing_is_left(
    tmp_path, projects_folder, ignored
):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary)}
    hangup = "signal.SIG_IGN" if ignored else "signal.SIG_DFL"  # nohup leaves the first
    begin = f"import os, signal, sys; signal.signal(signal.SIGHUP, {hangup}); os.execv(sys.executable, sys.argv[1:])"
    server_command = [sys.executable, "-m", "app", "--sample", "--port", str(port), "--no-browser"]
    command = [sys.executable, "-c", begin, *server_command]
    log = (tmp_path / "log").open("wb")
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2], env=environment, stdout=log, stderr=log)
    try:
        wait_until_it_answers(f"http://127.0.0.1:{port}", process, tmp_path / "log")
        assert list(temporary.glob("univg-app-*"))
        process.send_signal(signal.SIGHUP)
        if ignored:
            time.sleep(2)
            wait_until_it_answers(f"http://127.0.0.1:{port}", process, tmp_path / "log")
            process.terminate()
        process.wait(60)
    finally:
        process.kill()
        log.close()
    assert not list(temporary.glob("univg-app-*"))


def test_a_mask_is_kept_under_the_engine_that_drew_it(tmp_path, monkeypatch):
    project = Project.create(tmp_path / "p", modality="octa")
    studio, drawn_by = mask_studio.MaskStudio.of(project), []

    def draw_one(project, version, settings):
        drawn_by.append(version)
        studio.version = "v001"  # an adaptation ends
        return np.zeros((8, 8), bool)

    monkeypatch.setattr(mask_studio, "_draw_one", draw_one)
    wanted = [replace(studio.settings, scale=scale) for scale in (0.0, 0.5, 1.0)]
    masks = mask_studio.draw(project, studio, wanted)
    assert all(mask is not None for mask in masks) and drawn_by == ["", "", ""]
    assert {version for version, _ in studio.drawn} == {""} and studio.found(wanted[0]) is None


@pytest.mark.parametrize(("state", "words"), [(JobState.QUEUED, "Waiting"), (JobState.CANCELLING, "Finishing")])
def test_an_engine_that_waits_or_stops_is_not_said_to_start(state, words):
    line, _ = engine_jobs.EngineJobs("mask-engine", "", "", "", "x")._describe(SimpleNamespace(state=state))
    assert line.startswith(words)


@pytest.fixture(scope="module")
def wired(tmp_path_factory):
    """The page of which parts and handlers are asked for one by one: what they draw, by the ids of their outputs."""
    parts, handlers, every = {}, {}, []
    part, on = context.Ui.part, context.Ui.on

    def note_part(ui, outputs, *arguments, **options):
        part(ui, outputs, *arguments, **options)
        every.append(ui._groups[-1].parts[-1])
        parts[outputs[0].elem_id] = every[-1]

    def note_handler(ui, triggers, handler, *arguments, **options):
        handlers[getattr(handler, "__name__", "")] = handler
        return on(ui, triggers, handler, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(context.Ui, "part", note_part)
        patch.setattr(context.Ui, "on", note_handler)
        blocks.build_page(Sessions(tmp_path_factory.mktemp("sessions"), None))
    return SimpleNamespace(parts=parts, handlers=handlers, every=every)


def test_typed_numbers_stay_when_another_control_is_used(tmp_path, wired):
    session = Sessions(tmp_path / "sessions", None).attach("")
    session.open(Project.create(tmp_path / "p", modality="octa"))
    typed = {"seed", *(f"full-{name.replace('_', '-')}" for name in texts.FULL_SETTINGS)}
    of_fields = [part for part in wired.every if typed & {output.elem_id for output in part.outputs}]
    assert of_fields

    def seen():
        return [part.signature(session) for part in of_fields], wired.parts["preset"].signature(session)

    for part in of_fields:
        part.render(session)
    fields, efforts = seen()
    session.run.device, session.run.full_length, session.run.preset = "cpu", True, "standard"
    assert seen()[0] == fields and seen()[1] != efforts
    (choice,) = wired.parts["preset"].render(session)
    assert "value" not in choice.constructor_args, "the one chosen last may not be known here yet"


def strokes_of(mask):
    """What the page sends of the editor while it holds `mask`."""
    return {"layers": [np.repeat(mask[..., None], 4, 2) * np.uint8(255)]}


@pytest.fixture
def painting(tmp_path):
    """A page that paints on `a` of two images of one size, with a third that is too long to be painted on."""
    session = Sessions(tmp_path / "sessions", None).attach("")
    session.open(Project.create(tmp_path / "p", modality="octa"))
    for name in "ab":
        session.project.add_support_pair(make_pair(name, size=64, seed=ord(name)))
    write_image(tmp_path / "long.png", np.zeros((8, paint.LIMIT + 1), np.uint8))
    session.unmasked["long"] = upload("long.png", tmp_path)
    session.painting = paint._begin(session, "pair:a", True)
    return session


def test_painter_that_cannot_turn_stays_and_its_controls_say_so(painting, wired):
    turn_to, before = wired.handlers["turn_to"], painting.painting
    with pytest.raises(InputError, match="painter holds"):
        turn_to(painting, None, before.id, "new:long")
    assert painting.painting is before and wired.handlers["stay"](painting) == ["pair:a", True]
    wired.handlers["begin_otherwise"](painting, None, before.id, False)
    assert wired.handlers["stay"](painting) == ["pair:a", False]


def test_strokes_stay_with_their_image_however_often_another_is_asked_for(painting, wired, monkeypatch):
    monkeypatch.setattr(paint, "note", lambda text: None)
    turn_to, first, strokes = wired.handlers["turn_to"], painting.painting, np.eye(64, dtype=bool)
    assert turn_to(painting, strokes_of(strokes), first.id, "pair:b") == painting.painting.id
    second = painting.painting
    assert turn_to(painting, strokes_of(strokes), first.id, "pair:b") == gr.skip() and painting.painting is second
    wired.handlers["begin_otherwise"](painting, strokes_of(strokes), first.id, False)
    wired.handlers["close"](painting, strokes_of(strokes), first.id)
    assert {name for _, name, *_ in painting.drafts} == {"a"}
    painting.painting = paint._begin(painting, "pair:b", True)
    with pytest.raises(InputError, match="not on the canvas yet"):
        wired.handlers["save_shown"](painting, strokes_of(strokes), second.id)
    assert np.array_equal(painting.project.support_pair("b").mask, make_pair("b", size=64, seed=ord("b")).mask)


def test_canvas_is_cleared_before_the_next_image_is_brought_to_it(painting, wired):
    show, now = wired.handlers["show"], painting.painting.id
    editor, _, on_canvas, again = show(painting, "the one before")
    assert editor is None and on_canvas == "" and isinstance(again, str)
    editor, _, on_canvas, again = show(painting, "")
    assert editor["layers"] and on_canvas == now and again == gr.skip()
    assert show(painting, now) == [gr.skip()] * 4


def test_removed_pairs_come_back_newest_first_though_one_cannot_and_after_a_restart(tmp_path, monkeypatch, wired):
    monkeypatch.setattr(data, "note", lambda text: None)
    project = Project.create(tmp_path / "p", modality="octa")
    for name in ("c", "a", "b"):
        project.add_support_pair(make_pair(name, size=64))
        project.remove_support_pair(name)
    project.add_support_pair(make_pair("B", size=64))  # which a file system may take for "b"
    session = Sessions(tmp_path / "sessions", None).attach("")
    session.open(project)
    button, undo = wired.parts["undo-remove"], wired.handlers["undo_remove"]

    def offered():
        return button.render(session)[0].value.rsplit(" ", 1)[1]

    assert offered() == "b"
    with pytest.raises(InputError):
        undo(session)
    assert offered() == "a", "what cannot come back is in nobody's way"
    undo(session)
    undo(session)  # a second click brings back nothing that the button did not name
    assert project.support_names() == ["B", "a"] and offered() == "c"
    undo(session)
    assert offered() == "b"
    project.remove_support_pair("B")
    assert offered() == "B"


def test_second_click_on_remove_removes_no_other_pair(tmp_path, monkeypatch, wired):
    monkeypatch.setattr(data, "note", lambda text: None)
    project = Project.create(tmp_path / "p", modality="octa", working_size=64)
    for name in "abc":
        project.add_support_pair(make_pair(name, size=64))
    session = Sessions(tmp_path / "sessions", None).attach("")
    session.open(project)
    draw, remove = wired.parts["data-picture"].render, wired.handlers["remove_selected"]
    draw(session)
    remove(session)
    remove(session)
    assert project.support_names() == ["b", "c"]
    draw(session)
    project.remove_support_pair("b")  # by another page, before this one is drawn anew
    remove(session)
    assert project.support_names() == ["c"]
    draw(session)
    remove(session)
    assert project.support_names() == []


def test_second_click_on_the_start_view_opens_nothing_more(tmp_path, monkeypatch, projects_folder):
    answers = []
    on = context.Ui.on

    def note_handler(ui, triggers, handler, *arguments, **options):
        answers.append(handler)
        return on(ui, triggers, handler, *arguments, **options)

    monkeypatch.setattr(context.Ui, "on", note_handler)
    sessions = Sessions(tmp_path / "sessions", None)
    with gr.Blocks():
        ui = context.Ui(sessions)
        with ui.group():
            start.build(ui, gr.Button())
    session, draw, (switch, _, sample, *_) = sessions.attach(""), ui._groups[0].parts[0].render, answers
    for _ in range(2):
        sample(session)
    assert [folder.name for folder in projects_folder.iterdir()] == ["Sample"]
    for label, at_start in ((texts.SWITCH_PROJECT, True), (texts.BACK_TO_PROJECT, False)):
        assert draw(session)[0].value == label
        for _ in range(2):
            switch(session)
            assert session.at_start is at_start


def test_damaged_pair_leaves_the_others_on_screen_and_can_be_removed(tmp_path, wired):
    project = Project.create(tmp_path / "p", modality="octa", working_size=64)
    for name in "ab":
        project.add_support_pair(make_pair(name, size=64))
    (project.support_folder / "images" / "a.png").write_bytes(b"no image")
    session = Sessions(tmp_path / "sessions", None).attach("")
    session.open(project)
    for strip in ("data-strip", "mask-real", "image-real"):
        gallery = wired.parts[strip].render(session)[0]
        assert len(gallery.value) == 2, strip
    picture, facts, selected = wired.parts["data-picture"].render(session)
    assert picture.visible and selected.visible and "a" in facts and "cannot be read" in facts
    session.view.selected = "b"
    assert "cannot be read" not in wired.parts["data-picture"].render(session)[1]


def test_trees_and_masks_follow_a_mask_that_was_painted_in(tmp_path, monkeypatch):
    project = Project.create(tmp_path / "p", modality="octa", working_size=64)
    project.add_support_pair(make_pair("a", size=64, seed=1))
    session = Sessions(tmp_path / "sessions", None).attach("")
    session.open(project)
    before = tree_view.studio_of(session).scene.mask_sha256
    drawn = []
    monkeypatch.setattr(mask_studio, "_draw_one", lambda *_: drawn.append(1) or np.zeros((8, 8), bool))
    for _ in range(2):
        mask_studio.draw(project, masks.studio_of(session), [masks.studio_of(session).settings])
    assert len(drawn) == 1
    project.replace_support_mask("a", make_pair("a", size=64, seed=2).mask)
    mask_studio.draw(project, masks.studio_of(session), [masks.studio_of(session).settings])
    assert len(drawn) == 2
    after = tree_view.studio_of(session).scene.mask_sha256
    assert after != before and after == project.load_support().sha256["masks/a.png"]


def test_unsaved_strokes_are_kept_for_each_beginning_and_project(tmp_path):
    session = Sessions(tmp_path / "sessions", None).attach("")
    first, other = (Project.create(tmp_path / name, modality="octa") for name in ("first", "other"))
    pair = make_pair("a", size=64)
    first.add_support_pair(pair)

    def shown(from_mask):
        session.painting = paint._begin(session, "pair:a", from_mask)
        return paint._content(session)[0]["layers"][0][..., 3] > 0

    def leave(mask):
        layer = np.zeros((*mask.shape, 4), np.uint8)
        layer[mask] = 255
        paint._keep_strokes(session, {"layers": [layer]})

    session.open(first)
    assert np.array_equal(shown(True), pair.mask) and not shown(False).any()
    strokes = np.eye(64, dtype=bool)
    leave(strokes)
    assert np.array_equal(shown(True), pair.mask)
    leave(pair.mask | strokes)
    assert np.array_equal(shown(False), strokes), "turned off and on again"
    shown(False)
    leave(np.zeros_like(strokes))
    assert not shown(False).any(), "strokes that were taken back do not come back"
    leave(strokes)
    session.open(other)
    session.open(first)
    assert np.array_equal(shown(True), pair.mask | strokes) and np.array_equal(shown(False), strokes)
    paint.save(session, {"layers": [np.repeat(strokes[..., None], 4, 2) * np.uint8(255)]})
    assert np.array_equal(shown(True), strokes) and not shown(False).any(), "saved, so nothing is kept"


def test_unsaved_strokes_are_not_laid_on_another_image_or_over_a_newer_mask(tmp_path):
    session = Sessions(tmp_path / "sessions", None).attach("")
    session.open(Project.create(tmp_path / "p", modality="octa"))
    pairs = [make_pair("a", size=64, seed=seed) for seed in range(3)]

    def open_and_leave_strokes(pair, from_mask):
        """Whether the painter showed the mask as it is; other strokes are left on it."""
        session.painting = paint._begin(session, "pair:a", from_mask)
        layer = paint._content(session)[0]["layers"][0]
        as_it_is = np.array_equal(layer[..., 3] > 0, pair.mask if from_mask else np.zeros_like(pair.mask))
        layer[:5] = 255
        paint._keep_strokes(session, {"layers": [layer]})
        return as_it_is

    session.project.add_support_pair(pairs[0])
    assert open_and_leave_strokes(pairs[0], True) and open_and_leave_strokes(pairs[0], False)
    assert not open_and_leave_strokes(pairs[0], True) and not open_and_leave_strokes(pairs[0], False)
    session.project.remove_support_pair("a")
    session.project.add_support_pair(replace(pairs[1], mask=pairs[0].mask))
    assert open_and_leave_strokes(pairs[0], True) and open_and_leave_strokes(pairs[0], False)
    session.project.replace_support_mask("a", pairs[2].mask)
    assert open_and_leave_strokes(pairs[2], True)
    assert not open_and_leave_strokes(pairs[2], False), "these began empty, whatever the mask is"


def test_saving_over_what_changed_meanwhile_is_refused_and_the_strokes_are_kept(tmp_path):
    session = Sessions(tmp_path / "sessions", None).attach("")
    session.open(Project.create(tmp_path / "p", modality="octa"))
    project, (first, second, third) = session.project, [make_pair("a", size=64, seed=seed) for seed in range(3)]
    strokes = np.eye(64, dtype=bool)
    value = {"layers": [np.repeat(strokes[..., None], 4, 2) * np.uint8(255)]}

    def shown(from_mask):
        session.painting = paint._begin(session, "pair:a", from_mask)
        return paint._content(session)[0]["layers"][0][..., 3] > 0

    project.add_support_pair(first)
    for from_mask, newer in ((True, second), (False, third)):
        shown(from_mask)
        project.replace_support_mask("a", newer.mask)
        with pytest.raises(InputError, match="changed meanwhile"):
            paint.save(session, value)
        assert np.array_equal(project.support_pair("a").mask, newer.mask)
        paint._keep_strokes(session, value)  # as when the painter is closed
        assert np.array_equal(shown(from_mask), strokes)
    paint.save(session, value)
    assert np.array_equal(project.support_pair("a").mask, strokes)

    shown(True)
    other = strokes[::-1]
    value = {"layers": [np.repeat(other[..., None], 4, 2) * np.uint8(255)]}
    project.remove_support_pair("a")
    with pytest.raises(InputError, match="was removed"):
        paint.save(session, value)
    project.restore_support_pair("a")
    assert np.array_equal(shown(True), other)
    project.remove_support_pair("a")
    project.add_support_pair(third)
    with pytest.raises(InputError, match="Another image"):
        paint.save(session, value)
    assert np.array_equal(project.support_pair("a").mask, third.mask) and np.array_equal(shown(True), third.mask)


def test_table_needs_a_reference(tmp_path):
    with pytest.raises(InputError):
        segment_views.table_file(Board(tmp_path / "board"), tmp_path)


def test_spreadsheets_get_no_formula():
    assert harmless("=cmd()") == "'=cmd()"
    assert segment_views.provenance(Item("patient", upload("patient.png")), 0.5).get("file") is None


def test_port_in_use_is_refused():
    import socket

    with socket.socket() as taken:
        taken.bind((server.HOST, 0))
        taken.listen()
        with pytest.raises(InputError):
            server.find_port(taken.getsockname()[1])
    assert server.find_port(None) >= server.FIRST_PORT


def test_durations_and_minutes_read_like_words():
    assert texts.duration(9.6) == "10 s"
    assert texts.duration(200) == "3 min 20 s"
    assert texts.duration(3900) == "1 h 5 min"
    assert (texts.minutes(0.4), texts.minutes(6)) == ("1 minute", "6 minutes")


def test_building_the_page_loads_no_torch(tmp_path):
    code = (
        "import sys; from pathlib import Path; from app.gradio_ui.server import quiet_environment;"
        f"quiet_environment(Path({str(tmp_path)!r}));"
        "from app.gradio_ui.blocks import build_page; from app.gradio_ui.state import Sessions;"
        f"build_page(Sessions(Path({str(tmp_path)!r}), None)); assert 'torch' not in sys.modules;"
        # Gradio's import must not write into its installation; this also tells when it does so by another name.
        "from gradio import component_meta;"
        "assert component_meta.create_or_modify_pyi.__module__ == 'app.gradio_ui.gradio_import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2], timeout=120)


def test_opened_page_is_drawn_without_loading_torch(tmp_path):
    code = (
        "import sys; from pathlib import Path; from app.gradio_ui import context;"
        "made = []; start = context.Ui.__init__;"
        "context.Ui.__init__ = lambda ui, sessions: (start(ui, sessions), made.append(ui)) and None;"
        "from app.gradio_ui.blocks import build_page; from app.gradio_ui.state import Sessions;"
        "from univg.workflow.sample import create_sample_project;"
        f"sessions = Sessions(Path({str(tmp_path)!r}) / 's', create_sample_project({str(tmp_path / 'sample')!r}));"
        "build_page(sessions); session = sessions.attach(''); groups = made[0]._groups; count = len(groups);"
        "seen = made[0]._redraw(groups, session.id, *[{}] * count)[:count];"
        "made[0]._redraw(groups, session.id, *seen); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2], timeout=120)


def test_hidden_parts_of_a_project_are_drawn_at_the_next_tick(tmp_path):
    drawn = []
    sessions = Sessions(tmp_path / "sessions", Project.create(tmp_path / "p", modality="octa"))
    with gr.Blocks():
        ui, first, second = context.Ui(sessions), gr.HTML(), gr.HTML()
        with ui.group():
            ui.part([first], lambda session: 1, lambda session: drawn.append("shown") or ["a"])
            ui.part([second], lambda session: 1, lambda session: drawn.append("hidden") or ["b"], later=True)
    session, groups = sessions.attach(""), ui._groups
    assert ui._ring(session.id, {}) == [gr.skip()]  # its first drawing is not there yet
    seen, *_ = ui._redraw(groups, session.id, {})
    assert drawn == ["shown"]
    assert isinstance(ui._ring(session.id, seen)[0], str)  # something is left to draw
    seen, *updates = ui._redraw(groups, session.id, seen)
    assert drawn == ["shown", "hidden"] and updates[1] == "b"
    assert ui._ring(session.id, seen) == [gr.skip()]
    # Another project, and the same order again
    session.open(Project.create(tmp_path / "q", modality="octa"))
    assert isinstance(ui._ring(session.id, seen)[0], str)
    seen, *_ = ui._redraw(groups, session.id, seen)
    ui._redraw(groups, session.id, seen)
    assert drawn == ["shown", "hidden", "hidden"]


def test_part_that_fails_leaves_the_rest_of_the_page(tmp_path, caplog):
    sessions = Sessions(tmp_path / "sessions", Project.create(tmp_path / "p", modality="octa"))

    def fail(session):
        raise KeyError(session.id)

    with gr.Blocks():
        ui, first, second = context.Ui(sessions), gr.HTML(), gr.HTML()
        with ui.group():
            ui.part([first], lambda session: 1, fail)
            ui.part([second], lambda session: 1, lambda session: ["drawn"])
    session = sessions.attach("")
    seen, *updates = ui._redraw(ui._groups, session.id, {})
    assert updates == [gr.skip(), "drawn"]
    for _ in range(3):
        assert isinstance(ui._ring(session.id, seen)[0], str), "what was not drawn is tried again"
        seen, *updates = ui._redraw(ui._groups, session.id, seen)
        assert updates == [gr.skip()] * 2
    assert len(caplog.records) == 1 and "KeyError" in caplog.text and session.id not in caplog.text


def test_wrong_project_ends_with_exit_code_2(tmp_path):
    command = [sys.executable, "-m", "app", "--project", str(tmp_path / "none"), "--no-browser"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=120)
    assert done.returncode == 2
    assert "no such folder" in done.stderr and "Traceback" not in done.stderr


def test_opening_another_project_lets_go_of_the_first(tmp_path):
    session = Sessions(tmp_path / "sessions", None).attach("")
    session.unmasked["x"] = upload("x.png")
    project = Project.create(tmp_path / "p", modality="octa")
    session.open(project)
    assert session.project == project and not session.unmasked and not session.at_start
