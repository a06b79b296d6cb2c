"""Number fields that we check ourselves: Gradio's refusal of a value names neither the field nor a way out."""

from __future__ import annotations

import gradio as gr

from app import texts
from univg.errors import InputError

MAX_SEED = 2**31 - 1


def seed_field(elem_id: str, **options) -> gr.Number:
    """A field for a seed; read it with `checked_seed`."""
    return gr.Number(0, label=texts.SEED, precision=0, elem_id=elem_id, min_width=80, **options)


def checked_seed(value: float | None) -> int:
    return checked_whole(value, texts.SEED, 0, MAX_SEED, usual=0)


def checked_whole(value: float | None, label: str, low: int, high: int, *, usual: int) -> int:
    """The whole number in a field, see `checked_number`."""
    return int(checked_number(value, label, low, high, usual=usual))


def checked_number(value: float | None, label: str, low: float, high: float, *, usual: float) -> float:
    """The number in a field called `label`.

    Raises
    ------
    InputError
        If it is empty or not between `low` and `high`.
    """
    if value is None or not low <= value <= high:
        got = texts.EMPTY_FIELD if value is None else f"{value:.12g}"
        raise InputError(
            texts.NUMBER_RANGE.format(label=label, low=low, high=high, got=got),
            fix=texts.NUMBER_FIX.format(usual=usual),
        )
    return value
