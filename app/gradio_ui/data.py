"""Tab 1, Data: the annotated images of the project, adding and removing them."""

from __future__ import annotations

from functools import lru_cache, partial
from glob import escape as escape_pattern
from html import escape
from pathlib import Path

import gradio as gr

from app import texts
from app.gradio_ui import markup, paint, pictures
from app.gradio_ui.context import Ui
from app.gradio_ui.errors import note
from app.gradio_ui.files import Upload, check_uploads, file_drop, match_uploads, usable_pairs
from app.gradio_ui.models import support_key
from app.gradio_ui.numbers import slider
from app.gradio_ui.state import Session
from univg.errors import InputError
from univg.io import file_stamp, read_image, read_mask
from univg.overlay import REFERENCE, overlay_mask
from univg.types import ImageMaskPair
from univg.workflow.project import Project

_GREY = 0.5
_UNREADABLE_SIDE = 512


def build(ui: Ui) -> gr.Button:
    """Returns the button that leads to the next tab."""
    with gr.Row(elem_classes="tab-body"):
        with gr.Column(elem_classes="controls", scale=0, min_width=300):
            with gr.Column(elem_id="data-controls"):
                add = _AddControls()
                with gr.Column(elem_id="selected-pair", elem_classes="card") as selected_group:
                    selected = gr.HTML()
                    with gr.Row():
                        paint_button = gr.Button(texts.PAINT_BUTTON, size="sm", min_width=80, elem_id="paint")
                        remove = gr.Button(texts.REMOVE_BUTTON, size="sm", min_width=60, elem_id="remove")
                    opacity = slider(
                        0,
                        100,
                        80,
                        step=1,
                        label=texts.VIEW_OPACITY,
                        info=texts.VIEW_OPACITY_HELP,
                        elem_id="data-opacity",
                    )
                    outline = gr.Checkbox(False, label=texts.VIEW_OUTLINE, elem_id="data-outline")
                undo = gr.Button(visible=False, size="sm", elem_id="undo-remove")
            painter = paint.Controls()
        with gr.Column(elem_classes="canvas", scale=1, min_width=400):
            with gr.Column(elem_id="data-canvas"):
                empty = gr.HTML()
                picture = gr.Image(
                    format="png",
                    interactive=False,
                    show_label=False,
                    container=False,
                    buttons=["download", "fullscreen"],
                    elem_id="data-picture",
                    elem_classes="picture",
                    alt_text=texts.SELECTED,
                )
            editor = paint.Canvas()
            with gr.Row(elem_classes="strip-head"):
                count = gr.HTML(elem_id="data-count")
                following = gr.Button(texts.NEXT_ADAPT, variant="primary", size="sm", elem_id="next-adapt", scale=0)
            strip = gr.Gallery(
                format="png",
                show_label=False,
                container=False,
                allow_preview=False,
                columns=12,
                rows=1,
                object_fit="cover",
                buttons=[],
                interactive=False,
                elem_id="data-strip",
                elem_classes="strip",
            )

    def show_pairs(session: Session) -> list:
        project = session.project
        names = project.support_names() if project else []
        items = [(_thumbnail(project, name), name) for name in names]
        wanted = "" if names else markup.empty_state(texts.DATA_EMPTY_TITLE, texts.DATA_EMPTY)
        return [
            gr.Gallery(items, visible=bool(names)),
            gr.HTML(wanted, visible=not names),
            markup.line(_count_text(len(names))),
            gr.Button(interactive=bool(names)),
        ]

    def show_selected(session: Session) -> list:
        name = session.named_pair = _selected(session)
        if not name:
            return [gr.Image(value=None, visible=False), "", gr.Column(visible=False)]
        facts = f'<h3 class="selected-name">{texts.SELECTED}: {escape(name)}</h3>'
        try:
            picture = _picture(session, name)
        except InputError as error:  # it can still be removed
            picture = pictures.save_picture(pictures.unreadable(_UNREADABLE_SIDE), session.pictures_of("data"))
            damage = texts.DATA_DAMAGED.format(name=name, reason=error.problem)
            facts += markup.problems_list([damage])
        return [gr.Image(picture, visible=True), facts, gr.Column(visible=True)]

    def select(session: Session, name: str) -> None:
        session.view.selected = session.named_pair = name

    def change_view(session: Session, percent: float, as_outline: bool) -> str | None:
        session.view.opacity, session.view.outline = percent / 100, as_outline
        name = _selected(session)
        return _picture(session, name) if name else None

    def remove_selected(session: Session) -> None:
        project, name = session.required_project(), session.named_pair
        if not name:
            raise InputError(texts.NO_SELECTION, fix=texts.NO_SELECTION_FIX)
        if name not in project.support_names():  # a second click, or another page was first
            return
        project.remove_support_pair(name)
        session.not_brought_back.discard(name)
        note(texts.REMOVED.format(name=name))

    def undo_remove(session: Session) -> None:
        name = session.offered_back
        if not name:  # a second click, before the button says what the next one is
            return
        try:
            session.required_project().restore_support_pair(name)
        except InputError:
            session.not_brought_back.add(name)
            raise
        session.offered_back = ""
        session.view.selected = name
        note(texts.RESTORED.format(name=name))

    def show_undo(session: Session) -> list:
        session.offered_back = next(iter(_removed(session)), "")
        text = texts.UNDO_REMOVE.format(name=session.offered_back)
        return [gr.Button(text, visible=bool(session.offered_back))]

    ui.part([strip, empty, count, following], _pairs_signature, show_pairs)
    ui.part([picture, selected, selected_group], _selected_signature, show_selected)
    ui.part([undo], lambda session: (_project_path(session), *_removed(session)[:1], session.offered_back), show_undo)
    ui.on_selected(strip, select)
    ui.on(remove.click, remove_selected)
    ui.on(undo.click, undo_remove)
    ui.live([opacity.input, outline.input], change_view, [opacity, outline], [picture])
    add.wire(ui)
    paint.wire(
        ui,
        controls=painter,
        canvas=editor,
        opened_by=paint_button,
        opened_for_new_by=add.paint,
        selected=_selected,
    )
    return following


class _AddControls:
    """Dropping files, what was found in them, and adding what is fine."""

    def __init__(self) -> None:
        with gr.Accordion(texts.ADD_TITLE, open=True, elem_id="add"):
            self.images = file_drop(label=texts.ADD_IMAGES, height=92, elem_id="add-images")
            self.masks = file_drop(label=texts.ADD_MASKS, height=92, elem_id="add-masks")
            gr.HTML(markup.line(texts.ADD_HELP, "help"))
            self.findings = gr.HTML(elem_id="findings")
            self.grey = gr.Checkbox(
                False, label=texts.ADD_GREY, info=texts.ADD_GREY_HELP, visible=False, elem_id="grey-masks"
            )
            self.paint = gr.Button(visible=False, size="sm", elem_id="paint-new")
            self.button = gr.Button(
                texts.ADD_BUTTON, variant="primary", interactive=False, visible=False, elem_id="add-pairs"
            )

    def wire(self, ui: Ui) -> None:
        inputs = [self.images, self.masks, self.grey]
        shown = [self.findings, self.grey, self.paint, self.button]
        ui.on([self.images.change, self.masks.change, self.grey.input], _check, inputs, shown)
        ui.on(self.button.click, _add, inputs, [self.images, self.masks])


def _check(session: Session, images: list[Upload], masks: list[Upload], grey: bool) -> list:
    matching = match_uploads(images, masks)
    names = session.required_project().support_names()
    findings = check_uploads(matching, names_taken=names, grey_threshold=_GREY if grey else None)
    session.unmasked = matching.unmasked
    usable = len(usable_pairs(matching, findings))
    offers_grey = grey or any(finding.fix == texts.GREY_FIX.format(label=texts.ADD_GREY) for finding in findings)
    label = texts.ADD_BUTTON_COUNT.format(count=usable, noun=texts.noun(usable, "pair")) if usable else texts.ADD_BUTTON
    return [
        markup.findings_list(findings),
        gr.Checkbox(visible=offers_grey),
        gr.Button(
            texts.PAINT_NEW_BUTTON.format(name=next(iter(matching.unmasked), "")), visible=bool(matching.unmasked)
        ),
        gr.Button(label, interactive=usable > 0, visible=bool(images or masks)),
    ]


def _add(session: Session, images: list[Upload], masks: list[Upload], grey: bool) -> list:
    """Add the usable pairs; the files of the others stay in the drop zones."""
    project = session.required_project()
    matching = match_uploads(images, masks)
    threshold = _GREY if grey else None
    findings = check_uploads(matching, names_taken=(), grey_threshold=threshold)
    usable = usable_pairs(matching, findings)
    if not usable:
        raise InputError(texts.NOTHING_TO_ADD, fix=texts.NOTHING_TO_ADD_FIX)
    finished, added, problem = set(), 0, None
    for files in usable:
        pair = ImageMaskPair(read_image(files.image), read_mask(files.mask, grey_threshold=threshold), files.name)
        try:
            added += project.add_support_pair(pair, source={"image": files.image, "mask": files.mask})
        except InputError as error:
            problem = problem or error
            continue
        finished |= {files.image, files.mask}
        session.view.selected = session.view.selected or files.name
    if added:
        note(texts.ADDED.format(count=added, noun=texts.noun(added, "pair")))
    same = len(finished) // 2 - added
    if same:
        note(texts.ALREADY_THERE.format(count=same, noun=texts.noun(same, "pair")))
    if problem is not None:
        gr.Warning(escape(str(problem)), title=texts.CHECK_THIS)
    return [_left_over(images, finished), _left_over(masks, finished)]


def _left_over(uploads: list[Upload], finished: set[Path]) -> list[str] | None:
    return [str(upload.path) for upload in uploads if upload.path not in finished] or None


def _selected(session: Session) -> str:
    names = session.project.support_names() if session.project else []
    return session.view.selected if session.view.selected in names else next(iter(names), "")


def _removed(session: Session) -> list[str]:
    """What can be brought back, by whomever and whenever it was removed: the newest first.

    Those that could not be when that was tried come last, so that they are in nobody's way.
    """
    project = session.project
    if project is None:
        return []
    newest_first = sorted(project.removed_support_names(), key=partial(_removed_at, project), reverse=True)
    return sorted(newest_first, key=session.not_brought_back.__contains__)


def _removed_at(project: Project, name: str) -> str:
    """The name of its folder among those of removed pairs, which begins with the time."""
    bins = (project.support_folder / "removed").glob(f"*/masks/{escape_pattern(name)}.png")
    return max((mask.parents[1].name for mask in bins), default="")


def _project_path(session: Session) -> Path | None:
    return session.project and session.project.path


def _count_text(count: int) -> str:
    text = texts.DATA_COUNT.format(count=count, noun=texts.noun(count, "image"))
    if count in texts.DATA_COUNT_HINT:
        return f"{text}: {texts.DATA_COUNT_HINT[count]}."
    return f"{text}. {texts.DATA_READY.format(adapt=texts.NEXT_ADAPT)}"


def _mask_path(project: Project, name: str) -> Path:
    return project.support_folder / "masks" / f"{name}.png"


def _pairs_signature(session: Session) -> tuple:
    project = session.project
    if project is None:
        return ()
    return project.path, support_key(project)


def _selected_signature(session: Session) -> tuple:
    name = _selected(session)
    return (session.project.path, name, file_stamp(_mask_path(session.project, name))) if name else ()


def _picture(session: Session, name: str) -> str:
    project = session.required_project()
    pair = _pair(project, name, file_stamp(_mask_path(project, name)))
    image, mask = pictures.reduce(pair.image), pictures.reduce(pair.mask)
    shown = overlay_mask(image, mask, colour=REFERENCE, opacity=session.view.opacity, outline=session.view.outline)
    return pictures.save_picture(shown, session.pictures_of("data"), {"shows": "annotation"})


@lru_cache(maxsize=4)
def _pair(project: Project, name: str, changed: tuple) -> ImageMaskPair:
    return project.support_pair(name)


def _thumbnail(project: Project, name: str):
    return _small_picture(project, name, file_stamp(_mask_path(project, name)))


@lru_cache(maxsize=64)
def _small_picture(project: Project, name: str, changed: tuple):
    side = pictures.THUMBNAIL_SIDE
    try:
        pair = project.support_pair(name)
    except InputError:
        return pictures.unreadable()
    return overlay_mask(
        pictures.reduce(pair.image, side), pictures.reduce(pair.mask, side), colour=REFERENCE, opacity=0.8
    )
