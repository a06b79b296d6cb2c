import json
import math
from dataclasses import replace

import numpy as np
import pytest

from univg.errors import InputError
from univg.geometry import rasterize_tree
from univg.geometry.tree import pixels_of
from univg.sca import RECIPES, TreeScene, generate_mask, grow_scene, preset_named, with_root_toggled
from univg.sca.scene import fill_polygon
from univg.types import Modality

SQUARE = ((20.0, 20.0), (20.0, 60.0), (60.0, 60.0), (60.0, 20.0))


def scene(**values):
    config = replace(preset_named("octa").config, grid_reach=math.inf, real_radius_range=(0.5, math.inf))
    return TreeScene(**{"modality": Modality.OCTA, "shape": (128, 160), "config": config, "seed": 3, **values})


@pytest.mark.parametrize("values", [{}, {"roots": ((5.5, 7.25),), "obstacles": (SQUARE,), "boundary": SQUARE}])
def test_scene_survives_json_as_it_lies_in_a_file(values):
    made = scene(mask_name="eye 1", hub=(3.0, 4.0), preset="octa", **values)
    text = json.dumps(made.to_json(), allow_nan=False)
    assert TreeScene.from_json(json.loads(text)) == made


def test_equal_scenes_grow_equal_trees_and_drawn_shapes_hold():
    made = scene(obstacles=(SQUARE,))
    first, again = grow_scene(made), grow_scene(TreeScene.from_json(made.to_json()))
    np.testing.assert_array_equal(first.positions, again.positions)
    np.testing.assert_array_equal(first.radii, again.radii)
    pixels = pixels_of(first.positions)
    assert not fill_polygon(SQUARE, (128, 160))[pixels].any()


def test_scene_with_a_mask_grows_along_it():
    mask = generate_mask(Modality.OCTA, shape=(128, 160), rng=np.random.default_rng(0))
    tree = grow_scene(scene(config=RECIPES["natural"], mask_name="x"), mask=mask)
    assert tree.shape == mask.shape and len(tree) > 20


def test_root_is_added_and_taken_away_again():
    made = with_root_toggled(scene(), (40.0, 50.0), reach=6)
    made = with_root_toggled(made, (80.0, 90.0), reach=6)
    assert made.roots == ((40.0, 50.0), (80.0, 90.0))
    assert with_root_toggled(made, (42.0, 53.0), reach=6).roots == ((80.0, 90.0),)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"shape": [0, 5]},
        {"shape": [10**9, 5]},
        {"shape": 7},
        {"modality": "liver"},
        {"preset": "liver"},
        {"roots": [[1]]},
        {"roots": [[float("nan"), 1.0]]},
        {"roots": [[1.0, 1.0]] * 20_000},
        {"boundary": [[1, 1], [2, 2]]},
        {"config": {"segment_length": 0}},
        {"config": {"unknown": 1}},
        {"config": 3},
        {"seed": "x"},
        {"seed": -1},
        {"shape": [1, 1]},
        {"config": {"max_nodes": 2.5}},
        {"config": {"max_nodes": 10**12}},
        {"config": {"grid_spacing": 0.001}},
        {"config": {"attraction_distance": 0.01, "segment_length": 0.005, "kill_distance": 0.005}},
    ],
)
def test_files_from_elsewhere_are_refused_with_a_reason(change):
    with pytest.raises(InputError, match="No tree can be grown from this file"):
        TreeScene.from_json({**scene().to_json(), **change})
    for other in (None, [], "text", {}):
        with pytest.raises(InputError):
            TreeScene.from_json(other)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("winding_length", 3e4),
        ("winding_length", 1e-3),
        ("warp_sigma", 1e6),
        ("warp_sigma", 1e-4),
        ("smoothing", 20_000),
        ("tip_radius", 1e9),
        ("tip_radius", 1e200),
        ("taper", 1e300),
        ("calibre_noise", 1e3),
        ("grid_spacing", 0.3),
        ("max_nodes", 10**12),
        ("calibre_classes", 10**30),
        ("real_radius_range", [1e300, "inf"]),
    ],
)
def test_parameters_that_would_never_end_are_refused_by_name(name, value):
    data = scene().to_json()
    with pytest.raises(InputError, match=f"{name}.*(from|below).*got"):
        TreeScene.from_json({**data, "config": {**data["config"], name: value}})


@pytest.mark.parametrize(
    "values",
    [
        {"winding_length": 1e4, "tortuosity": 0.5},
        {"winding_length": 1.0, "tortuosity": 0.5},
        {"warp_sigma": 1e4},
        {"warp_sigma": 1.0},
        {"smoothing": 1000},
        {"tip_radius": 256.0, "murray_exponent": 1.0},
        {"taper": 10.0, "murray_exponent": 4.0},
        {"calibre_noise": 10.0},
        {"real_radius_range": (100.0, math.inf)},
    ],
)
def test_parameters_at_their_bounds_grow_and_are_drawn(values):
    mask = generate_mask(Modality.OCTA, shape=(128, 160), rng=np.random.default_rng(0))
    for config, real in ((preset_named("octa").config, None), (RECIPES["natural"], mask)):
        made = TreeScene.from_json(scene(config=replace(config, **values)).to_json())
        assert rasterize_tree(grow_scene(made, mask=real)).any()


def test_shapes_of_two_corners_are_refused():
    with pytest.raises(ValueError, match="three points"):
        scene(obstacles=(((1.0, 1.0), (2.0, 2.0)),))
