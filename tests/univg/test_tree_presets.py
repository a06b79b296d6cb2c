import errno
import os
from dataclasses import replace

import pytest

from univg.errors import InputError
from univg.sca import TreeScene, preset_named
from univg.types import Modality
from univg.workflow.project import Project
from univg.workflow.tree_presets import save_tree_preset, tree_presets

SCENE = TreeScene(Modality.OCTA, (96, 128), preset_named("octa").config, seed=4, preset="octa")


@pytest.fixture
def project(tmp_path):
    return Project.create(tmp_path / "p", modality=Modality.OCTA)


def test_saved_presets_come_back_and_damaged_ones_are_left_out(project):
    assert tree_presets(project) == {}
    assert save_tree_preset(project, " fine mesh ", SCENE) == "fine mesh"
    (project.trees_folder / "presets" / "bad.json").write_text("{")
    assert tree_presets(project) == {"fine mesh": SCENE}


def test_a_preset_is_never_overwritten_by_another(project):
    save_tree_preset(project, "mine", SCENE)
    save_tree_preset(project, "mine", SCENE)
    with pytest.raises(InputError, match="already there"):
        save_tree_preset(project, "mine", replace(SCENE, seed=5))
    assert tree_presets(project) == {"mine": SCENE}


@pytest.mark.parametrize("name", ["", "..", "a/b", "x\ny", " "])
def test_names_that_are_no_file_names_are_refused(project, name):
    with pytest.raises(InputError):
        save_tree_preset(project, name, SCENE)
    assert tree_presets(project) == {}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_takes_nothing_is_said_and_leaves_nothing(project, monkeypatch, code):
    def refuse(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(InputError, match=r"Cannot write|disk is full|read-only"):
        save_tree_preset(project, "mine", SCENE)
    assert tree_presets(project) == {}


def test_two_windows_saving_the_same_name_keep_the_first(project):
    other = Project.open(project.path)
    save_tree_preset(project, "mine", SCENE)
    with pytest.raises(InputError, match="already there"):
        save_tree_preset(other, "mine", replace(SCENE, seed=9))
    assert tree_presets(other) == tree_presets(project)
