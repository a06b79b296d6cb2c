"""The start view: open a project, create one, or look around with the sample."""

from __future__ import annotations

from collections.abc import Callable

import gradio as gr

from app import texts
from app.gradio_ui import markup
from app.gradio_ui.context import QUIET, Ui
from app.gradio_ui.projects import create_sample, known_projects, new_project_path, projects_folder
from app.gradio_ui.state import Session
from univg.types import Modality
from univg.workflow.project import Project

_FIRST, _ANOTHER = "first", "another"  # whether a project was open on this page before


def build(ui: Ui, switch: gr.Button) -> gr.Column:
    """Returns the column that the tabs go into; either it or the start view is on screen, see `page_state`."""
    folder = str(projects_folder())
    with gr.Column(elem_id="start"):
        gr.HTML(markup.empty_state(texts.WELCOME, texts.WELCOME_HELP))
        with gr.Row(equal_height=True):
            with gr.Column(elem_classes="card", min_width=260):
                gr.HTML(f"<h3>{texts.SAMPLE_TITLE}</h3>{markup.line(texts.SAMPLE_HELP)}")
                sample = gr.Button(texts.SAMPLE_BUTTON, variant="primary", elem_id="open-sample")
            with gr.Column(elem_classes="card", min_width=260):
                gr.HTML(f"<h3>{texts.OPEN_TITLE}</h3>")
                recent = gr.Dropdown(
                    choices=[],
                    label=texts.OPEN_RECENT,
                    info=texts.OPEN_RECENT_HELP.format(folder=folder),
                    elem_id="recent",
                )
                path = gr.Textbox(label=texts.OPEN_PATH, info=texts.OPEN_PATH_HELP, elem_id="open-path", max_lines=1)
                open_button = gr.Button(texts.OPEN_BUTTON, elem_id="open-project")
            with gr.Column(elem_classes="card", min_width=260):
                gr.HTML(f"<h3>{texts.CREATE_TITLE}</h3>")
                name = gr.Textbox(
                    label=texts.CREATE_NAME,
                    info=texts.CREATE_NAME_HELP.format(folder=folder),
                    elem_id="create-name",
                    max_lines=1,
                )
                modality = gr.Radio(
                    [(label, str(key)) for key, label in texts.MODALITIES.items()],
                    value=str(Modality.FUNDUS),
                    label=texts.CREATE_MODALITY,
                    info=texts.CREATE_MODALITY_HELP,
                    elem_id="create-modality",
                )
                create = gr.Button(texts.CREATE_BUTTON, elem_id="create-project")
    tabs = gr.Column(elem_id="workspace")
    opened = gr.Textbox(visible="hidden", elem_id="opened-project")

    def show(session: Session) -> list:
        at_start = session.at_start
        session.offers_start = not (at_start and session.project)
        label = texts.SWITCH_PROJECT if session.offers_start else texts.BACK_TO_PROJECT
        choices = [(project.name, str(project)) for project in known_projects()] if at_start else []
        return [
            # Not while painting: the strokes are in the browser alone.
            gr.Button(label, visible=session.project is not None, interactive=session.painting is None),
            gr.Dropdown(choices=choices, value=None),
        ]

    def signature(session: Session) -> tuple:
        return session.project and session.project.path, session.choosing_project, session.painting is None

    def open_at(session: Session, folder: str) -> str:
        how = _FIRST if session.project is None else _ANOTHER
        session.open(Project.open(folder))
        ui.sessions.latest_project = session.project
        return how

    def open_named(session: Session, chosen: str | None, typed: str) -> list:
        return [open_at(session, typed or chosen or ""), ""]

    def create_named(session: Session, typed: str, kind: str) -> list:
        project = Project.create(new_project_path(typed), modality=Modality.parse(kind))
        return [open_at(session, str(project.path)), ""]

    def open_sample(session: Session) -> str:
        return open_at(session, str(create_sample().path))

    def once(handler: Callable, count: int) -> Callable:
        """`handler` for the first of several clicks: after it the start view, with the button, is on its way out."""

        def answer(session: Session, *values: str | None) -> object:
            if session.at_start:
                return handler(session, *values)
            return gr.skip() if count == 1 else [gr.skip()] * count

        return answer

    def switch_view(session: Session) -> None:
        """To where the label of the button says, however often it is pressed."""
        session.choosing_project = session.offers_start

    ui.part([switch, recent], signature, show)
    ui.on(switch.click, switch_view)
    # The latest choice counts.
    ui.on(recent.input, lambda session: "", [], [path], redraw=False, trigger_mode="always_last")
    for triggers, handler, inputs, outputs in (
        (sample.click, open_sample, [], [opened]),
        ([open_button.click, path.submit], open_named, [recent, path], [opened, path]),
        ([create.click, name.submit], create_named, [name, modality], [opened, name]),
    ):
        # A fresh page, so that no picture and no setting of the project before stays on screen.
        reload = f"(how) => {{ if (how === '{_ANOTHER}') window.univg.openAnother(); }}"
        ui.on(triggers, once(handler, len(outputs)), inputs, outputs).success(None, [opened], None, js=reload, **QUIET)
    return tabs
