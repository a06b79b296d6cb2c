from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from tests.univg.test_io_write import refuse_at_first
from univg.errors import InputError
from univg.types import ImageMaskPair, Modality
from univg.workflow import Project, support_store
from univg.workflow.processes import this_host


@pytest.fixture
def project(tmp_path):
    return Project.create(tmp_path / "retina", modality="fundus", working_size=64, pixel_spacing_mm=0.01)


def make_pair(name="a", *, seed=0, dtype=np.uint8, channels=None, fov=False):
    rng = np.random.default_rng(seed)
    shape = (20, 30) if channels is None else (20, 30, channels)
    image = rng.integers(0, 256, shape, dtype=np.uint8)
    if dtype == np.float32:
        image = (rng.integers(0, 65536, shape) / 65535).astype(np.float32)
    mask = rng.random((20, 30)) < 0.3
    return ImageMaskPair(image, mask, name, fov=np.ones((20, 30), bool) if fov else None)


def assert_same_pair(got, wanted):
    assert got.name == wanted.name
    assert got.image.dtype == wanted.image.dtype
    np.testing.assert_array_equal(got.image, wanted.image)
    np.testing.assert_array_equal(got.mask, wanted.mask)
    assert (got.fov is None) == (wanted.fov is None)


def interrupt_at(part):
    """Stands in for a function of the store that gets a path, and ends the process where `part` is in that."""

    def function(path, *rest, **options):
        if part in str(path):
            raise KeyboardInterrupt
        return originals[len(rest)](path, *rest, **options)

    originals = {1: support_store.write_mask if part == "masks" else support_store._move}
    return function


def all_files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def full_disk(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return lambda: monkeypatch.setattr(os, "replace", refuse)


class TestSettings:
    def test_opened_project_equals_created_one(self, project):
        opened = Project.open(project.path)
        assert opened == project
        assert opened.modality is Modality.FUNDUS
        assert (opened.working_size, opened.pixel_spacing_mm, opened.name) == (64, 0.01, "retina")

    def test_create_in_missing_parents(self, tmp_path):
        project = Project.create(tmp_path / "a" / "b c" / "ä", modality=Modality.OCT)
        assert Project.open(tmp_path / "a" / "b c" / "ä") == project

    def test_create_refuses_existing_project(self, project):
        before = (project.path / "project.json").read_bytes()
        with pytest.raises(InputError, match="already"):
            Project.create(project.path, modality="oct")
        assert (project.path / "project.json").read_bytes() == before

    def test_create_refuses_folder_with_files(self, tmp_path):
        (tmp_path / "holiday.jpg").touch()
        with pytest.raises(InputError, match="holds other files"):
            Project.create(tmp_path, modality="oct")
        assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]

    def test_create_where_a_file_is(self, tmp_path):
        (tmp_path / "file").touch()
        for path in (tmp_path / "file", tmp_path / "file" / "below"):
            with pytest.raises(InputError, match="file"):
                Project.create(path, modality="oct")

    def test_create_on_full_disk_leaves_nothing(self, tmp_path, full_disk):
        full_disk()
        with pytest.raises(InputError, match="Free some space"):
            Project.create(tmp_path / "new" / "project", modality="oct")
        assert not (tmp_path / "new").exists()

    @pytest.mark.parametrize(
        "settings",
        [
            {"modality": "xray"},
            {"working_size": 500},
            {"working_size": 0},
            {"working_size": 64.0},
            {"working_size": True},
            {"pixel_spacing_mm": 0},
            {"pixel_spacing_mm": float("nan")},
            {"pixel_spacing_mm": "0.1"},
        ],
    )
    def test_bad_settings(self, tmp_path, settings):
        with pytest.raises(InputError):
            Project.create(tmp_path / "p", **{"modality": "oct", **settings})
        assert not (tmp_path / "p").exists()

    def test_open_missing_folder_and_plain_folder(self, tmp_path):
        with pytest.raises(InputError, match="no such folder"):
            Project.open(tmp_path / "nowhere")
        with pytest.raises(InputError, match="not a UniVG project"):
            Project.open(tmp_path)
        with pytest.raises(InputError, match="No project folder"):
            Project.open(" ")
        with pytest.raises(InputError, match="usable"):
            Project.open("a\0b")

    @pytest.mark.parametrize(
        "content",
        [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"schema": "1"}', b'{"schema": 1}',
         b'{"schema": 1, "modality": [], "working_size": 64}'],
    )  # fmt: skip
    def test_open_damaged_settings(self, project, content):
        (project.path / "project.json").write_bytes(content)
        with pytest.raises(InputError, match="damaged"):
            Project.open(project.path)

    def test_open_newer_schema(self, project):
        file = project.path / "project.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "schema": 99}))
        with pytest.raises(InputError, match="newer version"):
            Project.open(project.path)

    def test_open_or_create(self, tmp_path):
        path = tmp_path / "p"
        project = Project.open_or_create(path, modality="octa", working_size=128)
        assert Project.open_or_create(path, modality="octa") == project
        with pytest.raises(InputError, match="modality octa, not oct"):
            Project.open_or_create(path, modality="oct")
        with pytest.raises(InputError, match="128, not 512"):
            Project.open_or_create(path, modality="octa", working_size=512)


class TestSupport:
    @pytest.mark.parametrize("dtype", [np.uint8, np.float32])
    @pytest.mark.parametrize("channels", [None, 3])
    @pytest.mark.parametrize("fov", [False, True])
    def test_pair_comes_back_exactly(self, project, dtype, channels, fov):
        pair = make_pair("Ärzte bild 1.v2", dtype=dtype, channels=channels, fov=fov)
        assert project.add_support_pair(pair) is True
        assert project.support_names() == ["Ärzte bild 1.v2"]
        assert_same_pair(project.support_pair(pair.name), pair)

    def test_image_that_does_not_fill_its_range(self, project):
        for channels in (None, 3):
            pair = make_pair(f"dim{channels}", dtype=np.float32, channels=channels)
            dim = ImageMaskPair(pair.image * np.float32(0.5) + np.float32(0.1), pair.mask, pair.name)
            project.add_support_pair(dim)
            np.testing.assert_allclose(project.support_pair(pair.name).image, dim.image, atol=1e-5)
            assert project.add_support_pair(dim) is False

    def test_equal_channels_become_grey(self, project):
        grey = make_pair()
        project.add_support_pair(ImageMaskPair(np.dstack([grey.image] * 3), grey.mask, "a"))
        assert_same_pair(project.support_pair("a"), grey)

    def test_load_support(self, project):
        for name in "ba":
            project.add_support_pair(make_pair(name, seed=ord(name)))
        support = project.load_support()
        assert [pair.name for pair in support] == ["a", "b"]
        assert support.modality is Modality.FUNDUS
        assert support.pixel_spacing_mm == 0.01
        assert set(support.sha256) == {f"{part}/{name}.png" for part in ("images", "masks") for name in "ab"}
        assert all(len(digest) == 64 for digest in support.sha256.values())

    def test_load_empty_support(self, project):
        with pytest.raises(InputError, match="No annotated image"):
            project.load_support()

    def test_same_pair_twice_changes_nothing(self, project):
        project.add_support_pair(make_pair())
        before = {path: path.stat().st_mtime_ns for path in project.path.rglob("*.png")}
        assert project.add_support_pair(make_pair()) is False
        assert {path: path.stat().st_mtime_ns for path in project.path.rglob("*.png")} == before

    @pytest.mark.parametrize("other", [make_pair(seed=1), make_pair(fov=True), make_pair("A")])
    def test_other_pair_of_that_name_is_refused(self, project, other):
        project.add_support_pair(make_pair())
        with pytest.raises(InputError, match="another pair called 'a'"):
            project.add_support_pair(other)
        assert_same_pair(project.support_pair("a"), make_pair())

    @pytest.mark.parametrize("name", ["..", "../x", "a/b", "a\\b", "", "a\nb", "a\0b"])
    def test_unsafe_names(self, project, name):
        with pytest.raises(InputError):
            project.add_support_pair(make_pair(name))
        with pytest.raises(InputError):
            project.support_pair(name)
        with pytest.raises(InputError):
            project.restore_support_pair(name)
        assert project.support_names() == []

    def test_two_spellings_of_an_accent_are_one_name(self, project):
        composed, decomposed = "\u00e4", "a\u0308"
        project.add_support_pair(make_pair(decomposed))
        assert project.support_names() == [composed]
        assert project.add_support_pair(make_pair(composed)) is False
        assert project.support_pair(decomposed).name == composed

    def test_stray_files_are_no_pairs(self, project):
        project.add_support_pair(make_pair())
        for stray in ("masks/b.png", "masks/x:y.png", "masks/.a.png", "images/c.png", "images/notes.txt"):
            (project.support_folder / stray).touch()
        assert project.support_names() == ["a"]

    def test_damaged_image(self, project):
        project.add_support_pair(make_pair("grey"))
        project.add_support_pair(make_pair("colour", dtype=np.float32, channels=3))
        for file in (project.support_folder / "images").iterdir():
            file.write_bytes(file.read_bytes()[:60])
            with pytest.raises(InputError, match=file.name):
                project.support_pair(file.stem)

    def test_source_is_remembered_without_folders(self, project, tmp_path):
        image = tmp_path / "Smith" / "scan 7.tif"
        image.parent.mkdir()
        image.write_bytes(b"abc")
        project.add_support_pair(make_pair(), source={"image": image, "fov": None})
        source = project.support_source("a")
        assert source["sources"] == {
            "image": {
                "file": "scan 7.tif",
                "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            }
        }
        assert source["added"].endswith("+00:00")

    def test_crash_before_the_mask_leaves_no_pair_and_can_be_repeated(self, project, monkeypatch):
        def refuse(*args, **kwargs):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(support_store, "write_mask", refuse)
        with pytest.raises(InputError, match="Free some space"):
            project.add_support_pair(make_pair())
        assert project.support_names() == []
        monkeypatch.undo()
        assert project.add_support_pair(make_pair()) is True
        assert_same_pair(project.support_pair("a"), make_pair())

    def test_replaced_mask_is_kept(self, project):
        pair = make_pair()
        project.add_support_pair(pair)
        kept = project.replace_support_mask("a", ~pair.mask)
        np.testing.assert_array_equal(project.support_pair("a").mask, ~pair.mask)
        np.testing.assert_array_equal(support_store.read_mask(kept), pair.mask)
        assert project.support_names() == ["a"]
        assert project.replace_support_mask("a", ~pair.mask) is None
        project.replace_support_mask("a", pair.mask)
        assert len(list(kept.parent.iterdir())) == 2

    @pytest.mark.parametrize("name", ["a" * 200, "é" * 120])
    def test_mask_of_the_longest_name_can_be_corrected(self, project, name):
        pair = make_pair(name)
        project.add_support_pair(pair)
        kept = project.replace_support_mask(name, ~pair.mask)
        np.testing.assert_array_equal(support_store.read_mask(kept), pair.mask)
        assert len(kept.name.encode()) <= 255 and name.startswith(kept.name.rsplit("-", 3)[0])

    def test_replace_with_other_size_or_unknown_name(self, project):
        project.add_support_pair(make_pair())
        with pytest.raises(InputError, match="differ in size"):
            project.replace_support_mask("a", np.zeros((5, 5), bool))
        with pytest.raises(InputError, match="no pair called 'b'"):
            project.replace_support_mask("b", np.zeros((20, 30), bool))

    def test_remove_and_restore(self, project, tmp_path):
        pair = make_pair(fov=True)
        project.add_support_pair(pair, source={})
        before = all_files(project.support_folder)
        project.remove_support_pair("a")
        assert project.support_names() == []
        assert project.removed_support_names() == ["a"]
        with pytest.raises(InputError, match="It holds: none"):
            project.support_pair("a")
        project.restore_support_pair("a")
        assert all_files(project.support_folder) == before
        assert_same_pair(project.support_pair("a"), pair)
        assert project.removed_support_names() == []

    def test_restore_brings_back_the_last_and_never_overwrites(self, project):
        for seed in (1, 2):
            project.add_support_pair(make_pair(seed=seed))
            project.remove_support_pair("a")
        project.restore_support_pair("a")
        assert_same_pair(project.support_pair("a"), make_pair(seed=2))
        with pytest.raises(InputError, match="again"):
            project.restore_support_pair("a")
        project.remove_support_pair("a")
        with pytest.raises(InputError, match="No removed pair"):
            project.restore_support_pair("b")

    @pytest.mark.parametrize("stopped", ["add", "removal"])
    def test_nothing_of_a_pair_that_was_half_there_joins_the_next_of_its_name(self, project, monkeypatch, stopped):
        old, new = make_pair(seed=1, dtype=np.float32, channels=3, fov=True), make_pair(seed=2)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            if stopped == "add":
                patch.setattr(support_store, "write_mask", interrupt_at("masks"))
                project.add_support_pair(old)
            else:
                project.add_support_pair(old)
                patch.setattr(support_store, "_move", interrupt_at("a.json"))
                project.remove_support_pair("a")
        assert project.support_names() == [] and "support/images/a.tif" in all_files(project.path)
        assert project.add_support_pair(new)
        assert_same_pair(project.support_pair("a"), new)
        assert [name for name in all_files(project.support_folder) if "/a." in f"/{name}" and "removed" not in name]

    def test_two_tabs_add_at_once(self, project):
        outcomes = []

        def add(seed):
            try:
                outcomes.append(project.add_support_pair(make_pair(seed=seed)))
            except InputError:
                outcomes.append("refused")

        threads = [threading.Thread(target=add, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(map(str, outcomes)) == ["True", "refused", "refused", "refused"]


class TestSegmenters:
    def test_versions_count_up(self, project):
        assert project.segmenter_versions() == []
        assert project.latest_segmenter() is None
        for version in ("v001", "v002"):
            new = project.new_segmenter_folder()
            with new as folder:
                assert new.version is None
                (folder / "weights").write_text(version)
            assert new.version == version
        assert project.segmenter_versions() == ["v001", "v002"]
        assert (project.latest_segmenter() / "weights").read_text() == "v002"

    def test_more_than_999(self, project):
        for name in ("v999", "v1000", "v0x", ".v1001.partial"):
            (project.segmenters_folder / name).mkdir()
        assert project.segmenter_versions() == ["v999", "v1000"]
        with project.new_segmenter_folder():
            pass
        assert project.latest_segmenter().name == "v1001"

    def test_failed_segmenter_leaves_nothing(self, project):
        with pytest.raises(RuntimeError), project.new_segmenter_folder():
            raise RuntimeError
        assert list(project.segmenters_folder.iterdir()) == []

    def test_what_a_killed_process_left_is_removed_and_nothing_else(self, project):
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        dead = project.segmenters_folder / f".v003.partial-{gone.pid}-0a1b"
        alive = project.segmenters_folder / f".v003.partial-{os.getpid()}-0a1b"
        for folder in (dead, alive):
            (folder / "inside").mkdir(parents=True)
        with project.new_segmenter_folder():
            assert not dead.exists() and alive.exists()

    def test_what_another_computer_builds_is_left_to_it_for_a_day(self, project):
        foreign = project.segmenters_folder / ".v003.partial-0123abcd-99999999-0a1b"
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        here = project.segmenters_folder / f".v003.partial-{this_host()}-{gone.pid}-0a1b"
        for folder in (foreign, here):
            folder.mkdir()
        with project.new_segmenter_folder() as folder:
            assert this_host() in folder.name and foreign.exists() and not here.exists()
        before = foreign.stat().st_mtime - 90_000
        os.utime(foreign, (before, before))
        with project.new_segmenter_folder():
            assert not foreign.exists()

    def test_a_folder_that_windows_keeps_busy_for_a_moment_is_waited_for(self, project, monkeypatch):
        with project.new_segmenter_folder() as folder:
            monkeypatch.setattr("sys.platform", "win32")
            refused = refuse_at_first(monkeypatch, times=3)
            (folder / "w").touch()
        assert len(refused) == 3 and project.segmenter_versions() == ["v001"]

    def test_two_at_once_get_two_numbers(self, project):
        first, second = project.new_segmenter_folder(), project.new_segmenter_folder()
        with first as one, second as two:
            (one / "w").write_text("first")
            (two / "w").write_text("second")
        assert {first.version, second.version} == {"v001", "v002"}
        assert (project.segmenters_folder / first.version / "w").read_text() == "first"


def test_names_are_listed_anew_when_a_pair_appears_in_a_folder_left_alone(tmp_path):
    project = Project.create(tmp_path / "p", modality="octa")
    project.add_support_pair(make_pair("a", seed=0))
    for folder in ("masks", "images"):  # as if it had been left alone for an hour
        path = project.support_folder / folder
        os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns - 3_600_000_000_000))
    first = project.support_names()
    assert project.support_names() == first and len(first) == 1
    project.add_support_pair(make_pair("b", seed=1))
    assert len(project.support_names()) == 2
    project.remove_support_pair(first[0])
    assert len(project.support_names()) == 1
