from dataclasses import replace

import numpy as np
import pytest

from univg.geometry import Bifurcations, TreeMorphometry, compare_morphometry, measure_tree
from univg.sca import generate_tree
from univg.types import Modality

QUANTITIES = {
    "vessel_density",
    "segment_diameter",
    "branching_angle",
    "tortuosity",
    "fractal_dimension",
    "segment_length",
    "bifurcations_per_length",
}


def morphometry(lengths=(1.0, 2.0, 3.0), *, density=0.1, angles=(60.0, 80.0)):
    lengths = np.array(lengths, float)
    b = len(angles)
    return TreeMorphometry(
        segment_lengths=lengths,
        segment_diameters=lengths / 2,
        tortuosities=np.ones(len(lengths)),
        bifurcations=Bifurcations(np.zeros((b, 2)), np.ones(b), np.ones((b, 2)), np.array(angles, float)),
        vessel_density=density,
        vessel_length_density=0.01,
        bifurcations_per_length=0.1,
        fractal_dimension=float("nan"),
        betti0=1,
        betti1=0,
    )


def test_a_sample_is_at_no_distance_from_itself():
    trees = [
        measure_tree(generate_tree(Modality.FUNDUS, shape=(256, 256), rng=np.random.default_rng(seed)))
        for seed in range(3)
    ]
    compared = compare_morphometry(trees, trees)
    assert set(compared) == QUANTITIES
    for found in compared.values():
        assert found.distance == pytest.approx(0)
        assert found.generated_median == found.real_median
        assert found.generated_n == found.real_n > 0


def test_the_distance_is_the_shift_in_interquartile_ranges():
    real = [morphometry(np.arange(101.0))]
    generated = [morphometry(np.arange(101.0) + 25)]
    found = compare_morphometry(generated, real)["segment_length"]
    assert found.distance == pytest.approx(25 / 50)
    assert (found.generated_median, found.real_median) == (75, 50)


def test_the_distance_is_the_same_in_any_unit():
    real, generated = np.array([1.0, 2, 4, 8, 9]), np.array([2.0, 2, 3])
    one = compare_morphometry([morphometry(generated)], [morphometry(real)])["segment_length"]
    two = compare_morphometry([morphometry(7 * generated)], [morphometry(7 * real)])["segment_length"]
    assert two.distance == pytest.approx(one.distance)


def test_values_of_all_trees_are_pooled():
    real = [morphometry([1.0, 2.0], density=0.1), morphometry([3.0], density=0.2), morphometry([4.0], density=0.3)]
    compared = compare_morphometry(real[:1], real)
    assert (compared["segment_length"].generated_n, compared["segment_length"].real_n) == (2, 4)
    assert (compared["vessel_density"].generated_n, compared["vessel_density"].real_n) == (1, 3)
    assert compared["vessel_density"].distance == pytest.approx(1.0)


def test_undefined_values_are_left_out():
    lengths = [1.0, np.nan, 3.0, 5.0, np.nan]
    found = compare_morphometry([morphometry(lengths)], [morphometry([1.0, 3.0, 5.0])])["segment_length"]
    assert found.distance == pytest.approx(0)
    assert (found.generated_n, found.real_n) == (3, 3)
    undefined = compare_morphometry([morphometry()], [morphometry()])["fractal_dimension"]
    assert np.isnan(undefined.distance)
    assert (undefined.generated_n, undefined.real_n) == (0, 0)


@pytest.mark.parametrize(("generated", "real"), [([], []), ([morphometry()], []), ([], [morphometry()])])
def test_nothing_to_compare_is_not_a_distance(generated, real):
    for found in compare_morphometry(generated, real).values():
        assert np.isnan(found.distance)
    found = compare_morphometry(generated, real)["segment_length"]
    assert np.isnan(found.generated_median) == (not generated)
    assert np.isnan(found.real_median) == (not real)


def test_real_values_without_spread_give_no_scale():
    found = compare_morphometry([morphometry([1.0, 2.0])], [morphometry([3.0, 3.0, 3.0])])["segment_length"]
    assert np.isnan(found.distance)
    assert found.real_median == 3


def test_trees_without_bifurcations_are_compared_in_the_rest():
    bare = replace(morphometry([1.0, 2.0, 4.0], angles=()), bifurcations_per_length=0.0)
    compared = compare_morphometry([bare], [morphometry()])
    assert np.isnan(compared["branching_angle"].distance)
    assert compared["branching_angle"].generated_n == 0
    assert np.isfinite(compared["segment_length"].distance)
