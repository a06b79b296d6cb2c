"""Growing trees as a person does, with a real browser and server."""

from __future__ import annotations

import io
import json

import pytest
from PIL import Image

from univg.io import read_provenance
from univg.io.write import PROVENANCE_KEY
from univg.workflow.jobs import list_jobs, wait_for
from univg.workflow.project import Project
from univg.workflow.sample import create_sample_project

pytestmark = pytest.mark.browser


def open_trees(page, url):
    page.goto(url)
    page.wait_for_selector("#page-state[data-view=work]", state="attached")
    page.click("#tab-trees-button")
    page.wait_for_selector("#tree-facts:has-text('nodes')")
    wait_for_another_picture(page, "")


def picture_source(page):
    return page.get_attribute("#tree-picture img", "src")


def wait_for_another_picture(page, before):
    """Wait until another picture than `before` is loaded: an earlier click would not know where it fell."""
    page.wait_for_function(
        """before => {
            const picture = document.querySelector("#tree-picture img");
            return picture && picture.src !== before && picture.complete && picture.naturalWidth > 0;
        }""",
        arg=before,
    )
    return picture_source(page)


def set_slider(page, name, value):
    before = picture_source(page)
    page.fill(f"#tree-{name} input[type=number]", str(value))
    page.keyboard.press("Tab")
    wait_for_another_picture(page, before)


def slider_value(page, name):
    return float(page.input_value(f"#tree-{name} input[type=number]"))


def scene_of(page):
    """The parameters inside the picture on screen."""
    data = page.request.get(picture_source(page), max_retries=2).body()
    return json.loads(Image.open(io.BytesIO(data)).info[PROVENANCE_KEY])


@pytest.mark.timeout(300)
def test_roots_sliders_reroll_save_and_back(serve, page, projects_folder, tmp_path):
    create_sample_project(projects_folder / "Sample")
    open_trees(page, serve("--project", str(projects_folder / "Sample")))

    # Two roots by a click each
    box = page.locator("#tree-picture img").bounding_box()
    for right, down in ((0.45, 0.4), (0.55, 0.6)):
        before = picture_source(page)
        page.mouse.click(box["x"] + right * box["width"], box["y"] + down * box["height"])
        wait_for_another_picture(page, before)
    page.wait_for_selector("#tree-facts:has-text('2 roots')")
    roots = scene_of(page)["roots"]
    assert len(roots) == 2 and abs(roots[0][0] - 0.4 * 512) < 8

    # Three sliders, then another seed
    wanted = {"tortuosity": 0.2, "tip-radius": 1.5, "murray-exponent": 2.8}
    for name, value in wanted.items():
        set_slider(page, name, value)
    before = picture_source(page)
    page.click("#tree-reroll")
    saved_source = wait_for_another_picture(page, before)
    scene = scene_of(page)
    assert [scene["config"][name.replace("-", "_")] for name in wanted] == list(wanted.values())
    page.wait_for_function("seed => +document.querySelector('#tree-seed input').value === seed", arg=scene["seed"])

    # Saved, changed, and dropped back
    saved = tmp_path / "tree.png"
    saved.write_bytes(page.request.get(saved_source, max_retries=2).body())
    assert read_provenance(saved) == scene
    set_slider(page, "tortuosity", 0.4)
    before = picture_source(page)
    page.click("#tree-clear")
    wait_for_another_picture(page, before)
    assert scene_of(page)["roots"] == []
    page.click("#tree-files > button")
    before = picture_source(page)
    page.set_input_files("#tree-drop input[type=file]", [str(saved)])
    wait_for_another_picture(page, before)
    for name, value in wanted.items():
        page.wait_for_function(
            "([name, value]) => +document.querySelector(`#tree-${name} input[type=number]`).value === value",
            arg=[name, value],
        )
    assert scene_of(page) == scene

    # A file that is no saved tree changes nothing
    (tmp_path / "other.png").write_bytes(b"no picture")
    page.set_input_files("#tree-drop input[type=file]", [str(tmp_path / "other.png")])
    page.wait_for_selector(".toast-body.error")
    assert scene_of(page) == scene


@pytest.mark.timeout(300)
def test_obstacle_undo_variations_comparison_and_many_trees(serve, page, projects_folder):
    project = create_sample_project(projects_folder / "Sample")
    open_trees(page, serve("--project", str(projects_folder / "Sample")))
    page.click("#tree-click label:has-text('Obstacle')")
    box = page.locator("#tree-picture img").bounding_box()
    for right, down in ((0.3, 0.3), (0.3, 0.7), (0.6, 0.5)):
        before = picture_source(page)
        page.mouse.click(box["x"] + right * box["width"], box["y"] + down * box["height"])
        wait_for_another_picture(page, before)
    before = picture_source(page)
    page.click("#tree-close")
    wait_for_another_picture(page, before)
    assert len(scene_of(page)["obstacles"]) == 1
    before = picture_source(page)
    page.click("#tree-undo")
    wait_for_another_picture(page, before)
    assert scene_of(page)["obstacles"] == []

    page.click("#tree-vary")
    page.wait_for_function("document.querySelectorAll('#tree-strip .thumbnail-item').length === 9")
    before = picture_source(page)
    page.click("#tree-strip .thumbnail-item >> nth=4")
    wait_for_another_picture(page, before)
    page.click("#tree-compare")
    page.wait_for_selector("#tree-plots svg")
    page.wait_for_selector("#tree-meter .meter")

    page.click("#tree-many > button")
    page.wait_for_selector("#tree-count input", state="visible")
    page.wait_for_timeout(500)  # the field takes its initial value once more when it unfolds
    page.fill("#tree-count input", "6")
    page.keyboard.press("Tab")
    page.click("#tree-save-many")
    page.wait_for_selector("#tree-saved:has-text('6 trees in')")
    (job,) = list_jobs(Project.open(project.path))
    assert wait_for(job, 60).result()["made"] == 6
    page.click("#tab-adapt-button")
    page.wait_for_selector("#adapt-status:has-text('Ready')")
