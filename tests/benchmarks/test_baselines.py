"""The baselines that UniVG is measured against, and the script that times them."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))  # scripts, not a package

import sca_speed
from fractal_masks import fractal_mask, fractal_tree
from literal_sca import grow_literally
from sca_speed import QUICK, agreement, conditioned_inputs, log_slope, mask_source, run, same_nodes, table

from univg.geometry import local_radius
from univg.sca import PRESETS, RECIPES, SCAConfig, assign_radii, generate_tree, grow_tree
from univg.types import Modality

# The paper has neither noise nor bridges.
WITHOUT_NOISE = {name: replace(config, direction_noise=0.0, follow_distance=np.inf) for name, config in RECIPES.items()}
SHAPE = (128, 128)


def grow_both(attractors, root, config, **limits):
    limits = {"max_nodes": config.max_nodes, "max_iterations": config.max_iterations, **limits}
    literal = grow_literally(
        attractors,
        [root],
        SHAPE,
        attraction_distance=config.attraction_distance,
        kill_distance=config.kill_distance,
        segment_length=config.segment_length,
        **limits,
    )
    indexed = grow_tree(attractors, [root], SHAPE, config=replace(config, **limits), rng=np.random.default_rng(0))
    return literal, indexed


def scattered(n, seed):
    """In the middles of pixels, where the nearest node that `grow_tree` finds is exact."""
    return np.floor(np.random.default_rng(seed).uniform(16, 112, (n, 2)))


def three_branches(seed):
    """Twelve attractors about three rays from a root, far enough apart for nodes never to crowd."""
    rng = np.random.default_rng(seed)
    root = np.array([64.3, 63.6])
    rays = [root + along * np.array([np.sin(a), np.cos(a)]) for a in (0.4, 2.3, 4.6) for along in (14, 25, 36, 47)]
    return root, np.floor(rays + rng.normal(0, 2, (12, 2)))


@pytest.mark.parametrize("seed", [3, 5, 6])
def test_literal_and_indexed_growth_are_the_same_where_nodes_do_not_crowd(seed):
    root, attractors = three_branches(seed)
    literal, indexed = grow_both(attractors, root, WITHOUT_NOISE["natural"])
    assert len(literal) == len(indexed) > 30
    np.testing.assert_array_equal(literal.parents, indexed.parents)
    np.testing.assert_allclose(literal.positions, indexed.positions, atol=0.01)  # a grid of 1/1024, summed over nodes
    np.testing.assert_allclose(literal.radii, assign_radii(indexed, config=RECIPES["paper"]).radii)


@pytest.mark.parametrize("name", list(RECIPES))
@pytest.mark.parametrize("seed", range(6))
def test_they_part_only_where_the_literal_one_sets_a_node_beside_another(name, seed):
    config = WITHOUT_NOISE[name]
    attractors = scattered(120, seed)
    literal, indexed = grow_both(attractors, (64, 64), config)
    parted = same_nodes(literal, indexed)
    assert parted > 0
    if parted < len(literal):
        gap = np.linalg.norm(literal.positions[:parted] - literal.positions[parted], axis=1).min()
        assert gap <= config.segment_length / 2
    # From there on they differ node by node but not in what they do.
    found = agreement(literal, indexed, attractors, config)
    assert found["indexed_nodes"] == pytest.approx(found["literal_nodes"], rel=0.2)
    assert found["indexed_reached"] >= found["literal_reached"] - 0.01
    assert min(found["literal_nodes_near"], found["indexed_nodes_near"]) > 0.7


def test_literal_growth_keeps_to_equations_1_to_6():
    attractors = np.array([[64.0, 80.0], [80.0, 64.0], [64.0, 73.0]])
    settings = {"attraction_distance": 20, "kill_distance": 10, "segment_length": 15}
    tree = grow_literally(attractors[:2], [(64, 64)], SHAPE, **settings, max_nodes=9, max_iterations=1)
    np.testing.assert_allclose(tree.positions[1], 64 + 15 / np.sqrt(2))
    # The third is reached by the root, so it turns no step.
    with_reached = grow_literally(attractors, [(64, 64)], SHAPE, **settings, max_nodes=9, max_iterations=1)
    np.testing.assert_array_equal(with_reached.positions, tree.positions)
    far = grow_literally(attractors[:2] + 60, [(10, 10)], SHAPE, **settings, max_nodes=9, max_iterations=9)
    assert len(far) == 1


def test_literal_growth_ends_at_its_limits_and_its_deadline():
    attractors = scattered(200, 0)
    assert len(grow_literally(attractors, [(64, 64)], SHAPE, max_nodes=7, max_iterations=99)) == 7
    assert len(grow_literally(attractors, [(64, 64)], SHAPE, max_nodes=99, max_iterations=1)) == 2
    opposed = np.array([[64.0, 50.0], [64.0, 78.0]])
    assert len(grow_literally(opposed, [(64, 64)], SHAPE, max_nodes=99, max_iterations=99)) == 1
    with pytest.raises(TimeoutError):
        grow_literally(attractors, [(64, 64)], SHAPE, max_nodes=99, max_iterations=99, deadline=0.0)
    with pytest.raises(ValueError, match="roots"):
        grow_literally(attractors, [(64, 128)], SHAPE, max_nodes=99, max_iterations=99)


@pytest.mark.parametrize("shape", [(512, 512), (97, 301), (64, 64)])
def test_fractal_masks_have_the_shape_asked_for_and_a_plausible_density(shape):
    for seed in range(20):
        mask = fractal_mask(shape, rng=np.random.default_rng(seed))
        assert mask.shape == shape and mask.dtype == np.bool_
        assert 0.005 < mask.mean() < 0.4


def test_fractal_masks_are_seeded():
    first, again, other = (fractal_mask((128, 128), rng=np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_fractal_trees_branch_and_thin_towards_their_tips():
    for seed in range(10):
        tree = fractal_tree((512, 512), rng=np.random.default_rng(seed))
        assert 1 <= len(tree.roots) <= 3
        assert (tree.child_counts > 1).sum() >= 2
        child = np.flatnonzero(tree.parents >= 0)
        assert (tree.radii[child] <= tree.radii[tree.parents[child]]).all()
        assert 4 <= tree.radii.max() <= 9
    assert local_radius(fractal_mask((512, 512), rng=np.random.default_rng(0))).max() < 20  # where branches overlap


TINY = replace(
    QUICK, masks=2, repeats=1, attractors=(100, 200, 400), sizes=(64, 128), masks_a_size=1, trees_a_preset=1, cap=60.0
)


def test_speed_is_measured_and_tabled(monkeypatch):
    monkeypatch.setattr(sca_speed, "SIZE", 128)
    result = run(None, TINY)
    assert result["conditioned"]["n"] == 2
    assert result["conditioned"]["process_ms"] > 0
    assert len(result["unconditioned"]) == len(PRESETS)
    assert np.isfinite(
        [result["sizes"]["slope"], *(result["attractors"][f"{k}_slope"] for k in ("literal", "indexed"))]
    ).all()
    assert {name: len(rows) for name, rows in result["growth"].items()} == dict.fromkeys(RECIPES, 1)
    assert all(row["speedup"] > 0 for rows in result["growth"].values() for row in rows)
    assert "conditioned, 64 × 64" in table(result) and "more than" not in table(result)


def test_literal_growth_beyond_the_cap_is_said_to_be_longer(monkeypatch):
    monkeypatch.setattr(sca_speed, "SIZE", 128)
    result = run(None, replace(TINY, cap=0.0))
    states = [row["literal"]["state"] for row in result["attractors"]["rows"]]
    assert states == ["capped", "not tried", "not tried"]
    assert result["attractors"]["literal_slope"] is None
    assert "more than 0 |" in table(result) and "not tried" in table(result)


def test_slope_is_the_exponent():
    assert log_slope([1, 10, 100], [2, 200, 20_000]) == pytest.approx(2)
    assert log_slope([1], [2]) is None


def test_conditioned_inputs_are_those_of_the_pipeline():
    mask = mask_source(None)(1, 512)[0]
    config = SCAConfig(arteries_and_veins=False)
    roots = conditioned_inputs(mask, config, np.random.default_rng(5))[1]
    tree = generate_tree(Modality.FUNDUS, mask=mask, config=config, rng=np.random.default_rng(5))
    np.testing.assert_array_equal(roots, tree.positions[tree.roots])
