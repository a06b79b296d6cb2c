"""Serving the page on this machine only."""

from __future__ import annotations

import logging
import os
import platform
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import webbrowser
from pathlib import Path

import psutil

from app.gradio_ui.gradio_import import leave_interface_files_alone
from univg.errors import InputError
from univg.workflow.project import Project

HOST = "127.0.0.1"
FIRST_PORT = 7860
_PORTS_TRIED = 100
_MAX_UPLOAD = "1gb"
# And the process, of the folder with what a server keeps while it runs. Computers and containers may share the place.
_FOLDER = f"univg-app-{re.sub('[^0-9A-Za-z]', '', platform.node())}-"


def quiet_environment(folder: Path) -> None:
    """Settings that must be made before Gradio is imported: no calls home, files in a folder that is removed again."""
    os.environ.update(
        GRADIO_ANALYTICS_ENABLED="False",
        GRADIO_TEMP_DIR=str(folder / "cache"),
        GRADIO_RUN_HISTORY="False",
        HF_HUB_OFFLINE="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        DO_NOT_TRACK="1",
    )
    leave_interface_files_alone()
    for name in ("httpx", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Its stack traces quote messages, and so names of files; what goes wrong in a handler is logged without them.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)


def find_port(wanted: int | None) -> int:
    """`wanted`, which must be free, or the first free port from `FIRST_PORT`."""
    candidates = range(FIRST_PORT, FIRST_PORT + _PORTS_TRIED) if wanted is None else [wanted]
    for port in candidates:
        with socket.socket() as probe:
            if sys.platform != "win32":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except (OSError, OverflowError):
                continue
            return port
    if wanted is None:
        raise InputError(
            f"No port from {FIRST_PORT} to {FIRST_PORT + _PORTS_TRIED - 1} is free", fix="Name one: --port."
        )
    raise InputError(f"Port {wanted} is in use or may not be used", fix="Choose another, or leave --port out.")


def serve(project: Project | None, *, port: int | None, open_browser: bool, announce) -> None:
    """Serve until interrupted; ``announce(url)`` is called once the page answers."""
    port = find_port(port)
    remove_left_behind(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-"))
    stopped, shut_down = threading.Event(), None
    for name in ("SIGINT", "SIGTERM", "SIGBREAK", "SIGHUP"):
        # What is ignored stays ignored: nohup protects a server from the end of its terminal in this way.
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is not signal.SIG_IGN:
            signal.signal(getattr(signal, name), lambda *_: stopped.set())
    try:
        quiet_environment(folder)
        page, shut_down = _launch(project, folder, port)
        url = f"http://{HOST}:{port}"
        announce(url)
        if open_browser:
            webbrowser.open(url)
        while not stopped.wait(0.5):  # on Windows a wait without an end is not woken by Ctrl+C
            pass
        page.close(verbose=False)
    finally:
        if shut_down is not None:
            shut_down()
        shutil.rmtree(folder, ignore_errors=True)


def remove_left_behind(parent: Path) -> None:
    """Remove the folders in `parent` of servers that were killed: they hold copies of images."""
    for folder in parent.glob(f"{_FOLDER}*"):
        pid = folder.name.removeprefix(_FOLDER).split("-")[0]
        if pid.isdecimal() and folder.is_dir() and not folder.is_symlink() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _launch(project: Project | None, folder: Path, port: int):
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from app.gradio_ui import review_routes
    from app.gradio_ui.blocks import build_page
    from app.gradio_ui.models import shut_down
    from app.gradio_ui.own_origin import OwnOriginOnly
    from app.gradio_ui.state import Sessions
    from app.gradio_ui.theme import head, style, theme

    sessions = Sessions(folder / "cache" / "sessions", project)
    page = build_page(sessions)
    page.queue(default_concurrency_limit=4, api_open=False)
    # A page elsewhere that has its own name point here must not read what is shown (DNS rebinding), and none may write.
    known_host = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    guards = [known_host, Middleware(OwnOriginOnly, port=port)]
    app, _, _ = page.launch(
        server_name=HOST,
        server_port=port,
        share=False,
        inbrowser=False,
        prevent_thread_lock=True,
        quiet=True,
        show_error=False,
        run_history=False,
        enable_monitoring=False,
        footer_links=[],
        ssr_mode=False,
        strict_cors=True,
        max_file_size=_MAX_UPLOAD,
        theme=theme(),
        css=style(),
        head=head(),
        app_kwargs={"middleware": guards},
    )
    review_routes.attach(app, sessions)
    return page, shut_down
