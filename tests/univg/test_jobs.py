from __future__ import annotations

import argparse
import errno
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import psutil
import pytest
from filelock import FileLock

from univg.commands import jobs as jobs_command
from univg.commands.options import ProgressLine
from univg.errors import Cancelled, InputError, JobRunningError
from univg.progress import ProgressEvent
from univg.workflow import (
    EventReader,
    Job,
    JobContext,
    JobState,
    Project,
    cancel_job,
    device_queue,
    find_job,
    job_runner,
    jobs,
    list_jobs,
    resume_job,
    start_job,
    wait_for,
)
from univg.workflow.device_queue import device_turn, queue_folder
from univg.workflow.job_records import DIED, DISK_FULL, UNREADABLE, JobRecord, read_record, write_record

QUICK = {"steps": 4, "seconds_per_step": 0.0}
LONG = {"steps": 2000, "seconds_per_step": 0.02}
SECONDS = 20.0

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")


@pytest.fixture(autouse=True)
def own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("UNIVG_STATE", str(tmp_path / "state"))


@pytest.fixture
def make_project(tmp_path):
    made = []

    def make(name="project"):
        made.append(Project.create(tmp_path / name, modality="oct"))
        return made[-1]

    yield make
    for project in made:
        for job in list_jobs(project):
            if not job.state.finished and job.record.pid != os.getpid():
                psutil.Process(job.record.pid).kill()
                wait_for(job, SECONDS)


@pytest.fixture
def project(make_project):
    return make_project()


def wait_until(condition, seconds=SECONDS):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def wait_for_step(job, step):
    wait_until(lambda: (event := job.latest_event()) is not None and event.step >= step)


def kill(job):
    """Like a power cut: the process has no chance to say anything."""
    psutil.Process(job.refreshed().record.pid).kill()
    return wait_for(job, SECONDS)


def make_job_folder(project, name="20260101-000000-selftest-abcd", **fields):
    """A job as a process that is gone left it."""
    folder = project.jobs_folder / name
    (folder / "checkpoint").mkdir(parents=True)
    write_record(folder, JobRecord("selftest", QUICK, "2026-01-01T00:00:00.000000+00:00", **fields))
    return folder


class TestRunning:
    def test_to_done(self, project):
        job = start_job(project, "selftest", {"steps": 6, "seconds_per_step": 0.0, "seed": 3})
        assert job.state is JobState.QUEUED
        assert job.id.split("-")[2] == "selftest"
        job = wait_for(job, SECONDS)
        assert (job.state, job.error, job.attempt) == (JobState.DONE, None, 1)
        assert job.result()["steps"] == 6
        assert job.created < job.started < job.finished
        assert job.latest_event().fraction == 1
        assert job.events()[-1] == job.latest_event()
        assert job.log_file.read_text().count("\n") == 2
        assert [found.id for found in list_jobs(project)] == [job.id]
        assert {file.name for file in job.folder.iterdir()} >= {
            "job.json",
            "events.jsonl",
            "log.txt",
            "checkpoint",
        }

    def test_cancelled_then_resumed_equals_uninterrupted(self, make_project):
        params = {"steps": 40, "seconds_per_step": 0.01, "seed": 7}
        straight = start_job(make_project("straight"), "selftest", params)
        straight = wait_for(straight, SECONDS)
        job = start_job(make_project("stopped"), "selftest", params)
        wait_for_step(job, 7)
        assert cancel_job(job).state in (JobState.CANCELLING, JobState.CANCELLED)
        job = wait_for(job, SECONDS)
        assert (job.state, job.error, job.result()) == (JobState.CANCELLED, None, None)
        job = wait_for(resume_job(job), SECONDS)
        assert (job.state, job.attempt, job.params) == (JobState.DONE, 2, params)
        assert job.result() == straight.result()

    @posix_only
    def test_killed_then_resumed_equals_uninterrupted(self, make_project):
        params = {"steps": 60, "seconds_per_step": 0.01, "seed": 1}
        straight = start_job(make_project("straight"), "selftest", params)
        straight = wait_for(straight, SECONDS)
        moments = random.Random(4)
        killed = make_project("killed")
        job = start_job(killed, "selftest", params)
        for _ in range(3):
            wait_until(lambda: find_job(killed).state is JobState.RUNNING)
            time.sleep(moments.uniform(0, 0.15))
            job = kill(job)
            assert (job.state, job.error) == (JobState.FAILED, DIED)
            job = resume_job(job)
        job = wait_for(job, SECONDS)
        assert (job.state, job.attempt) == (JobState.DONE, 4)
        assert job.result() == straight.result()

    @posix_only
    def test_outlives_the_terminal(self, project):
        script = (
            "import signal, sys, time; from univg.workflow import Project, start_job;"
            "signal.signal(signal.SIGHUP, signal.SIG_DFL);"  # where the tests run under nohup, it is ignored
            "start_job(Project.open(sys.argv[1]), 'selftest', {'steps': 30, 'seconds_per_step': 0.02});"
            "print('started', flush=True); time.sleep(60)"
        )
        terminal = subprocess.Popen(
            [sys.executable, "-c", script, str(project.path)], stdout=subprocess.PIPE, start_new_session=True
        )
        assert terminal.stdout.readline() == b"started\n"
        os.killpg(terminal.pid, signal.SIGHUP)
        terminal.communicate()
        assert wait_for(find_job(project), SECONDS).state is JobState.DONE

    @posix_only
    def test_leaves_the_processor_to_others(self, project):
        job = start_job(project, "selftest", LONG)
        wait_for_step(job, 1)
        own = psutil.Process().nice()
        assert psutil.Process(job.refreshed().record.pid).nice() >= max(own, 10)
        cancel_job(job)
        assert wait_for(job, SECONDS).state is JobState.CANCELLED

    @posix_only
    def test_terminate_signal_means_cancel(self, project):
        job = start_job(project, "selftest", LONG)
        wait_for_step(job, 2)
        os.kill(job.refreshed().record.pid, signal.SIGTERM)
        job = wait_for(job, SECONDS)
        assert job.state is JobState.CANCELLED
        assert json.loads((job.folder / "checkpoint" / "selftest.json").read_text())["done"] >= 2

    def test_error_of_the_user_is_the_reason(self, project):
        job = wait_for(start_job(project, "selftest", {"steps": 0}), SECONDS)
        assert job.state is JobState.FAILED
        assert "whole number of steps" in job.error
        log = job.log_file.read_text()
        assert "InputError" in log and "selftest.py" in log
        assert "got 0" in job.error and "got 0" not in log

    def test_unexpected_error_refers_to_the_log(self, project):
        job = wait_for(start_job(project, "selftest", {"steps": 5, "seconds_per_step": "x"}), SECONDS)
        assert job.state is JobState.FAILED
        assert "TypeError" in job.error and "log.txt" in job.error
        assert "TypeError" in job.log_file.read_text()

    def test_missing_project_settings_while_running(self, project):
        (project.path / "project.json").unlink()
        job = wait_for(start_job(project, "selftest", QUICK), SECONDS)
        assert job.state is JobState.FAILED
        assert "not a UniVG project" in job.error

    def test_unknown_device(self, project):
        job = wait_for(start_job(project, "selftest", {"device": "../tpu"}), 3 * SECONDS)
        assert "Unknown device" in job.error

    def test_wait_for_gives_up(self, project):
        job = start_job(project, "selftest", LONG)
        with pytest.raises(TimeoutError, match=job.id):
            wait_for(job, 0.05)


class TestStarting:
    def test_second_job_of_a_project_is_refused(self, project):
        job = start_job(project, "selftest", LONG)
        with pytest.raises(JobRunningError) as refusal:
            start_job(project, "selftest", QUICK)
        assert refusal.value.job_id == job.id
        with pytest.raises(JobRunningError):
            resume_job(job)

    def test_many_at_once_start_one(self, project):
        started, refused = [], []

        def start():
            try:
                started.append(start_job(project, "selftest", LONG))
            except JobRunningError:
                refused.append(1)

        threads = [threading.Thread(target=start) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(started), len(refused), len(list_jobs(project))) == (1, 5, 1)

    @pytest.mark.parametrize("kind", ["nonsense", "", "os:system"])
    def test_unknown_kind(self, project, kind):
        with pytest.raises(InputError, match="Unknown kind"):
            start_job(project, kind, {})
        assert list_jobs(project) == []

    def test_jobs_folder_cannot_be_made(self, project):
        project.jobs_folder.rmdir()
        project.jobs_folder.touch()
        with pytest.raises(InputError, match="Cannot write here"):
            start_job(project, "selftest", QUICK)

    def test_full_disk_leaves_no_half_job(self, project, monkeypatch):
        def refuse(*args, **kwargs):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "replace", refuse)
        with pytest.raises(InputError, match="Free some space"):
            start_job(project, "selftest", QUICK)
        assert [path.name for path in project.jobs_folder.iterdir()] == [jobs.JOBS_LOCK]

    def test_process_that_cannot_start_leaves_no_job(self, project, monkeypatch):
        monkeypatch.setattr(sys, "executable", str(project.path / "no-python"))
        with pytest.raises(InputError):
            start_job(project, "selftest", QUICK)
        assert list_jobs(project) == []

    def test_process_that_ends_at_once_is_shown_failed(self, project, monkeypatch):
        monkeypatch.setattr(jobs, "_command", lambda folder: [sys.executable, "-c", "raise SystemExit(1)"])
        job = wait_for(start_job(project, "selftest", QUICK), SECONDS)
        assert (job.state, job.error) == (JobState.FAILED, DIED)


class TestReading:
    @pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RUNNING])
    def test_process_that_is_gone(self, project, state):
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        folder = make_job_folder(project, state=state, pid=gone.pid, process_started=time.time())
        job = Job.load(folder)
        assert (job.state, job.error) == (JobState.FAILED, DIED)
        with pytest.raises(InputError, match="not running"):
            cancel_job(job)
        assert not (folder / "cancel").exists()

    def test_process_that_is_gone_from_a_full_disk(self, project, monkeypatch):
        folder = make_job_folder(project, state=JobState.RUNNING)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
        assert (Job.load(folder).state, Job.load(folder).error) == (JobState.FAILED, DISK_FULL)

    def test_reused_process_number(self, project):
        started = psutil.Process().create_time()
        mine = {"state": JobState.RUNNING, "pid": os.getpid()}
        folder = make_job_folder(project, **mine, process_started=started - 60)
        assert Job.load(folder).state is JobState.FAILED
        folder = make_job_folder(project, "20260101-000001-x", **mine, process_started=started)
        assert Job.load(folder).state is JobState.RUNNING
        (folder / "cancel").touch()
        assert Job.load(folder).state is JobState.CANCELLING
        write_record(folder, JobRecord("selftest", {}, "2026", JobState.DONE))
        assert Job.load(folder).state is JobState.DONE

    def test_copy_of_a_project_at_work_is_free(self, project):
        mine = JobRecord("selftest", {}, "2026", JobState.RUNNING).worked_on_by(os.getpid())
        folder = make_job_folder(project)
        write_record(folder, mine)
        copy = Project.open(shutil.copytree(project.path, project.path.with_name("copy")))
        assert (find_job(project).state, find_job(copy).state) == (JobState.RUNNING, JobState.FAILED)
        with FileLock(copy.jobs_folder / folder.name / ".run.lock"):  # of a drive that numbers folders anew
            assert find_job(copy).state is JobState.RUNNING
        job = wait_for(start_job(copy, "selftest", QUICK), SECONDS)
        assert job.state is JobState.DONE and find_job(project).state is JobState.RUNNING

    def test_job_of_another_computer_is_alive_while_it_holds_the_lock_or_writes(self, project):
        gone = {"pid": 99999999, "process_started": 5.0, "host": "0123abcd", "state": JobState.RUNNING}
        folder = make_job_folder(project, **gone)
        assert Job.load(folder).state is JobState.RUNNING
        for file in (folder / "job.json", folder / "events.jsonl"):
            file.touch()
            os.utime(file, (time.time() - 600,) * 2)
        assert (Job.load(folder).state, Job.load(folder).error) == (JobState.FAILED, DIED)
        assert not (folder / ".run.lock").exists(), "looking leaves nothing"
        with FileLock(folder / ".run.lock"):
            assert Job.load(folder).state is JobState.RUNNING
            with pytest.raises(JobRunningError):
                start_job(project, "selftest", QUICK)

    def test_record_from_before_hosts_were_recorded(self, project):
        mine = {"state": JobState.RUNNING, "pid": os.getpid()}
        folder = make_job_folder(project, **mine, process_started=psutil.Process().create_time())
        data = json.loads((folder / "job.json").read_text())
        assert data.pop("host") is None and data.pop("inode") == folder.stat().st_ino
        (folder / "job.json").write_text(json.dumps(data))
        assert Job.load(folder).state is JobState.RUNNING

    @pytest.mark.parametrize(
        "content",
        [None, b"", b"{", b"[]", b"{}", b"\xff", b'{"schema": 1, "kind": 3, "params": [], "created": ""}'],
    )
    def test_damaged_record_does_not_hide_the_others(self, project, content):
        make_job_folder(project, state=JobState.DONE, result={})
        bad = project.jobs_folder / "20260201-000000-adapt-0000"
        bad.mkdir()
        if content is not None:
            (bad / "job.json").write_bytes(content)
        newest, oldest = list_jobs(project)
        assert (newest.id, newest.state, newest.error) == (bad.name, JobState.FAILED, UNREADABLE)
        assert (newest.events(), newest.latest_event(), newest.result()) == ([], None, None)
        assert oldest.state is JobState.DONE
        with pytest.raises(InputError, match="unreadable"):
            resume_job(newest)

    def test_record_of_a_newer_version(self, project):
        folder = make_job_folder(project, state=JobState.DONE)
        data = json.loads((folder / "job.json").read_text())
        (folder / "job.json").write_text(json.dumps({**data, "schema": 99, "state": "paused"}))
        assert "newer version" in Job.load(folder).error

    def test_find_job(self, project):
        with pytest.raises(InputError, match="no jobs"):
            find_job(project)
        for name in ("20260101-000000-adapt-aa11", "20260102-000000-adapt-bb11"):
            make_job_folder(project, name, state=JobState.DONE)
        assert find_job(project).id == "20260102-000000-adapt-bb11"
        assert find_job(project, "20260101").id == find_job(project, "aa11").id == "20260101-000000-adapt-aa11"
        with pytest.raises(InputError, match="2 jobs match"):
            find_job(project, "11")
        with pytest.raises(InputError, match="No job matches"):
            find_job(project, "cc")
        with pytest.raises(InputError, match="no such job"):
            Job.load(project.jobs_folder / "other")


class TestResume:
    def test_done_job_is_refused(self, project):
        job = Job.load(make_job_folder(project, state=JobState.DONE, result={}))
        with pytest.raises(InputError, match="is done"):
            resume_job(job)

    def test_refused_while_another_runs(self, project):
        old = Job.load(make_job_folder(project, state=JobState.CANCELLED))
        running = start_job(project, "selftest", LONG)
        with pytest.raises(JobRunningError) as refusal:
            resume_job(old)
        assert refusal.value.job_id == running.id

    def test_kind_that_is_not_known_here(self, project):
        folder = make_job_folder(project)
        write_record(folder, JobRecord("levitate", {}, "2026", JobState.FAILED))
        with pytest.raises(InputError, match="Unknown kind"):
            resume_job(Job.load(folder))

    def test_torn_event_is_ignored_and_closed(self, project):
        folder = make_job_folder(project, state=JobState.FAILED, error="x")
        event = json.dumps(ProgressEvent("selftest", 1, 4).to_json())
        for torn in ('{"stage": "selftest", "st', '{"stage": "a", "step": 1, "total": 4, "metrics": {}'):
            (folder / "events.jsonl").write_text(f"{event}\n{torn}")
            assert [e.step for e in Job.load(folder).events()] == [1]
            assert Job.load(folder).latest_event().step == 1
        (folder / "cancel").touch()
        job = wait_for(resume_job(Job.load(folder)), SECONDS)
        assert (job.state, job.attempt, job.error) == (JobState.DONE, 2, None)
        events = job.events()
        assert len(events) >= 3
        assert (events[0].step, events[-1].step) == (1, 4)
        assert [job.events(after=n) for n in range(len(events))] == [events[n:] for n in range(len(events))]


class TestDevices:
    def test_jobs_of_several_projects_take_turns(self, make_project):
        running = start_job(make_project("a"), "selftest", LONG)
        wait_for_step(running, 1)
        waiting = [start_job(make_project("b"), "selftest", QUICK)]
        queue = queue_folder("cpu")
        wait_until(lambda: len(list(queue.glob("*.ticket"))) == 1)
        waiting.append(start_job(make_project("c"), "selftest", QUICK))
        wait_until(lambda: len(list(queue.glob("*.ticket"))) == 2)
        unwanted = start_job(make_project("d"), "selftest", QUICK)
        wait_until(lambda: len(list(queue.glob("*.ticket"))) == 3)
        cancel_job(unwanted)
        assert wait_for(unwanted, SECONDS).state is JobState.CANCELLED
        assert unwanted.refreshed().started is None
        assert [job.refreshed().state for job in waiting] == [JobState.QUEUED] * 2
        ended = kill(running)
        first, second = (wait_for(job, SECONDS) for job in waiting)
        assert (ended.state, first.state, second.state) == (JobState.FAILED, JobState.DONE, JobState.DONE)
        assert first.finished <= second.started
        assert list(queue.glob("*.ticket")) == []

    def test_no_state_folder_means_no_queue(self, tmp_path, monkeypatch):
        (tmp_path / "file").touch()
        monkeypatch.setenv("UNIVG_STATE", str(tmp_path / "file"))
        with device_turn("cpu", should_stop=lambda: False), device_turn("cpu", should_stop=lambda: False):
            pass

    def test_queue_is_of_one_computer_and_one_graphics_card(self, monkeypatch):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        first = queue_folder("cuda")
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
        assert queue_folder("cuda") == first
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-GPU-5/1/0")
        assert queue_folder("cuda").parent == first.parent and queue_folder("cuda") != first
        monkeypatch.setattr(device_queue, "this_host", lambda: "elsewhere")
        assert queue_folder("cpu").parent.name == "elsewhere" != first.parent.name

    def test_ticket_of_a_dead_process_is_passed_over(self):
        queue = queue_folder("cuda")
        queue.mkdir(parents=True)
        for name in ("0-99999999-5.0", "1-2", "1-x-y"):
            (queue / f"{name}.ticket").touch()
        with device_turn("cuda", should_stop=lambda: False):
            pass
        with device_turn("mps", should_stop=lambda: True):
            pass

    def test_stop_while_waiting(self, tmp_path):
        asked = []

        def wait_in_vain():
            try:
                with device_turn("cpu", should_stop=lambda: True):
                    pass
            except Cancelled:
                asked.append(1)

        with device_turn("cpu", should_stop=lambda: False):
            thread = threading.Thread(target=wait_in_vain)
            thread.start()
            thread.join()
        assert asked == [1]


class TestContext:
    def test_throttles_but_keeps_ends_and_pictures(self, tmp_path):
        with JobContext(tmp_path, seconds_between_events=3600) as context:
            for step in range(1, 6):
                context.on_progress(ProgressEvent("trees", step, 5))
            context.on_progress(ProgressEvent("pairs", 0, 0, "looking"))
            context.on_progress(ProgressEvent("pairs", 1, 9, picture="a.png"))
            context.on_progress(ProgressEvent("pairs", 2, 9))
            context.on_progress(ProgressEvent("pairs", 3, 9))
            context.on_progress(ProgressEvent("check", 1, 9))
            context.on_progress(ProgressEvent("check", 2, 9, metrics={"dice": 0.5}))
        events = EventReader(tmp_path).read_new()
        assert [(e.stage, e.step) for e in events] == [
            ("trees", 1), ("trees", 5), ("pairs", 1), ("pairs", 3), ("check", 2),
        ]  # fmt: skip
        assert events[-1].metrics == {"dice": 0.5}

    def test_reader_continues_where_it_was(self, tmp_path):
        reader = EventReader(tmp_path)
        assert reader.read_new() == []
        with JobContext(tmp_path, seconds_between_events=0) as context:
            for step in (1, 2):
                context.on_progress(ProgressEvent("s", step, 9))
            assert [e.step for e in reader.read_new()] == [1, 2]
            assert reader.read_new() == []
            context.on_progress(ProgressEvent("s", 3, 9))
        assert [e.step for e in reader.read_new()] == [3]
        lines = (tmp_path / "events.jsonl").read_text().splitlines()
        assert all(abs(json.loads(line)["time"] - time.time()) < 60 for line in lines)

    def test_latest_event_behind_a_long_file(self, tmp_path, project):
        folder = make_job_folder(project, state=JobState.DONE)
        with JobContext(folder, seconds_between_events=0) as context:
            for step in range(500):
                context.on_progress(ProgressEvent("s", step, 1000, "m" * 80))
        assert Job.load(folder).latest_event().step == 499
        assert len(Job.load(folder).events(after=490)) == 10

    def test_should_stop(self, tmp_path):
        with JobContext(tmp_path) as context:
            assert not context.should_stop()
            (tmp_path / "cancel").touch()
            assert context.should_stop()


class TestRunner:
    @pytest.mark.parametrize(
        ("error", "words"),
        [
            (InputError("Bad mask", fix="Draw it again."), "Bad mask. Draw it again."),
            (MemoryError(), "computer ran out of memory"),
            (type("OutOfMemoryError", (RuntimeError,), {})("CUDA"), "graphics card ran out of memory"),
            (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), "graphics card ran out of memory"),
            (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "computer ran out of memory"),
            (OSError(errno.ENOSPC, "x"), "disk is full"),
            (ZeroDivisionError("secret"), "ZeroDivisionError"),
        ],
    )
    def test_reasons(self, error, words):
        assert words in job_runner.failure_reason(error)
        assert "secret" not in job_runner.failure_reason(error)

    def test_trace_names_no_file_of_the_user(self, tmp_path):
        secret = tmp_path / "smith.png"
        try:
            try:
                secret.read_bytes()
            except OSError as error:
                raise InputError("Cannot read", path=secret) from error
        except InputError as error:
            trace = job_runner._anonymous_trace(error)
        assert "smith" not in trace
        assert "FileNotFoundError: No such file" in trace

    def test_finished_job_is_not_run_again(self, project):
        folder = make_job_folder(project, state=JobState.DONE, result={"x": 1})
        assert job_runner.run_job(folder) == job_runner.NOT_STARTED
        assert read_record(folder).result == {"x": 1}

    def test_lock_of_a_killed_process_is_waited_for(self, project, monkeypatch):
        monkeypatch.setattr(job_runner, "_stop_on_signals", lambda context: None)
        folder = make_job_folder(project)
        held = FileLock(folder / ".run.lock", thread_local=False)
        held.acquire()
        freeing = threading.Timer(0.4, held.release)
        freeing.start()
        assert job_runner.run_job(folder) == 0
        freeing.join()

    def test_job_of_a_living_process_is_left_to_it(self, project, monkeypatch):
        monkeypatch.setattr(job_runner, "SECONDS_FOR_THE_LAST", 0.1)
        folder = make_job_folder(project)
        with FileLock(folder / ".run.lock"):
            assert job_runner.run_job(folder) == job_runner.NOT_STARTED

    def test_outcome_that_cannot_be_written(self, project, monkeypatch, caplog):
        folder = make_job_folder(project)

        def refuse(folder, record):
            if record.state.finished:
                raise InputError("Cannot write", path=folder)
            write_record(folder, record)

        monkeypatch.setattr(job_runner, "write_record", refuse)
        monkeypatch.setattr(job_runner, "_stop_on_signals", lambda context: None)
        assert job_runner.run_job(folder) == 1
        assert "InputError" in caplog.text
        assert str(project.path) not in caplog.text

    def test_wrong_arguments(self, capsys):
        assert job_runner.main(["walk"]) == 2
        assert "usage" in capsys.readouterr().err


class TestCommand:
    def command(self, *arguments):
        parser = argparse.ArgumentParser()
        jobs_command.add_parser(parser.add_subparsers())
        args = parser.parse_args(["jobs", *arguments])
        return args.run(args)

    def test_selftest_list_show_watch(self, project, capsys, monkeypatch):
        monkeypatch.setattr(jobs_command, "POLL_SECONDS", 0.05)
        where = ("--project", str(project.path))
        assert self.command("list", *where) == 0
        assert "no jobs" in capsys.readouterr().out
        assert self.command("selftest", *where) == 0
        assert "selftest 50/50 | Adding random numbers" in capsys.readouterr().out
        assert self.command("list", *where) == 0
        assert "done        selftest 50/50" in capsys.readouterr().out
        assert self.command("show", *where) == 0
        assert "result      {'steps': 50" in capsys.readouterr().out
        assert self.command("watch", find_job(project).id[-4:], *where) == 0

    def test_cancel_then_watch_then_resume(self, project, capsys):
        start_job(project, "selftest", LONG)
        where = ("--project", str(project.path))
        assert self.command("cancel", *where) == 0
        assert "cancelled" in capsys.readouterr().out
        assert self.command("watch", *where) == 130
        with pytest.raises(InputError, match="not running"):
            self.command("cancel", *where)
        make_job_folder(project, "20990101-000000-selftest-ffff", state=JobState.FAILED, error="x")
        assert self.command("resume", *where) == 0

    def test_without_an_id_the_job_at_work_is_cancelled_not_the_newest(self, project, capsys):
        job = start_job(project, "selftest", LONG)
        make_job_folder(project, "20990101-000000-selftest-ffff", state=JobState.FAILED, error="x")
        assert self.command("cancel", "--project", str(project.path)) == 0
        assert job.id in capsys.readouterr().out
        assert wait_for(job, SECONDS).state is JobState.CANCELLED

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [(["show", "-o", "x.html"], "-o is of report"), (["list", "abc"], "list"), (["selftest", "abc"], "selftest")],
    )
    def test_what_would_be_ignored_is_refused(self, project, arguments, words):
        with pytest.raises(InputError, match=words):
            self.command(*arguments, "--project", str(project.path))
        assert list_jobs(project) == []

    @pytest.mark.parametrize("terminal", [False, True])
    def test_progress_takes_a_line_a_stage(self, terminal):
        stream = io.StringIO()
        stream.isatty = lambda: terminal
        show = ProgressLine(stream, seconds_between=60)
        for step in (1, 2, 3):
            show(ProgressEvent("trees", step, 3))
        for step in (1, 2):
            show(ProgressEvent("pairs", step, 3))
        show.end()
        show.end()
        if terminal:
            last = [line.split("\r")[-1] for line in stream.getvalue().split("\n")]
            assert last == ["\033[Ktrees 3/3", "\033[Kpairs 2/3", ""]
        else:
            assert stream.getvalue().splitlines() == ["trees 1/3", "trees 3/3", "pairs 1/3"]

    def test_interrupt_ends_the_watching_only(self, project, capsys, monkeypatch):
        job = start_job(project, "selftest", LONG)

        def interrupt(seconds):
            raise KeyboardInterrupt

        monkeypatch.setattr(jobs_command.time, "sleep", interrupt)
        assert jobs_command.watch(job) == 0
        monkeypatch.undo()
        said = capsys.readouterr().out
        assert f"goes on; `univg jobs cancel {job.id} --project {project.path}`" in said
        assert not job.refreshed().state.finished


@pytest.mark.parametrize(
    ("kind", "params", "key"),
    [("retrain", {}, "cuda"), ("adapt", {"device": "cpu"}, "cpu"), ("trees", {}, "cpu"), ("selftest", {}, "cpu")],
)
def test_jobs_that_name_no_device_wait_for_the_one_they_will_use(monkeypatch, kind, params, key):
    monkeypatch.setattr("univg.training.device.resolve_device", lambda name: SimpleNamespace(type="cuda"))
    assert job_runner._device_key(JobRecord(kind, params, "")) == key
