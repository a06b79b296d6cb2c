import re
from dataclasses import replace

import numpy as np
import pytest

from tests.conftest import make_pair
from univg.cli import main
from univg.errors import InputError
from univg.io import write_image
from univg.progress import ProgressEvent
from univg.types import Modality
from univg.workflow.job_context import JobContext
from univg.workflow.job_records import write_record
from univg.workflow.jobs import JobState, start_job, wait_for
from univg.workflow.project import Project
from univg.workflow.summary import summary_html


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("UNIVG_STATE", str(tmp_path / "state"))
    project = Project.create(tmp_path / "Mrs Miller", modality=Modality.OCTA, working_size=64)
    project.add_support_pair(make_pair("eye 1"))
    return project


def test_report_is_one_file_that_needs_nothing_else(project, tmp_path, capsys):
    job = wait_for(start_job(project, "selftest", {"steps": 2, "seconds_per_step": 0.0}), timeout=60)
    assert job.state is JobState.DONE
    (job.folder / "pictures").mkdir()
    write_image(job.folder / "pictures" / "a.png", np.zeros((8, 8), np.uint8))
    with JobContext(job.folder) as context:
        for step in range(1, 4):
            context.on_progress(
                ProgressEvent("segmenter", step, 3, metrics={"loss": 1 / step, "held_out_dice": 0.1 * step})
            )
        context.on_progress(ProgressEvent("pairs", 1, 1, picture="pictures/a.png"))
        context.on_progress(ProgressEvent("pairs", 1, 1, picture="../../project.json"))
    output = tmp_path / "report.html"
    assert main(["jobs", "report", job.id, "--project", str(project.path), "-o", str(output)]) == 0
    html = output.read_text()
    assert html.count("data:image/png;base64,") == 1 and "<svg" in html
    assert not re.search(r'(src|href)="(?!data:|#)', html), "everything is inside"
    assert "Mrs Miller" not in html and str(tmp_path) not in html, "no folder is named"
    assert "seconds_per_step" in html and "segmenter" in html
    again = ["jobs", "report", job.id, "--project", str(project.path), "-o"]
    assert main([*again, str(output)]) == 0
    (tmp_path / "mine.html").write_text("mine")
    assert main([*again, str(tmp_path / "mine.html")]) == 2 and (tmp_path / "mine.html").read_text() == "mine"


@pytest.mark.parametrize("elsewhere", [False, True])
def test_report_of_a_failed_run_names_no_folder(project, elsewhere, tmp_path):
    job = wait_for(start_job(project, "selftest", {"steps": 1, "seconds_per_step": 0.0}), timeout=60)
    folder = tmp_path / "Mr Smith" if elsewhere else project.path
    error = InputError("It is damaged", path=folder / "a.png", fix="Export it again.")
    record = replace(job.record, state=JobState.FAILED, error=str(error), error_without_path=error.without_path)
    write_record(job.folder, record)
    html = summary_html(project, job.refreshed())
    assert "It is damaged. Export it again." in html and "Mr" not in html and str(tmp_path) not in html


def test_images_held_out_in_napari_are_counted_not_named(project):
    job = wait_for(start_job(project, "selftest", {"steps": 1, "held_out": ["Mr Smith", "Anna"]}), timeout=60)
    html = summary_html(project, job)
    assert "2 images" in html and "Smith" not in html and "Anna" not in html


def test_address_of_a_cluster_and_the_weight_of_each_pair_are_left_out(project):
    params = {"steps": 1, "scheduler": "tcp://miller-desk:8786", "pairs": ["a", "b"], "weights": [0.123, 0.5]}
    html = summary_html(project, wait_for(start_job(project, "selftest", params), timeout=60))
    assert "2 synthetic pairs" in html and "miller-desk" not in html and "0.123" not in html


def test_seconds_of_a_resumed_run_are_said_to_be_those_of_its_last_attempt(project):
    job = wait_for(start_job(project, "selftest", {"steps": 1, "seconds_per_step": 0.0}), timeout=60)
    assert "<th>took</th>" in summary_html(project, job)
    write_record(job.folder, replace(job.record, attempt=2))
    html = summary_html(project, job.refreshed())
    assert "<th>last attempt took</th>" in html and "<th>took</th>" not in html


def test_names_are_escaped(project):
    job = wait_for(start_job(project, "selftest", {"steps": 1, "note": "<script>"}), timeout=60)
    assert "<script>" not in summary_html(project, job)
