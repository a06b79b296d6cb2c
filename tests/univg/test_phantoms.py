import numpy as np
import pytest

from univg.segmentation.phantoms import VesselShape, draw_phantom, grow_shape, grow_shapes, phantom_batch, smooth_noise
from univg.types import Modality


@pytest.fixture(scope="module")
def shapes():
    return [grow_shape(modality, size=192, rng=np.random.default_rng(i)) for i, modality in enumerate(Modality)]


def test_shape_knows_how_far_the_wall_is(shapes):
    for shape in shapes:
        inside = shape.distance > 0
        assert 0.01 < inside.mean() < 0.6
        assert (shape.distance[inside] <= 1.5 * shape.radius[inside] + 2).all()


@pytest.mark.parametrize("modality", list(Modality))
def test_phantom_has_bright_vessels_where_its_mask_says(shapes, modality):
    brighter = []
    for seed in range(12):
        grey, mask = draw_phantom(shapes, modality, size=96, rng=np.random.default_rng(seed))
        assert grey.shape == mask.shape == (96, 96)
        assert grey.dtype == mask.dtype == np.float32
        assert grey.min() >= 0 and grey.max() <= 1 and np.isfinite(grey).all()
        assert set(np.unique(mask)) <= {0, 1}
        vessel = mask > 0
        if 0.05 < vessel.mean() < 0.9 and grey[~vessel].std() > 0:
            near = np.abs(np.gradient(mask)).sum(0) > 0  # compare across the wall, not across the field of view
            brighter.append(grey[near & vessel].mean() > grey[near & ~vessel].mean())
    assert np.mean(brighter) > 0.7


def test_same_seed_same_phantom_and_another_seed_another(shapes):
    first, again, other = (
        draw_phantom(shapes, Modality.OCTA, size=64, rng=np.random.default_rng(s))[0] for s in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("size", [16, 33, 250])
def test_phantom_of_any_size(shapes, size):
    for seed in range(6):
        grey, mask = draw_phantom(shapes, Modality.CORONARY_DSA, size=size, rng=np.random.default_rng(seed))
        assert grey.shape == mask.shape == (size, size)


def test_a_shape_without_vessels_gives_an_empty_mask():
    empty = VesselShape(np.full((64, 64), -12, np.float16), np.ones((64, 64), np.float16))
    _, mask = draw_phantom([empty], Modality.FUNDUS, size=64, rng=np.random.default_rng(0))
    assert not mask.any()


def test_batches_follow_from_their_seed(shapes):
    stack = np.stack([np.stack([s.distance, s.radius]) for s in shapes])
    first, again = (phantom_batch(stack, count=3, size=48, inputs="grey+ridges", seed=(0, 5)) for _ in range(2))
    assert first[0].shape == (3, 5, 48, 48) and first[1].shape == (3, 1, 48, 48)
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])


def test_shapes_do_not_depend_on_the_number_of_workers():
    done = []
    one = grow_shapes(5, seed=3, workers=1, on_grown=done.append)
    two = grow_shapes(5, seed=3, workers=2)
    assert np.array_equal(one, two)
    assert done == [1, 2, 3, 4, 5]


def test_smooth_noise_has_unit_spread():
    values = np.concatenate([smooth_noise(128, 8, np.random.default_rng(s)).ravel() for s in range(8)])
    assert abs(values.mean()) < 0.15
    assert values.std() == pytest.approx(1, abs=0.2)
