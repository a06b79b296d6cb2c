"""Pairs that repeat another one: found when mirrored or shifted, and not when only alike."""

import time

import numpy as np
import pytest

from univg.sca import generate_mask
from univg.types import ImageMaskPair, Modality
from univg.workflow import near_duplicates as module
from univg.workflow.near_duplicates import (
    Fingerprints,
    are_compared,
    fingerprint,
    near_duplicates,
    read_near_duplicates,
    update_near_duplicates,
)
from univg.workflow.project import Project
from univg.workflow.verdicts import Verdict, judge, pairs_that_train

MODALITY = Modality.CORONARY_DSA


def pair_of(name, mask, *, seed=0, vessels=-0.35):
    grey = 0.7 + vessels * mask + 0.04 * np.random.default_rng(seed).standard_normal(mask.shape)
    return ImageMaskPair(np.rint(255 * np.clip(grey, 0, 1)).astype(np.uint8), mask, name, synthetic=True)


@pytest.fixture(scope="module")
def masks():
    rng = np.random.default_rng(4)
    return [generate_mask(MODALITY, shape=(256, 256), rng=rng) for _ in range(4)]


def prints_of(pairs):
    found = [fingerprint(pair, MODALITY) for pair in pairs]
    return Fingerprints([p.name for p in pairs], np.stack([f[0] for f in found]), np.stack([f[1] for f in found]))


def test_later_of_two_is_named_with_the_earlier_one(masks):
    pairs = [
        pair_of("a", masks[0], seed=1),
        pair_of("b", masks[1], seed=2),
        pair_of("c", masks[0], seed=3),  # the same tree on another ground
        pair_of("d", np.roll(masks[1][:, ::-1], (3, -4), (0, 1)), seed=4),  # mirrored and shifted
        pair_of("e", masks[2], seed=5),
    ]
    assert near_duplicates(prints_of(pairs)) == {"c": "a", "d": "b"}


def test_same_mask_under_an_image_that_does_not_show_it_is_no_duplicate(masks):
    rng = np.random.default_rng(0)
    other = rng.integers(0, 256, masks[0].shape).astype(np.uint8)
    pairs = [pair_of("a", masks[0]), ImageMaskPair(other, masks[0], "b", synthetic=True)]
    assert near_duplicates(prints_of(pairs)) == {}


def test_stopping_before_the_first_fingerprint_finds_nothing(masks, tmp_path):
    project = Project.create(tmp_path / "p", modality=MODALITY)
    project.add_synthetic_pair(pair_of("a", masks[0]), {})
    assert update_near_duplicates(project, should_stop=lambda: True) == {}
    assert not are_compared(project)
    assert update_near_duplicates(project) == {} and are_compared(project)


def test_empty_masks_are_no_duplicates():
    empty = np.zeros((64, 64), bool)
    assert near_duplicates(prints_of([pair_of("a", empty), pair_of("b", empty)])) == {}


def test_found_for_a_project_whatever_the_order_of_arrival(tmp_path, masks):
    project = Project.create(tmp_path / "p", modality=MODALITY, working_size=256)
    assert are_compared(project) and update_near_duplicates(project) == {}
    project.add_synthetic_pair(pair_of("z", masks[0]), {})
    project.add_synthetic_pair(pair_of("m", masks[1], seed=1), {})
    assert not are_compared(project)
    assert update_near_duplicates(project) == {} and are_compared(project)
    project.add_synthetic_pair(pair_of("a", masks[0], seed=2), {})
    assert update_near_duplicates(project) == {"z": "a"}
    # It counts as a flag: undecided it does not train, accepted it does
    assert pairs_that_train(project) == ["a", "m"]
    judge(project, ["z"], Verdict.ACCEPTED)
    assert pairs_that_train(project) == ["a", "m", "z"]


@pytest.mark.parametrize("damage", [lambda _: b"{", lambda whole: whole[: len(whole) // 2]])
def test_damaged_files_are_made_again(tmp_path, masks, damage):
    project = Project.create(tmp_path / "p", modality=MODALITY, working_size=256)
    for name in "ab":
        project.add_synthetic_pair(pair_of(name, masks[0], seed=ord(name)), {})
    update_near_duplicates(project)
    for name in (module.RESULT_FILE, module._FINGERPRINTS_FILE):
        file = project.pairs_folder / name
        file.write_bytes(damage(file.read_bytes()))
    assert read_near_duplicates(project) == {}
    assert update_near_duplicates(project) == {"b": "a"}


@pytest.mark.slow
def test_two_thousand_take_seconds(masks):
    rng = np.random.default_rng(0)
    moved = (np.roll(masks[n % 4], rng.integers(-128, 128, 2), (0, 1)) for n in range(2000))
    prints = prints_of([pair_of(f"{n:04d}", mask) for n, mask in enumerate(moved)])
    started = time.perf_counter()
    near_duplicates(prints)
    assert time.perf_counter() - started < 30, "seconds on an idle machine"
