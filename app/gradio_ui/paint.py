"""Painting a mask on an image, pixel for pixel at the size of the image."""

from __future__ import annotations

from collections.abc import Callable

import gradio as gr
import numpy as np

from app import texts
from app.gradio_ui import markup, pictures
from app.gradio_ui.context import HIDDEN, Ui, note, shown
from app.gradio_ui.files import Upload, read_single_image
from app.gradio_ui.state import Painting, Session
from univg.errors import InputError
from univg.io import check_pair
from univg.overlay import REFERENCE
from univg.types import ImageMaskPair

LIMIT = 4096  # pixels a side: what graphics cards hold as one texture
BRUSH_OPACITY = 0.6
_ALPHA = round(255 * BRUSH_OPACITY)
_NEW, _PAIR = "new:", "pair:"


class Controls:
    """The column of controls while painting."""

    def __init__(self) -> None:
        with gr.Column(elem_classes=[HIDDEN], elem_id="paint-controls") as self.column:
            gr.HTML(f"<h3>{texts.PAINT_TITLE}</h3>")
            self.target = gr.Dropdown(
                [], label=texts.PAINT_TARGET, info=texts.PAINT_TARGET_HELP, elem_id="paint-target"
            )
            self.from_mask = gr.Checkbox(
                True, label=texts.PAINT_FROM_MASK, info=texts.PAINT_FROM_MASK_HELP, elem_id="paint-from-mask"
            )
            self.help = gr.HTML()
            self.save = gr.Button(texts.PAINT_SAVE, variant="primary", elem_id="paint-save")
            self.close = gr.Button(texts.PAINT_CLOSE, elem_id="paint-close")


class Canvas:
    """The picture to paint on."""

    def __init__(self) -> None:
        colour = "#{:02x}{:02x}{:02x}".format(*REFERENCE)
        with gr.Column(elem_classes=[HIDDEN], elem_id="paint-canvas") as self.column:
            self.editor = gr.ImageEditor(
                type="numpy",
                image_mode="RGBA",
                format="png",
                sources=(),
                transforms=(),
                fixed_canvas=False,
                layers=gr.LayerOptions(allow_additional_layers=False, layers=["Mask"]),
                brush=gr.Brush(default_size=5, colors=[(colour, BRUSH_OPACITY)], color_mode="fixed"),
                eraser=gr.Eraser(default_size=12),
                buttons=["fullscreen"],
                show_label=False,
                elem_id="editor",
            )


def wire(
    ui: Ui,
    *,
    controls: Controls,
    canvas: Canvas,
    view: tuple[gr.Column, gr.Column],
    opened_by: gr.Button,
    opened_for_new_by: gr.Button,
    selected: Callable[[Session], str],
) -> None:
    """Connect the painter.

    `view` is what it takes the place of; one button opens it for the `selected` pair, the other for a dropped image.
    """
    editor = canvas.editor
    columns = [*view, controls.column, canvas.column]

    def show_columns(session: Session) -> list:
        painting = session.painting is not None
        return [shown(not painting), shown(not painting), shown(painting), shown(painting)]

    def open_selected(session: Session) -> list:
        return open_at(session, f"{_PAIR}{selected(session)}")

    def open_new(session: Session) -> list:
        return open_at(session, f"{_NEW}{next(iter(session.unmasked), '')}")

    def open_at(session: Session, target: str) -> list:
        choices = _choices(session)
        if target not in [value for _, value in choices]:
            raise InputError(texts.PAINT_NO_TARGET, fix=texts.PAINT_NO_TARGET_FIX)
        return [gr.Dropdown(choices=choices, value=target), *_load(session, target, True)]

    def keep_strokes(session: Session, value: dict | None) -> None:
        """Unsaved strokes stay with their image when another one, or none, is shown."""
        painting = session.painting
        if painting is None or value is None:
            return
        mask = painted_mask(value)
        if mask is None or mask.shape != painting.shape or np.array_equal(mask, painting.started_from):
            return
        session.drafts[painting.name] = mask
        note(texts.PAINT_DRAFT.format(name=painting.name))

    def load(session: Session, target: str, from_mask: bool) -> list:
        return _load(session, target, from_mask)

    def load_afresh(session: Session, target: str, from_mask: bool) -> list:
        session.drafts.pop(_name_of(target), None)
        return _load(session, target, from_mask)

    def close(session: Session) -> None:
        session.painting = None

    opened = [controls.target, editor, controls.help]
    ui.part(columns, lambda session: session.painting is not None, show_columns)
    ui.on(opened_by.click, open_selected, [], opened)
    ui.on(opened_for_new_by.click, open_new, [], opened)
    # In two steps: the editor must not be the output of a handler that reads it.
    inputs = [controls.target, controls.from_mask]
    changed = ui.on(controls.target.input, keep_strokes, [editor], redraw=False)
    ui.on(changed, load, inputs, [editor, controls.help])
    ui.on(controls.from_mask.input, load_afresh, inputs, [editor, controls.help])
    closed = ui.on(controls.close.click, keep_strokes, [editor], redraw=False)
    ui.on(closed, close)
    ui.on(controls.save.click, save, [editor])


def save(session: Session, value: dict | None) -> None:
    """Put the painted mask into the project and go back to the view of the pairs."""
    painting = session.painting
    mask = None if value is None else painted_mask(value)
    if painting is None or mask is None or not mask.any():
        raise InputError(texts.PAINT_EMPTY, fix=texts.PAINT_EMPTY_FIX)
    if mask.shape != painting.shape:
        sizes = {"got": _size(mask.shape), "expected": _size(painting.shape)}
        raise InputError(texts.PAINT_OTHER_SIZE.format(**sizes), fix=texts.PAINT_OTHER_SIZE_FIX)
    project = session.required_project()
    if painting.upload is None:
        kept = project.replace_support_mask(painting.name, mask)
        text = texts.PAINT_UNCHANGED if kept is None else texts.PAINT_SAVED
    else:
        image = read_single_image(painting.upload)
        for finding in check_pair(image, mask, painting.name):
            if finding.level == "error":
                raise InputError(finding.message.removesuffix("."), fix=finding.fix)
        pair = ImageMaskPair(image, mask, painting.name)
        project.add_support_pair(pair, source={"image": painting.upload.path})
        session.unmasked.pop(painting.name, None)
        text = texts.PAINT_SAVED_NEW
    session.drafts.pop(painting.name, None)
    session.view.selected = painting.name
    session.painting = None
    note(text.format(name=painting.name))


def painted_mask(value: dict) -> np.ndarray | None:
    """The mask that the editor holds: where a layer is more than half opaque.

    Parameters
    ----------
    value : dict
        From `gr.ImageEditor`: ``layers`` is a list of (H, W, 4) uint8 arrays.

    Returns
    -------
    (H, W) ndarray of bool, or None when there is no layer
    """
    layers = value.get("layers") or []
    if not layers:
        return None
    return np.any([layer[..., 3] > 127 for layer in layers], axis=0)


def _load(session: Session, target: str, from_mask: bool) -> list:
    """What the editor shows for `target`: its image, and a layer with the draft, the present mask, or nothing."""
    name = _name_of(target)
    if target.startswith(_NEW):
        upload: Upload | None = session.unmasked.get(name)
        if upload is None:
            raise InputError(texts.PAINT_NO_TARGET, fix=texts.PAINT_NO_TARGET_FIX)
        image, present = read_single_image(upload), None
    else:
        upload, pair = None, session.required_project().support_pair(name)
        image, present = pair.image, pair.mask
    height, width = image.shape[:2]
    if max(height, width) > LIMIT:
        raise InputError(
            texts.PAINT_TOO_LARGE.format(width=width, height=height, limit=LIMIT), fix=texts.PAINT_TOO_LARGE_FIX
        )
    mask = present if from_mask and present is not None else np.zeros((height, width), bool)
    session.painting = Painting(name, upload, (height, width), mask)
    shown_mask = session.drafts.get(name, mask)
    layer = np.zeros((height, width, 4), np.uint8)
    layer[shown_mask] = (*REFERENCE, _ALPHA)
    background = pictures.as_rgb(image)
    value = {"background": background, "layers": [layer], "composite": background}
    return [value, markup.line(texts.PAINT_HELP.format(width=width, height=height), "help")]


def _choices(session: Session) -> list[tuple[str, str]]:
    project = session.required_project()
    pairs = [(name, f"{_PAIR}{name}") for name in project.support_names()]
    new = [(texts.PAINT_NEW.format(name=name), f"{_NEW}{name}") for name in session.unmasked]
    return [*new, *pairs]


def _name_of(target: str) -> str:
    return target.split(":", 1)[1]


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} × {shape[0]}"
