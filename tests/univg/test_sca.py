from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from univg.geometry import rasterize_tree
from univg.metrics import dice
from univg.sca import (
    SCAConfig,
    assign_radii,
    generate_mask,
    generate_tree,
    grow_tree,
    sample_attraction_points,
    sample_roots,
    warp_mask,
)
from univg.types import Modality

EIGHT = np.ones((3, 3))
CONFIG = SCAConfig()


def real_mask(size=256, seed=3):
    return generate_mask(Modality.FUNDUS, shape=(size, size), rng=np.random.default_rng(seed))


@pytest.mark.parametrize("modality", list(Modality))
@pytest.mark.parametrize("conditioned", [True, False])
def test_same_seed_same_pixels_and_another_seed_another_tree(modality, conditioned):
    mask = real_mask() if conditioned else None
    draw = [generate_mask(modality, mask=mask, shape=(256, 256), rng=np.random.default_rng(s)) for s in (1, 1, 2)]
    np.testing.assert_array_equal(draw[0], draw[1])
    assert (draw[0] != draw[2]).any()
    assert 0.005 < draw[0].mean() < 0.4


@pytest.mark.parametrize("shape", [(255, 129), (97, 301), (64, 64)])
def test_mask_has_exactly_the_shape_asked_for(shape):
    assert generate_mask(Modality.OCT, shape=shape, rng=np.random.default_rng(0)).shape == shape


def test_conditioned_tree_follows_the_mask_without_copying_it():
    mask = real_mask(512)
    drawn = generate_mask(Modality.FUNDUS, mask=mask, rng=np.random.default_rng(0))
    near = ndimage.binary_dilation(mask, iterations=30)
    assert (drawn & near).sum() > 0.9 * drawn.sum()
    assert dice(drawn, mask) < 0.7


@pytest.mark.parametrize("modality", list(Modality))
def test_one_component_per_root_and_radii_never_grow_towards_tips(modality):
    tree = generate_tree(modality, mask=real_mask(), rng=np.random.default_rng(5))
    assert ndimage.label(rasterize_tree(tree), EIGHT)[1] <= len(tree.roots)
    child = np.flatnonzero(tree.parents >= 0)
    assert (tree.radii[child] <= tree.radii[tree.parents[child]] + 1e-9).all()


def test_murrays_law_holds_at_every_node_without_a_mask():
    tree = generate_tree(Modality.BRAIN_DSA, shape=(256, 256), rng=np.random.default_rng(0))
    k = SCAConfig().murray_exponent
    power = np.bincount(
        tree.parents[tree.parents >= 0], weights=tree.radii[tree.parents >= 0] ** k, minlength=len(tree)
    )
    inner = tree.child_counts > 0
    np.testing.assert_allclose(tree.radii[inner] ** k, power[inner])


def test_no_node_leaves_the_boundary():
    boundary = np.zeros((128, 128), bool)
    boundary[20:100, 30:90] = True
    attractors = np.random.default_rng(0).uniform(0, 128, (500, 2))
    tree = grow_tree(attractors, [[50, 50]], (128, 128), config=CONFIG, rng=np.random.default_rng(0), boundary=boundary)
    pixel = tree.positions.astype(int)
    assert len(tree) > 20
    assert boundary[pixel[:, 0], pixel[:, 1]].all()


def test_every_attractor_in_reach_is_reached_without_noise():
    config = replace(CONFIG, direction_noise=0.0)
    attractors = np.random.default_rng(1).uniform(10, 118, (300, 2))
    tree = grow_tree(attractors, [[64, 64]], (128, 128), config=config, rng=np.random.default_rng(0))
    gap = np.linalg.norm(attractors[:, None] - tree.positions[None], axis=2).min(axis=1)
    assert (gap <= config.kill_distance + 1.5).mean() > 0.98


def test_first_step_obeys_equations_1_to_4():
    config = replace(CONFIG, direction_noise=0.0, max_iterations=1)
    attractors = np.array([[64.0, 80.0], [80.0, 64.0]])
    tree = grow_tree(attractors, [[64.0, 64.0]], (128, 128), config=config, rng=np.random.default_rng(0))
    step = tree.positions[1] - tree.positions[0]
    np.testing.assert_allclose(step, config.segment_length * np.array([1, 1]) / np.sqrt(2))


@pytest.mark.parametrize("attractors", [np.empty((0, 2)), np.array([[500.0, 500.0]]), np.array([[64.0, 64.0]])])
def test_nothing_to_grow_towards_leaves_the_root(attractors):
    tree = grow_tree(attractors, [[64, 64]], (128, 128), config=CONFIG, rng=np.random.default_rng(0))
    assert len(tree) == 1


def test_opposed_attractors_do_not_grow_for_ever():
    config = replace(CONFIG, direction_noise=0.0)
    attractors = np.array([[64.0, 54.0], [64.0, 74.0]])
    tree = grow_tree(attractors, [[64.0, 64.0]], (128, 128), config=config, rng=np.random.default_rng(0))
    assert len(tree) < 20


def test_growth_stops_at_max_nodes():
    attractors = np.random.default_rng(0).uniform(0, 128, (2000, 2))
    tree = grow_tree(
        attractors, [[64, 64]], (128, 128), config=replace(CONFIG, max_nodes=40), rng=np.random.default_rng(0)
    )
    assert len(tree) <= 40


def test_roots_outside_are_refused():
    for root in ([-1, 5], [5, 128], [500, 500]):
        with pytest.raises(ValueError, match="roots"):
            grow_tree(np.empty((0, 2)), [root], (128, 128), config=CONFIG, rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    "values",
    [
        {"segment_length": 0},
        {"kill_distance": 30, "attraction_distance": 24},
        {"segment_length": 30},
        {"kill_distance": 1.0},
        {"vessel_fraction": 1.5},
        {"attraction_distance": float("nan")},
        {"max_nodes": 0},
        {"murray_exponent": 9},
        {"real_radius_range": (2, 1)},
    ],
)
def test_hostile_parameters_are_refused_by_name(values):
    with pytest.raises(ValueError, match="|".join(values)):
        SCAConfig(**values)


def test_config_survives_json():
    config = SCAConfig(kill_distance=7.5, real_radius_range=(0.5, 2.0))
    assert SCAConfig.from_json(config.to_json()) == config
    with pytest.raises(ValueError, match="nonsense"):
        SCAConfig.from_json({"nonsense": 1})


def test_an_empty_mask_has_no_roots_and_falls_back_to_the_preset():
    empty = np.zeros((128, 128), bool)
    assert len(sample_roots(empty)) == 0
    assert generate_mask(Modality.FUNDUS, mask=empty, rng=np.random.default_rng(0)).any()


def test_attractors_lie_in_the_frame_and_the_boundary():
    boundary = np.zeros((100, 140), bool)
    boundary[:, 70:] = True
    points = sample_attraction_points(
        None, (100, 140), config=replace(CONFIG, grid_fraction=1.0), rng=np.random.default_rng(0), boundary=boundary
    )
    assert len(points) > 20
    assert (points[:, 1] >= 70).all() and (points < [100, 140]).all()


def test_warp_moves_vessels_by_about_the_amplitude_and_leaves_the_input_alone():
    mask = real_mask()
    before = mask.copy()
    warped = warp_mask(mask, config=CONFIG, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(mask, before)
    assert 0.05 < dice(warped, mask) < 0.8
    assert abs(warped.mean() / mask.mean() - 1) < 0.35
    still = warp_mask(mask, config=replace(CONFIG, warp_amplitude=0.0), rng=np.random.default_rng(0))
    np.testing.assert_array_equal(still, mask)


def test_radii_stay_near_the_real_ones():
    mask = np.zeros((64, 256), bool)
    mask[28:37] = True
    config = replace(CONFIG, warp_amplitude=0.0)
    tree = generate_tree(Modality.OCT, mask=mask, config=config, rng=np.random.default_rng(0))
    on_vessel = np.abs(tree.positions[:, 0] - 32) < 3
    assert np.median(tree.radii[on_vessel]) == pytest.approx(4.5, rel=0.2)


def test_assigning_radii_keeps_the_nodes():
    tree = generate_tree(Modality.OCT, shape=(128, 128), rng=np.random.default_rng(0))
    again = assign_radii(tree, config=replace(CONFIG, tip_radius=3.0))
    np.testing.assert_array_equal(again.positions, tree.positions)
    assert again.radii.min() == pytest.approx(3.0)
