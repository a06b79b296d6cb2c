import json
import os
from dataclasses import replace

import numpy as np
import pytest

from app.gradio_ui import tree_files, tree_view
from app.gradio_ui.files import Upload
from app.gradio_ui.state import Sessions
from app.gradio_ui.tree_files import scene_in
from tests.conftest import make_pair
from univg.errors import InputError
from univg.io import write_mask
from univg.sca import TreeScene, grow_scene, preset_named
from univg.types import Modality
from univg.workflow.bulk import MANIFEST_FILE
from univg.workflow.project import Project
from univg.workflow.tree_sets import tree_set_params, tree_sets


@pytest.fixture
def scene():
    preset = preset_named("octa")
    return TreeScene(Modality.OCTA, (96, 128), preset.config, seed=4, preset="octa", roots=((40.0, 50.0),))


def upload(path):
    return Upload(path, path.name)


def test_scene_comes_back_from_a_picture_a_tree_and_a_preset(scene, tmp_path):
    tree = replace(grow_scene(scene), meta=scene.to_json())
    write_mask(tmp_path / "tree.png", np.eye(96, dtype=bool), provenance=scene.to_json())
    (tmp_path / "tree.json").write_text(tree.to_json())
    (tmp_path / "preset.json").write_text(json.dumps(scene.to_json()))
    for name in ("tree.png", "tree.json", "preset.json"):
        assert scene_in(upload(tmp_path / name)) == scene


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"meta": 3}', '{"meta": {}}', "nonsense"])
def test_other_json_is_refused(text, tmp_path):
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(InputError):
        scene_in(upload(tmp_path / "other.json"))


def test_a_picture_without_a_record_is_refused(tmp_path):
    write_mask(tmp_path / "bare.png", np.eye(20, dtype=bool))
    with pytest.raises(InputError, match="No tree"):
        scene_in(upload(tmp_path / "bare.png"))


@pytest.fixture
def project(tmp_path):
    project = Project.create(tmp_path / "p", modality=Modality.OCTA, working_size=64)
    for name, size in (("a", 64), ("b", 48)):
        project.add_support_pair(make_pair(name, size=size, seed=ord(name)))
    return project


def test_tree_along_a_mask_that_is_not_here_keeps_all_that_was_drawn(project, tmp_path, monkeypatch):
    warned = []
    monkeypatch.setattr(tree_files.gr, "Warning", lambda text, **_: warned.append(text))
    monkeypatch.setattr(tree_files, "note", lambda text: None)
    session = Sessions(tmp_path / "sessions", None).attach("")
    session.open(project)
    whole = ((2.0, 2.0), (2.0, 61.0), (61.0, 61.0), (61.0, 2.0))
    drawn = {"roots": ((30.0, 30.0),), "obstacles": (((4.0, 4.0), (4.0, 9.0), (9.0, 9.0)),), "boundary": whole}
    foreign = replace(tree_view.studio_of(session).scene, mask_name="<b>x</b>", mask_sha256="0", **drawn)
    write_mask(tmp_path / "tree.png", np.eye(64, dtype=bool), provenance=foreign.to_json())
    tree_files._restore(session, [upload(tmp_path / "tree.png")])
    found = tree_view.studio_of(session).scene
    assert found.mask_name == "a" and {name: getattr(found, name) for name in drawn} == drawn
    assert "&lt;b&gt;" in warned[0] and "<b>" not in warned[0]


def test_tree_comes_back_though_another_image_is_damaged(project, tmp_path, monkeypatch):
    monkeypatch.setattr(tree_files.gr, "Warning", lambda *_, **__: pytest.fail("it is the mask of that time"))
    monkeypatch.setattr(tree_files, "note", lambda text: None)
    session = Sessions(tmp_path / "sessions", None).attach("")
    session.open(project)
    scene = tree_view.studio_of(session).scene
    write_mask(tmp_path / "tree.png", np.eye(64, dtype=bool), provenance=scene.to_json())
    (project.support_folder / "images" / "b.png").write_bytes(b"no image")
    session.trees.go_to(replace(scene, seed=5))
    tree_files._restore(session, [upload(tmp_path / "tree.png")])
    assert tree_view.studio_of(session).scene == scene


def test_what_was_drawn_on_one_mask_is_not_put_on_the_others(project):
    along = replace(TreeScene(Modality.OCTA, (64, 64), preset_named("octa").config), mask_name="a")
    drawn = replace(along, roots=((30.0, 30.0),))
    assert tree_set_params(project, along, count=3, every_mask=True)["masks"] == ["a", "b"]
    assert tree_set_params(project, drawn, count=3, every_mask=False)["masks"] == ["a"]
    with pytest.raises(InputError, match="do not fit the other masks"):
        tree_set_params(project, drawn, count=3, every_mask=True)
    project.remove_support_pair("b")
    assert tree_set_params(project, drawn, count=3, every_mask=True)["masks"] == ["a"]


def test_trees_are_counted_anew_only_when_their_folder_has_changed(project, monkeypatch):
    folder = project.trees_folder / "set-001"
    folder.mkdir(parents=True)
    (folder / MANIFEST_FILE).touch()
    (folder / "1.png").touch()
    assert tree_sets(project) == [("set-001", 1)]
    (folder / "2.png").touch()  # within the same step of the folder's time, as far as anybody knows
    assert tree_sets(project) == [("set-001", 2)]
    os.utime(folder, (1e9, 1e9))
    assert tree_sets(project) == [("set-001", 2)]
    with monkeypatch.context() as patch:
        patch.setattr("univg.workflow.tree_sets._listed", lambda folder: pytest.fail("counted again"))
        assert tree_sets(project) == [("set-001", 2)]
    (folder / "3.png").touch()
    assert tree_sets(project) == [("set-001", 3)]
