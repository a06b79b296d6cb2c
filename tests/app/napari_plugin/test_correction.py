import numpy as np
import pytest
from scipy import ndimage

from app.napari_plugin import correction
from app.napari_plugin.branches import find_branches
from app.napari_plugin.layers import pixel_changes
from tests.app.napari_plugin.conftest import ring
from univg.errors import InputError
from univg.metrics import dice
from univg.types import Modality


def parts(mask):
    return ndimage.label(mask, np.ones((3, 3)))[1]


@pytest.fixture
def fork():
    """A trunk five pixels wide with a branch of three and a stub that ends four pixels off its wall."""
    mask = np.zeros((80, 80), bool)
    mask[38:43, 5:75] = True
    mask[10:40, 49:52] = True
    mask[43:47, 20:23] = True
    return mask


def test_branches_of_a_fork(fork):
    branches = find_branches(fork)
    assert branches.count >= 4
    inside = branches.branch_of > 0
    assert set(branches.branch_of[inside]) == set(range(1, branches.count + 1))
    assert branches.terminal.sum() >= 3
    twig = branches.nearest((15, 50), reach=3)
    assert branches.terminal[twig] and branches.lengths[twig] == pytest.approx(26, abs=3)
    assert branches.nearest((75, 5), reach=5) is None


def test_bridge_follows_the_vessel_and_not_the_straight_line():
    image, truth = ring()
    rows, cols = np.indices(truth.shape)
    gap = (np.abs(rows - 48) < 22) & (cols > 48)
    broken = truth & ~gap
    ridges = correction.find_ridges(image, Modality.FUNDUS)
    ends = [(26.0, 71.0), (70.0, 71.0)]
    bridged = correction.bridge_gap(broken, ridges, *ends)
    assert (bridged & broken).sum() == broken.sum()
    added = bridged & ~broken
    assert dice(added, truth & gap) > 0.75
    assert parts(bridged) == 1 and not bridged[48, 71]


def test_bridge_takes_the_width_that_is_asked_for():
    image, truth = ring()
    ridges = correction.find_ridges(image, Modality.FUNDUS)
    empty = np.zeros_like(truth)
    thin, thick = (correction.bridge_gap(empty, ridges, (16, 48), (48, 80), diameter=d).sum() for d in (1, 7))
    assert thick > 4 * thin


def test_radius_is_read_from_the_image():
    image = np.full((80, 80), 200, np.uint8)
    image[:, 36:43] = 90
    ridges = correction.find_ridges(image, Modality.FUNDUS)
    assert ridges.radius[40, 39] == pytest.approx(3.5, abs=1.1)


def test_stroke_snaps_to_the_vessel_beside_it():
    image, truth = ring()
    ridges = correction.find_ridges(image, Modality.FUNDUS)
    angle = np.linspace(-1, 1, 20)
    stroke = np.column_stack([48 + 36 * np.sin(angle), 48 + 36 * np.cos(angle)])  # four pixels too far out
    assert not truth[tuple(np.rint(stroke).astype(int).T)].any()
    drawn = correction.snap_stroke(np.zeros_like(truth), ridges, stroke)
    assert (drawn & truth).sum() / drawn.sum() > 0.8
    assert drawn.sum() > 150


def test_a_stroke_of_one_point_is_refused():
    image, truth = ring()
    ridges = correction.find_ridges(image, Modality.FUNDUS)
    with pytest.raises(InputError, match="too short"):
        correction.snap_stroke(truth, ridges, np.array([[5.0, 5.0]]))


def test_cut_removes_the_branch_and_leaves_the_trunk_whole(fork):
    cut = correction.cut_branch(fork, (20, 50))
    assert not cut[10:36].any()
    assert np.array_equal(cut[38:], fork[38:])


def test_cut_beside_every_vessel_says_so(fork):
    with pytest.raises(InputError, match="no vessel"):
        correction.cut_branch(fork, (70, 5))


def test_cut_works_on_an_only_vessel(fork):
    alone = np.zeros_like(fork)
    alone[30:33, 10:60] = True
    assert not correction.cut_branch(alone, (31, 30)).any()


@pytest.mark.parametrize("diameter", [1.0, 7.0])
def test_calibre_is_set_along_the_branch_only(fork, diameter):
    changed = correction.set_calibre(fork, (20, 50), diameter)
    assert changed[20].sum() == diameter
    assert np.array_equal(changed[38:43, 5:40], fork[38:43, 5:40])
    assert parts(changed) == 1


def test_specks_go_and_vessels_stay(fork):
    specked = fork.copy()
    specked[70:73, 60:63] = specked[2, 2] = True
    assert np.array_equal(correction.remove_specks(specked, 10), fork)
    kept = correction.remove_specks(specked, 9)
    assert kept[71, 61] and not kept[2, 2]


def test_spurs_are_pruned_and_branches_stay(fork):
    pruned = correction.prune_spurs(fork, 8)
    assert not pruned[44:].any()
    assert np.array_equal(pruned[:38], fork[:38])
    assert np.array_equal(correction.prune_spurs(fork, 0.5), fork)


def test_nothing_is_done_to_an_empty_mask():
    empty = np.zeros((40, 40), bool)
    assert not correction.remove_specks(empty, 5).any()
    assert not correction.prune_spurs(empty, 5).any()


def test_what_is_painted_while_a_tool_works_stays(fork):
    after = correction.cut_branch(fork, (20, 50))
    meanwhile = fork.copy()
    meanwhile[70, 70] = True
    where, values = pixel_changes(fork, after)
    meanwhile[where] = values
    assert meanwhile[70, 70] and not meanwhile[15, 50] and np.array_equal(meanwhile[:70], after[:70])
