"""Fifty pairs judged by keys in a real browser, and a training that minds it."""

from __future__ import annotations

import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import make_pair
from univg.io import read_json
from univg.sca import generate_mask
from univg.types import ImageMaskPair, Modality
from univg.workflow.jobs import list_jobs
from univg.workflow.model_versions import active_segmenter
from univg.workflow.project import Project
from univg.workflow.verdicts import Verdict, judge, pairs_that_train, read_judgements

pytestmark = pytest.mark.browser


def with_pairs(folder, count, size=64):
    """A project with three annotated pairs and `count` synthetic ones, every fifth of them flagged."""
    project = Project.create(folder, modality=Modality.CORONARY_DSA, working_size=64)
    for number in range(3):
        project.add_support_pair(make_pair(f"pair {number}", seed=number))
    rng = np.random.default_rng(0)
    masks = [generate_mask(Modality.CORONARY_DSA, shape=(size, size), rng=rng) for _ in range(10)]
    for number in range(count):
        mask = np.roll(masks[number % 10], number, axis=1)
        grey = np.clip(0.7 - 0.4 * mask + 0.05 * rng.standard_normal(mask.shape), 0, 1)
        pair = ImageMaskPair(np.rint(255 * grey).astype(np.uint8), mask, f"synthetic-{number:04d}", synthetic=True)
        flags = ["faint"] if number % 5 == 0 else []
        project.add_synthetic_pair(pair, {"checks": {"agreement": 0.5 + 0.009 * (number % 50), "flags": flags}})
    return project


def open_review(page, url):
    page.goto(url)
    page.wait_for_selector("#page-state[data-view=work]", state="attached")
    page.click("#tab-review-button")
    page.wait_for_selector(".review-stage")


def current(page):
    return page.get_attribute(".review-stage", "data-name")


def opacity(page, layer):
    return float(page.evaluate(f"getComputedStyle(document.querySelector('.review-pictures {layer}')).opacity"))


def press(page, key):
    """Press a key and wait until another pair is on screen; returns the milliseconds that took."""
    before, started = current(page), time.perf_counter()
    page.keyboard.press(key)
    page.wait_for_function("name => document.querySelector('.review-stage')?.dataset.name !== name", arg=before)
    return 1000 * (time.perf_counter() - started)


def retrain(page, project):
    """Train again from the page, as briefly as it offers; returns the names that the job put on record."""
    before = len(list_jobs(project))
    page.check("#review-effort input[value=preview]")
    page.click("#review-retrain:not([disabled])")
    page.wait_for_selector("#review-status .running")
    page.wait_for_selector("#review-status .done", timeout=240_000)
    job, *_ = list_jobs(project)
    assert len(list_jobs(project)) == before + 1 and job.kind == "retrain"
    return set(job.params["pairs"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fifty_pairs_by_keyboard_then_trainings_without_the_rejected_and_back(serve, page, tmp_path):
    project = with_pairs(tmp_path / "p", 50)
    open_review(page, serve("--project", str(project.path)))

    # 1. Judge by keys, as fast as they can be pressed, over the end of a part of the grid
    rejected = set()
    for number in range(49):
        if number % 3 == 0:
            rejected.add(current(page))
        press(page, "r" if number % 3 == 0 else "a")
    page.wait_for_selector("#review-progress:has-text('49 of 50')")
    press(page, "u")
    page.wait_for_selector("#review-progress:has-text('48 of 50')")
    rejected.discard(current(page))
    found = {name for name, judgement in read_judgements(project).items() if judgement.verdict == "rejected"}
    assert found == rejected and len(found) == 16

    # 2. A note goes with a verdict, and typing it presses no key
    page.fill("#review-note textarea, #review-note input", "a dark rim")
    noted = current(page)
    page.click("#review-accept")
    page.wait_for_selector("#review-progress:has-text('49 of 50')")
    assert read_judgements(project)[noted].note == "a dark rim"

    # 3. Keys that only change the view, and the list of keys
    page.locator(".review-stage").click()
    page.keyboard.press("o")
    assert opacity(page, ".layer") == 0
    page.keyboard.press("o")
    assert opacity(page, ".layer") > 0
    page.keyboard.down("b")
    assert opacity(page, ".layer") == 0
    page.keyboard.up("b")
    assert opacity(page, ".layer") > 0 and opacity(page, ".white") == 0
    page.keyboard.press("m")
    assert opacity(page, ".white") == 1
    page.wait_for_selector("#review-left input[value=mask]:checked", state="attached")
    page.keyboard.press("m")
    page.wait_for_selector("#review-left input[value=image]:checked", state="attached")
    assert opacity(page, ".white") == 0
    page.keyboard.press("?")
    page.wait_for_selector("#review-help[open]")
    page.keyboard.press("Escape")

    # 4. What goes out has no rejected pair
    page.click("#review-export button")
    with page.expect_download() as download:
        page.click("#review-export-go")
    names = zipfile.ZipFile(download.value.path()).namelist()
    exported = {Path(name).stem for name in names if name.startswith("masks/") and name.endswith(".png")}
    assert not exported & rejected and exported == {*project.support_names(), *pairs_that_train(project)}

    # 5. Train: the rejected pairs are provably not on the list that the job put on record, nor in the model's card
    trained = retrain(page, project)
    assert not trained & rejected and len(trained) >= 30
    card = read_json(project.segmenters_folder / "v001" / "segmenter.json")["card"]
    assert card["synthetic_pairs"] == len(trained) and active_segmenter(project).name == "v001"
    assert "no earlier model" in page.inner_text("#review-changed")

    # 6. Reject more, train again, and see what that changed on the image that both kept apart
    more = sorted(trained)[:5]
    for name in more:
        judge(project, [name], Verdict.REJECTED)  # as a second page would
    trained_again = retrain(page, project)
    assert trained_again == trained - set(more)
    page.wait_for_selector("#review-changed .changed-pictures img >> nth=1")
    said = page.inner_text("#review-changed")
    assert "n = 1" in said and "95 %" in said and ("Too few images" in said or "cannot be told" in said)

    # 7. Roll back, and take that back
    in_use = active_segmenter(project).name
    other = "v001" if in_use == "v002" else "v002"
    page.click("#tab-segment-button")
    page.click("#models-panel button")
    page.click(f"[data-use-version={other}]")
    page.wait_for_selector(f"#models-table tr.in-use:has-text('{other}')")
    assert active_segmenter(project).name == other
    page.click("#model-back")
    page.wait_for_selector(f"#models-table tr.in-use:has-text('{in_use}')")
    assert active_segmenter(project).name == in_use and project.segmenter_versions() == ["v001", "v002"]


def test_filters_bulk_verdicts_and_a_reload(serve, page, tmp_path):
    project = with_pairs(tmp_path / "p", 50)
    open_review(page, serve("--project", str(project.path)))
    page.check("#review-filter input[value=flagged]")
    page.wait_for_function("document.querySelectorAll('.review-grid .cell').length === 10")
    page.click("#review-bulk button")
    page.click("#review-reject-all")
    page.wait_for_selector("#review-progress:has-text('10 of 50')")
    assert len([j for j in read_judgements(project).values() if j.verdict == "rejected"]) == 10
    page.reload()
    page.wait_for_selector("#page-state[data-view=work]", state="attached")
    page.click("#tab-review-button")
    page.wait_for_function("document.querySelectorAll('.review-grid .cell.rejected').length === 10")
    page.click("#review-undo")
    page.wait_for_selector("#review-progress:has-text('0 of 50')")


def test_keys_across_the_pages_of_the_grid(serve, page, tmp_path):
    project = with_pairs(tmp_path / "p", 90)
    open_review(page, serve("--project", str(project.path)))
    cells = page.locator(".review-grid .cell")
    shown = "document.querySelector('.review-grid').dataset.page === '{}'"
    cells.nth(39).click()
    last = current(page)
    # The second page waits in this one, so a key turns to it without the server.
    page.route("**/act", lambda route: route.abort())
    page.keyboard.press("ArrowRight")
    assert page.evaluate(shown.format(1)) and current(page) == cells.first.get_attribute("data-name")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(shown.format(0)) and current(page) == last
    # A verdict that is not on record turns back to its pair.
    page.wait_for_selector("#review-message:not([hidden])")
    page.keyboard.press("a")
    page.wait_for_function(shown.format(0))
    assert current(page) == last and cells.last.get_attribute("data-verdict") == "undecided"
    page.unroute("**/act")

    page.keyboard.press("r")
    first_of_second = current(page)
    page.wait_for_selector(".review-pages > template[data-page='2']", state="attached")
    assert page.evaluate(shown.format(1)) and page.locator(".review-pages [aria-current]").count() == 1
    cells.last.click()
    page.keyboard.press("a")
    page.wait_for_function("document.querySelectorAll('.review-pages > template').length === 1")
    assert page.evaluate(shown.format(2)) and cells.count() == 10
    cells.last.click()
    page.keyboard.press("a")  # the very last pair stays where it is
    page.wait_for_selector("#review-progress:has-text('3 of 90')")
    page.keyboard.press("u")
    page.wait_for_selector("#review-progress:has-text('2 of 90')")
    cells.first.click()
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(shown.format(1))
    page.wait_for_selector(".review-pages > template[data-page='0']", state="attached")
    cells.first.click()
    page.keyboard.press("ArrowLeft")
    assert current(page) == last != first_of_second
    assert cells.last.get_attribute("data-verdict") == "rejected"
    page.wait_for_timeout(500)
    assert read_judgements(project)[last].verdict == "rejected"


def test_any_place_of_an_enlarged_pair_can_be_looked_at(serve, page, tmp_path):
    project = with_pairs(tmp_path / "p", 5)
    open_review(page, serve("--project", str(project.path)))

    def seen(picture):
        """The part of a picture that is seen, in its own pixels a side: left, top, right, bottom."""
        return page.evaluate(
            """at => {
                const figure = document.querySelectorAll('.review-pictures figure')[at];
                const [outer, image] = [figure.getBoundingClientRect(), figure.querySelector('img')];
                const inner = image.getBoundingClientRect();
                const [dx, dy] = [image.offsetWidth / inner.width, image.offsetHeight / inner.height];
                return [(outer.left - inner.left) * dx, (outer.top - inner.top) * dy,
                    (outer.right - inner.left) * dx, (outer.top + image.offsetHeight - inner.top) * dy].map(Math.round);
            }""",
            picture,
        )

    box = page.locator(".review-pictures figure").first.bounding_box()
    width, height = box["width"], box["height"] - 20
    name = current(page)
    page.mouse.click(box["x"] + width / 2, box["y"] + height / 2)  # arrows no longer belong to the tabs
    for _ in range(8):
        page.keyboard.press("+")
    assert seen(0) == pytest.approx([width * 3 / 8, height * 3 / 8, width * 5 / 8, height * 5 / 8], abs=2)
    page.mouse.move(box["x"] + width - 1, box["y"] + height - 1)
    assert seen(0) == seen(1) == pytest.approx([width * 3 / 4, height * 3 / 4, width, height], abs=3)
    page.mouse.move(box["x"] + 1, box["y"] + 1)
    assert seen(0) == seen(1) == pytest.approx([0, 0, width / 4, height / 4], abs=3)
    for key in ("Shift+ArrowRight", "Shift+ArrowDown", "Shift+ArrowDown"):
        page.keyboard.press(key)
    step = pytest.approx([0.1 * width * 3 / 4, 0.2 * height * 3 / 4], abs=3)
    assert seen(0) == seen(1) and seen(0)[:2] == step
    assert current(page) == name, "Shift and an arrow leave the pair on screen"
    page.keyboard.press("ArrowRight")
    page.wait_for_function("name => document.querySelector('.review-stage').dataset.name !== name", arg=name)
    assert seen(0)[:2] == step, "the next pair at the same place"


def test_verdict_that_cannot_be_written_is_said_and_not_shown(serve, page, tmp_path):
    project = with_pairs(tmp_path / "p", 5)
    open_review(page, serve("--project", str(project.path)))
    page.route("**/act", lambda route: route.abort())
    judged = current(page)
    page.fill("#review-note textarea, #review-note input", "a dark rim")
    page.click("#review-accept")
    page.wait_for_selector("#review-message:not([hidden])")
    assert page.input_value("#review-note textarea, #review-note input") == "a dark rim"
    assert "not on record" in page.inner_text("#review-message") and current(page) == judged
    assert page.query_selector(".review-grid .cell.accepted") is None and read_judgements(project) == {}


@pytest.mark.slow
def test_two_thousand_pairs_stay_quick(serve, page, tmp_path):
    project = with_pairs(tmp_path / "p", 2000)
    url = serve("--project", str(project.path))
    page.goto(url)
    page.wait_for_selector("#page-state[data-view=work]", state="attached")
    page.wait_for_timeout(3000)
    started = time.perf_counter()
    page.click("#tab-review-button")
    page.wait_for_selector(".review-grid .cell img")
    first_paint = time.perf_counter() - started
    page.locator(".review-stage").click()
    times = sorted(press(page, "ArrowRight") for _ in range(20))
    assert first_paint < 5 and times[10] < 1000, f"{first_paint:.2f} s and {times} ms: far above an idle machine's"


def test_pairs_that_are_drawn_meanwhile_join_the_grid_and_nothing_else_moves(serve, page, tmp_path):
    project = with_pairs(tmp_path / "p", 5)
    open_review(page, serve("--project", str(project.path)))
    page.keyboard.press("a")
    page.wait_for_selector("#review-progress:has-text('1 of 5')")
    page.locator(".review-grid .cell").nth(2).focus()
    shown, focused = current(page), "document.activeElement.dataset.name"
    before = page.evaluate(focused)
    page.evaluate("document.querySelector('.review-stage').dataset.kept = 'yes'")
    project.add_synthetic_pair(make_pair("synthetic-9999", size=64, seed=9), {})
    page.wait_for_function("document.querySelectorAll('.review-grid .cell').length === 6")
    assert current(page) == shown and page.evaluate(focused) == before
    assert page.get_attribute(".review-stage", "data-kept") == "yes"
    assert page.locator(".review-grid .cell.accepted").count() == 1
