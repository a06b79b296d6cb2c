"""What a person does, with a real browser, server, files and training."""

from __future__ import annotations

import base64
import io
import re
import zipfile
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import numpy as np
import pytest
from PIL import Image

from univg.io import read_mask, read_provenance, write_image, write_mask
from univg.types import ImageMaskPair
from univg.workflow.jobs import list_jobs
from univg.workflow.project import Project
from univg.workflow.sample import create_sample_project, sample_folder, sample_unseen_images

pytestmark = pytest.mark.browser


def open_page(page, url):
    page.goto(url)
    page.wait_for_selector("#page-state[data-view]", state="attached")


def drop(page, zone, paths):
    page.set_input_files(f"#{zone} input[type=file]", [str(path) for path in paths])


def striped_pair(name, shape=(200, 300)):
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    image = ((rows * 3 + cols) % 200).astype(np.uint8)
    mask = np.zeros(shape, bool)
    mask[50:54, 20:-20] = True
    return ImageMaskPair(image, mask, name)


def reload_adapt(page):
    page.reload()
    page.wait_for_selector("#job-chip .chip")
    page.click("#tab-adapt-button")
    page.wait_for_selector("#stages li")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_five_pairs_to_the_overlay_of_an_unseen_image(serve, page, projects_folder):
    # A new project gets the five sample pairs
    open_page(page, serve())
    page.fill("#create-name input, #create-name textarea", "five eyes")
    page.click("#create-project")
    page.wait_for_selector("#page-state[data-view=work]", state="attached")
    folder = sample_folder()
    drop(page, "add-images", sorted((folder / "images").glob("*.png")))
    drop(page, "add-masks", sorted((folder / "masks").glob("*.png")))
    page.wait_for_function("document.querySelectorAll('#findings li.ok').length === 5")
    page.click("#add-pairs:has-text('5 pairs')")
    page.wait_for_function("document.querySelectorAll('#data-strip .thumbnail-item').length === 5")
    project = Project.open(projects_folder / "five eyes")
    assert project.support_names() == [f"sample-{n}" for n in range(1, 6)]

    # Adapt, seen again after a reload in every stage
    page.click("#next-adapt")
    page.click("#preset label:has-text('Preview')")
    page.click("#adapt")
    page.wait_for_selector("#job-chip .chip")
    for done in ("Trees", "Pairs"):
        reload_adapt(page)
        page.wait_for_selector(f"#stages li.done:has-text('{done}')", timeout=120_000)
    reload_adapt(page)
    page.wait_for_selector("#stages li.done:has-text('Trees')")

    # Cancelled in the training, and resumed from where it stopped
    page.wait_for_selector("#stages li.now:has-text('Model')", timeout=120_000)
    page.click("#cancel:not([disabled])")
    page.wait_for_selector("#adapt-status .status.cancelled")
    stopped_at = int(page.inner_text("#stages li.now em").split()[0])
    assert stopped_at < 110
    page.click("#resume:not([disabled])")
    page.wait_for_selector("#adapt-status .status.done", timeout=700_000)
    (job,) = list_jobs(project)
    steps = [event.step for event in job.events() if event.stage == "segmenter"]
    assert job.attempt == 2 and steps.count(1) <= 1
    assert "n = 1" in page.inner_text("#adapt-status")
    assert page.locator("#held-out-picture img").count() == 1
    assert project.segmenter_versions() == ["v001"]

    # Segment images that no training saw
    page.click("#next-segment")
    page.click("#segment-sample")
    page.wait_for_selector("#segment-strip .thumbnail-item")
    page.click("#segment:not([disabled])")
    page.wait_for_selector("#figures tfoot")
    assert float(page.inner_text("#figures tbody td >> nth=1")) > 0.6
    sources = [image.get_attribute("src") for image in page.locator("#segment-picture img").all()]
    original, result = (
        np.asarray(Image.open(io.BytesIO(page.request.get(src, max_retries=2).body()))) for src in sources
    )
    assert original.shape == result.shape == (512, 512, 3)
    assert 0.02 < (original != result).any(axis=2).mean() < 0.5

    # While B is held, the original alone is seen
    shown = "images => images.map(image => getComputedStyle(image).visibility)"
    assert page.eval_on_selector_all("#segment-picture img", shown) == ["visible", "visible"]
    page.keyboard.down("b")
    assert page.eval_on_selector_all("#segment-picture img", shown) == ["visible", "hidden"]
    page.keyboard.up("b")
    assert page.eval_on_selector_all("#segment-picture img", shown) == ["visible", "visible"]

    # A threshold recolours, and the figures follow
    before = page.inner_text("#figures tbody tr >> nth=0")
    page.fill("#threshold input[type=number]", "0.95")
    page.keyboard.press("Enter")
    page.wait_for_selector("#figures:has-text('0.95')")
    page.wait_for_function("before => document.querySelector('#figures tbody tr').innerText !== before", arg=before)

    # Masks come down at their own size, two-valued, and say how they were made
    with page.expect_download() as waiting:
        page.click("#get-masks")
    with zipfile.ZipFile(waiting.value.path()) as archive:
        names = [f"{path.stem}_mask.png" for path in sample_unseen_images()]
        assert sorted(archive.namelist()) == names
        found = np.asarray(Image.open(io.BytesIO(archive.read(names[0]))))
    assert found.shape == (512, 512) and set(np.unique(found)) == {0, 255}
    with page.expect_download() as waiting:
        page.click("#get-mask")
    assert read_provenance(waiting.value.path())["threshold"] == 0.95


@pytest.mark.parametrize("from_present", [False, True])
def test_painted_mask_is_saved_pixel_for_pixel(serve, page, projects_folder, from_present):
    project = Project.create(projects_folder / "paint", modality="octa")
    for name in ("a", "b"):
        project.add_support_pair(striped_pair(name))
    old = project.support_pair("a").mask
    open_page(page, serve("--project", str(project.path)))
    page.click("#paint")
    page.wait_for_selector("#page-state[data-painting=yes]", state="attached")
    if not from_present:
        page.click("#paint-from-mask input")
    wait_for_editor(page, shape=(200, 300), pixels=int(old.sum()) if from_present else 0)

    stroke(page, (-60, 30), (60, 30))
    page.wait_for_timeout(500)
    expected = editor_alpha(page) > 127
    rows, cols = np.nonzero(expected & ~old if from_present else expected)
    assert expected.shape == (200, 300)
    assert rows.max() - rows.min() < 16 and cols.max() - cols.min() > 20  # one horizontal stroke
    assert abs((cols.min() + cols.max()) / 2 - 150) < 8 and rows.min() > 100

    page.wait_for_timeout(1500)
    page.click("#paint-save")
    page.wait_for_selector("#page-state[data-painting=no]", state="attached")
    saved = np.asarray(Image.open(project.support_folder / "masks" / "a.png"))
    assert saved.shape == (200, 300)
    assert set(np.unique(saved)) == {0, 255}
    assert np.array_equal(saved > 0, expected)
    assert (not from_present) or (saved[old] == 255).all()
    history = list((project.support_folder / "masks" / ".history").glob("a-*.png"))
    assert len(history) == 1 and np.array_equal(read_mask(history[0]), old)


def test_image_without_a_mask_can_be_painted_into_the_project(serve, page, projects_folder, tmp_path):
    project = Project.create(projects_folder / "paint", modality="octa")
    write_image(tmp_path / "new one.png", striped_pair("new one").image)
    open_page(page, serve("--project", str(project.path)))
    drop(page, "add-images", [tmp_path / "new one.png"])
    page.click("#paint-new")
    wait_for_editor(page, shape=(200, 300), pixels=0)
    page.click("#paint-save")
    page.wait_for_selector("text=Nothing is painted yet")
    stroke(page, (-40, 0), (40, 10))
    page.wait_for_timeout(2000)
    page.click("#paint-save")
    page.wait_for_selector("#page-state[data-painting=no]", state="attached")
    page.wait_for_selector("#data-strip .thumbnail-item")
    assert project.support_names() == ["new one"]


def test_painter_turns_to_the_image_that_is_chosen_and_to_no_other(serve, page, projects_folder, tmp_path):
    project = Project.create(projects_folder / "paint", modality="octa")
    pairs = [striped_pair("a"), striped_pair("b")]
    pairs[1].mask[80:90, 40:-40] = True
    for pair in pairs:
        project.add_support_pair(pair)
    write_image(tmp_path / "long.png", np.zeros((4200, 60), np.uint8))
    open_page(page, serve("--project", str(project.path)))
    drop(page, "add-images", [tmp_path / "long.png"])
    page.wait_for_selector("#paint-new")
    page.click("#paint")
    pixels = [int(pair.mask.sum()) for pair in pairs]
    wait_for_editor(page, shape=(200, 300), pixels=pixels[0])
    page.click("#paint-target input")
    page.get_by_role("option", name="b", exact=True).click()
    wait_for_editor(page, shape=(200, 300), pixels=pixels[1])
    page.click("#paint-target input")
    page.get_by_role("option", name="long").click()
    page.wait_for_selector("text=the painter holds at most")
    page.wait_for_function("document.querySelector('#paint-target input').value === 'b'")
    assert editor_alpha(page).shape == (200, 300) and (editor_alpha(page) > 127).sum() == pixels[1]


def test_long_names_stay_inside_their_buttons(serve, page, projects_folder, tmp_path):
    name = "1.2.840.113619.2.55.3.604688119.969.1268071029.320." + "W" * 60
    project = Project.create(projects_folder / "names", modality="octa")
    project.add_support_pair(striped_pair(name))
    project.remove_support_pair(name)
    write_image(tmp_path / f"{name}.png", striped_pair(name).image)
    open_page(page, serve("--project", str(project.path)))
    drop(page, "add-images", [tmp_path / f"{name}.png"])
    for button in ("#paint-new", "#undo-remove"):
        page.wait_for_selector(f"{button}:has-text('{name}')")
        sides = page.eval_on_selector(
            button,
            """button => {
                const words = document.createRange();
                words.selectNodeContents(button);
                const [inner, outer] = [words.getBoundingClientRect(), button.getBoundingClientRect()];
                return [inner.left - outer.left, outer.right - inner.right];
            }""",
        )
        assert min(sides) >= 0, (button, sides)


def test_bad_files_are_named_and_good_ones_kept(serve, page, projects_folder, tmp_path):
    images, masks = bad_and_good_files(tmp_path)
    project = Project.create(projects_folder / "bad", modality="octa")
    open_page(page, serve("--project", str(project.path)))
    dialogs = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    drop(page, "add-images", images)
    drop(page, "add-masks", masks)
    for said in (
        "0 bytes",
        "holds text",
        "differ in size",
        "different values",
        "frames",
        "constant",
        "There is no image for this mask",
        "<img src=x onerror=alert(1)>",
    ):
        page.wait_for_selector(f"#findings li:has-text('{said}')", state="attached")
    page.click("#add-pairs:has-text('Add 1 pair')")
    page.wait_for_function("document.querySelectorAll('#data-strip .thumbnail-item').length === 1")
    assert project.support_names() == ["good"]
    assert page.locator("#add-images").get_by_text("grey").count() > 0  # what was not usable is still there

    page.click("#grey-masks input")
    page.click("#add-pairs:has-text('Add 1 pair')")
    page.wait_for_function("document.querySelectorAll('#data-strip .thumbnail-item').length === 2")
    assert project.support_names() == ["good", "grey"]

    page.click("#tab-segment-button")
    drop(page, "segment-images", [path for path in images if path.stem in ("zero", "good")])
    page.wait_for_selector("#segment-strip .thumbnail-item >> nth=1")
    page.click("#segment-strip .thumbnail-item:has-text('zero')")
    page.wait_for_selector("#segment-status:has-text('0 bytes')")
    assert not dialogs


def test_wrong_folder_is_refused_and_stays_in_its_field(serve, page, tmp_path):
    open_page(page, serve())
    page.fill("#open-path input, #open-path textarea", str(tmp_path / "nowhere"))
    page.click("#open-project")
    page.wait_for_selector("text=There is no such folder")
    assert page.input_value("#open-path input, #open-path textarea") == str(tmp_path / "nowhere")
    page.click("#open-sample")
    page.wait_for_selector("#data-strip .thumbnail-item >> nth=4")


def test_chosen_theme_and_tab_are_kept_and_strips_have_names(serve, page, projects_folder):
    project = create_sample_project(projects_folder / "theme")
    open_page(page, serve("--project", str(project.path)))
    page.wait_for_selector("#data-strip[aria-label='Annotated images']", state="attached")
    assert not page.evaluate("document.body.classList.contains('dark')")
    page.click("#switch-theme")
    page.wait_for_selector("body.dark", state="attached")
    page.click("#tab-segment-button")
    page.reload()
    page.wait_for_selector("#tab-segment-button[aria-selected=true]")
    page.wait_for_selector("body.dark", state="attached")


def test_removed_pair_comes_back(serve, page, projects_folder):
    project = create_sample_project(projects_folder / "remove")
    open_page(page, serve("--project", str(project.path)))
    page.click("#data-strip .thumbnail-item:has-text('sample-3')")
    page.wait_for_selector("#selected-pair:has-text('sample-3')")
    page.click("#remove")
    page.wait_for_function("document.querySelectorAll('#data-strip .thumbnail-item').length === 4")
    assert "sample-3" not in project.support_names()
    page.click("#undo-remove")
    page.wait_for_function("document.querySelectorAll('#data-strip .thumbnail-item').length === 5")
    assert len(project.support_names()) == 5


def test_nothing_is_cut_off_at_the_sides(serve, page, projects_folder):
    project = create_sample_project(projects_folder / "layout")
    open_page(page, serve("--project", str(project.path)))
    page.wait_for_selector("#data-picture img")
    for width, height in ((1440, 900), (1024, 768)):
        page.set_viewport_size({"width": width, "height": height})
        for tab in ("data", "adapt", "segment"):
            page.click(f"#tab-{tab}-button")
            page.wait_for_timeout(300)
            overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert overflow <= 0, (tab, width)


def test_no_part_of_the_machinery_shows(serve, page, projects_folder):
    project = create_sample_project(projects_folder / "hidden")
    url = serve("--project", str(project.path))
    for host, allowed in (("evil.example", False), (f"127.0.0.1:{urlsplit(url).port}", True)):
        try:  # a name that somebody else made to point to this machine
            with urlopen(Request(url, headers={"Host": host}), timeout=60) as answer:
                assert allowed and answer.status == 200
        except HTTPError as error:
            assert not allowed and error.code == 400
    open_page(page, url)
    page.wait_for_selector("#data-picture img")
    tabs = page.locator("button[role=tab]:visible").all()
    assert len(tabs) == 7
    for tab in tabs:
        tab.click()
        page.wait_for_timeout(500)
        for name in ("Textbox", "Number", "Checkbox", "Dropdown"):  # what Gradio calls a control that has no name
            assert page.get_by_text(name, exact=True).filter(visible=True).count() == 0, (tab.inner_text(), name)


def wait_for_editor(page, *, shape, pixels):
    """Until the editor shows an image of `shape` and a layer with `pixels` marked ones."""
    for _ in range(240):
        alpha = editor_alpha(page)
        if alpha is not None and alpha.shape == shape and (alpha > 127).sum() == pixels:
            return
        page.wait_for_timeout(250)
    raise AssertionError(None if alpha is None else (alpha.shape, int((alpha > 127).sum())))


def editor_alpha(page):
    """The alpha of the painted layer as the browser holds it, past Gradio's transfer and the app's own code."""
    data = page.evaluate(
        """async () => {
            if (!window.editor) return null;
            const blobs = await window.editor.get_blobs().catch(() => null);  // it is being set up
            if (!blobs || blobs.layers.length !== 1 || !blobs.layers[0]) return null;
            const bytes = new Uint8Array(await blobs.layers[0].arrayBuffer());
            let text = '';
            for (const byte of bytes) text += String.fromCharCode(byte);
            return btoa(text);
        }"""
    )
    return None if data is None else np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))[..., 3]


def stroke(page, start, end):
    """Draw with the mouse; positions in screen pixels from the middle of the canvas."""
    box = page.locator("#editor canvas").first.bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(middle[0] + start[0], middle[1] + start[1])
    page.mouse.down()
    page.mouse.move(middle[0] + end[0], middle[1] + end[1], steps=4)  # without a GPU each redraws the whole canvas
    page.mouse.up()


def bad_and_good_files(folder: Path):
    images, masks = folder / "images", folder / "masks"
    images.mkdir()
    masks.mkdir()

    def put(name, *, image=None, mask=None):
        pair = striped_pair(name)
        write_image(images / f"{name}.png", pair.image if image is None else image)
        write_mask(masks / f"{name}.png", pair.mask if mask is None else mask)

    put("good")
    put("size", mask=np.eye(100, dtype=bool))
    put("constant", image=np.full((200, 300), 7, np.uint8))
    for name in ("zero", "text", "grey", "frames", "<img src=x onerror=alert(1)>"):
        put(name)
    (images / "zero.png").write_bytes(b"")
    (images / "text.png").write_text("this is no picture")
    (masks / "<img src=x onerror=alert(1)>.png").write_bytes(b"")
    ramp = np.linspace(0, 255, 300).astype(np.uint8)
    Image.fromarray(np.tile(ramp, (200, 1))).save(masks / "grey.png")
    pages = [Image.fromarray(striped_pair("frames").image)] * 2
    pages[0].save(images / "frames.tif", save_all=True, append_images=pages[1:])
    (images / "frames.png").unlink()
    write_mask(masks / "lonely.png", striped_pair("lonely").mask)
    assert not re.search("lonely", " ".join(path.name for path in images.iterdir()))
    return sorted(images.iterdir()), sorted(masks.iterdir())
