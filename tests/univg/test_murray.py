from dataclasses import replace

import numpy as np
import pytest

from univg.geometry import VesselTree, mask_compliance, measure_bifurcations, murray_compliance
from univg.io import read_mask
from univg.sca import generate_tree, preset_for
from univg.types import Modality


def fork(parent, *daughters):
    """A trunk down the frame that divides into as many branches as there are `daughters`."""
    along = np.arange(1, 11)[:, None] * 4.0
    positions = [np.array([[10.0, 64.0]]) + np.vstack([[[0, 0]], along * [1, 0]])]
    parents, radii = [np.arange(11) - 1], [np.full(11, float(parent))]
    for i, daughter in enumerate(daughters):
        turn = np.deg2rad(-40 + 80 * i / max(len(daughters) - 1, 1))
        positions.append([50.0, 64.0] + along * [np.cos(turn), np.sin(turn)])
        first = 11 + 10 * i
        parents.append(np.concatenate([[10], first + np.arange(9)]))
        radii.append(np.full(10, float(daughter)))
    return VesselTree(np.concatenate(positions), np.concatenate(parents), np.concatenate(radii), (128, 128))


@pytest.mark.parametrize("exponent", [2.0, 2.5, 3.0])
def test_vessels_that_keep_the_law_score_one_hundred(exponent):
    parent = (3.0**exponent + 2.0**exponent) ** (1 / exponent)
    assert murray_compliance(fork(parent, 3, 2), exponent=exponent) == pytest.approx(100)


def test_three_equal_vessels_score_two_thirds():
    assert murray_compliance(fork(3, 3, 3)) == pytest.approx(100 / 1.5)


def test_a_parent_too_wide_scores_by_its_ratio():
    assert murray_compliance(fork(5, 3, 3)) == pytest.approx(100 / (1 + (25 / 18 - 1)))
    assert murray_compliance(fork(5, 3, 3), exponent=3) == pytest.approx(100 / (1 + (125 / 54 - 1)))


def test_of_three_daughters_the_two_widest_count():
    assert murray_compliance(fork(5, 3, 1, 4)) == pytest.approx(100)


def test_a_tree_grown_by_the_law_scores_high():
    config = replace(preset_for(Modality.CORONARY_DSA).config, murray_exponent=2.0, taper=0.0, calibre_noise=0.0)
    tree = generate_tree(Modality.CORONARY_DSA, config=config, rng=np.random.default_rng(0))
    assert np.median(murray_compliance(tree)) > 95


def test_there_is_one_score_a_bifurcation():
    tree = generate_tree(Modality.FUNDUS, shape=(256, 256), rng=np.random.default_rng(1))
    scores = murray_compliance(tree)
    assert scores.shape == measure_bifurcations(tree).parent_radii.shape
    assert ((scores > 0) & (scores <= 100)).all()


@pytest.mark.parametrize("n", [0, 1, 5])
def test_a_tree_without_bifurcation_has_no_score(n):
    tree = VesselTree(np.full((n, 2), 5.0) + np.arange(n)[:, None], np.arange(n) - 1, np.ones(n), (20, 20))
    assert murray_compliance(tree).shape == (0,)


def test_radii_of_zero_have_no_ratio():
    with np.errstate(all="raise"):
        assert np.isnan(murray_compliance(fork(0, 0, 0))).all()


@pytest.mark.parametrize("exponent", [0, -1.0, float("nan")])
def test_an_exponent_that_is_not_above_zero_is_refused(exponent):
    with pytest.raises(ValueError, match="`exponent`"):
        murray_compliance(fork(3, 2, 2), exponent=exponent)


@pytest.mark.realdata
def test_real_masks_score_what_the_paper_found(data_folder):
    paths = sorted((data_folder / "benchmark" / "drive" / "masks").glob("*.png"))
    scores = [mask_compliance(read_mask(path)) for path in paths]
    assert all(np.isfinite(of_mask).all() for of_mask in scores)
    means = [of_mask.mean() for of_mask in scores]
    assert np.mean(means) == pytest.approx(74.74, abs=1.5)  # table 10
    assert np.std(means, ddof=1) == pytest.approx(2.0, abs=0.7)
