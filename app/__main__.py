"""``python -m app``: the browser app, reachable from this machine only."""

from __future__ import annotations

import argparse
import logging
import os
import sys

from univg import __version__
from univg.errors import InputError
from univg.workflow.project import Project


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m app", description="UniVG in the browser.")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--project", metavar="DIR", help="open the project in this folder")
    start.add_argument("--sample", action="store_true", help="open a fresh copy of the sample project")
    parser.add_argument("--port", type=int, metavar="N", help="default: 7860, or the next one that is free")
    parser.add_argument("--no-browser", action="store_true", help="do not open the browser")
    parser.add_argument("--version", action="version", version=f"UniVG {__version__}")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stderr)

    from app.gradio_ui.projects import create_sample
    from app.gradio_ui.server import serve

    try:
        project = Project.open(options.project) if options.project else create_sample() if options.sample else None
        serve(
            project,
            port=options.port,
            open_browser=not options.no_browser and not os.environ.get("CI"),
            announce=lambda url: print(f"UniVG is at {url}  (stop with Ctrl+C)", flush=True),
        )
    except InputError as error:
        print(f"univg: {error}", file=sys.stderr)
        return 2
    except ImportError as error:
        if error.name != "gradio":
            raise
        print("univg: the browser app needs Gradio. Install it: pip install 'univg[app]'", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
