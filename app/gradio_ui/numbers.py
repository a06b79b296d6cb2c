"""Sliders, and number fields that we check ourselves: Gradio's refusal of a value names neither the field nor a way
out."""

from __future__ import annotations

import gradio as gr

from app import texts
from univg.errors import InputError

MAX_SEED = 2**31 - 1


def seed_field(elem_id: str, **options) -> gr.Number:
    """A field for a seed; read it with `checked_seed`."""
    return gr.Number(0, label=texts.SEED, precision=0, elem_id=elem_id, min_width=80, **options)


def slider(low: float, high: float, value: float, **options) -> gr.Slider:
    """A slider whose handlers get a value within its bounds, whatever is being typed into its field."""
    # No button for the reset: it changes the value without the event `input` that handlers wait for.
    return gr.Slider(low, high, value, buttons=[], **options)


def _within_bounds(made: gr.Slider, payload: float | None) -> float:
    # As the page itself does when the field is left, a cleared one too; meanwhile "12" begins with "1".
    return made.minimum if payload is None else min(max(payload, made.minimum), made.maximum)


# On the class: Gradio makes a component anew with every update, and writes stub files beside the module of a subclass.
gr.Slider.preprocess = _within_bounds


def is_measured(value: object) -> bool:
    """Whether `value` is a figure; records hold None or NaN, or nothing, where there is none."""
    return isinstance(value, (int, float)) and value == value


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
