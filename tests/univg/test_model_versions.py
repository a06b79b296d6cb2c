"""Versions of a segmenter: which is used, on what they are compared, and what a training changed."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tests.conftest import make_pair
from univg.errors import InputError
from univg.io import write_image, write_json_atomic
from univg.segmentation.config import HELD_OUT_PICTURE
from univg.types import Modality
from univg.workflow.model_versions import (
    FROZEN,
    active_segmenter,
    compare_versions,
    frozen_as_now,
    frozen_image,
    image_kept_apart,
    name_to_hold_out,
    promote,
    settle,
    used_before,
)
from univg.workflow.project import Project
from univg.workflow.what_changed import dice_difference, what_changed


@pytest.fixture
def project(tmp_path):
    project = Project.create(tmp_path / "p", modality=Modality.CORONARY_DSA, working_size=96)
    for number in range(3):
        project.add_support_pair(make_pair(f"pair-{number}", seed=number))
    return project


def add_version(project, dice, *, held_out="pair-0", synthetic=7, seen=None):
    """A version as a training leaves it, without weights."""
    support = project.load_support()
    card = {
        "train": [name for name in project.support_names() if name != held_out],
        "held_out": held_out,
        "held_out_figures": {"dice": dice, "cldice": dice - 0.1} if held_out else {},
        "support_sha256": dict(support.sha256),
        "synthetic_pairs": synthetic,
    }
    new = project.new_segmenter_folder()
    with new as folder:
        write_json_atomic(folder / "segmenter.json", {"card": card})
        if seen is not None:
            write_image(folder / HELD_OUT_PICTURE, seen.astype(np.float32))
    return settle(project, new.version)


def swap_image(project, name):
    """Another image takes the place of `name`, with the same mask."""
    pair = project.support_pair(name)
    project.remove_support_pair(name)
    project.add_support_pair(replace(pair, image=255 - pair.image))


def test_worse_model_never_replaces_a_better_one(project):
    first = add_version(project, 0.8)
    assert (first.reason, first.active, first.before) == ("first", "v001", "")
    worse = add_version(project, 0.7)
    assert (worse.reason, worse.active, worse.before) == ("worse", "v001", "v001")
    assert active_segmenter(project).name == "v001"
    better = add_version(project, 0.82)
    assert (better.reason, better.active, better.before) == ("better", "v003", "v001")
    assert better.to_json()["dice_before"] == 0.8 and project.segmenter_versions() == ["v001", "v002", "v003"]


def test_what_was_decided_once_is_decided_so_again(project):
    for dice in (0.8, 0.9, 0.85):
        last = add_version(project, dice)
    assert (last.reason, last.active, last.before) == ("worse", "v002", "v002")
    assert settle(project, "v003") == last
    promote(project, "v001")
    better = add_version(project, 0.82)  # than v001, though not than v002 and v003
    assert (better.reason, better.before) == ("better", "v001")
    assert settle(project, "v004") == better and active_segmenter(project).name == "v004"


def test_roll_back_and_undo(project):
    add_version(project, 0.8)
    assert used_before(project) == ""
    add_version(project, 0.9)
    promote(project, "v001")
    assert active_segmenter(project).name == "v001" and used_before(project) == "v002"
    promote(project, used_before(project))
    assert active_segmenter(project).name == "v002" and used_before(project) == "v001"
    with pytest.raises(InputError, match="v009"):
        promote(project, "v009")


def test_torn_choice_costs_only_itself(project):
    add_version(project, 0.8)
    log = project.segmenters_folder / "active.jsonl"
    log.write_bytes(log.read_bytes() + b'{"version": "v0')
    assert active_segmenter(project).name == "v001"
    add_version(project, 0.9)
    promote(project, "v002")
    promote(project, "v001")
    assert active_segmenter(project).name == "v001"
    log.write_bytes(log.read_bytes() + b'{"version": "v0')
    promote(project, "v002")
    assert active_segmenter(project).name == "v002", "a choice after the torn one counts"


def test_image_is_frozen_on_first_use(project):
    assert frozen_image(project) is None
    add_version(project, 0.8, held_out="pair-1")
    assert frozen_image(project).name == "pair-1"
    other = add_version(project, 0.95, held_out="pair-2")
    assert other.reason == "not comparable"
    assert json.loads((project.segmenters_folder / FROZEN).read_text())["name"] == "pair-1"
    assert name_to_hold_out(project) == "pair-1"


def test_versions_that_saw_the_image_are_not_compared(project):
    add_version(project, 0.8)
    add_version(project, 0.9, held_out="pair-2")
    add_version(project, 0.6, held_out=None)
    newest, second, first = compare_versions(project)
    assert (first.reason, first.figures.dice, first.synthetic, first.real) == ("", 0.8, 7, 2)
    assert second.figures is None and second.reason == "trained on it"
    assert newest.figures is None and newest.reason == "trained on it"
    assert [version.in_use for version in (newest, second, first)] == [True, False, False]


def test_corrected_annotation_freezes_anew(project):
    add_version(project, 0.8)
    mask = project.support_pair("pair-0").mask.copy()
    mask[:8] = False
    mask[:4, :4] = True
    project.replace_support_mask("pair-0", mask)
    assert name_to_hold_out(project) == "pair-0"
    add_version(project, 0.7)
    newest, first = compare_versions(project)
    assert newest.figures.dice == 0.7 and first.reason == "another mask"


def test_another_image_of_the_same_name_and_mask_is_not_compared(project):
    add_version(project, 0.8)
    swap_image(project, "pair-0")
    settled = add_version(project, 0.7)
    assert (settled.reason, settled.active) == ("not comparable", "v002")
    newest, first = compare_versions(project)
    assert newest.figures.dice == 0.7 and first.reason == "another mask"
    assert frozen_image(project) == frozen_as_now(project) == newest.figures.image


def test_record_of_an_earlier_version_without_a_hash_of_the_image_still_counts(project):
    add_version(project, 0.8)
    file, whole = project.segmenters_folder / FROZEN, frozen_image(project)
    write_json_atomic(file, {"name": whole.name, "mask_sha256": whole.mask_sha256, "frozen": ""})
    assert frozen_image(project) == replace(whole, image_sha256="")
    assert [version.reason for version in compare_versions(project)] == [""]
    assert add_version(project, 0.85).reason == "better"
    assert frozen_image(project) == whole, "what was missing is on record now"


def test_what_changed_compares_what_was_seen_before_the_image_joined(project):
    reference = project.support_pair("pair-0").mask
    poor = reference & (np.arange(96) < 60)
    add_version(project, 0.7, seen=poor)
    add_version(project, 1.0, seen=reference)
    found = what_changed(project, "v001", "v002")
    assert found.difference > 0.05 and not found.within_chance
    assert found.interval[0] < found.difference < found.interval[1]
    assert np.array_equal(found.mask_after, reference) and found.image.shape[:2] == reference.shape
    same = what_changed(project, "v002", "v002")
    assert same.difference == 0 and same.within_chance


def test_what_cannot_be_compared_is_said(project):
    add_version(project, 0.7, seen=project.support_pair("pair-0").mask)
    add_version(project, 0.8)
    add_version(project, 0.9, held_out="pair-1", seen=project.support_pair("pair-1").mask)
    with pytest.raises(InputError, match="kept no picture"):
        what_changed(project, "v001", "v002")
    with pytest.raises(InputError, match="trained on it"):
        what_changed(project, "v001", "v003")
    with pytest.raises(InputError, match="v007"):
        what_changed(project, "v001", "v007")


def test_figures_are_never_shown_beside_another_mask_or_image_than_theirs(project):
    reference = project.support_pair("pair-0").mask
    for dice in (0.7, 0.8):
        add_version(project, dice, seen=reference)
    project.replace_support_mask("pair-0", np.roll(reference, 5, axis=0))
    with pytest.raises(InputError, match=r"was changed since.*Train again"):
        what_changed(project, "v001", "v002")
    project.replace_support_mask("pair-0", reference)
    assert what_changed(project, "v001", "v002").difference == 0
    swap_image(project, "pair-0")
    with pytest.raises(InputError, match="was changed since"):
        what_changed(project, "v001", "v002")
    project.remove_support_pair("pair-0")
    with pytest.raises(InputError, match="no longer in the project"):
        what_changed(project, "v001", "v002")


def test_interval_of_a_difference_is_that_of_tiles():
    rng = np.random.default_rng(0)
    reference = rng.random((64, 64)) < 0.3
    noisy = reference ^ (rng.random((64, 64)) < 0.1)
    other = reference ^ (rng.random((64, 64)) < 0.1)
    difference, (low, high) = dice_difference(noisy, other, reference)
    assert low < difference < high and high - low < 0.2
    empty = np.zeros_like(reference)
    assert dice_difference(empty, reference, reference)[0] == 1.0
    assert dice_difference(empty, empty, empty)[0] == 0.0


def test_the_image_kept_apart_stays_the_same_though_its_mask_is_corrected(project):
    name, first = image_kept_apart(project), frozen_image(project)
    assert image_kept_apart(project) == name == name_to_hold_out(project) and frozen_image(project) == first
    for number in range(3):
        project.add_support_pair(make_pair(f"a-{number}", seed=20 + number))
    project.replace_support_mask(name, make_pair("x", seed=40).mask)
    assert image_kept_apart(project) == name == frozen_image(project).name and frozen_image(project) != first
