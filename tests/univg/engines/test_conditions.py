import numpy as np
import pytest

from univg.engines.conditions import CONDITIONS, condition_picture, vessel_condition, vesselness
from univg.errors import InputError
from univg.types import Modality


@pytest.fixture
def pair(masks):
    mask = np.kron(masks[0], np.ones((2, 2), bool))
    rng = np.random.default_rng(0)
    return np.clip(0.7 - 0.4 * mask + 0.02 * rng.standard_normal(mask.shape), 0, 1).astype(np.float32), mask


def test_vessels_lie_inside_the_field(pair):
    _, mask = pair
    seen = np.zeros_like(mask)
    seen[20:100] = True
    condition = vessel_condition(mask, seen)
    assert np.array_equal(condition[..., 0] > 0, mask & seen) and np.array_equal(condition[..., 1] > 0, seen)


@pytest.mark.parametrize("modality", [Modality.FUNDUS, Modality.OCTA])
def test_vesselness_is_high_on_vessels_of_either_polarity(pair, modality):
    image, mask = pair
    found = vesselness(1 - image if modality is Modality.OCTA else image, modality)
    assert found.dtype == np.float32 and found.min() >= 0 and found.max() <= 1
    assert found[mask].mean() > 3 * found[~mask].mean()


@pytest.mark.parametrize("kind", CONDITIONS)
def test_every_condition_is_a_picture_of_the_same_size(pair, kind):
    image, mask = pair
    if kind in ("canny", "lineart", "shuffle"):
        pytest.importorskip("controlnet_aux")
    picture = condition_picture(kind, image=image, mask=mask, modality=Modality.FUNDUS)
    assert picture.shape == (*mask.shape, 3) and picture.dtype == np.float32
    assert picture.min() >= 0 and picture.max() <= 1 and picture.std() > 0


def test_missing_package_is_named(pair, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "controlnet_aux", None)
    with pytest.raises(InputError, match="controlnet-aux"):
        condition_picture("canny", image=pair[0], mask=pair[1], modality=Modality.OCT)


def test_unknown_condition_is_named(pair):
    with pytest.raises(ValueError, match="kind"):
        condition_picture("depth", image=pair[0], mask=pair[1], modality=Modality.OCT)
