"""A real server and a real browser; tests that need the latter are skipped without Chromium."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HOST = "127.0.0.1"


@pytest.fixture
def projects_folder(tmp_path, monkeypatch):
    """Where the app keeps projects during a test; jobs do not wait for those of other programs."""
    folder = tmp_path / "projects"
    folder.mkdir()
    monkeypatch.setenv("UNIVG_PROJECTS", str(folder))
    monkeypatch.setenv("UNIVG_STATE", str(tmp_path / "state"))
    return folder


@pytest.fixture
def serve(projects_folder, tmp_path):
    """A function that starts ``python -m app`` with some arguments and returns the address of the page."""
    processes = []

    def start(*arguments: str) -> str:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port = probe.getsockname()[1]
        log = (tmp_path / "app.log").open("ab")
        command = [sys.executable, "-m", "app", *arguments, "--port", str(port), "--no-browser"]
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=dict(os.environ))
        processes.append(process)
        url = f"http://{HOST}:{port}"
        wait_until_it_answers(url, process, tmp_path / "app.log")
        return url

    yield start
    for process in processes:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.fixture(scope="session")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser):
    """An empty page; afterwards, that nothing but this machine was asked for anything, and no script failed."""
    context = browser.new_context(viewport={"width": 1440, "height": 900}, color_scheme="light")
    context.set_default_timeout(120_000)  # a page of a busy machine may take its time
    hosts, errors = set(), []
    page = context.new_page()
    context.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert hosts <= {HOST, None, ""}, hosts
    assert not errors


def wait_until_it_answers(url: str, process: subprocess.Popen, log: Path, seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"The app ended with {process.returncode}:\n{log.read_text()}")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(f"The app did not answer within {seconds:g} s:\n{log.read_text()}")
