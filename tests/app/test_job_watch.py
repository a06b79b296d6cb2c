"""The list of jobs that the page asks for many times with each tick."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from app.gradio_ui import job_watch
from univg.workflow import jobs
from univg.workflow.job_records import JobRecord, JobState, write_record
from univg.workflow.project import Project


@pytest.fixture
def project(tmp_path):
    project = Project.create(tmp_path / "p", modality="octa", working_size=64)
    for number in range(3):
        add_job(project, number, JobState.DONE)
    return project


def add_job(project, number, state):
    """A job whose process is this one."""
    folder = project.jobs_folder / f"20260101-00000{number}-trees-0000"
    (folder / "checkpoint").mkdir(parents=True)
    record = JobRecord("trees", {}, f"2026-01-01T00:00:0{number}Z", state).worked_on_by(os.getpid())
    write_record(folder, record)
    os.utime(project.jobs_folder, (1e9 + number,) * 2)  # long ago
    return folder, record


def states(project):
    return [str(job.state) for job in job_watch.list_jobs(project)]


def test_finished_jobs_are_read_once(project, monkeypatch):
    for _ in range(2):
        assert states(project) == ["done"] * 3
    monkeypatch.setattr(jobs.Job, "load", lambda folder: pytest.fail("read again"))
    assert states(project) == ["done"] * 3


def test_every_change_of_a_job_is_seen_at_once(project):
    states(project)
    folder, record = add_job(project, 4, JobState.RUNNING)
    assert states(project) == ["running", "done", "done", "done"]
    assert job_watch.active_job(project).folder == folder
    (folder / "cancel").touch()
    assert states(project)[0] == "cancelling"
    write_record(folder, replace(record, state=JobState.CANCELLED))
    for _ in range(2):
        assert states(project)[0] == "cancelled" and job_watch.active_job(project) is None
    (folder / "cancel").unlink()
    write_record(folder, replace(record, attempt=2))  # gone on with
    assert states(project)[0] == "running" and job_watch.latest_job(project, "trees").attempt == 2


def test_a_job_that_has_just_been_made_is_not_missed(project):
    states(project)
    os.utime(project.jobs_folder)  # now
    states(project)
    stamp = project.jobs_folder.stat()
    add_job(project, 5, JobState.RUNNING)
    os.utime(project.jobs_folder, ns=(stamp.st_mtime_ns,) * 2)  # within the same step of the folder's time
    assert states(project)[0] == "running"
