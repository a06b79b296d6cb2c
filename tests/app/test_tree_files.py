import json
from dataclasses import replace

import numpy as np
import pytest

from app.gradio_ui.files import Upload
from app.gradio_ui.tree_files import scene_in
from univg.errors import InputError
from univg.io import write_mask
from univg.sca import TreeScene, grow_scene, preset_named
from univg.types import Modality


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
