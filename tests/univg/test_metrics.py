from __future__ import annotations

import json
import math
from dataclasses import astuple, fields
from itertools import product

import numpy as np
import pytest

from univg.metrics import (
    SegmentationMetrics,
    auc,
    betti_errors,
    betti_numbers,
    cldice,
    dice,
    evaluate,
    frechet_distance,
    iou,
    nsd,
    nsd_to_region,
    summarize,
)

SCORES = ("dice", "iou", "cldice", "nsd", "sensitivity", "specificity", "precision", "accuracy")


def blank(size: int = 40) -> np.ndarray:
    return np.zeros((size, size), dtype=bool)


def cross(size: int = 40) -> np.ndarray:
    mask = blank(size)
    mask[18:21] = True
    mask[:, 18:21] = True
    return mask


def box(rows: slice, cols: slice, size: int = 40) -> np.ndarray:
    mask = blank(size)
    mask[rows, cols] = True
    return mask


@pytest.mark.parametrize("definitions", ["standard", "authors"])
def test_a_perfect_mask_scores_one_everywhere(definitions):
    scores = evaluate(cross(), cross(), probability=cross().astype(np.float32), definitions=definitions)
    for name in (*SCORES, "auc"):
        assert getattr(scores, name) == pytest.approx(1.0), name
    assert (scores.betti0_error, scores.betti1_error) == (0, 0)


def test_disjoint_masks_score_zero():
    scores = evaluate(box(slice(2, 6), slice(2, 6)), box(slice(30, 34), slice(30, 34)))
    assert (scores.dice, scores.iou, scores.cldice, scores.nsd) == (0, 0, 0, 0)
    assert (scores.sensitivity, scores.precision) == (0, 0)
    assert scores.accuracy == pytest.approx(1 - 32 / 1600)


def test_two_empty_masks_agree_and_their_rates_are_undefined():
    scores = evaluate(blank(), blank())
    assert (scores.dice, scores.iou, scores.cldice, scores.nsd) == (1, 1, 1, 1)
    assert math.isnan(scores.sensitivity) and math.isnan(scores.precision) and math.isnan(scores.auc)
    assert (scores.specificity, scores.accuracy) == (1, 1)


@pytest.mark.parametrize("definitions", ["standard", "authors"])
@pytest.mark.parametrize("swap", [False, True])
def test_one_empty_mask_scores_zero(definitions, swap):
    masks = (blank(), cross()) if swap else (cross(), blank())
    scores = evaluate(*masks, definitions=definitions)
    assert scores.dice == pytest.approx(0, abs=1e-6)
    assert (scores.cldice, scores.nsd) == (0, 0)


def test_two_full_masks_score_one():
    full = np.ones((20, 20), dtype=bool)
    for definitions in ("standard", "authors"):
        scores = evaluate(full, full, definitions=definitions)
        assert (scores.dice, scores.nsd, scores.cldice) == (1, 1, 1)
        assert math.isnan(scores.specificity)


def test_dice_and_iou_of_a_half_overlap():
    mask, reference = box(slice(0, 10), slice(0, 10)), box(slice(0, 10), slice(5, 15))
    assert dice(mask, reference) == pytest.approx(0.5)
    assert iou(mask, reference) == pytest.approx(1 / 3)


def test_rates_of_a_known_confusion():
    mask = np.array([[1, 1, 0, 0, 0]], dtype=bool)
    reference = np.array([[1, 0, 1, 0, 0]], dtype=bool)
    scores = evaluate(mask, reference)
    assert scores.sensitivity == pytest.approx(1 / 2)
    assert scores.precision == pytest.approx(1 / 2)
    assert scores.specificity == pytest.approx(2 / 3)
    assert scores.accuracy == pytest.approx(3 / 5)


def test_cldice_of_lines_of_different_length():
    mask, reference = blank(), blank()
    mask[20, 5:15] = True
    reference[20, 5:25] = True
    # Topology precision 10/10, topology sensitivity 10/20.
    assert cldice(mask, reference) == pytest.approx(2 / 3)


def test_cldice_forgives_thickness_where_dice_does_not():
    thin, thick = blank(), blank()
    thin[20, 5:35] = True
    thick[17:24, 2:38] = True
    assert dice(thin, thick) < 0.3
    assert cldice(thin, thick) > 0.9


def test_nsd_counts_boundary_pixels_within_the_tolerance():
    mask, reference = blank(), blank()
    mask[10, 10:20] = True
    reference[13, 10:20] = True
    assert nsd(mask, reference, tolerance=2.9) == 0
    assert nsd(mask, reference, tolerance=3) == 1


def test_nsd_of_lines_that_part():
    mask, reference = blank(), blank()
    mask[10, 0:20] = True
    reference[10, 0:10] = True
    # All 10 reference pixels are near; of the 20 predicted ones, 10 plus the next 2.
    assert nsd(mask, reference, tolerance=2) == pytest.approx(22 / 30)


def test_the_authors_nsd_forgives_a_boundary_deep_inside_the_other_mask():
    inner, outer = box(slice(15, 25), slice(15, 25)), box(slice(5, 35), slice(5, 35))
    assert nsd(inner, outer) == 0
    boundary_inner, boundary_outer = 4 * 9, 4 * 29
    assert nsd_to_region(inner, outer) == pytest.approx(boundary_inner / (boundary_inner + boundary_outer))


def test_the_authors_definitions_differ_where_documented():
    assert evaluate(blank(), blank(), definitions="authors").cldice == 0
    assert evaluate(blank(), blank(), definitions="authors").dice == 1
    half = box(slice(0, 10), slice(0, 10)), box(slice(0, 10), slice(5, 15))
    assert evaluate(*half, definitions="authors").dice == pytest.approx((100 + 1e-5) / (200 + 1e-5), abs=1e-12)
    inner, outer = box(slice(15, 25), slice(15, 25)), box(slice(5, 35), slice(5, 35))
    assert evaluate(inner, outer, definitions="authors").nsd > evaluate(inner, outer).nsd


def test_auc_equals_the_count_over_all_pairs_of_pixels():
    rng = np.random.default_rng(0)
    probability = rng.integers(0, 6, (6, 7)) / 5
    reference = rng.random((6, 7)) < 0.4
    wins = [(p > n) + 0.5 * (p == n) for p, n in product(probability[reference], probability[~reference])]
    assert auc(probability, reference) == pytest.approx(np.mean(wins))


def test_auc_of_a_constant_score_is_one_half_and_of_an_inverted_one_zero():
    reference = cross()
    assert auc(np.full((40, 40), 0.3, dtype=np.float32), reference) == 0.5
    assert auc(1 - reference.astype(np.float32), reference) == 0


def test_auc_of_a_single_class_is_undefined():
    assert math.isnan(auc(np.zeros((4, 4)), np.zeros((4, 4), dtype=bool)))
    assert math.isnan(auc(np.zeros((4, 4)), np.ones((4, 4), dtype=bool)))


def test_auc_refuses_nan():
    with pytest.raises(ValueError, match="NaN"):
        auc(np.full((4, 4), np.nan), np.eye(4, dtype=bool))


def test_betti_numbers_of_known_shapes():
    ring = box(slice(5, 15), slice(5, 15))
    ring[8:12, 8:12] = False
    assert betti_numbers(blank()) == (0, 0)
    assert betti_numbers(np.ones((9, 9), dtype=bool)) == (1, 0)
    assert betti_numbers(ring) == (1, 1)
    assert betti_numbers(np.eye(9, dtype=bool)) == (1, 0), "diagonal pixels are one component"


def test_a_hole_is_not_closed_by_the_image_frame_nor_opened_by_a_diagonal():
    bay = np.ones((5, 5), dtype=bool)
    bay[:3, 2] = False
    assert betti_numbers(bay) == (1, 0)
    diamond = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=bool)
    assert betti_numbers(diamond) == (1, 1)


def test_betti_errors_are_absolute_differences():
    two = box(slice(0, 3), slice(0, 3)) | box(slice(10, 13), slice(10, 13))
    ring = box(slice(5, 15), slice(5, 15))
    ring[8:12, 8:12] = False
    assert betti_errors(two, ring) == betti_errors(ring, two) == (1, 1)


def test_what_lies_outside_the_field_of_view_changes_nothing():
    rng = np.random.default_rng(1)
    fov = box(slice(5, 35), slice(5, 35))
    mask, reference = rng.random((40, 40)) < 0.3, cross()
    probability = rng.random((40, 40)).astype(np.float32)
    expected = evaluate(mask, reference, probability=probability, fov=fov)
    noisy, other_probability = mask.copy(), probability.copy()
    noisy[~fov] = ~noisy[~fov]
    other_probability[~fov] = 1 - other_probability[~fov]
    assert evaluate(noisy, reference | ~fov, probability=other_probability, fov=fov) == expected


def test_a_full_field_of_view_is_the_same_as_none():
    rng = np.random.default_rng(2)
    mask, probability = rng.random((40, 40)) < 0.3, rng.random((40, 40))
    assert evaluate(mask, cross(), probability=probability) == evaluate(
        mask, cross(), probability=probability, fov=np.ones((40, 40), dtype=bool)
    )


def test_an_empty_field_of_view_leaves_the_rates_undefined():
    assert math.isnan(evaluate(cross(), cross(), fov=blank()).accuracy)


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_bounded_symmetric_and_consistent(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.random((2, 30, 31)) < rng.uniform(0.05, 0.6)
    forward, backward = evaluate(a, b), evaluate(b, a)
    for name in SCORES:
        assert 0 <= getattr(forward, name) <= 1
    for name in ("dice", "iou", "cldice", "nsd", "accuracy", "betti0_error", "betti1_error"):
        assert getattr(forward, name) == pytest.approx(getattr(backward, name))
    assert forward.sensitivity == backward.precision
    assert forward.iou == pytest.approx(forward.dice / (2 - forward.dice))
    assert forward.dice == pytest.approx(
        2 * forward.precision * forward.sensitivity / (forward.precision + forward.sensitivity)
    )


def test_evaluate_mutates_nothing():
    mask, reference, fov = cross(), box(slice(3, 30), slice(3, 30)), box(slice(5, 35), slice(5, 35))
    before = [a.copy() for a in (mask, reference, fov)]
    evaluate(mask, reference, fov=fov)
    for array, copy in zip((mask, reference, fov), before, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("name", ["mask", "probability", "fov"])
def test_wrong_shape_is_refused(name):
    arguments = {"mask": cross(), "probability": np.zeros((40, 40)), "fov": cross()}
    arguments[name] = arguments[name][:-1]
    with pytest.raises(ValueError, match=rf"`{name}` \(shape .* must have same shape as `reference`"):
        evaluate(arguments.pop("mask"), cross(), **arguments)


def test_masks_that_are_not_bool_are_refused():
    with pytest.raises(ValueError, match="`mask` must be a bool"):
        evaluate(cross().astype(np.uint8), cross())


def test_unknown_definitions_and_a_negative_tolerance_are_refused():
    with pytest.raises(ValueError, match="definitions"):
        evaluate(cross(), cross(), definitions="paper")
    with pytest.raises(ValueError, match="tolerance"):
        evaluate(cross(), cross(), nsd_tolerance=-1)


def test_summarize_leaves_out_undefined_scores():
    with_rates, without = evaluate(cross(), cross()), evaluate(blank(), blank())
    summary = summarize([with_rates, without, evaluate(blank(), cross())])
    assert summary["dice"]["n"] == 3
    assert summary["dice"]["mean"] == pytest.approx(2 / 3)
    assert summary["dice"]["sd"] == pytest.approx(np.std([1, 1, 0], ddof=1))
    assert summary["sensitivity"] == {"mean": 0.5, "sd": pytest.approx(np.sqrt(0.5)), "n": 2}
    assert summary["auc"]["n"] == 0 and math.isnan(summary["auc"]["mean"])


def test_the_deviation_of_one_image_is_undefined():
    assert math.isnan(summarize([evaluate(cross(), cross())])["dice"]["sd"])


def test_scores_are_plain_floats_and_survive_json():
    scores = evaluate(cross(), cross())
    assert all(type(value) is float for value in astuple(scores))
    stored = {k: None if math.isnan(v) else v for k, v in scores.to_json().items()}
    again = SegmentationMetrics.from_json(json.loads(json.dumps(stored)))
    for field in fields(again):
        np.testing.assert_equal(getattr(again, field.name), getattr(scores, field.name))


def test_frechet_distance_is_that_of_the_closed_form():
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 1, (40, 6)), rng.normal(0.5, 2, (60, 6))
    c1, c2 = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    expected = ((first.mean(0) - second.mean(0)) ** 2).sum() + np.trace(c1 + c2 - 2 * sqrtm(c1 @ c2).real)
    assert frechet_distance(first, second) == pytest.approx(expected)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-9)
    few = rng.normal(0, 1, (5, 200))
    assert frechet_distance(few, few + 3) == pytest.approx(200 * 9)
    with pytest.raises(ValueError, match="second"):
        frechet_distance(first, second[:, :3])
