from __future__ import annotations

import errno
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from univg.errors import InputError
from univg.io import (
    read_image,
    read_json,
    read_provenance,
    sha256_file,
    write_bytes_atomic,
    write_image,
    write_json_atomic,
    write_mask,
)

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (12, 17), dtype=np.uint8)
RGB = RNG.integers(0, 256, (12, 17, 3), dtype=np.uint8)
MASK = RNG.random((12, 17)) < 0.4


def saved(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def test_masks_are_written_as_0_and_255(tmp_path):
    write_mask(tmp_path / "m.png", MASK)
    stored = Image.open(tmp_path / "m.png")
    assert stored.mode == "L"
    np.testing.assert_array_equal(np.asarray(stored), MASK * np.uint8(255))


def test_images_survive_writing_and_reading(tmp_path):
    for image in (GREY, RGB):
        write_image(tmp_path / "a.png", image)
        np.testing.assert_array_equal(read_image(tmp_path / "a.png"), image)


def test_float_images_keep_their_scale(tmp_path):
    image = np.linspace(0.3, 0.6, 12 * 17, dtype=np.float32).reshape(12, 17)
    write_image(tmp_path / "a.png", image)
    np.testing.assert_allclose(read_image(tmp_path / "a.png"), image, atol=1e-5)
    colour = np.dstack([image, image / 2, image / 3])
    write_image(tmp_path / "b.png", colour)
    np.testing.assert_allclose(read_image(tmp_path / "b.png") / 255, colour, atol=1 / 500)


def test_wrong_arrays_are_refused(tmp_path):
    with pytest.raises(ValueError, match="bool"):
        write_mask(tmp_path / "m.png", GREY)
    with pytest.raises(ValueError, match="image"):
        write_image(tmp_path / "m.png", GREY.astype(np.float64))
    assert not list(tmp_path.iterdir())


def test_provenance_is_kept_and_plain(tmp_path):
    provenance = {
        "synthetic": True,
        "seed": np.int64(7),
        "config": {"size": (512, 512), "name": "Gefäß 血管"},
        "loss": float("nan"),
        "from": tmp_path / "x",
    }
    write_mask(tmp_path / "m.png", MASK, provenance=provenance)
    record = read_provenance(tmp_path / "m.png")
    assert record["seed"] == 7 and record["loss"] is None
    assert record["config"] == {"size": [512, 512], "name": "Gefäß 血管"}
    assert record["from"] == str(tmp_path / "x")
    with Image.open(tmp_path / "m.png") as stored:
        assert stored.info["Source"] == "synthetic"


def test_real_images_are_not_marked_synthetic(tmp_path):
    write_image(tmp_path / "a.png", GREY, provenance={"synthetic": False})
    with Image.open(tmp_path / "a.png") as stored:
        assert "Source" not in stored.info


def test_no_provenance_is_none(tmp_path):
    write_image(tmp_path / "a.png", GREY)
    assert read_provenance(tmp_path / "a.png") is None
    assert read_provenance(saved(tmp_path / "a.bmp", GREY)) is None


@pytest.mark.parametrize("record", ["{not json", "[1, 2]", "[" * 100_000, '"' + "x" * (1 << 21) + '"'])
def test_a_corrupt_record_is_an_error_but_the_picture_still_opens(tmp_path, record):
    info = PngInfo()
    info.add_itxt("univg", record)
    path = saved(tmp_path / "a.png", GREY, pnginfo=info)
    with pytest.raises(InputError, match="record of how this picture was made"):
        read_provenance(path)
    np.testing.assert_array_equal(read_image(path), GREY)


def test_a_text_bomb_is_refused(tmp_path):
    info = PngInfo()
    info.add_itxt("univg", "x" * 50_000_000, zip=True)
    path = saved(tmp_path / "a.png", GREY, pnginfo=info)
    assert path.stat().st_size < 200_000
    with pytest.raises(InputError):
        read_provenance(path)


def test_json_survives_and_is_plain_text(tmp_path):
    write_json_atomic(tmp_path / "a.json", {"b": np.float32(0.5), "n": np.nan, "α": [np.arange(2), {3, 1}]})
    assert read_json(tmp_path / "a.json") == {"b": 0.5, "n": None, "α": [[0, 1], [1, 3]]}
    assert "α" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_what_json_cannot_hold_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(TypeError):
        write_json_atomic(tmp_path / "a.json", {"a": object()})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000])
def test_corrupt_json_is_an_input_error(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match="not valid JSON"):
        read_json(tmp_path / "a.json")


def test_a_json_file_above_the_cap_or_a_folder_is_an_input_error(tmp_path):
    with (tmp_path / "a.json").open("wb") as stream:
        stream.truncate((64 << 20) + 1)
    with pytest.raises(InputError, match="too large"):
        read_json(tmp_path / "a.json")
    with pytest.raises(InputError, match="Cannot read"):
        read_json(tmp_path)


def test_a_record_that_could_not_be_read_again_is_refused(tmp_path):
    with pytest.raises(ValueError, match="provenance"):
        write_mask(tmp_path / "m.png", MASK, provenance={"a": "x" * (1 << 21)})
    assert not list(tmp_path.iterdir())


def test_missing_json_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_json(tmp_path / "a.json")


def test_the_hash_is_that_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a").startswith("ba7816bf8f01cfea")
    with pytest.raises(InputError):
        sha256_file(tmp_path / "b")


def test_a_write_replaces_the_file_and_leaves_nothing_else(tmp_path):
    write_bytes_atomic(tmp_path / "a", b"old")
    write_bytes_atomic(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")
def test_written_files_follow_the_umask(tmp_path):
    before = os.umask(0o022)
    try:
        write_bytes_atomic(tmp_path / "a", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "may not be written to"),
        (errno.EIO, "Input/output error|input/output error"),
    ],
)
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_keeps_the_old_file_and_says_what_to_do(tmp_path, monkeypatch, code, words, step):
    write_mask(tmp_path / "m.png", MASK)
    before = (tmp_path / "m.png").read_bytes()

    def fail(*_):
        raise OSError(code, os.strerror(code))

    if step == "fsync":
        monkeypatch.setattr("os.fsync", fail)
    else:
        monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(InputError, match=words) as caught:
        write_mask(tmp_path / "m.png", ~MASK)
    assert caught.value.path == tmp_path and caught.value.fix
    assert isinstance(caught.value.__cause__, OSError)
    assert (tmp_path / "m.png").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.png"]


def refuse_at_first(monkeypatch, times):
    """Have `os.replace` refuse the first `times`, as Windows does while a file is open; lists what it refused."""
    refused, replace = [], os.replace

    def busy(source, target):
        if len(refused) < times:
            refused.append(source)
            raise PermissionError(errno.EACCES, "Access is denied")
        replace(source, target)

    monkeypatch.setattr(os, "replace", busy)
    return refused


@pytest.mark.parametrize(
    ("system", "times", "written"), [("win32", 3, True), ("win32", 99, False), ("linux", 1, False)]
)
def test_a_file_that_windows_keeps_busy_for_a_moment_is_waited_for(tmp_path, monkeypatch, system, times, written):
    monkeypatch.setattr("sys.platform", system)
    monkeypatch.setattr("univg.io.write._SECONDS_OF_PATIENCE", 0.2)
    refuse_at_first(monkeypatch, times)
    if written:
        write_bytes_atomic(tmp_path / "a", b"x")
    else:
        with pytest.raises(InputError, match="may not be written to"):
            write_bytes_atomic(tmp_path / "a", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["a"] * written


def test_an_interrupted_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes_atomic(tmp_path / "a", b"x")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_an_input_error(tmp_path):
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(InputError, match="may not be written to"):
            write_mask(tmp_path / "m.png", MASK)
    finally:
        tmp_path.chmod(0o755)


@pytest.mark.skipif(os.name != "posix", reason="Windows words these errors otherwise")
def test_a_missing_folder_a_file_as_folder_and_a_folder_as_file_are_input_errors(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    for path, words in (
        (tmp_path / "no" / "m.png", "does not exist"),
        (tmp_path / "file" / "m.png", "is a file, not a folder"),
        (tmp_path / "folder", "in the way"),
        (tmp_path / ("x" * 300), "too long"),
    ):
        with pytest.raises(InputError, match=words):
            write_mask(path, MASK)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_importing_io_loads_no_slow_decoder():
    code = "import sys, univg.io; print(*{'tifffile', 'pydicom', 'torch', 'skimage'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
