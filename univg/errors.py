"""Errors that a person can act on.

Plain ``ValueError`` is for wrong arguments in code. The types below exist because the interfaces treat
them differently: the command line prints an `InputError` on one line and exits with 2, the app shows it as a message.
"""

from __future__ import annotations

from pathlib import Path


class InputError(ValueError):
    """Something the user supplied cannot be used.

    Parameters
    ----------
    problem : str
        What was wrong, with what was got and what was expected; no trailing full stop.
    path : path-like, optional
        The file or folder concerned.
    fix : str, optional
        What to do about it, as a sentence.
    """

    def __init__(self, problem: str, *, path: str | Path | None = None, fix: str = "") -> None:
        self.problem = problem
        self.path = None if path is None else Path(path)
        self.fix = fix
        where = "" if self.path is None else f" ({_printable(self.path)})"
        super().__init__(f"{problem}{where}. {fix}".strip() if fix else f"{problem}{where}.")

    @property
    def without_path(self) -> str:
        """What happened and what to do, for a text that others may see."""
        return f"{self.problem}. {self.fix}".rstrip()


class JobRunningError(InputError):
    """A project already has an unfinished job; `job_id` names it, so that an interface can attach to it."""

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"Job {job_id} is already working on this project",
            fix="Wait for it, or cancel it first.",
        )
        self.job_id = job_id


class Cancelled(Exception):  # noqa: N818 - a request that was honoured, not an error
    """Raised by long work after it has saved its state because it was asked to stop."""


class Paused(Cancelled):
    """Raised by long work that has saved its state and goes on once a person has done something.

    Parameters
    ----------
    waits_for : str
        What it waits for, as a job's record names it, for example ``"review"``.
    """

    def __init__(self, waits_for: str) -> None:
        self.waits_for = waits_for
        super().__init__(f"Waiting for {waits_for}")


def _printable(path: Path) -> str:
    """A path on one line: control characters in a file name must not reach a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(path))
