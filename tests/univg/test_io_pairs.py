from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from univg.errors import InputError
from univg.io import (
    PairFiles,
    check_pair,
    check_pairs,
    check_stem,
    is_synthetic,
    load_support_set,
    match_pair_files,
    raster,
    refuse_synthetic,
    sha256_file,
    write_image,
    write_mask,
)
from univg.types import Modality


def picture(seed: int = 0, size: int = 80) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size), dtype=np.uint8)


def vessels(size: int = 80) -> np.ndarray:
    mask = np.zeros((size, size), dtype=bool)
    mask[size // 2 - 2 : size // 2 + 2] = True
    return mask


@pytest.fixture
def folders(tmp_path):
    """Three pairs named a, b and c, with fields of view."""
    images, masks, fov = (tmp_path / name for name in ("images", "masks", "fov"))
    for folder in (images, masks, fov):
        folder.mkdir()
    for seed, stem in enumerate("bca"):
        write_image(images / f"{stem}.png", picture(seed))
        write_mask(masks / f"{stem}.png", vessels())
        write_mask(fov / f"{stem}.png", np.ones((80, 80), dtype=bool))
    return images, masks, fov


# Names ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "with space", "öäü", "血管 7", "a..b", "a.b", "-x", "x" * 200, "می‌خواهم"])
def test_ordinary_names_pass(name):
    assert check_stem(name) == unicodedata.normalize("NFC", name)


@pytest.mark.parametrize(
    "name",
    (
        *("", "  ", ".", "..", ".hidden", "a/b", "a\\b", "../a", "C:a", "x" * 201, "血" * 100),
        *("a\0", "a\n", "a\x7f", "a\x1b[31m", "a\u202egnp", "a\ud800"),
    ),
)
def test_unusable_names_are_refused(name):
    with pytest.raises(InputError) as caught:
        check_stem(name)
    assert str(caught.value).isprintable() and "Rename" in caught.value.fix


def test_two_spellings_of_an_accent_are_one_name():
    assert check_stem("e\u0301") == check_stem("\u00e9")


# Matching -------------------------------------------------------------------------------------------------


def test_pairs_are_matched_by_stem_and_sorted(folders):
    images, masks, fov = folders
    pairs = match_pair_files(images, masks, fov)
    assert [pair.name for pair in pairs] == ["a", "b", "c"]
    assert pairs[0] == PairFiles("a", images / "a.png", masks / "a.png", fov / "a.png")
    assert match_pair_files(images, masks)[0].fov is None


def test_endings_may_differ_and_other_files_are_ignored(folders):
    images, masks, _ = folders
    Image.fromarray(picture()).save(images / "d.JPG")
    Image.fromarray(vessels()).save(masks / "d.tif")
    for name in ("Thumbs.db", ".DS_Store", ".hidden.png", "readme.txt", "LICENSE"):
        (images / name).write_bytes(b"x")
    (images / "folder.png").mkdir()
    assert [pair.name for pair in match_pair_files(images, masks)] == ["a", "b", "c", "d"]


def test_masks_without_an_image_are_left_out(folders):
    images, masks, _ = folders
    write_mask(masks / "z.png", vessels())
    assert len(match_pair_files(images, masks)) == 3


def test_stems_match_across_unicode_spellings(folders):
    images, masks, _ = folders
    write_image(images / "e\u0301.png", picture())
    write_mask(masks / "\u00e9.png", vessels())
    assert match_pair_files(images, masks)[-1].name == "\u00e9"


def test_missing_folders_and_empty_folders_are_named(folders, tmp_path):
    images, masks, _ = folders
    (tmp_path / "empty").mkdir()
    for arguments, words in (
        ((tmp_path / "no", masks), "folder of image files does not exist"),
        ((images, tmp_path / "no"), "folder of mask files does not exist"),
        ((images, masks, tmp_path / "no"), "does not exist"),
        ((images / "a.png", masks), "does not exist"),
        ((tmp_path / "empty", masks), "holds no image"),
        ((images, tmp_path / "empty"), "holds no mask"),
    ):
        with pytest.raises(InputError, match=words):
            match_pair_files(*arguments)


def test_a_folder_that_may_not_be_listed_is_named(folders, monkeypatch):
    def deny(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.iterdir", deny)
    with pytest.raises(InputError, match="Cannot list this folder: Permission denied"):
        match_pair_files(*folders)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_duplicate_stems_are_refused(folders, which):
    Image.fromarray(picture()).save(folders[which] / "a.jpg")
    with pytest.raises(InputError, match=r"share the name 'a': 'a.jpg' and 'a.png'"):
        match_pair_files(*folders)


def test_an_image_without_a_mask_or_field_of_view_is_named(folders):
    images, masks, fov = folders
    (fov / "c.png").unlink()
    with pytest.raises(InputError, match=r"1 of 3 images have no field of view: 'c'"):
        match_pair_files(images, masks, fov)
    (masks / "b.png").unlink()
    with pytest.raises(InputError, match=r"1 of 3 images have no mask: 'b'"):
        match_pair_files(images, masks, fov)


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such names")
def test_a_file_with_an_unusable_name_is_refused(folders):
    images, masks, _ = folders
    write_image(images / "a\nb.png", picture())
    with pytest.raises(InputError, match="control characters"):
        match_pair_files(images, masks)


# Checking -------------------------------------------------------------------------------------------------


def levels(findings):
    return [finding.level for finding in findings]


def test_a_good_pair_is_ok():
    (finding,) = check_pair(picture(), vessels(), "a")
    assert (finding.level, finding.subject, finding.fix) == ("ok", "a", "")
    assert finding.message == "80 x 80, grey, 5.0% vessel."


@pytest.mark.parametrize(
    ("image", "mask", "level", "words"),
    [
        (picture(), vessels()[:-1], "error", "80 x 80 against 80 x 79"),
        (picture(), np.zeros((80, 80), bool), "error", "mask is empty"),
        (picture(), np.ones((80, 80), bool), "error", "mask is full"),
        (picture(), ~vessels(), "warning", "95% of the mask"),
        (picture(size=200), np.arange(40_000).reshape(200, 200) < 9, "warning", "Only 0.02%"),
        (np.full((80, 80), 7, np.uint8), vessels(), "error", "constant"),
        (np.full((80, 80), np.nan, np.float32), vessels(), "error", "NaN"),
        (picture(size=40), vessels(40), "warning", "tiny, 40 x 40"),
    ],
)
def test_what_is_wrong_with_a_pair_is_found(image, mask, level, words):
    (finding,) = check_pair(image, mask, "a")
    assert finding.level == level and words in finding.message and finding.fix


def test_all_findings_of_a_pair_are_reported():
    found = check_pair(np.zeros((30, 30), np.uint8), np.zeros((30, 31), bool), "a")
    assert levels(found) == ["error", "warning", "error", "error"]


def test_good_files_are_ok(folders):
    findings = check_pairs(match_pair_files(*folders))
    assert levels(findings) == ["ok"] * 3
    assert [finding.subject for finding in findings] == ["a", "b", "c"]


def test_bad_content_is_found_and_never_raises(folders, tmp_path):
    images, masks, fov = folders
    files = match_pair_files(*folders)
    (images / "a.png").write_bytes(b"")
    Image.fromarray(picture(9)).save(masks / "b.png")
    write_mask(fov / "c.png", np.ones((80, 79), dtype=bool))
    gone = PairFiles("d", tmp_path / "no.png", tmp_path / "no.png")
    findings = check_pairs([*files, gone])
    by_subject = {finding.subject: finding for finding in findings if finding.level == "error"}
    assert "empty (0 bytes) (a.png)" in by_subject["a"].message
    assert "256 different values" in by_subject["b"].message and "grey_threshold" in by_subject["b"].fix
    assert "field of view differ in size" in by_subject["c"].message
    assert "No such file" in by_subject["d"].message


def test_a_threshold_makes_grey_masks_usable(folders):
    images, masks, _ = folders
    Image.fromarray((vessels() * 200 + picture() // 8).astype(np.uint8)).save(masks / "a.png")
    files = match_pair_files(images, masks)
    assert "error" in levels(check_pairs(files))
    assert levels(check_pairs(files, grey_threshold=0.5)) == ["ok"] * 3


def test_each_file_is_read_once_whatever_the_threshold(folders, monkeypatch):
    images, masks, _ = folders
    Image.fromarray((vessels() * 200 + picture() // 8).astype(np.uint8)).save(masks / "a.png")
    decoded, read = [], raster.read_pixels
    monkeypatch.setattr(
        raster, "read_pixels", lambda path, *rest, **more: decoded.append(path) or read(path, *rest, **more)
    )
    check_pairs(match_pair_files(images, masks), grey_threshold=0.5)
    assert sorted(decoded) == sorted([*images.iterdir(), *masks.iterdir()])


def test_what_a_grey_mask_marks_must_not_hang_on_the_threshold(folders):
    images, masks, _ = folders
    Image.fromarray(picture()).save(masks / "a.png")
    (finding,) = (f for f in check_pairs(match_pair_files(images, masks), grey_threshold=0.5) if f.level != "ok")
    assert (finding.level, finding.subject) == ("warning", "a") and "Cut at 0.50" in finding.message


def test_a_synthetic_image_is_no_annotated_one(folders):
    images, masks, _ = folders
    write_image(images / "b.png", picture(), provenance={"synthetic": True, "made_by": "UniVG 0.1.0"})
    write_image(images / "c.png", picture(2), provenance={"synthetic": False, "made_by": "UniVG 0.1.0"})
    files = match_pair_files(images, masks)
    (finding,) = (f for f in check_pairs(files) if f.level != "ok")
    assert (finding.level, finding.subject) == ("error", "b") and "--source real" in finding.fix
    for refuse in (lambda: refuse_synthetic(files), lambda: load_support_set(images, masks, modality=Modality.OCTA)):
        with pytest.raises(InputError, match=r"synthetic.*b\.png.*--source real"):
            refuse()


def test_only_a_record_makes_an_image_synthetic(folders):
    images, *_ = folders
    assert not is_synthetic(images / "a.png")
    info = PngInfo()
    info.add_text("univg", "{")
    Image.fromarray(picture()).save(images / "a.png", pnginfo=info)
    assert not is_synthetic(images / "a.png")
    write_image(images / "a.png", picture(), provenance={"synthetic": True, "made_by": "assets/make_sample.py"})
    assert not is_synthetic(images / "a.png"), "the sample stands in for annotated images"


def test_an_empty_field_of_view_is_an_error(folders):
    write_mask(folders[2] / "a.png", np.zeros((80, 80), dtype=bool))
    messages = [f.message for f in check_pairs(match_pair_files(*folders)) if f.level == "error"]
    assert messages == ["The field of view is empty."]


def test_the_same_image_twice_is_a_warning(folders):
    images, masks, _ = folders
    write_image(images / "c.png", picture(0))  # what b holds
    (finding,) = (f for f in check_pairs(match_pair_files(images, masks)) if f.level != "ok")
    assert (finding.level, finding.subject) == ("warning", "c") and "'b'" in finding.message


def test_a_wrong_suffix_is_passed_on_as_a_warning(folders):
    images, masks, _ = folders
    Image.fromarray(picture(5)).save(images / "a.png", format="BMP")
    messages = [f.message for f in check_pairs(match_pair_files(images, masks)) if f.level == "warning"]
    assert messages == ["The file is named .png but holds BMP data; it was read as BMP."]


def test_no_pair_is_an_error_and_one_pair_a_warning(folders):
    assert levels(check_pairs([])) == ["error"]
    findings = check_pairs(match_pair_files(*folders)[:1])
    assert levels(findings) == ["ok", "warning"]
    assert findings[1].subject == "set"


# Loading --------------------------------------------------------------------------------------------------


def test_a_support_set_holds_every_pair_with_its_hashes(folders):
    images, masks, fov = folders
    support = load_support_set(images, masks, modality=Modality.OCTA, fov_dir=fov)
    assert [pair.name for pair in support] == ["a", "b", "c"]
    assert support.modality is Modality.OCTA and support.pixel_spacing_mm is None
    np.testing.assert_array_equal(support.pairs[1].image, picture(0))
    np.testing.assert_array_equal(support.pairs[1].mask, vessels())
    assert support.pairs[1].fov.all()
    assert support.sha256["images/a"] == sha256_file(images / "a.png")
    assert sorted(support.sha256) == sorted(f"{kind}/{s}" for kind in ("images", "masks", "fov") for s in "abc")


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.zeros((80, 80), bool), "mask is empty"),
        (np.ones((80, 80), bool), "mask is full"),
        (vessels()[:, :-2], "80 x 80 against 78 x 80"),
    ],
)
def test_an_unusable_mask_stops_loading_and_is_named(folders, mask, words):
    images, masks, _ = folders
    write_mask(masks / "b.png", mask)
    with pytest.raises(InputError, match=words) as caught:
        load_support_set(images, masks, modality=Modality.OCTA)
    assert caught.value.path == masks / "b.png" and ".." not in str(caught.value)


def test_a_field_of_view_of_another_size_stops_loading(folders):
    images, masks, fov = folders
    write_mask(fov / "b.png", np.ones((80, 79), dtype=bool))
    with pytest.raises(InputError, match="differ in size"):
        load_support_set(images, masks, modality=Modality.OCTA, fov_dir=fov)


def benchmark_sets() -> list[Path]:
    root = os.environ.get("UNIVG_DATA")
    return sorted(p for p in Path(root, "benchmark").iterdir() if p.is_dir()) if root else []


@pytest.mark.realdata
@pytest.mark.skipif(not benchmark_sets(), reason="UNIVG_DATA is unset")
def test_real_sets_match_and_their_first_pairs_are_usable():
    for folder in benchmark_sets():
        fov = folder / "fov"
        files = match_pair_files(folder / "images", folder / "masks", fov if fov.is_dir() else None)
        assert "error" not in levels(check_pairs(files[:3])), folder.name
