"""Fifty pairs judged by keys in a real browser, and a training that minds it."""

from __future__ import annotations

import time
import zipfile

import numpy as np
import pytest

from tests.conftest import make_pair
from univg.io import read_json
from univg.sca import generate_mask
from univg.types import ImageMaskPair, Modality
from univg.weights import is_shipped
from univg.workflow.model_versions import active_segmenter
from univg.workflow.project import Project
from univg.workflow.verdicts import pairs_that_train, read_judgements

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not is_shipped("models", "images"), reason="the image engine's weights are not here"),
]


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


def press(page, key):
    """Press a key and wait until another pair is on screen; returns the milliseconds that took."""
    before, started = current(page), time.perf_counter()
    page.keyboard.press(key)
    page.wait_for_function("name => document.querySelector('.review-stage')?.dataset.name !== name", arg=before)
    return 1000 * (time.perf_counter() - started)


def test_fifty_pairs_by_keyboard_then_a_training_without_the_rejected(serve, page, tmp_path):
    project = with_pairs(tmp_path / "p", 50)
    open_review(page, serve("--project", str(project.path)))
    page.locator(".review-stage").click()
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
    page.click("#review-export button")
    with page.expect_download(timeout=60_000) as download:
        page.click("#review-export-go")
    names = zipfile.ZipFile(download.value.path()).namelist()
    assert sum(name.startswith("masks/") and name.endswith(".png") for name in names) == 3 + len(
        pairs_that_train(project)
    )
    page.locator(".review-stage").click()
    page.keyboard.press("o")
    assert page.evaluate("document.body.classList.contains('no-layer')")

    page.check("#review-effort input[value=preview]")
    page.click("#review-retrain")
    page.wait_for_selector("#review-status .done", timeout=240_000)
    (job,) = (path for path in project.jobs_folder.iterdir() if path.is_dir())
    trained = set(read_json(job / "job.json")["params"]["pairs"])
    assert not trained & rejected and len(trained) >= 30
    card = read_json(project.segmenters_folder / "v001" / "segmenter.json")["card"]
    assert card["synthetic_pairs"] == len(trained)
    assert active_segmenter(project).name == "v001"


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
