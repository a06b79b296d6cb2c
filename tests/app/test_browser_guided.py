"""The guide, the check before a run and the pause for a review, with a real browser and a real training."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tiny_engines import write_tiny_engines
from tests.univg.test_generate import made_up_pair
from univg.io import read_json
from univg.types import Modality
from univg.weights import is_shipped
from univg.workflow.jobs import JobState, list_jobs, start_job, wait_for
from univg.workflow.project import Project
from univg.workflow.sample import create_sample_project

pytestmark = pytest.mark.browser


def open_page(page, url):
    page.goto(url)
    page.wait_for_selector("#page-state[data-view]", state="attached")


def test_guide_leads_by_keyboard_and_stays_closed(serve, page, tmp_path):
    url = serve()
    open_page(page, url)
    page.wait_for_selector("#guide li[aria-current=step]:has-text('Open')")
    page.click("#open-sample")
    page.wait_for_selector("#guide li[aria-current=step]:has-text('Data')")
    page.wait_for_selector("#data-picture img")
    strip, picture = page.locator("#guide").bounding_box(), page.locator("#data-picture").bounding_box()
    assert strip["y"] + strip["height"] <= picture["y"], "the guide covers the picture"
    for button in ("next", "show"):
        page.wait_for_selector(f"#guide-{button}")
        page.focus(f"#guide-{button}")
        page.keyboard.press("Enter")
        page.wait_for_selector("#guide li[aria-current=step]:has-text('Adapt')")
    page.wait_for_selector("#tab-adapt-button[aria-selected=true]")
    for width, height in ((1440, 900), (1024, 768)):
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    page.focus("#guide-close")
    page.keyboard.press("Enter")
    page.wait_for_selector("#guide", state="hidden")
    open_page(page, url)
    page.wait_for_selector("#tab-adapt-button[aria-selected=true]")
    page.wait_for_timeout(1500)
    assert not page.is_visible("#guide")
    assert read_json(tmp_path / "state" / "guide.json") == {"closed": True}
    page.click("#open-guide")
    page.wait_for_selector("#guide li[aria-current=step]")


def test_check_tells_problems_and_only_what_is_impossible_blocks(serve, page, projects_folder):
    project = create_sample_project(projects_folder / "check")
    open_page(page, serve("--project", str(project.path)))
    page.click("#tab-adapt-button")
    page.wait_for_selector("#preflight .good:has-text('5 images')")

    # Another image's mask, and one pair fewer: told, not refused
    project.replace_support_mask("sample-1", np.ascontiguousarray(project.support_pair("sample-2").mask[::-1]))
    project.remove_support_pair("sample-5")
    page.wait_for_selector("#preflight li.warning:has-text('sample-1')")
    page.wait_for_selector("#preflight li.warning:has-text('4 annotated images')")
    assert page.is_enabled("#adapt")

    # A file that cannot be read is in the way
    (project.support_folder / "masks" / "sample-3.png").write_bytes(b"broken")
    page.wait_for_selector("#preflight li.error:has-text('sample-3')")
    page.click("#adapt")
    page.wait_for_selector(".toast-body:has-text('sample-3')")
    assert list_jobs(project) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_pairs_wait_for_a_review_and_going_on_trains_with_it(serve, page, projects_folder, tmp_path):
    """With tiny engines of the project's own, so that it needs no weights but those of the prior."""
    project = Project.create(projects_folder / "waits", modality=Modality.CORONARY_DSA, working_size=64)
    for seed in range(3):
        project.add_support_pair(made_up_pair(seed))
    masks, images = write_tiny_engines(tmp_path / "models")
    params = {"mask_backbone": str(masks), "image_backbone": str(images), "mask_steps": 2, "image_steps": 2}
    params |= {"preset": "full", "seed": 0, "pairs": 4, "segmenter_steps": 6, "device": "cpu", "review": True}
    job = wait_for(start_job(project, "adapt", params), 400)
    assert job.waits_for == "review", job.error

    # Seen by a server that knew nothing of it
    open_page(page, serve("--project", str(project.path)))
    page.click("#tab-adapt-button")
    page.wait_for_selector("#adapt-status .waits:has-text('4 pairs wait for your review')")
    page.wait_for_selector("#stages li.now:has-text('Review')")
    page.wait_for_selector("#held-out-picture img")
    page.click("#go-to-review")
    page.wait_for_selector(".review-stage")
    page.locator(".review-stage").click()
    rejected = page.get_attribute(".review-stage", "data-name")
    page.keyboard.press("r")
    page.wait_for_function("name => document.querySelector('.review-stage')?.dataset.name !== name", arg=rejected)
    page.keyboard.press("a")
    page.wait_for_selector("#review-progress:has-text('2 of 4')")
    page.click("#tab-adapt-button")
    page.click("#resume:has-text('Go on')")
    page.wait_for_selector("#adapt-status .done", timeout=300_000)
    job = job.refreshed()
    assert job.state is JobState.DONE and project.segmenter_versions() == ["v001"]
    chosen = read_json(job.folder / "checkpoint" / "stages.json")["chosen"]["weights"]
    assert rejected not in chosen and len(chosen) >= 1


@pytest.mark.slow
@pytest.mark.skipif(not is_shipped("models", "images"), reason="the image engine's weights are not here")
def test_full_run_is_offered_with_its_pause_and_its_settings(serve, page, projects_folder):
    project = create_sample_project(projects_folder / "full")
    open_page(page, serve("--project", str(project.path)))
    page.click("#tab-adapt-button")
    page.click("#preset label:has-text('Full')")
    page.check("#review-pause input")
    page.click("#full-settings button")
    page.fill("#full-pairs input", "8")
    page.click("#adapt")
    page.wait_for_selector("#stages li:has-text('Review')")
    page.click("#cancel:not([disabled])")
    page.wait_for_selector("#adapt-status .status.cancelled", timeout=120_000)
    (job,) = list_jobs(project)
    assert job.params["review"] is True and job.params["pairs"] == 8 and job.waits_for is None
