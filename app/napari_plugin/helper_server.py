"""A helper process, see `helpers`: calls the plugin's own functions that it is asked for over its standard input."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import BinaryIO

from app.napari_plugin.wire import receive, send
from univg.errors import InputError

PACKAGE = "app.napari_plugin"


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer until nobody can ask any more."""
    while True:
        try:
            module, name, args, options = receive(requests)
        except EOFError:
            return
        try:
            send(answers, _answer(module, name, args, options))
        except TypeError as error:  # a result that cannot cross; nothing of it was written yet
            send(answers, ("failed", str(error)))


def _answer(module: str, name: str, args: tuple, options: dict) -> tuple:
    try:
        return "done", getattr(importlib.import_module(f"{PACKAGE}.{module}"), name)(*args, **options)
    except InputError as error:
        return "refused", (error.problem, error.path, error.fix)
    except Exception as error:  # whoever asked must get an answer
        traceback.print_exc()
        return "failed", f"{type(error).__name__}: {error}"


def main() -> None:
    """Answers go out on a copy of standard output, so that nothing that a library prints gets among them."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
