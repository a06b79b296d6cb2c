from __future__ import annotations

import struct
import time
import tracemalloc
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from univg.errors import InputError
from univg.io import (
    read_image,
    read_image_info,
    read_mask,
    write_image,
    write_mask,
)
from univg.io.read import _scale_to_unit

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (12, 17), dtype=np.uint8)
RGB = RNG.integers(0, 256, (12, 17, 3), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (12, 17), dtype=np.uint8)
MASK = RNG.random((12, 17)) < 0.4


def saved(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def tif(path, array, **options):
    tifffile.imwrite(path, array, **options)
    return path


# Images ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "ppm", "gif"])
def test_grey_images_come_back_exactly(tmp_path, ending):
    image = read_image(saved(tmp_path / f"a.{ending}", GREY))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, GREY)


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "ppm"])
def test_colour_images_come_back_exactly(tmp_path, ending):
    np.testing.assert_array_equal(read_image(saved(tmp_path / f"a.{ending}", RGB)), RGB)


def test_lossless_webp_comes_back_exactly(tmp_path):
    path = saved(tmp_path / "a.webp", RGB, lossless=True)
    np.testing.assert_array_equal(read_image(path), RGB)


def test_jpeg_is_read_as_pillow_reads_it(tmp_path):
    path = saved(tmp_path / "a.jpg", RGB, quality=95)
    np.testing.assert_array_equal(read_image(path), np.asarray(Image.open(path)))


def test_alpha_is_dropped(tmp_path):
    rgba, la = np.dstack([RGB, ALPHA]), np.dstack([GREY, ALPHA])
    np.testing.assert_array_equal(read_image(saved(tmp_path / "a.png", rgba)), RGB)
    np.testing.assert_array_equal(read_image(saved(tmp_path / "b.png", la)), GREY)
    np.testing.assert_array_equal(read_image(tif(tmp_path / "c.tif", rgba, photometric="rgb")), RGB)


def test_equal_channels_become_grey(tmp_path):
    three = np.repeat(GREY[..., None], 3, axis=2)
    for ending in ("png", "bmp", "tif"):
        np.testing.assert_array_equal(read_image(saved(tmp_path / f"a.{ending}", three)), GREY)


def test_a_palette_becomes_its_colours(tmp_path):
    image = Image.fromarray(RGB).quantize(16)
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "a.tif")
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), expected)


def test_a_palette_with_transparency_becomes_its_colours(tmp_path):
    image = Image.fromarray(RGB).quantize(16)
    image.save(tmp_path / "a.png", transparency=3)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("ending", ["jpg", "tif"])
def test_cmyk_becomes_rgb(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    flat = np.full((16, 16, 3), (200, 60, 30), dtype=np.uint8)
    Image.fromarray(flat).convert("CMYK").save(path)
    image = read_image(path)
    assert image.shape == (16, 16, 3)
    assert np.abs(image.astype(int) - flat).max() <= 3


@pytest.mark.parametrize("ending", ["png", "bmp", "tif"])
def test_one_bit_images_become_0_and_255(tmp_path, ending):
    Image.fromarray(MASK).save(tmp_path / f"a.{ending}")
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{ending}"), MASK * np.uint8(255))


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bits_are_scaled_from_their_own_range(tmp_path, ending):
    deep = (1000 + 7 * np.arange(12 * 17, dtype=np.uint16)).reshape(12, 17)
    image = read_image(saved(tmp_path / f"a.{ending}", deep))
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, np.linspace(0, 1, 12 * 17).reshape(12, 17), atol=1e-6)
    assert read_image_info(tmp_path / f"a.{ending}").bit_depth == 16


@pytest.mark.parametrize("dtype", [np.int16, np.uint32, np.float32, np.float64, np.float16])
def test_other_number_types_are_scaled_from_their_own_range(tmp_path, dtype):
    values = np.linspace(1, 100, 12 * 17).reshape(12, 17).astype(dtype)
    image = read_image(tif(tmp_path / "a.tif", values))
    assert image.dtype == np.float32 and (image.min(), image.max()) == (0, 1)
    assert np.corrcoef(image.ravel(), values.astype(float).ravel())[0, 1] > 0.9999


def test_a_constant_deep_image_becomes_zeros(tmp_path):
    assert not read_image(tif(tmp_path / "a.tif", np.full((8, 8), 700, dtype=np.uint16))).any()


def test_deep_colour_keeps_its_channels_on_one_scale(tmp_path):
    deep = RGB.astype(np.uint16) * 100
    image = read_image(tif(tmp_path / "a.tif", deep, photometric="rgb"))
    span = float(deep.max()) - deep.min()
    np.testing.assert_allclose(image, (deep - float(deep.min())) / span, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float16, np.float32, np.uint32])
def test_values_are_scaled_as_exactly_as_float32_can(tmp_path, dtype):
    values = (
        np.random.default_rng(0).random((12, 17)) * 60_000 - (0 if dtype(0).dtype.kind == "u" else 30_000)
    ).astype(dtype)
    exact = values.astype(np.float64)
    exact = (exact - exact.min()) / np.ptp(exact)
    np.testing.assert_allclose(read_image(tif(tmp_path / "a.tif", values)), exact, rtol=0, atol=1.2e-7)


def test_floats_as_far_apart_as_they_can_be_are_scaled(tmp_path):
    most = float(np.finfo(np.float32).max)
    image = read_image(tif(tmp_path / "a.tif", np.array([[-most, 0, most]] * 8, np.float32)))
    np.testing.assert_array_equal(image, [[0, 0.5, 1]] * 8)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_a_deep_image_is_scaled_without_larger_copies(dtype):
    values = np.random.default_rng(0).integers(0, 60_000, (500, 500, 3)).astype(dtype)
    tracemalloc.start()
    try:
        _scale_to_unit(values)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 1.1 * values.size * 4


def test_white_is_zero_tiffs_of_signed_integers_are_inverted(tmp_path):
    ramp = np.linspace(-30000, 30000, 64).reshape(8, 8).astype(np.int16)
    image = read_image(tif(tmp_path / "a.tif", ramp, photometric="miniswhite"))
    assert image[0, 0] == 1 and image[-1, -1] == 0 and (np.diff(image.ravel()) < 0).all()


def test_header_of_a_png_is_read_without_its_pixels(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png", RGB)
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("decoded"))
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda image: pytest.fail("decoded"))
    info = read_image_info(path)
    assert (info.height, info.width) == RGB.shape[:2]


def test_white_is_zero_tiffs_are_inverted(tmp_path):
    for dtype in (np.uint8, np.uint16):
        image = read_image(tif(tmp_path / "a.tif", GREY.astype(dtype), photometric="miniswhite"))
        reference = read_image(tif(tmp_path / "b.tif", (255 - GREY).astype(dtype)))
        np.testing.assert_allclose(image, reference, atol=1e-6)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits", "jpeg"])
def test_compressed_tiffs_are_read(tmp_path, compression):
    path = saved(tmp_path / "a.tif", RGB, compression=compression)
    np.testing.assert_array_equal(read_image(path), np.asarray(Image.open(path)))


def test_lzw_compressed_sixteen_bit_tiffs_keep_their_depth(tmp_path):
    deep = (GREY.astype(np.uint16) * 200) + 3
    path = tmp_path / "a.tif"
    Image.fromarray(deep).save(path, compression="tiff_lzw")
    np.testing.assert_allclose(read_image(path), read_image(tif(tmp_path / "b.tif", deep)), atol=1e-6)


def test_planar_and_tiled_and_big_tiffs_are_read(tmp_path):
    planar = tif(tmp_path / "a.tif", np.moveaxis(RGB, 2, 0), photometric="rgb", planarconfig="separate")
    big = tif(tmp_path / "b.tif", RGB, photometric="rgb", bigtiff=True, tile=(16, 16))
    np.testing.assert_array_equal(read_image(planar), RGB)
    np.testing.assert_array_equal(read_image(big), RGB)


@pytest.mark.parametrize("code", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, code):
    exif = Image.Exif()
    exif[0x0112] = code
    upright = np.asarray(ImageOps.exif_transpose(_with_orientation(RGB, exif)))
    for name in ("a.png", "a.tif"):
        path = saved(tmp_path / name, RGB, exif=exif)
        np.testing.assert_array_equal(read_image(path), upright)
        info = read_image_info(path)
        assert (info.height, info.width) == upright.shape[:2]
    packed = saved(tmp_path / "b.tif", RGB, exif=exif, compression="tiff_lzw")
    np.testing.assert_array_equal(read_image(packed), upright)


def _with_orientation(array, exif):
    image = Image.fromarray(array)
    image.getexif()[0x0112] = exif[0x0112]
    return image


def test_orientation_turns_jpegs_and_masks(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / "a.jpg", GREY, exif=exif)
    assert read_image(path).shape == (17, 12)
    path = saved(tmp_path / "m.png", MASK * np.uint8(255), exif=exif)
    np.testing.assert_array_equal(read_mask(path), np.rot90(MASK, -1))


def test_a_page_of_a_multi_page_tiff_can_be_chosen(tmp_path):
    pages = RNG.integers(0, 256, (4, 12, 17), dtype=np.uint8)
    plain = tif(tmp_path / "a.tif", pages, photometric="minisblack")
    imagej = tif(tmp_path / "b.tif", pages, imagej=True)
    with tifffile.TiffWriter(tmp_path / "c.tif") as writer:
        for page in pages:
            writer.write(page, contiguous=False, compression="zlib")
    Image.fromarray(pages[0]).save(
        tmp_path / "d.tif",
        save_all=True,
        append_images=[Image.fromarray(p) for p in pages[1:]],
        compression="tiff_lzw",
    )
    for path in (plain, imagej, tmp_path / "c.tif", tmp_path / "d.tif"):
        assert read_image_info(path).frames == 4
        for index, page in enumerate(pages):
            np.testing.assert_array_equal(read_image(path, frame=index), page)


def test_a_hyperstack_in_one_page_can_be_read_frame_by_frame(tmp_path):
    pages = RNG.integers(0, 256, (3, 12, 17), dtype=np.uint8)
    path = tif(tmp_path / "a.tif", pages, photometric="minisblack", metadata={"axes": "TYX"}, truncate=True)
    assert read_image_info(path).frames == 3
    np.testing.assert_array_equal(read_image(path, frame=2), pages[2])


def test_a_page_of_another_size_can_be_chosen(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(GREY)
        writer.write(RGB[:5], photometric="rgb")
    assert read_image_info(tmp_path / "a.tif").frames == 2
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", frame=1), RGB[:5])


def test_a_frame_of_an_animation_can_be_chosen(tmp_path):
    frames = [Image.fromarray(np.full((8, 8), level, dtype=np.uint8)) for level in (10, 200)]
    for name in ("a.gif", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert (read_image(tmp_path / name, frame=1) == 200).all()


def test_the_content_decides_and_a_wrong_suffix_is_mentioned(tmp_path):
    path = saved(tmp_path / "a.jpg", GREY, format="PNG")
    np.testing.assert_array_equal(read_image(path), GREY)
    info = read_image_info(path)
    assert info.format == "PNG"
    assert "named .jpg but holds PNG" in info.warnings[0]


def test_sixteen_bit_colour_png_says_that_it_loses_depth(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(_sixteen_bit_rgb_png())
    assert read_image(path).dtype == np.uint8
    assert "8 bits" in read_image_info(path).warnings[0]


def _sixteen_bit_rgb_png() -> bytes:
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\x00" + bytes(range(i, i + 12)) for i in range(2))
    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("name", ["with space.png", "öäü 血管 مثال.png", "a..b.png", "'quote\".png"])
def test_unusual_names_are_read_and_written(tmp_path, name):
    write_mask(tmp_path / name, MASK)
    np.testing.assert_array_equal(read_mask(tmp_path / name), MASK)


def test_paths_may_be_strings(tmp_path):
    write_image(str(tmp_path / "a.png"), GREY)
    np.testing.assert_array_equal(read_image(str(tmp_path / "a.png")), GREY)


# Masks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [(0, 255), (0, 1), (1, 2), (100, 101), (254, 255)])
def test_the_larger_of_two_values_is_vessel(tmp_path, values):
    low, high = values
    path = saved(tmp_path / "m.png", np.where(MASK, high, low).astype(np.uint8))
    np.testing.assert_array_equal(read_mask(path), MASK)
    np.testing.assert_array_equal(read_mask(path, grey_threshold=0.5), MASK)


def test_masks_of_every_kind_are_read(tmp_path):
    levels = MASK * np.uint8(255)
    opaque = np.full_like(levels, 255)
    paths = [
        saved(tmp_path / "bits.png", MASK),
        saved(tmp_path / "rgb.png", np.dstack([levels] * 3)),
        saved(tmp_path / "rgba.png", np.dstack([levels] * 3 + [opaque])),
        saved(tmp_path / "la.png", np.dstack([levels, opaque])),
        saved(tmp_path / "painted.png", np.dstack([levels] * 4)),
        saved(tmp_path / "deep.png", levels.astype(np.uint16) * 257),
        saved(tmp_path / "m.gif", levels),
        saved(tmp_path / "m.bmp", levels),
        tif(tmp_path / "float.tif", MASK.astype(np.float32)),
        tif(tmp_path / "deep.tif", MASK.astype(np.int16)),
        tif(tmp_path / "bits.tif", MASK, photometric="minisblack"),
        tif(tmp_path / "white-bits.tif", ~MASK, photometric="miniswhite"),
        tif(tmp_path / "white.tif", 255 - levels, photometric="miniswhite"),
    ]
    palette = Image.fromarray((~MASK).astype(np.uint8)).convert("P")
    palette.putpalette([255, 255, 255, 0, 0, 0])
    palette.save(tmp_path / "white-first.png")
    for path in (*paths, tmp_path / "white-first.png"):
        np.testing.assert_array_equal(read_mask(path), MASK, err_msg=path.name)


def test_the_brighter_of_two_colours_is_vessel(tmp_path):
    for dark, bright in (((0, 0, 0), (255, 0, 0)), ((0, 0, 90), (200, 200, 0))):
        painted = np.where(MASK[..., None], bright, dark).astype(np.uint8)
        np.testing.assert_array_equal(read_mask(saved(tmp_path / "m.png", painted)), MASK)


def test_a_single_value_is_empty_when_zero_and_full_otherwise(tmp_path):
    for dtype in (np.uint8, np.uint16):
        assert not read_mask(saved(tmp_path / "m.png", np.zeros((8, 8), dtype=dtype))).any()
        assert read_mask(saved(tmp_path / "m.png", np.full((8, 8), 200, dtype=dtype))).all()


def test_a_single_colour_is_full_unless_it_is_black(tmp_path):
    assert read_mask(saved(tmp_path / "m.png", np.full((8, 8, 3), (255, 0, 0), np.uint8))).all()
    assert not read_mask(saved(tmp_path / "m.png", np.zeros((8, 8, 3), np.uint8))).any()


def test_more_values_need_a_threshold(tmp_path):
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    with pytest.raises(InputError, match=r"256 different values.*two-valued PNG.*grey_threshold"):
        read_mask(saved(tmp_path / "m.png", ramp))
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", grey_threshold=0.5), ramp > 127.5)
    deep = saved(tmp_path / "deep.png", ramp.astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_mask(deep, grey_threshold=0.25), ramp > 63.75)
    floats = tif(tmp_path / "m.tif", ramp.astype(np.float32) / 255)
    np.testing.assert_array_equal(read_mask(floats, grey_threshold=0.5), ramp > 127.5)


def test_more_colours_need_a_threshold(tmp_path):
    path = saved(tmp_path / "m.png", RGB)
    with pytest.raises(InputError, match="different values"):
        read_mask(path)
    np.testing.assert_array_equal(read_mask(path, grey_threshold=0.5), _largest_or_mean(RGB) > 127.5)


def test_a_photograph_as_mask_is_refused_at_once(tmp_path):
    photograph = np.random.default_rng(0).integers(0, 256, (1200, 1600, 3), dtype=np.uint8)
    path = saved(tmp_path / "m.bmp", photograph)
    started = time.process_time()
    with pytest.raises(InputError, match=r"at least [0-9]+ different values"):
        read_mask(path)
    assert time.process_time() - started < 1.5, "sorting all colours takes several seconds"


def test_few_colours_are_counted(tmp_path):
    colours = np.array([(0, 0, 0), (255, 0, 0), (0, 0, 255)], np.uint8)
    with pytest.raises(InputError, match="has 3 different values"):
        read_mask(saved(tmp_path / "m.png", colours[np.arange(60).reshape(6, 10) % 3]))
    rare = np.zeros((500, 500, 3), np.uint8)
    rare[0, 1:3] = colours[1:]
    with pytest.raises(InputError, match="has at least 3 different values"):
        read_mask(saved(tmp_path / "m.png", rare))


def _largest_or_mean(colours):
    return np.where(np.ptp(colours, axis=2) > 25.5, colours.max(axis=2), colours.mean(axis=2))


def test_vessels_of_every_colour_are_cut_alike(tmp_path):
    colours = [(0, 0, 0), (255, 0, 0), (0, 0, 255), (120, 0, 0), (255, 255, 255), (130, 126, 125), (130, 128, 127)]
    path = saved(tmp_path / "m.png", np.array([colours], np.uint8))
    expected = [[False, True, True, False, True, False, True]]  # the last two are grey, tinted by compression
    np.testing.assert_array_equal(read_mask(path, grey_threshold=0.5), expected)


def test_a_soft_mask_of_sixteen_bits_as_pgm(tmp_path):
    ramp = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    path = tmp_path / "m.pgm"
    path.write_bytes(b"P5 16 16 65535\n" + ramp.astype(">u2").tobytes())
    np.testing.assert_array_equal(read_mask(path, grey_threshold=0.5), ramp > 0.5 * 65535)
    assert read_image_info(path).bit_depth == 16


def test_equally_bright_colours_are_refused(tmp_path):
    painted = np.where(MASK[..., None], (255, 0, 0), (0, 0, 255)).astype(np.uint8)
    with pytest.raises(InputError, match="equally bright"):
        read_mask(saved(tmp_path / "m.png", painted))


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 0, 0), (255, 255, 255)])
def test_a_mask_painted_in_alpha_alone_is_refused(tmp_path, colour):
    painted = np.zeros((12, 17, 4), dtype=np.uint8)
    painted[..., :3] = colour
    painted[..., 3] = MASK * 255
    with pytest.raises(InputError, match="alpha channel"):
        read_mask(saved(tmp_path / "m.png", painted))


@pytest.mark.parametrize("threshold", [0, 1, -1, 128, float("nan")])
def test_a_threshold_out_of_range_is_refused(tmp_path, threshold):
    with pytest.raises(ValueError, match="grey_threshold"):
        read_mask(saved(tmp_path / "m.png", GREY), grey_threshold=threshold)
