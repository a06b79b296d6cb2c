"""The Images tab without a page: looks at one mask, and the pairs of the project."""

from __future__ import annotations

import numpy as np
import pytest

from tests.conftest import make_pair
from univg.errors import InputError
from univg.io import write_json_atomic
from univg.types import ImageMaskPair
from univg.workflow.near_duplicates import RESULT_FILE
from univg.workflow.project import Project

pytest.importorskip("gradio")

from app import texts
from app.gradio_ui import blocks, errors, image_studio, images
from app.gradio_ui.image_studio import DRAWN, HELD, NEW, ImageSettings
from app.gradio_ui.review_board import all_entries, counts
from app.gradio_ui.state import Sessions


@pytest.fixture
def session(tmp_path):
    """A page with a project of one annotated image and eight synthetic pairs, one of them flagged."""
    project = Project.create(tmp_path / "p", modality="octa", working_size=64)
    project.add_support_pair(make_pair("a", size=64))
    for number in range(8):
        mask = np.zeros((64, 64), bool)
        mask[number + 5, 5:60] = True
        pair = ImageMaskPair(np.full((64, 64), number, np.uint8), mask, f"s{number}", synthetic=True)
        project.add_synthetic_pair(pair, {"checks": {"flags": ["faint"] if number == 0 else []}})
    session = Sessions(tmp_path / "sessions", None).attach("")
    session.open(project)
    return session


def test_looks_at_a_new_mask_leave_the_one_drawn_by_hand(session, monkeypatch):
    new, by_hand = np.eye(64, dtype=bool), np.zeros((64, 64), bool)
    by_hand[20:24] = True
    monkeypatch.setattr(image_studio, "_new_mask", lambda *_: new)
    drawn_of = []

    def draw_one(project, studio, settings):
        mask = image_studio.mask_of(project, studio, settings)
        drawn_of.append(mask)
        return image_studio.Drawn(ImageMaskPair(np.zeros((64, 64), np.uint8), mask, "x"), None, 0.1)

    monkeypatch.setattr(image_studio, "_draw_one", draw_one)
    studio = images.studio_of(session)
    images._use_mask(session, by_hand)
    studio.settings = ImageSettings(NEW, seed=3)
    images._looks(session)
    assert studio.settings.source == HELD and all(mask is new for mask in drawn_of[-4:])
    images._choose_look(session, texts.IMAGES_SEED.format(seed=5))
    assert studio.settings == ImageSettings(HELD, seed=5) and studio.found(studio.settings) is not None
    images._settle("source", session, DRAWN)
    assert studio.settings.source == DRAWN and np.array_equal(studio.found(studio.settings).pair.mask, by_hand)
    assert {HELD, DRAWN} <= set(images._known_sources(session.project, studio))


def test_damaged_pair_is_grey_and_the_rest_of_the_tab_goes_on(session):
    folder = session.project.pairs_folder
    (folder / "images" / "s7.png").write_bytes(b"no image")
    next(folder.rglob("s6.json")).write_text("no JSON")
    _, line, _, gallery = images._pairs(session)
    assert len(gallery.value) == 6 and "8 pairs" in line


def test_pairs_are_flagged_as_in_review(session):
    before = images._pairs_signature(session)
    assert "1 flagged" in images._pairs(session)[1]
    found = {"compared": session.project.pair_names(), "same_as": {"s3": "s2"}}
    write_json_atomic(session.project.pairs_folder / RESULT_FILE, found)
    assert images._pairs_signature(session) != before
    assert "2 flagged" in images._pairs(session)[1] and counts(all_entries(session.project))["flagged"] == 2


def test_conditions_without_an_image_say_what_to_add(session):
    session.project.remove_support_pair("a")
    with pytest.raises(InputError) as caught:
        images._conditions(session)
    said = errors.message(caught.value).message
    assert said == "No annotated image yet. Add annotated images under Data first."


def test_what_takes_long_shows_that_it_works(tmp_path):
    page = blocks.build_page(Sessions(tmp_path / "sessions", None)).config
    names = {component["id"]: component["props"].get("elem_id") for component in page["components"]}
    shown = {names.get(at): each["show_progress"] for each in page["dependencies"] for at, _ in each["targets"]}
    for name in ("tree-animate", "tree-vary", "tree-compare", "review-export-go", "image-looks", "mask-sweep"):
        assert shown[name] == "minimal", name
