import time

import numpy as np
import pytest
from scipy import ndimage

from univg.geometry import (
    VesselTree,
    extract_tree,
    local_radius,
    nearest_centreline,
    raster,
    rasterize_tree,
    resize_mask,
)
from univg.geometry.tree import prune_spurs, smooth_tree
from univg.metrics import dice
from univg.sca import generate_mask, generate_tree
from univg.types import Modality

EIGHT = np.ones((3, 3))


def straight_tree(radius=3.0, n=9):
    positions = np.column_stack([np.full(n, 20.0), np.linspace(10, 50, n)])
    return VesselTree(positions, np.arange(n) - 1, np.full(n, radius), (41, 61))


def test_tree_refuses_a_parent_that_comes_later():
    with pytest.raises(ValueError, match="earlier"):
        VesselTree(np.zeros((2, 2)), np.array([1, -1]), np.ones(2), (8, 8))


def test_tree_refuses_arrays_of_different_length():
    with pytest.raises(ValueError, match="radii"):
        VesselTree(np.zeros((2, 2)), np.array([-1, 0]), np.ones(3), (8, 8))


def test_json_gives_back_the_same_numbers():
    tree = generate_tree(Modality.FUNDUS, shape=(128, 128), rng=np.random.default_rng(0))
    again = VesselTree.from_json(tree.to_json())
    for name in ("positions", "parents", "radii"):
        np.testing.assert_array_equal(getattr(again, name), getattr(tree, name))
    assert again.shape == tree.shape


def test_json_of_another_format_is_refused():
    with pytest.raises(ValueError, match="univg-tree/1"):
        VesselTree.from_json('{"format": "other"}')


@pytest.mark.parametrize("shape", [(41, 61), (61, 41), (7, 200), (1, 1)])
def test_raster_has_exactly_the_size_asked_for(shape):
    assert rasterize_tree(straight_tree(), shape).shape == shape


def test_raster_width_is_twice_the_radius():
    mask = rasterize_tree(straight_tree(radius=3.0))
    assert abs(int(mask[:, 30].sum()) - 7) <= 1
    assert not mask[:, :6].any()


def test_raster_of_thin_vessels_is_connected():
    for seed in range(3):
        tree = generate_tree(Modality.OCTA, shape=(200, 150), rng=np.random.default_rng(seed))
        thin = VesselTree(tree.positions, tree.parents, np.full(len(tree), 0.2), tree.shape)
        assert ndimage.label(rasterize_tree(thin), EIGHT)[1] <= len(tree.roots)


@pytest.mark.parametrize(("start", "width"), [(10, 1), (11, 1), (10, 2), (11, 2), (11, 3)])
def test_thin_straight_vessels_survive_half_the_size(start, width):
    mask = np.zeros((1024, 1024), bool)
    mask[:, start : start + width] = True
    for drawn, axis in ((mask, 1), (mask.T, 0)):
        small = resize_mask(drawn, (512, 512))
        assert small.any(axis=axis).all() and small.sum() <= 2 * 512


def test_a_pixel_less_than_half_vessel_is_none():
    mask = np.zeros((90, 90), bool)
    mask[:, 30] = True
    assert not resize_mask(mask, (30, 30)).any()


def test_empty_tree_draws_nothing():
    tree = VesselTree(np.empty((0, 2)), np.empty(0, int), np.empty(0), (5, 6))
    assert not rasterize_tree(tree).any()


def test_local_radius_of_a_bar():
    mask = np.zeros((21, 40), bool)
    mask[8:13] = True
    assert local_radius(mask)[10, 20] == pytest.approx(2.5)
    radius, distance = nearest_centreline(mask)
    assert radius[0, 20] == pytest.approx(2.5)
    assert distance[10, 20] < 1
    assert distance[0, 20] == pytest.approx(10, rel=0.1)


def test_nearest_centreline_needs_a_vessel():
    with pytest.raises(ValueError, match="empty"):
        nearest_centreline(np.zeros((4, 4), bool))


def test_extracted_tree_draws_the_mask_again():
    mask = generate_mask(Modality.FUNDUS, rng=np.random.default_rng(1))
    tree = extract_tree(mask)
    assert dice(rasterize_tree(tree), mask) > 0.85
    assert len(tree.roots) == ndimage.label(mask, EIGHT)[1]


def test_each_part_of_a_mask_is_a_tree_from_its_thickest_point():
    mask = np.zeros((60, 80), bool)
    mask[10:13, 5:60] = True
    mask[9:14, 30:34] = True
    mask[40, 10:70] = True
    mask[50, 3] = True
    tree = extract_tree(mask)
    roots = np.flatnonzero(tree.parents < 0)
    assert len(roots) == 3
    for first, last in zip(roots, [*roots[1:], len(tree)], strict=True):
        assert tree.radii[first] == tree.radii[first:last].max()
        assert (tree.parents[first + 1 : last] >= first).all()


def test_many_specks_are_extracted_in_no_time():
    mask = np.zeros((600, 600), bool)
    mask[::3, ::3] = True
    started = time.process_time()
    assert len(extract_tree(mask)) == 40_000
    assert time.process_time() - started < 5


def test_extracting_from_an_empty_mask_gives_an_empty_tree():
    assert len(extract_tree(np.zeros((9, 9), bool))) == 0


def test_pruning_removes_a_short_side_branch_and_keeps_the_trunk():
    trunk = [(0.0, 4.0 * i) for i in range(10)]
    spur = [(4.0, 16.0)]
    tree = VesselTree(np.array(trunk + spur), np.array([-1, *range(9), 4]), np.ones(11), (20, 60))
    pruned = prune_spurs(tree, 10)
    assert len(pruned) == 10
    np.testing.assert_array_equal(pruned.positions, np.array(trunk))
    assert len(prune_spurs(tree, 3)) == 11


def test_smoothing_straightens_but_keeps_root_and_tip():
    rng = np.random.default_rng(0)
    tree = straight_tree(n=20)
    rough = VesselTree(tree.positions + rng.normal(0, 1, (20, 2)), tree.parents, tree.radii, tree.shape)
    smooth = smooth_tree(rough, 5)
    np.testing.assert_array_equal(smooth.positions[[0, -1]], rough.positions[[0, -1]])
    assert np.abs(np.diff(smooth.positions[:, 0], 2)).sum() < np.abs(np.diff(rough.positions[:, 0], 2)).sum()


def test_a_frame_full_of_vessel_has_a_finite_radius():
    radius = local_radius(np.ones((40, 100), bool))
    assert radius.max() == pytest.approx(19.5)
    tree = extract_tree(np.ones((40, 100), bool))
    assert tree.radii.max() <= 20


@pytest.mark.parametrize("angle", [0.0, 0.3, 0.7, np.pi / 4, np.pi / 2])
@pytest.mark.parametrize("radius", [0.5, 0.75, 1.0, 1.5, 2.0, 2.9, 3.1, 8.0, 16.0])
def test_vessel_is_drawn_as_wide_as_its_radius_says(radius, angle):
    along = 4.0 * np.arange(40)
    areas = []
    for number in range(16):  # one along a row is a whole number of pixels wide, which one its place decides
        start = [30.03 + number / 16, 20 + 0.618 * number % 1]
        positions = start + np.outer(along, [np.sin(angle), np.cos(angle)])
        areas.append(rasterize_tree(VesselTree(positions, np.arange(-1, 39), np.full(40, radius), (220, 220))).sum())
    assert np.mean(areas) == pytest.approx(2 * radius * along[-1] + np.pi * radius**2, rel=0.06)


def test_a_drawn_tree_is_every_pixel_within_its_tapering_vessels():
    rng = np.random.default_rng(0)
    rows, cols = np.mgrid[:40, :40]
    for _ in range(20):
        ends, radii = (
            rng.uniform(-5, 45, (2, 2)),
            rng.uniform(0.5, 9, 2),
        )  # nested or beyond the frame, too
        depth = np.full((40, 40), -np.inf)
        for t in np.linspace(0, 1, 800):
            row, col = (1 - t) * ends[0] + t * ends[1]
            depth = np.maximum(depth, (1 - t) * radii[0] + t * radii[1] - np.hypot(rows - row, cols - col))
        drawn = rasterize_tree(VesselTree(ends, np.array([-1, 0]), radii, (40, 40)))
        clear = np.abs(depth) > 0.002  # of the wall, but for rounding
        np.testing.assert_array_equal(drawn[clear], depth[clear] > 0)


def test_vessels_between_pixels_are_as_wide_as_those_on_them():
    for row in (20.0, 20.25, 20.5):
        for radius in (1.0, 2.0, 3.0):
            tree = straight_tree(radius=radius)
            tree.positions[:, 0] = row
            assert rasterize_tree(tree)[:, 30].sum() == 2 * radius


def test_a_root_on_its_own_is_a_disc():
    rows, cols = np.mgrid[:13, :13]
    drawn = rasterize_tree(VesselTree(np.array([[6.0, 6.0]]), np.array([-1]), np.array([2.9]), (13, 13)))
    np.testing.assert_array_equal(drawn, np.hypot(rows - 6, cols - 6) <= 2.9)
    thin = rasterize_tree(VesselTree(np.array([[6.4, 6.4]]), np.array([-1]), np.array([0.1]), (13, 13)))
    assert np.argwhere(thin).tolist() == [[6, 6]]


def test_drawing_piece_by_piece_changes_nothing(monkeypatch):
    tree = generate_tree(Modality.FUNDUS, shape=(128, 128), rng=np.random.default_rng(0))
    drawn = rasterize_tree(tree)
    monkeypatch.setattr(raster, "_ROWS_AT_ONCE", 50)
    np.testing.assert_array_equal(rasterize_tree(tree), drawn)
