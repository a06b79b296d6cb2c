"""Painting a mask on an image, pixel for pixel at the size of the image."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable

import gradio as gr
import numpy as np

from app import texts
from app.gradio_ui import markup, pictures
from app.gradio_ui.context import Ui
from app.gradio_ui.errors import note
from app.gradio_ui.files import read_single_image
from app.gradio_ui.state import Draft, Painting, Session
from univg.errors import InputError
from univg.io import check_pair
from univg.overlay import REFERENCE
from univg.types import ImageMaskPair

LIMIT = 4096  # pixels a side: what graphics cards hold as one texture
BRUSH_OPACITY = 0.6
_ALPHA = round(255 * BRUSH_OPACITY)
_NEW, _PAIR = "new:", "pair:"
# What the painter does is done in the order in which it was asked for.
_IN_TURN = {"concurrency_id": "paint", "concurrency_limit": 1}
_CHOICE = {**_IN_TURN, "trigger_mode": "always_last"}


class Controls:
    """The column of controls while painting."""

    def __init__(self) -> None:
        with gr.Column(elem_id="paint-controls"):
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
    """The picture to paint on.

    Attributes
    ----------
    editor : ImageEditor
    shown : Textbox
        Hidden; the id of the painting that the editor holds, empty while it is clear.
    turned : Textbox
        Hidden; a new value asks for what is painted on now to be brought to the editor.
    """

    def __init__(self) -> None:
        colour = "#{:02x}{:02x}{:02x}".format(*REFERENCE)
        with gr.Column(elem_id="paint-canvas"):
            self.editor = gr.ImageEditor(
                type="numpy",
                image_mode="RGBA",
                format="png",
                sources=(),
                transforms=(),
                fixed_canvas=False,
                # Smaller than any image: layers of an image smaller than the canvas are misplaced.
                canvas_size=(32, 32),
                height="var(--canvas-height)",
                layers=gr.LayerOptions(allow_additional_layers=False, layers=["Mask"]),
                brush=gr.Brush(default_size=5, colors=[(colour, BRUSH_OPACITY)], color_mode="fixed"),
                eraser=gr.Eraser(default_size=12),
                buttons=["fullscreen"],
                show_label=False,
                elem_id="editor",
                # Only while painting: it takes a page a second to set up its canvas, which is drawn over and over then.
                visible=False,
            )
            with gr.Column(elem_id="paint-state"):
                self.shown = gr.Textbox(show_label=False, visible="hidden")
                self.turned = gr.Textbox(show_label=False, visible="hidden")


def wire(
    ui: Ui,
    *,
    controls: Controls,
    canvas: Canvas,
    opened_by: gr.Button,
    opened_for_new_by: gr.Button,
    selected: Callable[[Session], str],
) -> None:
    """Connect the painter: one button opens it for the `selected` pair, the other for a dropped image."""
    editor, shown, turned = canvas.editor, canvas.shown, canvas.turned

    def open_selected(session: Session) -> list:
        return open_at(session, f"{_PAIR}{selected(session)}")

    def open_new(session: Session) -> list:
        return open_at(session, f"{_NEW}{next(iter(session.unmasked), '')}")

    def open_at(session: Session, target: str) -> list:
        choices = _choices(session)
        if target not in [value for _, value in choices]:
            raise InputError(texts.PAINT_NO_TARGET, fix=texts.PAINT_NO_TARGET_FIX)
        session.painting = _begin(session, target, True)
        painting = session.painting.id
        return [gr.Dropdown(choices=choices, value=target), True, gr.ImageEditor(None, visible=True), "", painting]

    def turn_to(session: Session, value: dict | None, on_canvas: str, target: str) -> object:
        painting = session.painting
        return gr.skip() if painting is None else turn(session, value, on_canvas, target, painting.from_mask)

    def begin_otherwise(session: Session, value: dict | None, on_canvas: str, from_mask: bool) -> object:
        painting = session.painting
        return gr.skip() if painting is None else turn(session, value, on_canvas, _target_of(painting), from_mask)

    def turn(session: Session, value: dict | None, on_canvas: str, target: str, from_mask: bool) -> object:
        """Go to another image, or begin otherwise; unsaved strokes stay with the one they are on."""
        painting = session.painting
        # Gradio's list sends a choice twice, and once more when it is left.
        if (target, from_mask) == (_target_of(painting), painting.from_mask):
            return gr.skip()
        following = _begin(session, target, from_mask)
        if on_canvas == painting.id:
            _keep_strokes(session, value)
        session.painting = following
        return following.id

    def stay(session: Session) -> list:
        """The controls as the canvas is, when it could not be turned to what they said."""
        painting = session.painting
        return [gr.skip()] * 2 if painting is None else [_target_of(painting), painting.from_mask]

    def show(session: Session, on_canvas: str) -> list:
        """Bring to the canvas what is painted on: once it is clear, else layers end up in the wrong place."""
        painting = session.painting
        if painting is None or on_canvas == painting.id:
            return [gr.skip()] * 4
        if on_canvas:
            return [None, gr.skip(), "", secrets.token_hex(4)]  # and once more
        return [*_content(session), painting.id, gr.skip()]

    def save_shown(session: Session, value: dict | None, on_canvas: str) -> None:
        if session.painting is not None and on_canvas != session.painting.id:
            raise InputError(texts.PAINT_TURNING, fix=texts.PAINT_TURNING_FIX)
        save(session, value)

    def close(session: Session, value: dict | None, on_canvas: str) -> None:
        if session.painting is not None and on_canvas == session.painting.id:
            _keep_strokes(session, value)
        session.painting = None

    def put_away(session: Session) -> list:
        return [gr.ImageEditor(None, visible=False), ""]

    # In steps: the editor must not be the output of a handler that reads it. What the page sends of it may be of an
    # image that was there before, so it comes with what was on the canvas then.
    opened = [controls.target, controls.from_mask, editor, shown, turned]
    ui.on(opened_by.click, open_selected, [], opened, **_IN_TURN)
    ui.on(opened_for_new_by.click, open_new, [], opened, **_IN_TURN)
    for trigger, handler, control in (
        (controls.target.input, turn_to, controls.target),
        (controls.from_mask.input, begin_otherwise, controls.from_mask),
    ):
        turning = ui.on(trigger, handler, [editor, shown, control], [turned], redraw=False, **_CHOICE)
        ui.on(turning, stay, [], [controls.target, controls.from_mask], failed=True, redraw=False, **_IN_TURN)
    ui.on(turned.change, show, [shown], [editor, controls.help, shown, turned], **_CHOICE)
    for button, leave in ((controls.close, close), (controls.save, save_shown)):
        left = ui.on(button.click, leave, [editor, shown], **_IN_TURN)
        ui.on(left, put_away, [], [editor, shown], redraw=False, **_IN_TURN)


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
        _refuse_unseen_changes(session, value, mask)
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
    for from_mask in (True, False):
        session.drafts.pop(session.draft_key(painting, from_mask), None)
    session.view.selected = painting.name
    session.painting = None
    note(text.format(name=painting.name))


def _refuse_unseen_changes(session: Session, value: dict, mask: np.ndarray) -> None:
    """Raise when the pair changed since the painting began, by another page or napari; the strokes are kept."""
    project, painting = session.required_project(), session.painting
    if painting.name not in project.support_names():
        _keep_strokes(session, value)
        raise InputError(texts.PAINT_REMOVED.format(name=painting.name), fix=texts.PAINT_REMOVED_FIX)
    pair = project.support_pair(painting.name)
    if _fingerprint(pair.image) != painting.image_sha256:
        _keep_strokes(session, value)
        raise InputError(texts.PAINT_OTHER_IMAGE.format(name=painting.name), fix=texts.PAINT_OTHER_IMAGE_FIX)
    if np.array_equal(pair.mask, painting.in_project) or np.array_equal(pair.mask, mask):
        return
    painting.in_project = pair.mask  # of which the user hears now
    if painting.from_mask:
        painting.started_from = pair.mask  # so that strokes put aside after this are not taken for older ones
    _keep_strokes(session, value)
    raise InputError(texts.PAINT_OTHER_MASK.format(name=painting.name), fix=texts.PAINT_OTHER_MASK_FIX)


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


def _keep_strokes(session: Session, value: dict | None) -> None:
    painting = session.painting
    mask = None if painting is None or value is None else painted_mask(value)
    if mask is None or mask.shape != painting.shape:
        return
    key = session.draft_key(painting, painting.from_mask)
    if np.array_equal(mask, painting.started_from):  # all were taken back
        session.drafts.pop(key, None)
        return
    session.drafts[key] = Draft(mask, painting.started_from)
    note(texts.PAINT_DRAFT.format(name=painting.name))


def _begin(session: Session, target: str, from_mask: bool) -> Painting:
    """What is painted on `target`, starting from a draft, its present mask, or nothing."""
    name = _name_of(target)
    if target.startswith(_NEW):
        if name not in session.unmasked:
            raise InputError(texts.PAINT_NO_TARGET, fix=texts.PAINT_NO_TARGET_FIX)
        upload, in_project = session.unmasked[name], None
        image = read_single_image(upload)
    else:
        pair = session.required_project().support_pair(name)
        upload, image, in_project = None, pair.image, pair.mask
    height, width = image.shape[:2]
    if max(height, width) > LIMIT:
        raise InputError(
            texts.PAINT_TOO_LARGE.format(width=width, height=height, limit=LIMIT), fix=texts.PAINT_TOO_LARGE_FIX
        )
    begun = np.zeros((height, width), bool) if in_project is None or not from_mask else in_project
    return Painting(name, upload, (height, width), begun, from_mask, _fingerprint(image), in_project)


def _fingerprint(image: np.ndarray) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()


def _draft(session: Session, painting: Painting) -> np.ndarray | None:
    """Unsaved strokes on the image of `painting`; they are dropped when the mask they began with is another one now."""
    key = session.draft_key(painting, painting.from_mask)
    draft = session.drafts.get(key)
    if draft is None or draft.fits(painting):
        return draft and draft.mask
    session.drafts.pop(key)
    note(texts.PAINT_DRAFT_DROPPED.format(name=painting.name))
    return None


def _content(session: Session) -> list:
    """What the editor shows: the image, and the mask as a half transparent layer."""
    painting = session.painting
    if painting is None:
        return [None, ""]
    if painting.upload is None:
        image = session.required_project().support_pair(painting.name).image
    else:
        image = read_single_image(painting.upload)
    height, width = painting.shape
    layer = np.zeros((height, width, 4), np.uint8)
    draft = _draft(session, painting)
    layer[painting.started_from if draft is None else draft] = (*REFERENCE, _ALPHA)
    background = pictures.as_rgb(image)
    value = {"background": background, "layers": [layer], "composite": background}
    return [value, markup.line(texts.PAINT_HELP.format(width=width, height=height), "help")]


def _choices(session: Session) -> list[tuple[str, str]]:
    project = session.required_project()
    pairs = [(name, f"{_PAIR}{name}") for name in project.support_names()]
    new = [(texts.PAINT_NEW.format(name=name), f"{_NEW}{name}") for name in session.unmasked]
    return [*new, *pairs]


def _target_of(painting: Painting) -> str:
    return f"{_PAIR if painting.upload is None else _NEW}{painting.name}"


def _name_of(target: str) -> str:
    return target.split(":", 1)[1]


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} × {shape[0]}"
