"""Errors and notes as a person at the page sees them, and as the log keeps them."""

from __future__ import annotations

import html
import traceback

import gradio as gr

from app import texts
from univg.errors import InputError, JobRunningError


def message(error: InputError) -> gr.Error:
    """What a person sees of `error`: file names without their folders, and safe to show in a page."""
    if isinstance(error, JobRunningError):
        error = InputError(texts.JOB_RUNNING.format(job=_kind_in_words(error)), fix=texts.JOB_RUNNING_FIX)
    where = "" if error.path is None else f" ({error.path.name or error.path})"
    text = html.escape(f"{error.problem}{where}. {error.fix}".strip())
    return gr.Error(text, title=texts.CHECK_THIS, print_exception=False, duration=20)


def _kind_in_words(error: JobRunningError) -> str:
    kind = error.job_id.split("-", 2)[-1].rpartition("-")[0]  # as in 20260131-120000-image-engine-0a1b
    return texts.JOB_KINDS.get(kind, texts.JOB_STATES["running"])


def note(text: str) -> None:
    """A short confirmation."""
    gr.Info(html.escape(text), title=texts.APP, duration=5)


def anonymous_trace(error: BaseException) -> str:
    """The stack trace without the message, which may quote the name of a file."""
    return f"{type(error).__name__}\n{''.join(traceback.format_tb(error.__traceback__))}"
