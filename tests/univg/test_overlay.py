from __future__ import annotations

import numpy as np
import pytest

from univg.overlay import (
    AGREEMENT,
    MISSED,
    PREDICTION,
    REFERENCE,
    colour_probability,
    overlay_agreement,
    overlay_mask,
)


def grey() -> np.ndarray:
    return np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


def square() -> np.ndarray:
    mask = np.zeros((8, 8), dtype=bool)
    mask[2:6, 2:6] = True
    return mask


def test_opaque_pixels_have_the_colour_and_others_the_image():
    result = overlay_mask(grey(), square(), opacity=1)
    assert result.dtype == np.uint8 and result.shape == (8, 8, 3)
    assert (result[square()] == PREDICTION).all()
    assert (result[~square()] == grey()[~square()][:, None]).all()


def test_tinted_pixels_are_mixed_and_rounded():
    image = np.full((8, 8), 100, dtype=np.uint8)
    result = overlay_mask(image, square(), colour=(200, 50, 1), opacity=0.25)
    assert (result[3, 3] == (125, 88, 75)).all()  # 125, 87.5, 75.25
    assert (result[0, 0] == 100).all()


def test_zero_opacity_and_an_empty_mask_leave_every_grey_level_as_it_was():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    everywhere = np.ones((16, 16), dtype=bool)
    for result in (overlay_mask(levels, everywhere, opacity=0), overlay_mask(levels, ~everywhere)):
        np.testing.assert_array_equal(result, np.repeat(levels[..., None], 3, axis=2))


def test_colour_channels_are_kept():
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(overlay_mask(image, square(), opacity=1)[~square()], image[~square()])


def test_float_and_byte_images_give_the_same_picture():
    as_float = grey().astype(np.float32) / 255
    np.testing.assert_array_equal(overlay_mask(as_float, square()), overlay_mask(grey(), square()))


def test_outline_tints_only_the_border_of_the_mask():
    result = overlay_mask(grey(), square(), opacity=1, outline=True)
    inside = np.zeros_like(square())
    inside[3:5, 3:5] = True
    assert (result[square() & ~inside] == PREDICTION).all()
    assert (result[inside] == grey()[inside][:, None]).all()


def test_outline_runs_along_the_image_frame():
    full = np.ones((8, 8), dtype=bool)
    result = overlay_mask(grey(), full, opacity=1, outline=True)
    assert (result[0] == PREDICTION).all() and (result[:, -1] == PREDICTION).all()
    assert not (result[1:-1, 1:-1] == PREDICTION).all(axis=2).any()


def test_agreement_has_one_colour_for_each_case():
    mask, reference = square(), np.roll(square(), 2, axis=1)
    result = overlay_agreement(grey(), mask, reference, opacity=1)
    assert (result[mask & reference] == AGREEMENT).all()
    assert (result[mask & ~reference] == PREDICTION).all()
    assert (result[~mask & reference] == MISSED).all()
    neither = ~mask & ~reference
    assert (result[neither] == grey()[neither][:, None]).all()


def test_the_four_colours_differ():
    assert len({PREDICTION, REFERENCE, MISSED, AGREEMENT}) == 4


def test_inputs_are_not_changed():
    image, mask, reference = grey(), square(), ~square()
    probability = square().astype(np.float32)
    overlay_mask(image, mask, outline=True)
    overlay_agreement(image, mask, reference)
    colour_probability(probability, image)
    np.testing.assert_array_equal(image, grey())
    np.testing.assert_array_equal(mask, square())
    np.testing.assert_array_equal(reference, ~square())
    np.testing.assert_array_equal(probability, square().astype(np.float32))


def test_probability_alone_has_the_colour_map_and_rising_brightness():
    ramp = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    result = colour_probability(ramp)
    assert (result[0, 0] == (0, 34, 78)).all() and (result[-1, -1] == (254, 232, 56)).all()
    luminance = result.reshape(-1, 3) @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(luminance) > -0.5).all()


def test_probability_over_an_image_is_mixed():
    image = np.full((8, 8), 100, dtype=np.uint8)
    result = colour_probability(np.zeros((8, 8), dtype=np.float32), image, opacity=0.5)
    assert (np.abs(result[0, 0].astype(int) - (50, 67, 89)) <= 1).all()
    np.testing.assert_array_equal(
        colour_probability(np.zeros((8, 8), dtype=np.float32), image, opacity=0),
        np.full((8, 8, 3), 100, dtype=np.uint8),
    )


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match=r"`mask` \(shape \(7, 8\)\) must have the size of `image`"):
        overlay_mask(grey(), square()[:-1])
    with pytest.raises(ValueError, match="`reference`"):
        overlay_agreement(grey(), square(), square()[:-1])
    with pytest.raises(ValueError, match="`probability`"):
        colour_probability(np.zeros((7, 8)), grey())


def test_wrong_types_and_ranges_are_refused():
    with pytest.raises(ValueError, match="bool"):
        overlay_mask(grey(), square().astype(np.uint8))
    with pytest.raises(ValueError, match="float"):
        colour_probability(grey())
    for wrong in (np.full((8, 8), 1.5), np.full((8, 8), np.nan)):
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            colour_probability(wrong)


@pytest.mark.parametrize("opacity", [-0.1, 1.1, float("nan")])
def test_opacity_out_of_range_is_refused(opacity):
    for draw in (
        lambda: overlay_mask(grey(), square(), opacity=opacity),
        lambda: overlay_agreement(grey(), square(), square(), opacity=opacity),
        lambda: colour_probability(np.zeros((8, 8)), opacity=opacity),
    ):
        with pytest.raises(ValueError, match="opacity"):
            draw()
