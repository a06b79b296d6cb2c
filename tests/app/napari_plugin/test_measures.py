import csv
import io

import numpy as np
import pytest

from app.napari_plugin.measures import QUANTITIES, colour_centreline, measure_mask, to_csv
from app.napari_plugin.uncertainty import doubtful_segments, uncertainty_map
from univg.geometry import skeleton_points


@pytest.fixture
def line():
    mask = np.zeros((100, 200), bool)
    mask[48:53, 20:180] = True
    return mask


def by_key(measures):
    return {measure.key: measure for measure in measures}


def test_figures_of_a_straight_vessel(line):
    found = by_key(measure_mask(line))
    assert found["density"].value == pytest.approx(100 * line.mean())
    assert found["calibre"].value == pytest.approx(5, abs=0.7) and found["calibre"].unit == "px"
    assert found["tortuosity"].value == pytest.approx(1, abs=0.01)
    assert found["branch_points"].value == 0
    assert found["length"].value == pytest.approx(156, abs=6)


def test_lengths_are_in_millimetres_when_the_size_of_a_pixel_is_known(line):
    px, mm = by_key(measure_mask(line)), by_key(measure_mask(line, spacing_mm=0.02))
    assert mm["calibre"].value == pytest.approx(0.02 * px["calibre"].value) and mm["calibre"].unit == "mm"
    assert mm["length"].value == pytest.approx(0.02 * px["length"].value)
    assert mm["length_density"].value == pytest.approx(px["length_density"].value / 0.02)
    assert mm["density"].value == px["density"].value


def test_an_empty_mask_is_measured(line):
    found = by_key(measure_mask(np.zeros_like(line)))
    assert found["density"].value == 0 and np.isnan(found["calibre"].value)


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_only_the_centreline_is_coloured(line, quantity):
    coloured = colour_centreline(line, quantity, probability=np.full(line.shape, 0.7, np.float32))
    painted = coloured.picture[..., 3] > 0
    assert np.array_equal(np.argwhere(painted), skeleton_points(line))
    assert coloured.low <= coloured.high


def test_colours_follow_the_calibre():
    mask = np.zeros((100, 200), bool)
    mask[19:22, 10:190] = True
    mask[70:79, 10:190] = True
    coloured = colour_centreline(mask, "calibre", spacing_mm=0.1)
    brightness = coloured.picture[..., :3].sum(axis=2, dtype=int)
    assert brightness[74, 100] > brightness[20, 100] > 0
    assert coloured.unit == "mm" and coloured.high == pytest.approx(0.9, abs=0.1)


def test_nothing_to_colour(line):
    assert colour_centreline(np.zeros_like(line), "calibre") is None
    assert colour_centreline(line, "uncertainty") is None
    with pytest.raises(ValueError, match="quantity"):
        colour_centreline(line, "beauty")


def test_csv_holds_every_figure(line):
    measures = measure_mask(line, spacing_mm=0.02)
    rows = list(csv.reader(io.StringIO(to_csv([("a,b", "whole image", measures)]).decode("utf-8-sig"))))
    assert len(rows) == 1 + len(measures) and rows[0][:3] == ["image", "part", "quantity"]
    assert all(row[0] == "a,b" for row in rows[1:])
    assert float(rows[1][3]) == pytest.approx(100 * line.mean(), rel=1e-4)


def test_no_cell_of_the_csv_is_a_formula(line):
    measures = measure_mask(line)[:1]
    names = ["=1+1", "+1", "-1", "@SUM(A1)", "a=1"]
    rows = list(csv.reader(io.StringIO(to_csv([(name, name, measures) for name in names]).decode("utf-8-sig"))))[1:]
    assert [row[0] for row in rows] == [row[1] for row in rows] == ["'=1+1", "'+1", "'-1", "'@SUM(A1)", "a=1"]


def test_uncertainty_is_highest_at_one_half():
    unsure = uncertainty_map(np.array([[0.0, 0.5, 1.0, 0.9]], np.float32))
    assert unsure[0, 1] == pytest.approx(1) and unsure[0, 0] < 1e-4 > unsure[0, 2]
    assert unsure.dtype == np.float32


def test_the_least_certain_segment_comes_first_even_below_the_threshold():
    probability = np.zeros((80, 80), np.float32)
    probability[20:23, 10:70] = 0.98
    probability[50:53, 10:70] = 0.45
    first, second = doubtful_segments(probability)
    assert first.row == pytest.approx(51, abs=2) and second.row == pytest.approx(21, abs=2)
    assert first.uncertainty > 0.9 > second.uncertainty


def test_places_are_those_of_a_large_image():
    probability = np.zeros((400, 4000), np.float32)
    probability[190:210, 1000:3000] = 0.6
    (doubt,) = doubtful_segments(probability)
    assert doubt.row == pytest.approx(200, abs=8) and doubt.col == pytest.approx(2000, abs=40)
