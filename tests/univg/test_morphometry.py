import cv2
import numpy as np
import pytest

from univg.geometry import (
    VesselTree,
    box_counting_dimension,
    extract_network,
    extract_tree,
    measure_bifurcations,
    measure_tree,
    rasterize_tree,
)
from univg.io import read_mask
from univg.sca import generate_tree
from univg.types import Modality


def towards(degrees):
    return np.array([np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))])


def line(degrees, *, length=160.0, radius=0.3):
    ends = 128 + np.outer([-length / 2, length / 2], towards(degrees))
    return VesselTree(ends, np.array([-1, 0]), np.full(2, radius), (256, 256))


def fork(*, angle=60.0, radii=(4.0, 3.2, 2.4), turn=17.0, steps=15, step=4.0):
    """A trunk of `steps` steps that divides at the centre of the frame into two branches `angle` degrees apart."""
    along = step * np.arange(1, steps + 1)
    trunk = 128 - np.outer(np.append(along[::-1], 0), towards(turn))
    left, right = (128 + np.outer(along, towards(turn + side * angle / 2)) for side in (-1, 1))
    n = steps + 1
    parents = np.concatenate(
        [np.arange(n) - 1, [steps], n + np.arange(steps - 1), [steps], n + steps + np.arange(steps - 1)]
    )
    return VesselTree(
        np.concatenate([trunk, left, right]),
        parents,
        np.repeat(np.asarray(radii, float), [n, steps, steps]),
        (256, 256),
    )


def ring():
    degrees = np.arange(0, 360, 10)
    positions = 50 + 20 * np.column_stack([np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))])
    n = len(degrees)
    return VesselTree(positions, np.arange(n) - 1, np.ones(n), (100, 100), links=np.array([[n - 1, 0]]))


def test_a_generated_fork_is_measured_as_it_was_drawn():
    found = measure_bifurcations(fork(angle=60, radii=(4, 3.2, 2.4)))
    np.testing.assert_allclose(found.positions, [[128, 128]])
    assert found.parent_radii == pytest.approx(4)
    np.testing.assert_allclose(found.daughter_radii, [[3.2, 2.4]])
    assert found.angles == pytest.approx(60)


@pytest.mark.parametrize("turn", [0, 23, 45, 151, 200, 310])
def test_a_fork_is_recovered_from_its_mask(turn):
    found = measure_bifurcations(extract_tree(rasterize_tree(fork(angle=60, radii=(4.0, 3.0, 2.0), turn=turn))))
    assert found.angles == pytest.approx(60, abs=7)
    assert found.parent_radii == pytest.approx(4, abs=0.5)
    np.testing.assert_allclose(found.daughter_radii, [[3, 2]], atol=0.6)


def test_a_fork_has_three_segments_whatever_the_root():
    measured = measure_tree(fork())
    np.testing.assert_allclose(measured.segment_lengths, [60, 60, 60], rtol=1e-6)
    np.testing.assert_allclose(sorted(measured.segment_diameters), [4.8, 6.4, 8.0], rtol=1e-6)
    assert measured.bifurcations_per_length == pytest.approx(1 / 180)
    from_mask = measure_tree(extract_tree(rasterize_tree(fork())))
    assert len(from_mask.segment_lengths) == 3
    assert len(from_mask.bifurcations.angles) == 1


@pytest.mark.parametrize("degrees", range(0, 180, 9))
def test_an_oblique_line_of_pixels_is_as_long_as_it_is(degrees):
    measured = measure_tree(extract_tree(rasterize_tree(line(degrees))))
    assert measured.segment_lengths == pytest.approx(160, rel=0.02)
    assert measured.tortuosities == pytest.approx(1, abs=0.02)
    assert measured.tortuosities[0] >= 1 - 1e-12


def test_an_extracted_line_is_one_segment_wherever_its_root_is():
    tree = extract_tree(rasterize_tree(line(30, radius=4.0)))
    assert tree.child_counts[tree.roots] == [2]
    assert len(measure_tree(tree).segment_lengths) == 1


@pytest.mark.parametrize("pixels", [False, True])
def test_half_a_circle_has_the_tortuosity_half_pi(pixels):
    degrees = np.linspace(0, 180, 60)
    positions = 128 + 60 * np.column_stack([np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))])
    tree = VesselTree(positions, np.arange(60) - 1, np.full(60, 0.3), (256, 256))
    measured = measure_tree(extract_tree(rasterize_tree(tree)) if pixels else tree)
    assert measured.tortuosities == pytest.approx(np.pi / 2, rel=0.02)
    assert measured.segment_lengths == pytest.approx(60 * np.pi, rel=0.02)


def test_a_spur_shorter_than_the_local_radius_is_no_bifurcation():
    trunk = np.column_stack([np.full(31, 30.0), np.arange(0, 61, 2.0)])
    tree = VesselTree(np.vstack([trunk, [[33.5, 30.0]]]), np.append(np.arange(31) - 1, 15), np.full(32, 4.0), (60, 61))
    assert not len(measure_bifurcations(tree).angles)
    assert len(measure_bifurcations(tree, spur_length=-np.inf).angles) == 1
    assert measure_tree(tree).segment_lengths == pytest.approx(60)


def test_a_bump_on_the_wall_makes_no_bifurcation():
    mask = np.zeros((40, 120), bool)
    mask[15:24, 10:110] = True
    mask[13:15, 60:62] = True
    assert not len(measure_bifurcations(extract_tree(mask)).angles)


def test_the_widest_vessel_is_the_parent_when_the_root_lies_on_a_branch():
    tree = fork(radii=(4.0, 3.0, 2.0))
    branch = np.arange(30, 15, -1)  # from the tip of the left branch to the joint, then the trunk and the other branch
    order = np.concatenate([branch, np.arange(15, -1, -1), np.arange(31, 46)])
    parents = np.arange(46) - 1
    parents[31] = 15
    found = measure_bifurcations(VesselTree(tree.positions[order], parents, tree.radii[order], tree.shape))
    assert found.parent_radii == pytest.approx(4)
    assert found.angles == pytest.approx(60)


def test_a_link_makes_a_bifurcation_and_its_tip_none():
    trunk = np.column_stack([np.full(31, 30.0), np.arange(0, 61, 2.0)])
    other = np.column_stack([np.arange(10, 20, 2.0), np.full(5, 30.0)])
    tree = VesselTree(
        np.vstack([trunk, other]),
        np.concatenate([np.arange(31) - 1, [-1], 31 + np.arange(4)]),
        np.repeat([3.0, 1.5], [31, 5]),
        (60, 61),
        links=np.array([[35, 15]]),
    )
    found = measure_bifurcations(tree)
    assert len(found.angles) == 1
    assert found.parent_radii == pytest.approx(3)
    np.testing.assert_allclose(found.daughter_radii, [[3, 1.5]])
    assert found.angles == pytest.approx(90, abs=1)
    assert sorted(measure_tree(tree).segment_lengths) == pytest.approx([20, 30, 30])


def test_a_ring_has_a_length_but_no_tortuosity():
    measured = measure_tree(ring())
    assert measured.segment_lengths == pytest.approx(2 * np.pi * 20, rel=0.02)
    assert np.isnan(measured.tortuosities).all()
    assert (measured.betti0, measured.betti1) == (1, 1)
    assert measured.bifurcations_per_length == 0


def test_an_empty_tree_has_nothing_to_measure():
    measured = measure_tree(VesselTree(np.empty((0, 2)), np.empty(0, np.int64), np.empty(0), (40, 50)))
    for values in (measured.segment_lengths, measured.segment_diameters, measured.tortuosities):
        assert values.shape == (0,)
    assert measured.bifurcations.positions.shape == (0, 2)
    assert measured.bifurcations.daughter_radii.shape == (0, 2)
    assert measured.vessel_density == measured.vessel_length_density == 0
    assert np.isnan(measured.bifurcations_per_length)
    assert np.isnan(measured.fractal_dimension)
    assert (measured.betti0, measured.betti1) == (0, 0)


def test_a_single_node_is_a_spot_without_a_segment():
    measured = measure_tree(VesselTree(np.array([[20.0, 20.0]]), np.array([-1]), np.array([3.0]), (40, 40)))
    assert len(measured.segment_lengths) == 0
    assert 0 < measured.vessel_density < 0.1
    assert np.isnan(measured.bifurcations_per_length)
    assert measured.betti0 == 1


def test_nodes_in_one_place_and_radii_of_zero_are_measured_without_a_warning():
    tree = VesselTree(np.full((4, 2), 9.0), np.array([-1, 0, 0, 0]), np.zeros(4), (20, 20))
    with np.errstate(all="raise"):
        measured = measure_tree(tree, spur_length=-np.inf)
    np.testing.assert_array_equal(measured.segment_lengths, 0)
    assert np.isnan(measured.tortuosities).all()
    assert np.isnan(measured.bifurcations.angles).all()


def test_a_tree_measures_the_same_from_any_corner_of_the_frame():
    tree = fork(angle=90, turn=45)
    moved = VesselTree(tree.positions + 40, tree.parents, tree.radii, (330, 330))
    here, there = measure_tree(tree), measure_tree(moved)
    np.testing.assert_allclose(here.segment_lengths, there.segment_lengths)
    assert here.fractal_dimension == pytest.approx(there.fractal_dimension, rel=1e-3)
    assert there.vessel_density == pytest.approx(here.vessel_density * (256 / 330) ** 2, rel=1e-2)


def test_the_mask_given_is_the_one_that_is_counted():
    tree = line(0)
    mask = np.zeros(tree.shape, bool)
    mask[:64] = True
    measured = measure_tree(tree, mask=mask)
    assert measured.vessel_density == 0.25
    assert measured.vessel_length_density == pytest.approx(160 / 256**2)


def test_a_mask_of_another_frame_is_refused():
    with pytest.raises(ValueError, match=r"\(256, 256\).*\(9, 9\)"):
        measure_tree(line(0), mask=np.zeros((9, 9), bool))
    with pytest.raises(ValueError, match="uint8"):
        measure_tree(line(0), mask=np.zeros((256, 256), np.uint8))


@pytest.mark.parametrize("degrees", [0, 27, 45, 80])
def test_the_fractal_dimension_of_a_line_is_one(degrees):
    assert box_counting_dimension(rasterize_tree(line(degrees))) == pytest.approx(1, abs=0.13)


def test_the_fractal_dimension_of_a_filled_square_is_two():
    mask = np.zeros((200, 220), bool)
    mask[31:159, 17:145] = True
    assert box_counting_dimension(mask) == pytest.approx(2)
    mask = np.zeros((200, 220), bool)
    mask[31:131, 17:117] = True
    assert box_counting_dimension(mask) == pytest.approx(2, abs=0.12)


@pytest.mark.parametrize("side", [0, 1, 31])
def test_the_fractal_dimension_of_next_to_nothing_is_undefined(side):
    mask = np.zeros((64, 64), bool)
    mask[:side, :side] = True
    assert np.isnan(box_counting_dimension(mask))


@pytest.mark.parametrize("modality", list(Modality))
def test_a_generated_tree_and_its_mask_measure_alike(modality):
    tree = generate_tree(modality, shape=(256, 256), rng=np.random.default_rng(3))
    mask = rasterize_tree(tree)
    own, again = measure_tree(tree), measure_tree(extract_tree(mask), mask=mask)
    assert again.segment_lengths.sum() == pytest.approx(own.segment_lengths.sum(), rel=0.2)
    assert np.median(again.tortuosities) == pytest.approx(np.median(own.tortuosities), abs=0.05)
    assert np.nanmin(again.tortuosities) >= 1 - 1e-12
    assert again.fractal_dimension == own.fractal_dimension


def drawn_ring(stems: int) -> np.ndarray:
    mask = np.zeros((160, 160), np.uint8)
    cv2.circle(mask, (80, 80), 30, 1, 3)
    for end in [(155, 80), (5, 80)][:stems]:
        cv2.line(mask, (80 + (30 if end[0] > 80 else -30), 80), end, 1, 3)
    return mask > 0


def test_a_closed_loop_is_cut_nowhere():
    alone = measure_tree(extract_network(drawn_ring(0)))
    assert len(alone.segment_lengths) == 1 and np.isnan(alone.tortuosities).all()
    for stems in (1, 2):
        found = measure_tree(extract_network(drawn_ring(stems)))
        assert len(found.bifurcations.angles) == stems
        assert len(found.segment_lengths) == 2 * stems
    np.testing.assert_allclose(sorted(found.tortuosities), [1, 1, np.pi / 2, np.pi / 2], rtol=0.06)


@pytest.mark.parametrize("turned", [False, True])
def test_every_joint_of_a_honeycomb_counts(turned):
    mask = np.zeros((220, 220), np.uint8)
    corners = set()
    for row in range(4):
        for col in range(4):
            centre = np.array([35 + 24 * np.sqrt(3) * (col + row % 2 / 2), 40 + 36 * row])
            angles = np.deg2rad(30 + 60 * np.arange(6))
            points = np.rint(centre + 24 * np.column_stack([np.cos(angles), np.sin(angles)])).astype(int)
            cv2.polylines(mask, [points], True, 1, 3)
            corners.update(map(tuple, points.tolist()))
    mask = mask.T if turned else mask
    joints = len(measure_tree(extract_network(mask > 0)).bifurcations.angles)
    missed = len(measure_tree(extract_tree(mask > 0)).bifurcations.angles)
    assert missed < joints <= len(corners)
    assert joints == 30


@pytest.mark.parametrize(("angle", "turn"), [(30, 45), (30, 77), (50, 45)])
def test_a_pinhole_at_a_joint_leaves_its_measures_alone(angle, turn):
    mask = rasterize_tree(fork(angle=angle, radii=(5.0, 3.5, 3.5), turn=turn))
    whole = measure_bifurcations(extract_network(mask))
    rows, cols = np.nonzero(mask)
    inside = np.hypot(rows - rows.mean(), cols - cols.mean()).argmin()
    holed = mask.copy()
    holed[rows[inside], cols[inside]] = False
    found = measure_bifurcations(extract_network(holed))
    np.testing.assert_array_equal(found.angles, whole.angles)
    np.testing.assert_array_equal(found.parent_radii, whole.parent_radii)


@pytest.mark.realdata
def test_real_masks_have_finite_plausible_measurements(data_folder):
    for path in sorted((data_folder / "benchmark" / "drive" / "masks").glob("*.png"))[:5]:
        mask = read_mask(path)
        measured = measure_tree(extract_tree(mask), mask=mask)
        bifurcations = measured.bifurcations
        for values in (
            measured.segment_lengths,
            measured.segment_diameters,
            bifurcations.parent_radii,
            bifurcations.daughter_radii,
            bifurcations.angles,
        ):
            assert np.isfinite(values).all()
        assert 80 < len(bifurcations.angles) < 300
        assert 60 < np.median(bifurcations.angles) < 110
        assert 1 <= np.median(measured.segment_diameters) < 5
        assert 1 <= np.nanmedian(measured.tortuosities) < 1.1
        assert 1.3 < measured.fractal_dimension < 1.7
        assert measured.vessel_density == mask.mean()
