from dataclasses import replace

import numpy as np
import pytest

from univg.geometry import VesselTree, read_swc, write_swc
from univg.sca import generate_tree
from univg.types import Modality

FORK = """\
# shape is not stated here
1 2 10.5 20.25 0 3.0 -1
2 2 11 24 0 2.5 1
3 3 12 28 0 1.5 2
4 3 8 28 0 1.25 2
"""


def assert_same(again, tree):
    for name in ("positions", "parents", "radii", "links"):
        np.testing.assert_array_equal(getattr(again, name), getattr(tree, name), strict=True)
    assert again.shape == tree.shape
    assert again.meta == tree.meta


@pytest.mark.parametrize("modality", [Modality.FUNDUS, Modality.CORONARY_DSA])
def test_a_tree_survives_the_way_there_and_back(modality):
    tree = generate_tree(modality, shape=(130, 170), rng=np.random.default_rng(0))
    assert_same(read_swc(write_swc(tree)), tree)


def test_links_and_meta_survive():
    tree = generate_tree(Modality.OCTA, shape=(128, 128), rng=np.random.default_rng(0))
    tree = replace(tree, links=np.array([[9, 3], [0, 20]]), meta={"seed": 3, "name": "first\nsecond ö"})
    assert_same(read_swc(write_swc(tree)), tree)


def test_awkward_numbers_survive():
    positions = np.array([[0.1 + 0.2, 1e-300], [-0.0, 1e17], [np.nextafter(1, 2), 3]])
    tree = VesselTree(positions, np.array([-1, 0, -1]), np.array([0.0, 5e-324, 1 / 3]), (7, 9))
    assert_same(read_swc(write_swc(tree)), tree)


def test_an_empty_tree_survives():
    tree = VesselTree(np.empty((0, 2)), np.empty(0, np.int64), np.empty(0), (5, 6))
    assert_same(read_swc(write_swc(tree)), tree)


def test_columns_are_those_of_the_format():
    tree = VesselTree(np.array([[2.0, 7.0], [3.0, 8.5]]), np.array([-1, 0]), np.array([1.5, 1.0]), (20, 30))
    nodes = [line.split() for line in write_swc(tree).splitlines() if not line.startswith("#")]
    assert nodes == [["1", "0", "7.0", "2.0", "0", "1.5", "-1"], ["2", "0", "8.5", "3.0", "0", "1.0", "1"]]
    assert "# univg shape 20 30\n" in write_swc(tree)


def test_text_of_other_software_is_read_with_the_shape_given():
    tree = read_swc(FORK, (64, 48))
    np.testing.assert_array_equal(tree.positions[0], [20.25, 10.5])
    np.testing.assert_array_equal(tree.parents, [-1, 0, 1, 1])
    np.testing.assert_array_equal(tree.radii, [3.0, 2.5, 1.5, 1.25])
    assert tree.shape == (64, 48)


def test_nodes_come_in_any_order_with_any_ids_and_line_ends():
    text = "\r\n".join(
        ["  40 0 4 0 0 1 30", "7 0 1 0 0 1 -1", "", "30 0 3 0 0 1 7", "8 0 9 0 0 1 40", "0 0 5 5 0 1 -1"]
    )
    tree = read_swc(text, (10, 10))
    np.testing.assert_array_equal(tree.positions[:, 1], [1, 3, 4, 9, 5])
    np.testing.assert_array_equal(tree.parents, [-1, 0, 1, 2, -1])


def test_a_long_chain_from_tip_to_root_is_read():
    n = 20_000
    text = "\n".join(f"{i} 0 {i} 0 0 1 {i - 1 if i > 1 else -1}" for i in range(n, 0, -1))
    tree = read_swc(text, (1, n + 1))
    np.testing.assert_array_equal(tree.parents, np.arange(n) - 1)


def test_a_frame_that_is_not_known_is_asked_for():
    with pytest.raises(ValueError, match="`shape`"):
        read_swc(FORK)


def test_a_frame_that_differs_from_the_text_is_refused():
    text = "# univg shape 20 30\n" + FORK
    assert read_swc(text).shape == read_swc(text, (20, 30)).shape == (20, 30)
    with pytest.raises(ValueError, match=r"\(30, 20\).*\(20, 30\)"):
        read_swc(text, (30, 20))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("5 0 1 1 0 1", "6 columns"),
        ("5 0 1 1 0 1 2 9", "8 columns"),
        ("five 0 1 1 0 1 2", "five"),
        ("5 0 1 x 0 1 2", "'x'"),
        ("5 0 1 1 0 1 2.5", "2.5"),
        ("5 0 nan 1 0 1 2", "not finite"),
        ("5 0 1 1e999 0 1 2", "not finite"),
        ("5 0 1 1 0 -1 2", "negative radius"),
        ("5 0 1 1 3 1 2", "z = 3"),
        ("-5 0 1 1 0 1 2", "id -5"),
        ("5 0 1 1 0 1 -2", "parent -2"),
        ("5 0 1 1 0 1 77", "parent 77"),
        ("4 0 1 1 0 1 2", "id 4, as line 5"),
        ("5 0 1 1 0 1 5", "itself"),
        ("# univg shape 20", "comment"),
        ("# univg shape 0 20", "at least one pixel"),
        ("# univg meta {", "comment"),
        ("# univg meta " + "[" * 100_000, "comment"),
        ("# univg link 1", "comment"),
        ("# univg link 1 99", "99"),
        ("# univg branch 1 2", "comment"),
    ],
)
def test_a_bad_line_is_named(line, problem):
    with pytest.raises(ValueError, match=r"Line 6 ") as caught:
        read_swc(FORK + line + "\n", (64, 64))
    assert problem in str(caught.value)


def test_a_cycle_is_refused_and_its_line_named():
    with pytest.raises(ValueError, match=r"Line [123] .*itself"):
        read_swc("1 0 0 0 0 1 3\n2 0 1 0 0 1 1\n3 0 2 0 0 1 2\n", (8, 8))
