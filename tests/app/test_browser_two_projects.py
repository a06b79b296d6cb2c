"""Two pages, two projects, one device: jobs wait their turn, and each page shows its own project alone."""

from __future__ import annotations

import pytest

from tests.conftest import make_pair
from univg.types import Modality
from univg.workflow.jobs import JobState, cancel_job, list_jobs, start_job, wait_for
from univg.workflow.project import Project

pytestmark = pytest.mark.browser

SLOW = {"steps": 4000, "seconds_per_step": 0.02}
QUICK = {"steps": 3, "seconds_per_step": 0.0}


def project_named(folder, name, seed):
    project = Project.create(folder / name, modality=Modality.CORONARY_DSA, working_size=64)
    project.add_support_pair(make_pair(f"image of {name}", seed=seed))
    return project


def choose_project(page, url, folder):
    page.goto(url)
    page.wait_for_selector("#page-state[data-view]", state="attached")
    if page.get_attribute("#page-state", "data-view") == "work":  # a new page opens the project that was opened last
        page.click("#switch-project")
    page.wait_for_selector("#page-state[data-view=start]", state="attached")
    page.fill("#open-path input, #open-path textarea", str(folder))
    page.click("#open-project")
    page.wait_for_selector(f"#header-title .project:has-text('{folder.name}')")


def test_nothing_of_a_project_is_left_after_switching(serve, page, projects_folder):
    first, second = (project_named(projects_folder, name, seed) for seed, name in enumerate(("alpha", "beta")))
    choose_project(page, serve(), first.path)
    page.click("#tab-review-button")
    page.click("#review-filter label:has-text('Rejected')")
    page.click("#tab-data-button")
    page.fill("#data-opacity input[type=number]", "30")
    page.keyboard.press("Tab")
    page.click("#switch-project")
    page.wait_for_selector("#page-state[data-view=start]", state="attached")
    # A folder that cannot be opened stays in its field until something else is chosen, which then counts
    page.fill("#open-path input, #open-path textarea", str(projects_folder / "nowhere"))
    page.click("#open-project")
    page.wait_for_selector("text=There is no such folder")
    page.click("#recent input")
    page.click("[role=option]:has-text('beta')")
    page.wait_for_function("document.querySelector('#open-path input, #open-path textarea').value === ''")
    with page.expect_navigation():
        page.click("#open-project")
    page.wait_for_selector("#header-title .project:has-text('beta')")
    page.wait_for_selector("#page-state[data-view=work]", state="attached")
    assert page.input_value("#data-opacity input[type=number]") != "30"
    page.click("#tab-review-button")
    assert page.is_checked("#review-filter label:has-text('All') input")
    assert second.support_names() == ["image of beta"]


def test_two_pages_with_a_project_each(serve, page, browser, projects_folder):
    first, second = (project_named(projects_folder, name, seed) for seed, name in enumerate(("alpha", "beta")))
    url = serve()
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    other = context.new_page()
    try:
        choose_project(page, url, first.path)
        choose_project(other, url, second.path)
        running = start_job(first, "selftest", SLOW)
        page.wait_for_selector("#job-chip .chip:has-text('%')")
        waiting = start_job(second, "selftest", QUICK)
        # The one page shows work, the other that it waits and for how many; neither shows the other's
        other.wait_for_selector("#job-chip .chip:has-text('1 job ahead')")
        assert "ahead" not in page.inner_text("#job-chip")
        assert "beta" not in page.inner_text("#header") and "alpha" not in other.inner_text("#header")
        assert waiting.refreshed().state is JobState.QUEUED
        # When the first ends, the second one has its turn, and both pages say so
        page.click("#header-cancel")
        assert wait_for(running, 60).state is JobState.CANCELLED
        waiting = wait_for(waiting, 60)
        assert waiting.state is JobState.DONE and waiting.started >= running.refreshed().finished
        for seen in (page, other):
            seen.wait_for_selector("#job-chip .chip", state="detached")
    finally:
        context.close()
        for project in (first, second):
            for job in list_jobs(project):
                if not job.state.finished:
                    cancel_job(job)
    # Nothing was mixed
    assert [job.id for job in list_jobs(first)] == [running.id]
    assert [job.id for job in list_jobs(second)] == [waiting.id]
    assert first.support_names() == ["image of alpha"] and second.support_names() == ["image of beta"]
