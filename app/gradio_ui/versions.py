"""The models of a project in a table, on the image that is the same for all; one click uses another one."""

from __future__ import annotations

import math
from html import escape

import gradio as gr

from app import texts
from app.gradio_ui import markup
from app.gradio_ui.context import Ui
from app.gradio_ui.errors import note
from app.gradio_ui.state import Session
from univg.workflow.model_versions import (
    Version,
    active_segmenter,
    compare_versions,
    frozen_image,
    promote,
    used_before,
)

# The rows of the table are plain HTML: their buttons leave word of the version and press the one that Gradio knows.
_WITH_CHOSEN = "(session, _) => [session, window.univg.chosenVersion || '']"


def build(ui: Ui) -> None:
    """Lay out the table, wherever it is called, and wire it."""
    with gr.Accordion(texts.MODELS_TITLE, open=False, elem_id="models-panel") as panel:
        table = gr.HTML(elem_id="models-table")
        back = gr.Button(visible=False, size="sm", elem_id="model-back")
        with gr.Row(elem_classes="off-screen"):
            choice = gr.Textbox(show_label=False)
            chosen = gr.Button("use", elem_id="version-use")
    ui.part([panel, table, back], _signature, _draw)
    ui.on(chosen.click, use, [choice], js=_WITH_CHOSEN)
    ui.on(back.click, go_back)


def use(session: Session, version: str | None) -> None:
    """Promote a version, or roll back to it; new images are segmented by it, too."""
    promote(session.required_project(), version or "")
    session.segment_view.model = ""
    note(texts.SEG_USED.format(version=version))


def go_back(session: Session) -> None:
    """Use the version that the button names; a second click, before it names another one, does nothing."""
    active = active_segmenter(session.required_project())
    if active is None or active.name != session.offered_version:
        use(session, session.offered_version)


def _signature(session: Session) -> tuple:
    project = session.project
    if project is None:
        return ()
    active = active_segmenter(project)
    known = tuple(project.segmenter_versions())
    return project.path, known, active and active.name, used_before(project), frozen_image(project)


def _draw(session: Session) -> list:
    project = session.project
    versions = [] if project is None else compare_versions(project)
    if not versions:
        return [gr.Accordion(visible=False), "", gr.Button(visible=False)]
    frozen, before = frozen_image(project), used_before(project)
    session.offered_version = before
    said = texts.MODELS_ON.format(image=frozen.name) if frozen else texts.MODELS_NO_IMAGE
    return [
        gr.Accordion(visible=True),
        _table(versions) + markup.line(said, "help"),
        gr.Button(texts.MODELS_BACK.format(version=before), visible=bool(before)),
    ]


def _table(versions: list[Version]) -> str:
    head = "".join(f'<th scope="col" title="{escape(tip)}">{escape(text)}</th>' for text, tip in texts.MODELS_HEAD)
    return (
        f'<div class="figures-table models"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(map(_row, versions))}</tbody></table></div>"
    )


def _row(version: Version) -> str:
    if version.figures is None:
        figures = f'<td colspan="2" class="soft">{escape(texts.MODELS_REASONS[version.reason])}</td>'
    else:
        figures = f"<td>{_number(version.figures.dice)}</td><td>{_number(version.figures.cldice)}</td>"
    if version.in_use:
        state = f"<b>{escape(texts.MODELS_IN_USE)}</b>"
    else:
        label = escape(texts.MODELS_USE_LABEL.format(version=version.name))
        state = (
            f'<button type="button" class="small" data-use-version="{version.name}" aria-label="{label}">'
            f"{escape(texts.MODELS_USE)}</button>"
        )
    pairs = texts.MODELS_PAIRS.format(real=version.real, synthetic=version.synthetic)
    made = version.made.astimezone().strftime("%Y-%m-%d %H:%M")
    row_class = ' class="in-use"' if version.in_use else ""
    return (
        f'<tr{row_class}><th scope="row">{version.name}</th>{figures}<td>{pairs}</td>'
        f"<td>{made}</td><td>{state}</td></tr>"
    )


def _number(value: float) -> str:
    return texts.UNDEFINED if math.isnan(value) else f"{value:.3f}"
