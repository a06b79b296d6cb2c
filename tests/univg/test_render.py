from dataclasses import replace

import cv2
import numpy as np
import pytest

from univg.geometry import estimate_fov
from univg.sca import generate_mask
from univg.segmentation.render import measure_appearance, render_pairs, render_vessels
from univg.types import ImageMaskPair, Modality


def made_up_pair(*, dark=True, colour=False, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    mask = generate_mask(Modality.BRAIN_DSA, shape=(160, 200), rng=rng)
    grey = 0.6 + 0.03 * rng.standard_normal(mask.shape) + (-0.25 if dark else 0.25) * mask
    image = np.clip(np.dstack([grey, grey * 0.8, grey * 0.6]) if colour else grey, 0, 1).astype(np.float32)
    if dtype == np.uint8:
        image = np.rint(image * 255).astype(np.uint8)
    return ImageMaskPair(image, mask, "made-up")


@pytest.mark.parametrize("dark", [True, False])
def test_inpainting_removes_the_vessels_and_keeps_the_rest(dark):
    pair = made_up_pair(dark=dark)
    appearance = measure_appearance(pair, Modality.BRAIN_DSA)
    background = appearance.background[..., 0]
    away = ~pair.mask
    assert abs(background[pair.mask].mean() - 0.6) < 0.03
    assert abs(background[away].mean() - 0.6) < 0.02
    texture = background[pair.mask].std()
    assert 0.5 < texture / 0.03 < 1.5


@pytest.mark.parametrize("dark", [True, False])
@pytest.mark.parametrize("colour", [True, False])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_rendered_pair_has_the_format_and_polarity_of_the_support(dark, colour, dtype):
    support = [made_up_pair(dark=dark, colour=colour, dtype=dtype)]
    mask = generate_mask(Modality.BRAIN_DSA, shape=(160, 200), rng=np.random.default_rng(9))
    (pair,) = render_pairs(support, [mask], modality=Modality.BRAIN_DSA, rng=np.random.default_rng(0))
    assert pair.synthetic and "made-up" in pair.name
    assert pair.image.shape == support[0].image.shape and pair.image.dtype == dtype
    assert pair.mask.mean() == pytest.approx(mask.mean(), rel=0.05)
    inside, outside = pair.image[pair.mask].mean(), pair.image[~pair.mask].mean()
    assert (inside < outside) == dark


@pytest.mark.parametrize("modality", list(Modality))
@pytest.mark.parametrize("colour", [True, False])
def test_every_modality_takes_grey_and_colour(modality, colour):
    pair = made_up_pair(colour=colour)
    (drawn,) = render_pairs([pair], [pair.mask], modality=modality, rng=np.random.default_rng(0))
    assert drawn.image.shape == pair.image.shape


def test_same_seed_same_pairs():
    support = [made_up_pair()]
    masks = [support[0].mask]
    one, two = (
        list(render_pairs(support, masks, modality=Modality.BRAIN_DSA, rng=np.random.default_rng(4))) for _ in range(2)
    )
    np.testing.assert_array_equal(one[0].image, two[0].image)


def test_masks_of_another_size_are_fitted_and_the_support_is_untouched():
    pair = made_up_pair()
    before = pair.image.copy()
    mask = generate_mask(Modality.BRAIN_DSA, shape=(64, 64), rng=np.random.default_rng(0))
    (made,) = render_pairs([pair], [mask], modality=Modality.BRAIN_DSA, rng=np.random.default_rng(0))
    assert made.mask.shape == pair.shape
    np.testing.assert_array_equal(pair.image, before)


@pytest.mark.parametrize("mask", [np.zeros((160, 200), bool), np.ones((160, 200), bool)])
def test_empty_and_full_masks_are_drawn_without_complaint(mask):
    (made,) = render_pairs([made_up_pair()], [mask], modality=Modality.BRAIN_DSA, rng=np.random.default_rng(0))
    assert made.image.shape == (160, 200)


def test_field_of_view_of_a_fundus_is_its_disc():
    rows, cols = np.mgrid[:200, :200]
    disc = (rows - 100) ** 2 + (cols - 100) ** 2 < 80**2
    image = np.where(disc[..., None], 0.5, 0.01).astype(np.float32) * np.ones(3, np.float32)
    fov = estimate_fov(image, Modality.FUNDUS)
    assert (fov != disc).mean() < 0.1 and not (fov & ~disc).any()
    assert estimate_fov(image, Modality.OCTA).all()


def test_field_of_view_of_a_dark_channel_is_its_disc_too_without_holes():
    rows, cols = np.mgrid[:200, :200]
    disc, fovea = ((rows - 100) ** 2 + (cols - 100) ** 2 < side**2 for side in (80, 12))
    green = np.where(disc, np.where(fovea, 0.02, np.linspace(0.08, 0.3, 200)), 0.0).astype(np.float32)
    fov = estimate_fov(green, Modality.FUNDUS)
    assert (fov != disc).mean() < 0.1 and not (fov & ~disc).any() and fov[100, 100]


@pytest.mark.parametrize("modality", [Modality.BRAIN_DSA, Modality.CORONARY_DSA])
def test_field_of_view_of_an_x_ray_image_is_what_its_frame_leaves_free(modality):
    image = np.full((100, 120), 0.7, np.float32)
    image[40:44] = 0.02  # a vessel is no frame
    assert estimate_fov(image, modality).all()
    image[:10], image[:, -16:] = 0.01, 0.03
    image[3, 5] = 0.9  # a letter
    fov = estimate_fov(image, modality)
    expected = np.zeros_like(fov)
    expected[11:, : 120 - 17] = True
    np.testing.assert_array_equal(fov, expected)
    np.testing.assert_array_equal(estimate_fov(image.T, modality), expected.T)
    np.testing.assert_array_equal(estimate_fov(np.dstack([image] * 3), modality), expected)
    assert estimate_fov(image, Modality.OCTA).all()


@pytest.mark.parametrize("image", [np.zeros((40, 60), np.uint8), np.uint8([[0] * 60] * 30 + [[200] * 60] * 10)])
def test_a_mostly_dark_x_ray_image_has_no_frame(image):
    assert estimate_fov(image, Modality.BRAIN_DSA).all()


def test_no_vessel_is_drawn_on_the_frame_of_an_x_ray_image():
    pair = made_up_pair()
    framed = pair.image.copy()
    framed[:30] = 0
    cut = pair.mask.copy()
    cut[:30] = False
    (made,) = render_pairs(
        [replace(pair, image=framed, mask=cut)],
        [np.ones(pair.shape, bool)],
        modality=Modality.BRAIN_DSA,
        rng=np.random.default_rng(3),
    )
    rows = np.flatnonzero(made.mask.any(axis=1))
    assert len(rows) == pair.shape[0] - 31


def test_a_larger_mask_stays_as_connected_as_it_was():
    support = [made_up_pair()]
    mask = np.zeros((1600, 2000), bool)
    for number in range(40):
        cv2.line(mask.view(np.uint8), (25 + 50 * number, 20), (1975 - 48 * number, 1580), 1, 11)
    (made,) = render_pairs(support, [mask], modality=Modality.BRAIN_DSA, rng=np.random.default_rng(0))
    averaged = cv2.resize(mask.astype(np.float32), (200, 160), interpolation=cv2.INTER_AREA) >= 0.5
    assert any(np.array_equal(made.mask[::a, ::b], averaged) for a in (1, -1) for b in (1, -1))


def made_up_fundus():
    """A grey disc that a dark vessel crosses from rim to rim, in a black surround."""
    rows, cols = np.mgrid[:200, :200]
    disc = (rows - 100) ** 2 + (cols - 100) ** 2 < 80**2
    mask = disc & (np.abs(rows - 100) < 4)
    image = np.where(disc, 0.5 - 0.15 * cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.7), 0).astype(np.float32)
    return ImageMaskPair(image, mask, "crossed", fov=disc)


def test_vessels_have_their_contrast_up_to_the_rim_of_the_field():
    pair = made_up_fundus()
    appearance = measure_appearance(pair, Modality.FUNDUS)
    drawn = np.mean([render_vessels(appearance, pair.mask, rng=np.random.default_rng(s))[..., 0] for s in range(20)], 0)
    along = np.flatnonzero(pair.fov[100])
    near, middle = drawn[100, along[2:8]].mean(), drawn[100, 90:110].mean()
    assert near == pytest.approx(middle, abs=0.03)
    assert not drawn[~pair.fov].any()


def test_vessels_keep_one_brightness_over_an_uneven_background_where_real_ones_do():
    rng = np.random.default_rng(0)
    mask = np.zeros((200, 240), bool)
    mask[20:28] = mask[90:98] = mask[160:168] = True
    uneven = np.linspace(0.15, 0.55, 240) + 0.05 * rng.standard_normal(mask.shape)
    image = np.where(mask, 0.8, np.clip(uneven, 0, 1)).astype(np.float32)
    appearance = measure_appearance(ImageMaskPair(image, mask, "saturated"), Modality.OCTA)
    assert appearance.slope[0] < -0.8
    assert appearance.texture_share[0] < 0.3

    new = np.zeros_like(mask)
    new[54:62] = new[125:133] = True
    drawn = np.mean([render_vessels(appearance, new, rng=np.random.default_rng(s))[..., 0] for s in range(20)], axis=0)
    left, right = drawn[56:60, 30:60].mean(), drawn[56:60, 180:210].mean()
    assert abs(left - 0.8) < 0.12 and abs(right - 0.8) < 0.12
    assert abs(left - right) < 0.1


def test_a_support_image_with_hardly_any_vessel_can_still_be_drawn_on():
    image = np.random.default_rng(0).random((64, 64), dtype=np.float32)
    mask = np.zeros((64, 64), bool)
    mask[30:32, 10:20] = True
    appearance = measure_appearance(ImageMaskPair(image, mask, "few"), Modality.OCTA)
    assert appearance.slope[0] == 0 and appearance.texture_share[0] == 1
    assert np.isfinite(render_vessels(appearance, np.eye(64, dtype=bool), rng=np.random.default_rng(0))).all()
