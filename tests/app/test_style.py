"""Words can be read on what they stand on, in light and dark."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("gradio")

from app.gradio_ui import theme

LEAST = 4.5  # WCAG 2.2, 1.4.3
NAMED = {"black": "#000000", "white": "#ffffff"}


def luminance(colour):
    values = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first, second):
    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def variables(selector):
    """What the style sets as variables for `selector`."""
    (block,) = re.findall(rf"^{re.escape(selector)} {{\n(.*?)^}}", theme.style(), re.MULTILINE | re.DOTALL)
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))


def of_theme(name):
    value = getattr(theme.theme(), name)
    return of_theme(value.removeprefix("*")) if value.startswith("*") else NAMED.get(value, value)


@pytest.mark.parametrize("dark", [False, True])
def test_words_of_the_page_stand_out(dark):
    mode, colours = "_dark" if dark else "", variables(":root") | (variables(".dark") if dark else {})
    grounds = [of_theme(f"{name}{mode}") for name in ("body_background_fill", "block_background_fill")]
    words = {name: colours[name] for name in ("soft", "accent", "good", "warn", "bad")}
    found = {(name, ground): contrast(colour, ground) for name, colour in words.items() for ground in grounds}
    assert {at: value for at, value in found.items() if value < LEAST} == {}


def test_chosen_tab_has_the_accent_in_light_and_dark():
    (rule,) = re.findall(r"^(.*\[role=\"tab\"\]\.selected.*) { color: var\(--accent\)", theme.style(), re.MULTILINE)
    assert 'button[role="tab"].selected' in rule.split(", ")


@pytest.mark.parametrize("kind", ["primary", "secondary"])
@pytest.mark.parametrize("mode", ["", "_dark"])
@pytest.mark.parametrize("state", ["", "_hover"])
def test_words_on_buttons_stand_out(kind, mode, state):
    fill = of_theme(f"button_{kind}_background_fill{state}{mode}")
    assert contrast(of_theme(f"button_{kind}_text_color{mode}"), fill) >= LEAST
