"""The Review tab without a page: order, filters, verdicts, undo."""

import numpy as np
import pytest

from app.gradio_ui import review_view
from app.gradio_ui.review_board import ReviewBoard, all_entries, counts
from univg.errors import InputError
from univg.types import ImageMaskPair, Modality
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


def test_html_escapes_names_and_marks_the_current_pair(project, tmp_path):
    entries = all_entries(project)
    html = review_view.grid(project, entries, "s1", tmp_path)
    assert html.count("<button") == 4 and html.count('aria-current="true"') == 1
    assert html.count('class="flag"') == 2
    stage = review_view.stage(project, entries[0], entries[1:3], tmp_path)
    assert stage.count('class="ahead"') == 4 and 'class="layer"' in stage
    assert len(list(tmp_path.glob("*.png"))) == 4 + 6
