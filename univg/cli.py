"""The command line: one subcommand a module in `univg.commands`.

Exit codes: 0 done, 1 a job failed, 2 bad input or a refusal by the system (one line on stderr), 130 cancelled, 141
nobody reads the output any more.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from univg import __version__
from univg.commands import adapt, benchmark, evaluate, export, generate, jobs, pretrain, retrain, sca, segment
from univg.errors import Cancelled, InputError

_COMMANDS = (sca, adapt, generate, retrain, segment, evaluate, export, benchmark, pretrain, jobs)
_BROKEN_PIPE = 141  # as of a program that SIGPIPE ends


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(prog="univg", description="Five annotated images in, a vessel segmenter out.")
    parser.add_argument("--version", action="version", version=f"univg {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add_parser(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    args = build_parser().parse_args(arguments)
    try:
        code = args.run(args)
        sys.stdout.flush()  # here, and not at the exit, where nobody is told of a broken pipe
        return code
    except InputError as error:
        print(f"univg: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read the output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the rest is flushed at the exit
        return _BROKEN_PIPE
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else None
        print(f"univg: {InputError(error.strerror or type(error).__name__, path=where)}", file=sys.stderr)
        return 2
    except (Cancelled, KeyboardInterrupt):
        print("univg: cancelled", file=sys.stderr)
        return 130
