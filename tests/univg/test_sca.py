import tracemalloc
from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import cKDTree

from univg.errors import InputError
from univg.geometry import VesselTree, rasterize_tree
from univg.geometry.tree import pixels_of, select_nodes
from univg.io import read_mask
from univg.metrics import betti_numbers, dice
from univg.sca import (
    PRESETS,
    RECIPES,
    SCAConfig,
    anatomy,
    assign_radii,
    centreline,
    find_centreline,
    generate_mask,
    generate_tree,
    grow_tree,
    preset_for,
    preset_named,
    sample_attraction_points,
    sample_roots,
    split_arteries_and_veins,
    vessel_hub,
    warp_centrelines,
)
from univg.sca.memory import MaskMemory
from univg.sca.noise import smooth_noise
from univg.sca.seeding import bridge_gaps
from univg.types import Modality
from univg.weights import shipped_folder

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


def test_conditioned_fundus_tree_stays_in_the_round_field():
    mask = real_mask(512)
    rows, cols = np.nonzero(mask)
    drawn = generate_mask(Modality.FUNDUS, mask=mask, rng=np.random.default_rng(1))
    reach = np.hypot(rows - 255.5, cols - 255.5).max()
    rows, cols = np.nonzero(drawn)
    assert np.hypot(rows - 255.5, cols - 255.5).max() < 1.04 * reach


@pytest.mark.parametrize("modality", list(Modality))
def test_one_component_per_root_and_radii_never_grow_towards_tips(modality):
    tree = generate_tree(modality, mask=real_mask(), rng=np.random.default_rng(5))
    assert ndimage.label(rasterize_tree(tree), EIGHT)[1] <= len(tree.roots)
    child = np.flatnonzero(tree.parents >= 0)
    assert (tree.radii[child] <= tree.radii[tree.parents[child]] + 1e-9).all()


def test_murrays_law_holds_at_every_node_without_a_mask():
    config = replace(preset_for(Modality.BRAIN_DSA).config, taper=0.0, calibre_noise=0.0)
    tree = generate_tree(Modality.BRAIN_DSA, shape=(256, 256), config=config, rng=np.random.default_rng(0))
    k = config.murray_exponent
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
    pixels = pixels_of(tree.positions)
    assert len(tree) > 20
    assert boundary[pixels].all()


def test_growth_and_drawing_agree_on_where_a_pixel_is():
    boundary = np.zeros((97, 97), bool)
    boundary[::12] = boundary[:, ::12] = True  # corridors one pixel wide, where half a pixel would show
    attractors = np.argwhere(boundary).astype(float)
    tree = grow_tree(
        attractors, [[48.0, 48.0]], (97, 97), config=CONFIG, rng=np.random.default_rng(0), boundary=boundary
    )
    assert len(tree) > 60
    assert boundary[pixels_of(tree.positions)].all()
    assert rasterize_tree(tree)[pixels_of(tree.positions)].mean() > 0.98
    corner = grow_tree([[96.0, 96.0]], [[80.0, 80.0]], (97, 97), config=CONFIG, rng=np.random.default_rng(0))
    assert corner.positions.max() <= 96 and rasterize_tree(corner)[-3:, -3:].any()


def test_every_attractor_in_reach_is_reached_without_noise():
    config = replace(CONFIG, direction_noise=0.0)
    attractors = np.random.default_rng(1).uniform(10, 118, (300, 2))
    tree = grow_tree(attractors, [[64, 64]], (128, 128), config=config, rng=np.random.default_rng(0))
    gap = np.linalg.norm(attractors[:, None] - tree.positions[None], axis=2).min(axis=1)
    assert ((gap <= config.kill_distance) | (gap > config.attraction_distance)).all()
    assert (gap <= config.kill_distance).mean() > 0.95


def test_growth_goes_around_an_obstacle_and_never_into_it():
    obstacle = np.zeros((128, 128), bool)
    obstacle[40:90, 60:70] = True
    attractors = np.random.default_rng(2).uniform(0, 128, (600, 2))
    tree = grow_tree(
        attractors, [[64, 20]], (128, 128), config=CONFIG, rng=np.random.default_rng(0), boundary=~obstacle
    )
    pixels = pixels_of(tree.positions)
    assert not obstacle[pixels].any()
    assert (tree.positions[:, 1] > 75).sum() > 20


@pytest.mark.parametrize("name", list(PRESETS))
@pytest.mark.parametrize("venation", ["open", "closed"])
def test_no_node_of_a_preset_lies_outside_or_on_an_obstacle(name, venation):
    boundary = np.zeros((200, 240), bool)
    boundary[5:190, 10:230] = True
    obstacles = np.zeros_like(boundary)
    obstacles[90:120, 100:140] = True
    preset = preset_named(name)
    config = replace(preset.config, tortuosity=0.4, venation=venation)
    for seed in range(3):
        tree = generate_tree(
            preset.modality,
            shape=boundary.shape,
            boundary=boundary,
            obstacles=obstacles,
            preset=preset,
            config=config,
            rng=np.random.default_rng(seed),
        )
        pixels = pixels_of(tree.positions)
        assert len(tree) > 5
        assert (boundary & ~obstacles)[pixels].all()


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_gives_a_plausible_tree_from_any_seed(name):
    preset = preset_named(name)
    for seed in range(12):
        tree = generate_tree(preset.modality, preset=preset, rng=np.random.default_rng(seed))
        assert 0.015 < rasterize_tree(tree).mean() < 0.15
        assert ndimage.label(rasterize_tree(tree), EIGHT)[1] <= len(tree.roots)


@pytest.mark.parametrize(
    ("name", "shape", "seed", "least"),
    [
        ("coronary-left", (512, 512), 183, 300),
        ("coronary-left", (480, 720), 24, 120),
        ("coronary-right", (512, 512), 63, 180),
        ("coronary-right", (512, 512), 196, 180),
        ("coronary-right", (480, 800), 1, 65),
        ("coronary-right", (512, 1024), 12, 45),
        ("coronary-right", (800, 480), 4, 65),
    ],
)
def test_a_coronary_tree_grows_however_far_its_ostium_lies(name, shape, seed, least):
    preset = preset_named(name)
    tree = generate_tree(preset.modality, shape=shape, preset=preset, rng=np.random.default_rng(seed))
    assert len(tree) > least


def test_a_kill_distance_just_below_the_attraction_distance_ends():
    config = replace(preset_named("coronary-left").config, kill_distance=110 - 1e-9)
    assert len(generate_tree(Modality.CORONARY_DSA, config=config, rng=np.random.default_rng(0)))


def test_gaps_are_bridged_from_what_the_roots_reach_and_nowhere_else():
    roots = np.array([[0.0, 0.0]])
    points = np.array([[0.0, 25.0], [0.0, 30.0], [0.0, 55.0], [8.0, 55.0]])
    bridged = bridge_gaps(points, roots, reach=10.0)
    np.testing.assert_array_equal(bridged[:4], points)
    np.testing.assert_allclose(bridged[4:], [[0, 25 / 3], [0, 50 / 3], [0, 30 + 25 / 3], [0, 30 + 50 / 3]])
    np.testing.assert_array_equal(bridge_gaps(points, roots, reach=26.0), points)
    np.testing.assert_array_equal(bridge_gaps(points, roots[:0], reach=10.0), points)
    assert not len(bridge_gaps(points[:0], roots, reach=10.0))


@pytest.mark.parametrize("values", [{"venation": "closed"}, {"capillary_spacing": 20.0}])
def test_no_link_of_a_closed_venation_passes_an_obstacle(values):
    wall = np.zeros((512, 512), bool)
    wall[:, 250:262] = True
    config = replace(preset_named("octa").config, **values)
    tree = generate_tree(Modality.OCTA, config=config, obstacles=wall, rng=np.random.default_rng(0))
    assert len(tree.links) > 10
    sides = np.sign(tree.positions[tree.links, 1] - 255.5)
    assert (sides[:, 0] == sides[:, 1]).all()
    along = np.linspace(0, 1, 50)[:, None, None]
    first, second = tree.positions[tree.links[:, 0]], tree.positions[tree.links[:, 1]]
    assert not wall[pixels_of(((1 - along) * first + along * second).reshape(-1, 2))].any()


def test_forests_that_may_not_cross_keep_apart():
    preset = preset_named("octa")
    config = replace(preset.config, tip_radius=0.0, taper=0.0)
    tree = generate_tree(Modality.OCTA, preset=preset, config=config, rng=np.random.default_rng(4))
    first = np.arange(len(tree)) < tree.roots[len(tree.roots) // 2]
    arteries, veins = (rasterize_tree(select_nodes(tree, which)) for which in (first, ~first))
    assert arteries.any() and veins.any()
    assert (arteries & veins).sum() < 0.01 * veins.sum()  # at most where a root stands beside the other forest


def test_closed_venation_makes_loops_and_open_none():
    for venation in ("open", "closed"):
        config = replace(preset_named("octa").config, venation=venation)
        tree = generate_tree(Modality.OCTA, config=config, rng=np.random.default_rng(0))
        assert (len(tree.links) > 10) == (venation == "closed")
        assert (tree.parents < np.arange(len(tree))).all()
        assert VesselTree.from_json(tree.to_json()).links.tolist() == tree.links.tolist()
    assert betti_numbers(rasterize_tree(tree))[1] > 10


def test_tortuosity_winds_vessels_without_tearing_them():
    def winding(tortuosity):
        config = replace(preset_named("octa").config, tortuosity=tortuosity)
        tree = generate_tree(Modality.OCTA, config=config, rng=np.random.default_rng(0))
        assert tree.step_lengths.max() < 5 * config.segment_length
        return tree.step_lengths.sum()

    assert winding(0.4) > 1.1 * winding(0.0)


def test_taper_widens_vessels_towards_their_base_and_keeps_murrays_law():
    config = replace(preset_named("brain-dsa").config, taper=0.5, calibre_noise=0.0)
    tree = generate_tree(Modality.BRAIN_DSA, config=config, rng=np.random.default_rng(0))
    k = config.murray_exponent
    child = np.flatnonzero(tree.parents >= 0)
    at_base = tree.radii[child] * (1 + config.taper * tree.step_lengths[child] / 100)
    power = np.bincount(tree.parents[child], weights=at_base**k, minlength=len(tree))
    inner = tree.child_counts > 0
    np.testing.assert_allclose(tree.radii[inner] ** k, power[inner])
    plain = assign_radii(tree, config=replace(config, taper=0.0))
    assert tree.radii.max() > 1.5 * plain.radii.max()


def test_roots_the_user_draws_are_used_and_dealt_out_to_forests():
    roots = np.array([[100.0, 100.0], [400.0, 300.0], [250.0, 60.0]])
    tree = generate_tree(Modality.OCTA, roots=roots, rng=np.random.default_rng(0))
    assert {tuple(p) for p in tree.positions[tree.roots]} == {tuple(p) for p in roots}
    with pytest.raises(ValueError, match="roots"):
        generate_tree(Modality.OCTA, roots=[[600.0, 5.0]], rng=np.random.default_rng(0))


def test_a_million_attractors_end_in_bounded_time():
    attractors = np.random.default_rng(0).uniform(0, 256, (1_000_000, 2))
    tree = grow_tree(attractors, [[128, 128]], (256, 256), config=CONFIG, rng=np.random.default_rng(0))
    assert 100 < len(tree) <= CONFIG.max_nodes


def test_recipes_grow_and_the_paper_recipe_has_its_lengths():
    paper = RECIPES["paper"]
    assert (paper.attraction_distance, paper.kill_distance, paper.segment_length) == (20, 10, 15)
    for recipe in RECIPES.values():
        assert generate_mask(Modality.FUNDUS, mask=real_mask(), config=recipe, rng=np.random.default_rng(0)).any()


def test_arrays_of_another_shape_are_refused():
    for name in ("boundary", "obstacles"):
        with pytest.raises(ValueError, match=name):
            generate_tree(Modality.OCT, shape=(64, 64), rng=np.random.default_rng(0), **{name: np.ones((32, 32), bool)})


def test_unknown_preset_is_refused_with_the_choices():
    with pytest.raises(InputError, match="coronary-left"):
        preset_named("liver")


def test_first_step_obeys_equations_1_to_4():
    config = replace(CONFIG, direction_noise=0.0, follow_distance=np.inf, max_iterations=1)
    attractors = np.array([[64.0, 80.0], [80.0, 64.0]])
    tree = grow_tree(attractors, [[64.0, 64.0]], (128, 128), config=config, rng=np.random.default_rng(0))
    assert len(tree) == 2, "one iteration was allowed"
    step = tree.positions[1] - tree.positions[0]
    np.testing.assert_allclose(step, config.segment_length * np.array([1, 1]) / np.sqrt(2), atol=1 / 1024)


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
        {"tortuosity": 2.0},
        {"winding_length": 0},
        {"venation": "other"},
        {"taper": -1},
        {"follow_distance": 0},
        {"calibre_classes": 0},
        {"calibre_noise": -0.1},
        {"smoothing": 1.5},
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


def test_a_mask_of_many_small_parts_still_has_a_root():
    mask = np.zeros((256, 256), bool)
    for number in range(64):
        mask[16 + 30 * (number // 8) : 20 + 30 * (number // 8), 12 + 30 * (number % 8) : 34 + 30 * (number % 8) - 8] = (
            True
        )
    assert len(generate_tree(Modality.OCTA, mask=mask, rng=np.random.default_rng(0)))


def test_an_empty_mask_has_no_roots_and_falls_back_to_the_preset():
    empty = np.zeros((128, 128), bool)
    line = find_centreline(empty)
    (warped,) = warp_centrelines([line], config=CONFIG, rng=None)
    assert len(line) == len(sample_roots(line)) == len(warped) == 0
    assert generate_mask(Modality.FUNDUS, mask=empty, rng=np.random.default_rng(0)).any()


def test_attractors_lie_in_the_frame_and_the_boundary():
    boundary = np.zeros((100, 140), bool)
    boundary[:, 70:] = True
    points, ranks = sample_attraction_points(
        None, (100, 140), config=replace(CONFIG, grid_fraction=1.0), rng=np.random.default_rng(0), boundary=boundary
    )
    assert len(points) > 20
    assert (points[:, 1] >= 69.5).all() and (points <= [99, 139]).all()
    assert len(ranks) == len(points)


def test_warp_moves_vessels_by_about_the_amplitude_and_leaves_the_input_alone():
    line = find_centreline(real_mask())
    before = line.points.copy()
    (warped,) = warp_centrelines([line], config=CONFIG, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(line.points, before)
    assert 0.9 * len(line) < len(warped) <= len(line)
    distance = warped.nearest(line.points)[1]
    assert 0.1 * CONFIG.warp_amplitude < np.median(distance) < 2 * CONFIG.warp_amplitude
    assert warp_centrelines([line], config=replace(CONFIG, warp_amplitude=0.0), rng=np.random.default_rng(0)) == [line]


def test_centreline_knows_position_radius_and_part():
    mask = np.zeros((80, 200), bool)
    mask[20:29] = mask[60:63] = True
    line = find_centreline(mask)
    radius, distance = line.nearest(np.array([[24.0, 100.0], [40.0, 100.0], [70.0, 100.0]]))
    np.testing.assert_allclose(radius, np.array([4.5, 4.5, 1.5]) + 0.25)  # for vessels of even width, see there
    np.testing.assert_allclose(distance, [0, 16, 9])
    assert len(np.unique(line.parts)) == 2


@pytest.mark.parametrize(
    ("find", "module", "once"),
    [(find_centreline, centreline, "skeleton_points"), (vessel_hub, anatomy, "local_radius")],
)
def test_masks_in_turn_are_looked_at_once_each(find, module, once, monkeypatch):
    looked = []
    look = getattr(module, once)
    monkeypatch.setattr(module, once, lambda mask: looked.append(mask) or look(mask))
    masks = [np.tri(48, 48, number - 24, bool) for number in range(48)]
    for mask in [*masks, *masks]:
        find(mask)
    assert len(looked) == len(masks)


def test_what_was_found_on_masks_is_forgotten_beyond_a_bound_of_memory():
    asked = []

    def find(mask):
        asked.append(mask.sum())
        return mask.sum()

    memory = MaskMemory(find, most_bytes=9000, size_of=lambda _: 2000)  # room for two
    masks = [np.arange(16).reshape(4, 4) < count for count in range(4)]
    for number in (0, 1, 0, 2, 0, 3, 0, 1):  # the first is asked for again and again, the second forgotten meanwhile
        assert memory(masks[number]) == number
    assert asked == [0, 1, 2, 3, 1]


def test_the_hub_of_a_large_mask_is_sought_on_a_small_one(monkeypatch):
    sides = []
    blur = cv2.GaussianBlur
    monkeypatch.setattr(cv2, "GaussianBlur", lambda image, *rest: sides.append(max(image.shape)) or blur(image, *rest))
    mask = np.zeros((300, 400), bool)
    mask[60:240, 98:101] = mask[148:153, 40:360] = mask[120:180, 300:306] = True
    small = vessel_hub(mask)
    large = vessel_hub(np.kron(mask, np.ones((4, 4), bool)))
    assert sides == [400, 1024]
    np.testing.assert_allclose(large, 4 * np.array(small) + 1.5, atol=8)


@pytest.mark.parametrize("sigma", [1e-6, 0.5, 3.0, 40.0, 1e5, 1e12])
def test_a_random_field_takes_no_more_than_its_frame(sigma):
    tracemalloc.start()
    field = smooth_noise((70, 90), sigma, np.random.default_rng(0))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert field.shape == (70, 90) and np.isfinite(field).all()
    assert most < 1 << 20


def test_a_random_field_is_smooth_and_has_unit_variance():
    field = smooth_noise((200, 300), 20.0, np.random.default_rng(0))
    assert field.std() == pytest.approx(1, abs=0.01) and abs(field.mean()) < 0.01
    assert max(np.abs(np.diff(field, axis=axis)).max() for axis in (0, 1)) < 0.5
    assert np.abs(np.corrcoef(field[:, :100].ravel(), field[:, 200:].ravel())[0, 1]) < 0.5


def test_roots_lie_on_trunks_near_the_hub_the_border_or_where_they_are_widest():
    mask = np.zeros((120, 200), bool)
    mask[56:64, 20:150] = True  # a trunk from left to right
    mask[58:61, 150:] = True  # and its thin end
    mask[10:13, 5:8] = True  # too small for a root of its own
    line = find_centreline(mask)
    by_hub, by_border = sample_roots(line, hub=(60, 190)), sample_roots(line, from_border=True)
    assert by_hub.shape == by_border.shape == (1, 2)
    assert abs(by_hub[0, 1] - 148) < 6  # not on the thin end, though it is nearer
    assert abs(by_border[0, 1] - 22) < 6
    assert line.nearest(sample_roots(line))[0][0] == line.radii.max()


def test_trunks_are_followed_before_their_branches():
    attractors = np.array([[64.0, c] for c in range(30, 120, 3)] + [[c, 80.0] for c in range(70, 120, 3)])
    ranks = np.r_[np.ones(30, int), np.zeros(17, int)]
    grow = {"config": replace(CONFIG, direction_noise=0.0), "rng": np.random.default_rng(0), "ranks": ranks}
    tree = grow_tree(attractors, [[72.0, 80.0]], (128, 128), **grow)
    across = np.abs(tree.positions[:, 1] - 80) > 8
    down = tree.positions[:, 0] > 100
    assert across.any() and np.flatnonzero(across).min() > np.flatnonzero(down).max()
    with pytest.raises(ValueError, match="ranks"):
        grow_tree(attractors, [[72.0, 80.0]], (128, 128), **{**grow, "ranks": ranks[:5]})


def test_a_parallel_vessel_is_reached_by_one_branch_and_not_by_a_comb():
    attractors = np.array([[row, c] for row in (50.0, 68.0) for c in range(10, 118, 3)])
    roots = [[50.0, 10.0]]

    def branches(follow_distance):
        config = replace(CONFIG, direction_noise=0.0, follow_distance=follow_distance)
        tree = grow_tree(attractors, roots, (128, 128), config=config, rng=np.random.default_rng(0))
        gap = np.linalg.norm(attractors[:, None] - tree.positions[None], axis=2).min(axis=1)
        assert (gap <= config.kill_distance).all()
        return (tree.child_counts > 1).sum()

    assert branches(10.0) <= 3 < branches(np.inf)


def test_radii_stay_near_the_real_ones():
    mask = np.zeros((64, 256), bool)
    mask[28:37] = True
    config = replace(CONFIG, warp_amplitude=0.0)
    tree = generate_tree(Modality.OCT, mask=mask, config=config, rng=np.random.default_rng(0))
    on_vessel = np.abs(tree.positions[:, 0] - 32) < 3
    assert np.median(tree.radii[on_vessel]) == pytest.approx(4.5, rel=0.2)


def test_branches_vary_in_calibre_without_a_trend():
    tree = generate_tree(Modality.FUNDUS, shape=(256, 256), rng=np.random.default_rng(0))
    config = replace(CONFIG, calibre_noise=0.2)
    lawful = assign_radii(tree, config=config)
    varied = assign_radii(tree, config=config, rng=np.random.default_rng(0))
    child = np.flatnonzero(tree.parents >= 0)
    assert (varied.radii[child] <= varied.radii[tree.parents[child]] + 1e-9).all()
    change = np.log(varied.radii / lawful.radii)
    assert abs(change.mean()) < 0.1 and change.std() > 0.05


def test_assigning_radii_keeps_the_nodes():
    tree = generate_tree(Modality.OCT, shape=(128, 128), rng=np.random.default_rng(0))
    again = assign_radii(tree, config=replace(CONFIG, tip_radius=3.0))
    np.testing.assert_array_equal(again.positions, tree.positions)
    assert again.radii.min() == pytest.approx(3.0)


def test_capillaries_fill_the_space_between_vessels_and_keep_out_of_the_foveal_zone():
    preset = preset_named("octa")
    grow = {"shape": (256, 256), "preset": preset}
    bare = generate_tree(Modality.OCTA, **grow, rng=np.random.default_rng(0))
    config = replace(preset.config, capillary_spacing=20.0)
    meshed = generate_tree(Modality.OCTA, **grow, config=config, rng=np.random.default_rng(0))
    n = len(bare)
    np.testing.assert_array_equal(meshed.positions[:n], bare.positions)
    np.testing.assert_array_equal(meshed.radii[:n], bare.radii)
    assert len(meshed.links) > 20
    assert meshed.radii[n:].max() < np.percentile(bare.radii, 10)
    # Hardly a place is farther from a vessel than a mesh is wide, the foveal zone apart, which stays empty.
    gap = ndimage.distance_transform_edt(~rasterize_tree(meshed))
    gap_bare = ndimage.distance_transform_edt(~rasterize_tree(bare))
    assert np.percentile(gap, 90) < 0.7 * np.percentile(gap_bare, 90)
    centre = np.hypot(*np.meshgrid(*[np.arange(256) - 127.5] * 2)) < 8
    assert gap[centre].min() > 4


def test_capillaries_can_join_a_conditioned_tree():
    tree = generate_tree(
        Modality.OCTA,
        mask=real_mask(),
        config=SCAConfig(capillary_spacing=30.0),
        rng=np.random.default_rng(0),
    )
    assert len(tree.links) > 5


def test_a_mesh_too_fine_is_refused():
    with pytest.raises(ValueError, match="capillary_spacing"):
        generate_tree(Modality.OCTA, config=SCAConfig(capillary_spacing=1.0), rng=np.random.default_rng(0))


def spokes(count):
    """Straight vessels from the middle of a frame of 256 pixels outwards."""
    tree = [VesselTree(np.array([[128.0, 128.0]]), np.array([-1]), np.array([3.0]), (256, 256))]
    for angle in 2 * np.pi * np.arange(count) / count + 0.2:
        along = np.linspace(0, 110, 50)[:, None]
        positions = 128 + along * np.array([np.sin(angle), np.cos(angle)])
        tree.append(VesselTree(positions, np.arange(50) - 1, np.full(50, 2.0), (256, 256)))
    return np.any([rasterize_tree(t) for t in tree], axis=0)


def test_vessels_that_leave_the_disc_take_turns_as_arteries_and_veins():
    line = find_centreline(spokes(6))
    first, second = split_arteries_and_veins(line, (128.0, 128.0), rng=np.random.default_rng(0))
    angles = []
    for side in (first, second):
        offset = side.points - 128
        offset = offset[np.hypot(*offset.T) > 60]
        angles.append(np.unique(np.round((np.arctan2(*offset.T) - 0.2) / (np.pi / 3)).astype(int) % 6))
    assert len(angles[0]) == len(angles[1]) == 3
    assert not set(angles[0]) & set(angles[1])
    assert len(set(angles[0] % 2)) == 1  # never two neighbours
    assert len(first) + len(second) >= len(line)  # what lies within the disc belongs to both


def test_few_vessels_stay_one_forest():
    line = find_centreline(spokes(3))
    assert split_arteries_and_veins(line, (128.0, 128.0), rng=np.random.default_rng(0)) == [line]


def test_arteries_and_veins_of_a_conditioned_fundus_cross_and_each_is_a_tree():
    mask = spokes(8)
    tree = generate_tree(Modality.FUNDUS, mask=mask, hub=(128.0, 128.0), rng=np.random.default_rng(1))
    assert len(tree.roots) >= 2
    assert ndimage.label(rasterize_tree(tree), EIGHT)[1] <= len(tree.roots)
    one = generate_tree(
        Modality.FUNDUS, mask=mask, hub=(128.0, 128.0), roots=[[128.0, 128.0]], rng=np.random.default_rng(1)
    )
    assert len(one.roots) == 1
    config = replace(CONFIG, arteries_and_veins=False)
    single = generate_tree(Modality.FUNDUS, mask=mask, hub=(128.0, 128.0), config=config, rng=np.random.default_rng(1))
    assert len(single.roots) == 1


@pytest.mark.parametrize("seed", range(4))
def test_every_vessel_of_a_fundus_mask_is_followed(seed):
    """Dealing vessels out to arteries and veins must not leave a trunk without a root."""
    mask = read_mask(shipped_folder("assets", "sample") / "masks" / "sample-1.png")
    config = replace(SCAConfig(), warp_amplitude=0.0)
    tree = generate_tree(Modality.FUNDUS, mask=mask, config=config, rng=np.random.default_rng(seed))
    distance, _ = cKDTree(tree.positions).query(find_centreline(mask).points)
    assert np.mean(distance < 8) > 0.98
