"""The Review tab without a page: order, filters, verdicts, undo."""

import cv2
import numpy as np
import pytest

from app import texts
from app.gradio_ui import review, review_view
from app.gradio_ui.review_board import FLAGS, SORTS, ReviewBoard, all_entries, counts, flag_counts
from app.gradio_ui.review_pictures import draw_thumbnails, picture
from app.gradio_ui.review_routes import answer
from app.gradio_ui.state import Session
from univg.errors import InputError
from univg.io import write_json_atomic
from univg.types import ImageMaskPair, Modality
from univg.workflow.near_duplicates import RESULT_FILE
from univg.workflow.project import Project
from univg.workflow.verdicts import Verdict, read_judgements


@pytest.fixture
def project(tmp_path):
    project = Project.create(tmp_path / "p", modality=Modality.OCTA, working_size=64)
    for number, (agreement, flags) in enumerate([(0.9, []), (0.5, []), (0.7, ["faint"]), (0.6, ["disagrees"])]):
        mask = np.zeros((64, 64), bool)
        mask[10 + number, 5:60] = True
        pair = ImageMaskPair(np.full((64, 64), 40 * number, np.uint8), mask, f"s{number}", synthetic=True)
        project.add_synthetic_pair(pair, {"checks": {"agreement": agreement, "flags": flags}})
    return project


def names(board, project):
    return [entry.name for entry in board.entries(project)]


def test_flagged_pairs_come_first_and_the_doubtful_ones_of_them(project):
    board = ReviewBoard()
    assert names(board, project) == ["s3", "s2", "s1", "s0"]
    board.sort = "agreement"
    assert names(board, project) == ["s1", "s3", "s2", "s0"]
    board.sort = "name"
    assert names(board, project) == ["s0", "s1", "s2", "s3"]


def test_judging_goes_on_to_the_next_pair_and_undo_comes_back(project):
    board = ReviewBoard()
    assert board.on_screen(project).name == "s3"
    board.judge_current(project, Verdict.REJECTED, "blurred")
    assert board.current == "s2"
    board.judge_current(project, Verdict.ACCEPTED)
    assert read_judgements(project)["s3"].note == "blurred"
    board.take_back(project)
    assert board.current == "s2" and read_judgements(project)["s2"].verdict is Verdict.UNDECIDED
    board.take_back(project)
    assert board.current == "s3" and counts(all_entries(project))["judged"] == 0
    with pytest.raises(InputError, match="nothing to undo"):
        board.take_back(project)


def test_last_pair_stays_on_screen(project):
    board = ReviewBoard(sort="name", current="s3")
    board.judge_current(project, Verdict.ACCEPTED)
    assert board.current == "s2"
    board.move(project, 5)
    assert board.current == "s3"
    board.move(project, -9)
    assert board.current == "s0"


def test_filters_and_bulk_verdicts(project):
    board = ReviewBoard(shown="flagged")
    board.judge_many(project, board.entries(project), Verdict.REJECTED)
    assert counts(all_entries(project)) == {
        "all": 4,
        "undecided": 2,
        "flagged": 2,
        "accepted": 0,
        "rejected": 2,
        "judged": 2,
    }
    assert names(ReviewBoard(shown="undecided"), project) == ["s1", "s0"]
    board.take_back(project)
    assert counts(all_entries(project))["rejected"] == 0
    with pytest.raises(InputError, match="No pair"):
        board.judge_many(project, [], Verdict.ACCEPTED)


def test_each_flag_is_a_filter_and_each_figure_an_order(tmp_path):
    project = Project.create(tmp_path / "q", modality=Modality.OCTA, working_size=64)
    figures = {"a": (0.2, 9, 0.1, ["broken"]), "b": (1.5, 1, 0.9, ["copied mask"]), "c": (None, 2, None, [])}
    for name, (contrast, pieces, nearest, flags) in figures.items():
        mask = np.zeros((64, 64), bool)
        mask[ord(name) % 32, 5:60] = True
        checks = {"contrast": contrast, "components": pieces, "nearest_mask": nearest, "flags": flags}
        pair = ImageMaskPair(np.full((64, 64), ord(name), np.uint8), mask, name, synthetic=True)
        project.add_synthetic_pair(pair, {"checks": checks})
    write_json_atomic(project.pairs_folder / RESULT_FILE, {"compared": ["a", "b", "c"], "same_as": {"c": "a"}})
    assert names(ReviewBoard(flag="broken"), project) == ["a"]
    assert names(ReviewBoard(flag="near-duplicate"), project) == ["c"]
    assert names(ReviewBoard(sort="pieces"), project) == ["a", "c", "b"]
    assert names(ReviewBoard(sort="contrast"), project) == ["a", "b", "c"]
    assert names(ReviewBoard(sort="likeness"), project) == ["b", "a", "c"]
    assert names(ReviewBoard(sort="twins"), project) == ["c", "a", "b"]
    assert set(SORTS) == set(texts.REVIEW_SORTS) and set(FLAGS) == set(texts.REVIEW_FLAGS) <= set(texts.IMAGES_FLAGS)
    found = flag_counts(all_entries(project))
    assert (found["near-duplicate"], found["broken"], found["faint"]) == (1, 1, 0)


def test_judged_pairs_stay_until_the_list_is_asked_for_anew(project):
    board = ReviewBoard(shown="undecided")
    board.on_screen(project)
    board.judge_current(project, Verdict.ACCEPTED)
    assert names(board, project) == ["s3", "s2", "s1", "s0"] and board.current == "s2"
    board.list_anew(shown="undecided")
    assert names(board, project) == ["s2", "s1", "s0"]


def test_html_escapes_names_and_marks_the_current_pair(project):
    entries = all_entries(project)
    html = review_view.grid("page", project.path, entries, "s1")
    assert html.count("<button") == 4 and html.count('aria-current="true"') == 1
    assert html.count('class="flag"') == 2
    stage = review_view.stage("page", project.path, entries[0], position="Pair <1>")
    assert 'class="layer"' in stage and "Pair &lt;1&gt;" in stage
    assert html != review_view.grid("page", project.path, entries, "s1"), "a page must take it for another text"
    odd = review_view.picture_address("page", project.path, "small", "a b&c")
    assert "a%20b%26c" in odd


def test_pictures_are_drawn_once_and_never_from_outside_the_project(project):
    small, kind = picture(project, "small", "s1")
    assert kind == "image/webp" and cv2.imdecode(np.frombuffer(small, np.uint8), 1).shape == (96, 96, 3)
    (kept,) = (project.pairs_folder / ".thumbnails").glob("*.webp")
    kept.write_bytes(b"kept")
    assert picture(project, "small", "s1")[0] == b"kept"
    layer = cv2.imdecode(np.frombuffer(picture(project, "mask", "s1")[0], np.uint8), cv2.IMREAD_UNCHANGED)
    assert layer.shape == (64, 64, 4) and (layer[..., 3] > 0).sum() == 55
    assert cv2.imdecode(np.frombuffer(picture(project, "white", "s1")[0], np.uint8), 0).max() == 255
    assert picture(project, "image", "s1")[0] == (project.pairs_folder / "images" / "s1.png").read_bytes()
    draw_thumbnails(project, ["s1", "nobody", "s2"])
    assert len(list((project.pairs_folder / ".thumbnails").glob("*.webp"))) == 2
    for layer, name in (("small", "../p"), ("small", "nobody"), ("image", "nobody"), ("else", "s1")):
        with pytest.raises(InputError):
            picture(project, layer, name)
    assert project.pair_names() == ["s0", "s1", "s2", "s3"]


def test_answers_to_keys(project, tmp_path):
    session = Session("page", tmp_path / "session", project=project)
    shown = answer(session, {"do": "judge", "name": "s3", "verdict": "rejected", "note": " blurred ", "page": 0})
    assert shown["name"] == "s2" and shown["verdicts"]["s3"] == "rejected" and "grid" not in shown
    assert "1 of 4" in shown["tally"] and "blurred" in shown["facts"]["s3"]
    shown = answer(session, {"do": "undo", "page": 3})
    assert shown["name"] == "s3" and shown["verdicts"]["s3"] == "undecided" and "s3" in shown["grid"]
    assert answer(session, {"do": "step", "name": "s3", "by": 1, "page": 0})["name"] == "s2"
    assert answer(session, {"do": "go", "name": "s0", "page": 0})["name"] == "s0"
    # The verdict is on the pair that the page names, not on the one that the server thinks is on screen
    assert answer(session, {"do": "judge", "name": "s2", "verdict": "accepted", "page": 0})["name"] == "s1"
    with pytest.raises(InputError, match="no longer"):
        answer(session, {"do": "judge", "name": "../s1", "verdict": "accepted", "page": 0})
    with pytest.raises(ValueError, match="perhaps"):
        answer(session, {"do": "judge", "name": "s1", "verdict": "perhaps", "page": 0})


def test_pages_beside_the_one_on_screen_are_sent_once(project, tmp_path, monkeypatch):
    monkeypatch.setattr(review_view, "PAGE", 1)  # in order: s3, s2, s1, s0
    session = Session("page", tmp_path / "session", project=project)
    shown = answer(session, {"do": "go", "name": "s2", "page": 1, "waiting": [0]})
    assert list(shown["pages"]) == [2] and "s1" in shown["pages"][2] and "grid" not in shown
    assert "pages" not in answer(session, {"do": "go", "name": "s2", "page": 1, "waiting": [0, 2]})
    assert "pages" not in answer(session, {"do": "go", "name": "s3", "page": 0, "waiting": [1]})
    grid = answer(session, {"do": "go", "name": "s2", "page": 0, "waiting": [1]})["grid"]
    assert [grid.count(f'<template data-page="{n}">') for n in range(4)] == [1, 0, 1, 0]


def test_bulk_undo_brings_back_what_was_there(project):
    board = ReviewBoard()
    board.judge_many(project, board.entries(project)[:1], Verdict.ACCEPTED, "fine")
    board.judge_many(project, board.entries(project), Verdict.REJECTED)
    names, left = board.take_back(project)
    assert sorted(names) == ["s0", "s1", "s2", "s3"] and not left
    found = read_judgements(project)
    assert found["s3"].verdict is Verdict.ACCEPTED and found["s3"].note == "fine"
    assert all(found[name].verdict is Verdict.UNDECIDED for name in ("s0", "s1", "s2"))


def test_undo_leaves_what_another_tab_judged_since(project, tmp_path):
    session = Session("page", tmp_path / "session", project=project)
    answer(session, {"do": "judge", "name": "s0", "verdict": "accepted", "page": 0})
    board, other = session.review, ReviewBoard()
    board.judge_many(project, board.entries(project), Verdict.REJECTED)
    other.judge_named(project, "s1", Verdict.ACCEPTED, "looked twice")
    other.judge_named(project, "s2", Verdict.REJECTED)  # the same word, but the other tab's
    shown = answer(session, {"do": "undo", "page": 0})
    found = read_judgements(project)
    assert (found["s1"].verdict, found["s1"].note) == (Verdict.ACCEPTED, "looked twice")
    assert found["s2"].verdict is Verdict.REJECTED and found["s3"].verdict is Verdict.UNDECIDED
    assert shown["said"].startswith("2 pairs were") and shown["verdicts"]["s1"] == "accepted"
    assert found["s0"].verdict is Verdict.ACCEPTED
    assert answer(session, {"do": "undo", "page": 0})["said"] == ""
    assert read_judgements(project)["s0"].verdict is Verdict.UNDECIDED, "brought back, so it is this page's again"


def test_a_verdict_lands_on_the_pair_it_names_though_that_left_the_list(project, tmp_path):
    session = Session("id", tmp_path / "s")
    session.open(project)
    session.review = ReviewBoard(shown="undecided", sort="name")
    answer(session, {"do": "judge", "name": "s0", "verdict": "accepted", "page": 0})
    more = np.eye(64, dtype=bool)
    project.add_synthetic_pair(ImageMaskPair(np.zeros((64, 64), np.uint8), more, "s9", synthetic=True), {})
    session.review.list_anew(shown="undecided")
    assert answer(session, {"do": "judge", "name": "s0", "verdict": "rejected", "page": 0})["name"] == "s1"
    judged = {name: judgement.verdict for name, judgement in read_judgements(project).items()}
    assert judged == {"s0": Verdict.REJECTED}


def add_pair(project, name, record=None):
    mask = np.zeros((64, 64), bool)
    mask[ord(name[0]) % 60, : 5 + ord(name[-1]) % 50] = True
    project.add_synthetic_pair(ImageMaskPair(np.zeros((64, 64), np.uint8), mask, name, synthetic=True), record or {})


def test_new_pairs_come_last_until_the_list_is_asked_for_anew(project):
    board = ReviewBoard(sort="name", shown="undecided")
    assert names(board, project) == ["s0", "s1", "s2", "s3"]
    add_pair(project, "b")
    add_pair(project, "a")
    assert names(board, project) == ["s0", "s1", "s2", "s3", "a", "b"]
    board.list_anew(sort="name")
    assert names(board, project) == ["a", "b", "s0", "s1", "s2", "s3"]


def test_pairs_that_are_new_leave_the_one_on_screen_and_join_the_grid_in_turn(project, tmp_path):
    session = Session("page", tmp_path / "session", project=project)
    review._view(session)
    before, counted = review._signature(session), review._tally_signature(session)
    act = {"do": "go", "name": "s2", "page": 0, "shown": 4}
    assert "grid" not in answer(session, act)
    add_pair(project, "new")
    assert review._signature(session) == before, "a redraw would tear down the pair on screen"
    assert review._tally_signature(session) != counted and "of 5" in review._tally(session)
    shown = answer(session, act)
    assert shown["name"] == "s2" and 'data-name="new"' in shown["grid"]
    assert "grid" not in answer(session, {**act, "shown": 5})


def test_page_that_is_full_stays_while_pairs_are_drawn(project, tmp_path, monkeypatch):
    monkeypatch.setattr(review_view, "PAGE", 4)
    session = Session("page", tmp_path / "session", project=project)
    act = {"do": "go", "name": "s2", "page": 0, "shown": 4}
    assert answer(session, act)["line"] == ""
    add_pair(project, "new")
    shown = answer(session, act)
    assert "grid" not in shown and list(shown["pages"]) == [1] and "Page 1 of 2" in shown["line"]


def test_first_pairs_are_drawn_when_they_come(tmp_path):
    empty = Project.create(tmp_path / "e", modality=Modality.OCTA, working_size=64)
    session = Session("page", tmp_path / "session", project=empty)
    assert review._tally(session) == "" and texts.REVIEW_EMPTY_TITLE in review._view(session)[0]
    before = review._signature(session)
    add_pair(empty, "a")
    assert review._signature(session) != before and 'data-name="a"' in review._view(session)[0]


@pytest.mark.parametrize("text", ["no JSON", "[1]", '{"checks": 3}'])
def test_damaged_record_leaves_the_other_pairs(project, text):
    add_pair(project, "odd")
    next(project.pairs_folder.rglob("odd.json")).write_text(text)
    (found,) = (entry for entry in all_entries(project) if entry.name == "odd")
    assert found.flags == () and found.pieces == 0 and len(all_entries(project)) == 5
