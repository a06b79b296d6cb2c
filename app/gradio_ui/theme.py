"""Colours, fonts and the page's own style and script; nothing is fetched from anywhere."""

from __future__ import annotations

from importlib import resources

import gradio as gr

# Gradio's default themes fetch web fonts.
_SYSTEM_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]
_SYSTEM_MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]

_ACCENT = gr.themes.Color(
    name="petrol",
    c50="#eef7f9",
    c100="#d7ecf1",
    c200="#b0dae3",
    c300="#7fc2d1",
    c400="#48a5ba",
    c500="#1f869f",
    c600="#0f6c84",
    c700="#0d586c",
    c800="#0e4757",
    c900="#103b48",
    c950="#082630",
)


def theme() -> gr.themes.Base:
    """Neutral greys and one accent, small spacing."""
    return gr.themes.Base(
        primary_hue=_ACCENT,
        secondary_hue=_ACCENT,
        neutral_hue=gr.themes.colors.neutral,
        spacing_size="sm",
        radius_size="sm",
        text_size="sm",
        font=_SYSTEM_FONTS,
        font_mono=_SYSTEM_MONO,
    ).set(
        body_background_fill="#f4f4f5",
        body_background_fill_dark="#17181a",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#1f2123",
        background_fill_secondary="#f4f4f5",
        background_fill_secondary_dark="#17181a",
        block_background_fill="#ffffff",
        block_background_fill_dark="#1f2123",
        block_border_width="1px",
        block_border_color="#dcdcdf",
        block_border_color_dark="#34373b",
        border_color_primary="#dcdcdf",
        border_color_primary_dark="#34373b",
        block_label_text_color="#3f3f46",
        block_label_text_color_dark="#d4d4d8",
        block_title_text_color="#27272a",
        block_title_text_color_dark="#e4e4e7",
        block_title_text_weight="600",
        block_info_text_color="#52525b",
        block_info_text_color_dark="#a8a8b0",
        body_text_color="#1f1f23",
        body_text_color_dark="#ececef",
        body_text_color_subdued="#52525b",
        body_text_color_subdued_dark="#a8a8b0",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_hover_dark="*primary_700",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#ffffff",
        button_secondary_background_fill="#ececee",
        button_secondary_background_fill_dark="#313438",
        button_secondary_background_fill_hover="#dfdfe3",
        button_secondary_background_fill_hover_dark="#3d4146",
        button_secondary_border_color="#cfcfd4",
        button_secondary_border_color_dark="#484c52",
        button_border_width="1px",
        slider_color="*primary_600",
        slider_color_dark="*primary_400",
        checkbox_background_color_selected="*primary_600",
        checkbox_background_color_selected_dark="*primary_500",
        checkbox_border_color="#8b8b93",
        checkbox_border_color_dark="#7d828a",
        input_background_fill="#ffffff",
        input_background_fill_dark="#17181a",
        input_border_width="1px",
        input_border_color="#a8a8b0",
        input_border_color_dark="#565b62",
        shadow_drop="none",
        block_shadow="none",
    )


def _read(name: str) -> str:
    return resources.files("app.gradio_ui").joinpath("static", name).read_text("utf-8")


def style() -> str:
    return _read("style.css")


def head() -> str:
    """Goes into the page's head: the scripts, and an icon, so that the browser asks for none."""
    icon = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath d='M8 15V9M8 9 3 2M8 9l5-7' stroke='%230f6c84' stroke-width='2.4' fill='none' stroke-linecap='round'/%3E%3C/svg%3E"  # noqa: E501
    scripts = "".join(f"<script>{_read(name)}</script>" for name in ("page.js", "masks.js", "review.js"))
    return f'<link rel="icon" href="{icon}">{scripts}'
