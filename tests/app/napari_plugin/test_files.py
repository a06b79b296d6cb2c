import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import make_pair
from univg.errors import InputError
from univg.io import read_mask, write_image, write_mask

npe2 = pytest.importorskip("npe2")

import app.napari_plugin  # noqa: E402

MANIFEST = Path(app.napari_plugin.__file__).with_name("napari.yaml")


@pytest.fixture
def plugin(npe2pm):
    """The plugin by its manifest, apart from whatever is installed."""
    with npe2pm.tmp_plugin(manifest=str(MANIFEST)):
        yield npe2pm


def test_every_command_of_the_manifest_can_be_loaded(plugin):
    manifest = plugin.get_manifest("univg")
    manifest.validate_imports()
    for command in manifest.contributions.commands:
        assert callable(plugin.commands.get(command.id)), command.id


def test_what_the_manifest_refers_to_exists():
    given = npe2.PluginManifest.from_file(MANIFEST).contributions
    known = {command.id for command in given.commands}
    used = {item.command for part in (given.readers, given.writers, given.widgets, given.sample_data) for item in part}
    used |= {item.command for items in given.menus.values() for item in items}
    assert used <= known


def test_importing_the_plugin_loads_no_torch_and_no_qt():
    code = "import sys, app.napari_plugin; sys.exit('torch' in sys.modules or 'qtpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_importing_the_panels_loads_no_torch():
    modules = "project_panel, trees_panel, segment_panel, correct_panel, retrain_panel, measure_panel, commands"
    code = f"import sys; from app.napari_plugin import {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_image_is_read_as_the_library_reads_it(plugin, tmp_path):
    path = tmp_path / "a picture.png"
    Image.fromarray(np.dstack([np.full((20, 30), 90, np.uint8)] * 3 + [np.full((20, 30), 255, np.uint8)])).save(path)
    ((data, settings, kind),) = npe2.io_utils.read([str(path)], stack=False, plugin_name="univg")
    assert kind == "image" and data.shape == (20, 30) and settings["name"] == "a picture"


def test_a_mask_is_read_as_labels(plugin, tmp_path):
    mask = make_pair("x").mask
    write_mask(tmp_path / "eye_mask.png", mask)
    ((data, _, kind),) = npe2.io_utils.read([str(tmp_path / "eye_mask.png")], stack=False, plugin_name="univg")
    assert kind == "labels" and np.array_equal(data, mask)


def test_a_picture_that_is_only_called_mask_is_an_image(plugin, tmp_path):
    write_image(tmp_path / "a_mask.png", make_pair("x").image)
    ((_, _, kind),) = npe2.io_utils.read([str(tmp_path / "a_mask.png")], stack=False, plugin_name="univg")
    assert kind == "image"


def test_pages_become_a_stack(plugin, tmp_path):
    import tifffile

    pages = np.arange(3 * 8 * 9, dtype=np.uint8).reshape(3, 8, 9)
    tifffile.imwrite(tmp_path / "pages.tif", pages, photometric="minisblack")
    ((data, _, _),) = npe2.io_utils.read([str(tmp_path / "pages.tif")], stack=False, plugin_name="univg")
    assert data.shape == (3, 8, 9)


def test_other_files_are_left_to_other_plugins():
    from app.napari_plugin.files import reader_of

    assert reader_of("notes.txt") is None
    assert reader_of(["a.png", "b.csv"]) is None


def test_labels_are_written_pixel_for_pixel(plugin, tmp_path):
    mask = make_pair("x").mask
    data = mask.astype(np.int32) * 3
    written = npe2.io_utils.write(str(tmp_path / "out.png"), [(data, {"name": "m"}, "labels")], plugin_name="univg")
    assert written == [str(tmp_path / "out.png")]
    assert np.array_equal(read_mask(tmp_path / "out.png"), mask)
    assert set(np.unique(np.asarray(Image.open(tmp_path / "out.png")))) == {0, 255}


def test_a_stack_of_labels_is_refused(tmp_path):
    from app.napari_plugin.files import write_labels

    with pytest.raises(InputError, match="two axes"):
        write_labels(str(tmp_path / "out.png"), np.zeros((2, 5, 5), int), {})


def test_sample_is_an_image_with_its_mask(plugin):
    (_, (sample,)), *_ = plugin.iter_sample_data()
    (image, _, first), (mask, _, second) = sample.open()
    assert (first, second) == ("image", "labels")
    assert image.shape[:2] == mask.shape and mask.any()
