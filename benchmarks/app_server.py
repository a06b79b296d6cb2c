"""The app as a process of its own, and Chromium to look at it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_CHROMIUM_FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
_START_SECONDS = 180.0


class AppServer:
    """``python -m app`` on a project, for the length of a ``with`` block; `scratch` holds its state."""

    def __init__(self, project: Path, scratch: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        self._command = [sys.executable, "-m", "app", "--project", str(project), "--port", str(port), "--no-browser"]
        self._environment = {**os.environ, "UNIVG_STATE": str(scratch / "state"), "UNIVG_PROJECTS": str(scratch)}

    def __enter__(self) -> AppServer:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait(20)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self._process = subprocess.Popen(self._command, cwd=ROOT, env=self._environment)
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(self.address, timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        raise SystemExit("The app did not start.")

    def kill(self) -> None:
        """End the server as a power cut would."""
        self._process.kill()
        self._process.wait(20)


@contextmanager
def chromium() -> Iterator:
    """A browser of Playwright's."""
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        raise SystemExit("This needs Chromium: install it, or put it on the PATH.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=_CHROMIUM_FLAGS)
        yield browser
        browser.close()
