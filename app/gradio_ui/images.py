"""Tab 4, Images: from a mask to images of it, checked against the mask, and pairs by the hundred."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import gradio as gr
import numpy as np

from app import texts
from app.gradio_ui import image_studio, markup, pictures, tree_view
from app.gradio_ui.context import Ui
from app.gradio_ui.devices import selectable
from app.gradio_ui.engine_jobs import EngineJobs
from app.gradio_ui.errors import note
from app.gradio_ui.files import Upload, read_single_mask
from app.gradio_ui.image_studio import DRAWN, HELD, LOOKS, NEW, OWN, ImageSettings, ImageStudio
from app.gradio_ui.job_watch import active_job, latest_job
from app.gradio_ui.numbers import checked_seed, checked_whole, is_measured, seed_field, slider
from app.gradio_ui.paint import painted_mask
from app.gradio_ui.review_board import all_entries
from app.gradio_ui.state import Session
from univg.errors import InputError
from univg.io import sha256_file
from univg.overlay import overlay_mask
from univg.workflow.jobs import start_job
from univg.workflow.near_duplicates import read_near_duplicates
from univg.workflow.project import Project

# What draws an image is done in the order in which it was asked for.
_IN_TURN = {"concurrency_id": "image", "concurrency_limit": 1}
# A value that is chosen while another one is drawn must not be lost.
_CHOICE = {**_IN_TURN, "trigger_mode": "always_last"}
# Settings, from their controls.
_READ = {"source": str, "seed": checked_seed, "conditioning": float, "steps": int, "strength": float}
_MAX_PAIRS = 2000
_NO_CANVAS = 32  # pixels a side of the editor before a drawing is begun: smaller than any mask, see `paint.Canvas`
_DRAWN_PAIR = re.compile(r"synthetic-[0-9a-f]{8}-(\d{6,})")  # see `univg.workflow.generate`


def _said_when_done(result: Mapping[str, object]) -> str:
    """As much as was measured: with one image to learn from none is kept apart to compare with."""
    said = texts.IMAGES_DONE.format(image_engine=result.get("image_engine", ""))
    agreement, expected = result.get("agreement"), result.get("expected_agreement")
    if not is_measured(agreement):
        return said
    if not is_measured(expected) or expected == 0:  # 0 where none was kept apart, in records of earlier versions
        return f"{said} {texts.IMAGES_DONE_AGREES.format(agreement=agreement)}"
    return f"{said} {texts.IMAGES_DONE_COMPARED.format(agreement=agreement, expected_agreement=expected)}"


JOBS = EngineJobs("image-engine", texts.IMAGES_ADAPT, texts.IMAGES_READY, _said_when_done, "image")


def build(ui: Ui, tab: gr.Tab) -> None:
    """Lay out the tab and wire it; the first image is drawn when `tab` is opened."""
    with gr.Row(elem_classes="tab-body"):
        with gr.Column(elem_classes="controls", scale=0, min_width=300):
            jobs = JOBS.build()
            source = gr.Dropdown([], label=texts.IMAGES_SOURCE, info=texts.IMAGES_SOURCE_HELP, elem_id="image-source")
            conditioning = slider(
                0,
                3,
                ImageSettings.conditioning,
                step=0.05,
                label=texts.IMAGES_CONDITIONING,
                info=texts.IMAGES_CONDITIONING_HELP,
                elem_id="image-conditioning",
            )
            with gr.Row():
                seed = seed_field("image-seed")
                another = gr.Button(texts.TREES_REROLL, elem_id="image-reroll", min_width=80)
            overlay = gr.Checkbox(
                False, label=texts.IMAGES_OVERLAY, info=texts.IMAGES_OVERLAY_HELP, elem_id="image-overlay"
            )
            with gr.Accordion(texts.IMAGES_MANY_TITLE, open=False, elem_id="image-many"):
                count = gr.Number(
                    50,
                    label=texts.IMAGES_COUNT,
                    precision=0,
                    elem_id="image-count",
                )
                generate = gr.Button(texts.IMAGES_GENERATE, elem_id="image-generate")
                pairs_line = gr.HTML(elem_id="image-pairs")
            with gr.Accordion(texts.ADVANCED, open=False, elem_id="image-advanced"):
                strength = slider(
                    0.2,
                    1,
                    ImageSettings.strength,
                    step=0.05,
                    label=texts.IMAGES_STRENGTH,
                    info=texts.IMAGES_STRENGTH_HELP,
                    elem_id="image-strength",
                )
                steps = slider(
                    4, 30, 12, step=1, label=texts.MASKS_STEPS, info=texts.MASKS_STEPS_HELP, elem_id="image-steps"
                )
                version = gr.Dropdown([], label=texts.MASKS_ENGINE, elem_id="image-engine")
                device = gr.Radio(selectable(), value="auto", label=texts.DEVICE, elem_id="image-device")
        with gr.Column(elem_classes="canvas", scale=1, min_width=400):
            with gr.Row(elem_id="image-pictures"):
                with gr.Column(min_width=200, scale=1):
                    gr.HTML(markup.line(texts.IMAGES_MASK_CAPTION), elem_classes="picture-caption")
                    mask = gr.Image(elem_id="image-mask", alt_text=texts.IMAGES_MASK_CAPTION, **pictures.PICTURE)
                with gr.Column(min_width=200, scale=1):
                    caption = gr.HTML(elem_id="image-caption", elem_classes="picture-caption")
                    picture = gr.Image(elem_id="image-picture", alt_text=texts.TAB_IMAGES, **pictures.PICTURE)
            with gr.Row(elem_classes="strip-head"):
                facts = gr.HTML(elem_id="image-facts")
                with gr.Row():
                    looks = gr.Button(texts.IMAGES_LOOKS, size="sm", elem_id="image-looks", min_width=110)
                    conditions = gr.Button(
                        texts.IMAGES_CONDITIONS, size="sm", elem_id="image-conditions", min_width=130
                    )
            strip = gr.Gallery(columns=LOOKS, elem_id="image-strip", visible=False, **pictures.STRIP)
            told = gr.Gallery(columns=5, elem_id="image-told", visible=False, **pictures.STRIP)
            gr.HTML(markup.line(texts.IMAGES_REAL_CAPTION), elem_classes="picture-caption")
            real = gr.Gallery(columns=6, elem_id="image-real", **pictures.STRIP)
            latest_caption = gr.HTML(elem_classes="picture-caption")
            latest = gr.Gallery(columns=6, elem_id="image-latest", visible=False, **pictures.STRIP)
            with gr.Accordion(texts.IMAGES_DRAW_TITLE, open=False, elem_id="image-draw"):
                gr.HTML(markup.line(texts.IMAGES_DRAW_HELP, "help"))
                editor = _editor()
                with gr.Row():
                    begin = gr.Button(texts.IMAGES_DRAW_BEGIN, size="sm", elem_id="image-draw-begin")
                    empty = gr.Button(texts.IMAGES_DRAW_EMPTY, size="sm", elem_id="image-draw-empty")
                    use = gr.Button(texts.IMAGES_DRAW_USE, size="sm", variant="primary", elem_id="image-draw-use")
                dropped = gr.File(
                    label=texts.IMAGES_DROP, file_count="single", type="filepath", elem_id="image-drop", height=90
                )

    controls = [source, conditioning, seed, steps, strength]
    shown = [mask, picture, caption, facts]
    ui.part([*controls, version], _controls_signature, _controls)
    JOBS.wire(ui, jobs, {"device": device})
    ui.part([real], _real_signature, lambda session: [_real(session)], later=True)
    ui.part([generate, pairs_line, latest_caption, latest], _pairs_signature, _pairs)
    ui.part(shown, _first_signature, _first, later=True)
    ui.on(conditioning.release, partial(_settle, "conditioning"), [conditioning], shown, **_CHOICE)
    ui.on(steps.release, partial(_settle, "steps"), [steps], shown, **_CHOICE)
    ui.on(strength.release, partial(_settle, "strength"), [strength], shown, **_CHOICE)
    ui.on(source.input, partial(_settle, "source"), [source], shown, **_CHOICE)
    ui.on([seed.submit, seed.blur], partial(_settle, "seed"), [seed], shown, **_CHOICE)
    ui.on(tab.select, _opened, [], shown, **_IN_TURN)
    ui.on(another.click, _another_seed, [], shown, **_IN_TURN)
    ui.on(overlay.input, _show_overlay, [overlay], shown, **_CHOICE)
    ui.on(version.input, _choose_version, [version], shown, **_CHOICE)
    ui.on(looks.click, _looks, [], [strip], show_progress="minimal")
    ui.on_selected(strip, _choose_look, shown, **_IN_TURN)
    ui.on(conditions.click, _conditions, [], [told], show_progress="minimal")
    ui.on(generate.click, _generate, [count, conditioning, steps, strength, device])
    for button, beginning in ((begin, _begin_drawing), (empty, _begin_empty)):
        # In steps: layers of a new picture end up in the right place only when the editor was cleared before.
        cleared = ui.on(button.click, lambda session: None, [], [editor], redraw=False)
        ui.on(cleared, beginning, [], [editor], redraw=False)
    ui.on(use.click, _use_drawing, [editor], shown, **_IN_TURN)
    ui.on(dropped.upload, _use_file, [dropped], shown, **_IN_TURN)


def _editor() -> gr.ImageEditor:
    """White strokes on black; what is white is vessel."""
    return gr.ImageEditor(
        type="numpy",
        image_mode="RGBA",
        format="png",
        sources=(),
        transforms=(),
        fixed_canvas=False,
        canvas_size=(_NO_CANVAS, _NO_CANVAS),
        height=560,
        layers=gr.LayerOptions(allow_additional_layers=False, layers=["Mask"]),
        brush=gr.Brush(default_size=5, colors=["#ffffff"], color_mode="fixed"),
        eraser=gr.Eraser(default_size=12),
        buttons=["fullscreen"],
        show_label=False,
        elem_id="image-editor",
    )


def studio_of(session: Session) -> ImageStudio:
    project = session.required_project()
    if session.images is None:
        session.images = ImageStudio.of(project)
    studio = session.images
    studio.follow(project)
    settings = _with_known_source(project, studio, studio.settings)
    if settings != studio.settings:  # its pair was removed
        studio.settings = settings
        studio.changed += 1
    return studio


# --- what controls do


def _settle(name: str, session: Session, value: float | str | None) -> list:
    """When the control of the setting `name` is let go; of the other controls nothing is read, see `masks`."""
    studio = studio_of(session)
    settings = replace(studio.settings, **{name: _READ[name](value)})
    settings = _with_known_source(session.required_project(), studio, settings)
    if settings == studio.settings and studio.found(settings) is not None:
        return [gr.skip()] * 4
    studio.settings = settings
    return _shown(session)


def _opened(session: Session) -> list:
    if session.project is None or studio_of(session).found(studio_of(session).settings) is not None:
        return [gr.skip()] * 4
    return _shown(session)


def _another_seed(session: Session) -> list:
    studio = studio_of(session)
    studio.settings = replace(studio.settings, seed=tree_view.new_seed())
    studio.changed += 1
    return _shown(session)


def _show_overlay(session: Session, overlay: bool) -> list:
    studio = studio_of(session)
    studio.overlay = bool(overlay)
    return _shown(session)


def _choose_version(session: Session, chosen: str) -> list:
    studio = studio_of(session)
    studio.version = chosen if chosen in session.required_project().image_engine_versions() else ""
    return _shown(session)


def _looks(session: Session) -> gr.Gallery:
    studio = studio_of(session)
    wanted = [replace(studio.settings, seed=studio.settings.seed + number) for number in range(LOOKS)]
    if studio.settings.source == NEW:  # one mask, several images: hold on to it
        studio.held = image_studio.mask_of(session.required_project(), studio, studio.settings)
        wanted = [replace(settings, source=HELD) for settings in wanted]
        studio.settings = wanted[0]
        studio.changed += 1
    drawn = image_studio.draw(session.required_project(), studio, wanted)
    items = [
        (pictures.reduce(pictures.as_rgb(one.pair.image), pictures.THUMBNAIL_SIDE), _look_caption(settings))
        for one, settings in zip(drawn, wanted, strict=True)
    ]
    return gr.Gallery(items, visible=True)


def _look_caption(settings: ImageSettings) -> str:
    return texts.IMAGES_SEED.format(seed=settings.seed)


def _choose_look(session: Session, caption: str) -> list:
    studio = studio_of(session)
    studio.settings = replace(studio.settings, seed=int(caption.rsplit(" ", 1)[1]))
    studio.changed += 1
    return _shown(session)


def _conditions(session: Session) -> gr.Gallery:
    project, studio = session.required_project(), studio_of(session)
    names = project.support_names()
    if not names:
        raise InputError(texts.DATA_EMPTY_TITLE, fix=texts.TREES_COMPARE_FIX)
    chosen = studio.settings.source.removeprefix(OWN)
    pair = project.support_pair(chosen if chosen in names else names[0])  # conditions are those of a real image
    found = image_studio.conditions_of(pair, project)
    items = [
        (
            pictures.reduce(picture, pictures.THUMBNAIL_SIDE),
            texts.IMAGES_CONDITION_OF.format(name=pair.name, condition=texts.IMAGES_CONDITION_NAMES[kind]),
        )
        for kind, picture in found.items()
    ]
    return gr.Gallery(items, visible=True)


def _generate(
    session: Session, count: float | None, conditioning: float, steps: float, strength: float, device: str
) -> None:
    project = session.required_project()
    if not project.image_engine_versions():
        raise InputError(texts.IMAGES_NOT_ADAPTED, fix=texts.IMAGES_NOT_ADAPTED_FIX)
    version = studio_of(session).version
    if not version:  # the job would take the newest one
        problem = texts.IMAGES_PRETRAINED_PAIRS.format(chosen=texts.MASKS_PRETRAINED)
        raise InputError(problem, fix=texts.IMAGES_PRETRAINED_PAIRS_FIX.format(engine=texts.MASKS_ENGINE))
    pairs = checked_whole(count, texts.IMAGES_COUNT, 1, _MAX_PAIRS, usual=50)
    params = {
        "count": pairs,
        "seed": _next_seed(project),
        "image_engine": version,
        "conditioning": float(conditioning),
        "image_strength": float(strength),
        "steps": int(steps),
    }
    start_job(project, "generate", params | {"device": device})
    note(texts.STARTED)


def _next_seed(project: Project) -> int:
    """After the seeds of all pairs so far: one that is there already would not be drawn again."""
    drawn = [_DRAWN_PAIR.fullmatch(name) for name in project.pair_names()]
    return max((int(found[1]) + 1 for found in drawn if found), default=0)


def _begin_drawing(session: Session) -> dict:
    """The mask on screen, to go on from; an empty canvas where there is none."""
    project, studio = session.required_project(), studio_of(session)
    try:
        mask = pictures.reduce(image_studio.mask_of(project, studio, studio.settings), 1024)
    except InputError:
        return _begin_empty(session)
    return _drawing_of(mask)


def _begin_empty(session: Session) -> dict:
    return _drawing_of(np.zeros((session.required_project().working_size,) * 2, bool))


def _drawing_of(mask: np.ndarray) -> dict:
    background = np.zeros((*mask.shape, 3), np.uint8)
    layer = np.repeat((mask * np.uint8(255))[..., None], 4, axis=2)
    return {"background": background, "layers": [layer], "composite": background}


def _use_drawing(session: Session, value: dict | None) -> list:
    mask = None if value is None else painted_mask(value)
    if mask is None or not mask.any() or max(mask.shape) <= _NO_CANVAS:
        raise InputError(texts.PAINT_EMPTY, fix=texts.IMAGES_DRAW_FIX)
    return _use_mask(session, mask)


def _use_file(session: Session, path: str) -> list:
    mask = read_single_mask(Upload(Path(path), Path(path).name))
    if not mask.any():
        raise InputError(texts.IMAGES_DROP_EMPTY, fix=texts.IMAGES_DROP_EMPTY_FIX)
    return _use_mask(session, mask)


def _use_mask(session: Session, mask: np.ndarray) -> list:
    studio = studio_of(session)
    studio.mask = mask
    studio.settings = replace(studio.settings, source=DRAWN)
    studio.changed += 1
    return _shown(session)


# --- what is shown


def _shown(session: Session) -> list:
    project, studio = session.required_project(), studio_of(session)
    mask = image_studio.mask_of(project, studio, studio.settings)
    (drawn,) = image_studio.draw(project, studio, [studio.settings])
    source = _source_of(project, studio.settings)
    parameters = {"synthetic": True, "image_engine": studio.version or "pretrained", **vars(studio.settings), **source}
    image = pictures.as_rgb(drawn.pair.image)
    if studio.overlay:
        image = overlay_mask(image, drawn.pair.mask, outline=True, opacity=1.0)
    folder = session.pictures_of("images")
    white = np.repeat((pictures.reduce(mask) * np.uint8(255))[..., None], 3, axis=2)
    caption = texts.IMAGES_CAPTION.format(seed=studio.settings.seed, conditioning=studio.settings.conditioning)
    return [
        pictures.save_picture(white, folder, source),
        pictures.save_picture(pictures.reduce(image), folder, parameters),
        markup.line(caption),
        _facts(studio, drawn),
    ]


def _source_of(project: Project, settings: ImageSettings) -> dict[str, str]:
    """What an image was drawn of, for those that the picture is handed on to: a name may be that of a person."""
    if not settings.source.startswith(OWN):
        return {"source": settings.source}
    name = settings.source.removeprefix(OWN)
    return {
        "source": OWN.removesuffix(":"),
        "mask_sha256": sha256_file(project.support_folder / "masks" / f"{name}.png"),
    }


def _facts(studio: ImageStudio, drawn: image_studio.Drawn) -> str:
    parts = [texts.IMAGES_SECONDS.format(seconds=drawn.seconds)]
    if not studio.version:
        parts.append(texts.IMAGES_PRETRAINED_FACTS)
    if drawn.checks is not None:
        checks = drawn.checks
        parts.append(texts.IMAGES_FACTS.format(agreement=checks.agreement))
        if is_measured(checks.contrast):
            parts.append(texts.IMAGES_CONTRAST.format(contrast=checks.contrast))
        parts += [texts.IMAGES_FLAGS[flag] for flag in checks.flags]
    return markup.line(" ".join(parts))


def _with_known_source(project: Project, studio: ImageStudio, settings: ImageSettings) -> ImageSettings:
    return settings if settings.source in _known_sources(project, studio) else replace(settings, source=NEW)


def _known_sources(project: Project, studio: ImageStudio) -> dict[str, str]:
    """What images can be drawn of, and how it is called on the page."""
    drawn = {} if studio.mask is None else {DRAWN: texts.IMAGES_SOURCE_DRAWN}
    held = {} if studio.held is None else {HELD: texts.IMAGES_SOURCE_HELD}
    own = {f"{OWN}{name}": texts.IMAGES_SOURCE_OWN.format(name=name) for name in project.support_names()}
    return {NEW: texts.IMAGES_SOURCE_NEW, **held, **drawn, **own}


def _first_signature(session: Session) -> tuple:
    """The first image is drawn when the tab is opened; when another project or engine is there, it is asked for."""
    project = session.project
    if project is None or session.at_start:
        return ()
    return project.path, tuple(project.image_engine_versions())


def _first(session: Session) -> list:
    if session.project is None:
        return [None, None, "", ""]
    studio = studio_of(session)
    studio.turn_to_newer(session.project.image_engine_versions())
    if studio.found(studio.settings) is not None:  # a reload
        return _shown(session)
    return [None, None, markup.line(texts.IMAGES_PRESS), ""]


def _controls_signature(session: Session) -> tuple:
    project = session.project
    if project is None:
        return ()
    studio = studio_of(session)
    names = tuple(project.support_names())
    return project.path, names, tuple(project.image_engine_versions()), studio.changed, studio.mask is None


def _controls(session: Session) -> list:
    if session.project is None:
        return [gr.skip()] * 6
    studio = studio_of(session)
    settings = studio.settings
    versions = [(texts.MASKS_PRETRAINED, "")] + [(v, v) for v in session.project.image_engine_versions()]
    sources = _known_sources(session.project, studio)
    return [
        gr.Dropdown(choices=[(text, key) for key, text in sources.items()], value=settings.source),
        settings.conditioning,
        settings.seed,
        settings.steps,
        settings.strength,
        gr.Dropdown(choices=versions, value=studio.version),
    ]


def _real_signature(session: Session) -> tuple:
    project = session.project
    return () if project is None else (project.path, tuple(project.support_names()))


def _real(session: Session) -> gr.Gallery:
    project = session.project
    names = project.support_names() if project else []
    return gr.Gallery([(pictures.small_or_unreadable(partial(_real_image, project, name)), name) for name in names])


def _real_image(project: Project, name: str) -> np.ndarray:
    return project.support_pair(name).image


def _pairs_signature(session: Session) -> tuple:
    project = session.project
    if project is None:
        return ()
    names = project.pair_names()
    running = active_job(project)
    latest = latest_job(project, "generate")
    state = latest and (latest.id, latest.state)
    pairs = len(names), len(read_near_duplicates(project))
    return project.path, pairs, running and running.id, state, bool(project.image_engine_versions())


def _pairs(session: Session) -> list:
    project = session.project
    names = project.pair_names() if project else []
    ready = bool(project and project.image_engine_versions()) and active_job(project) is None
    problem = markup.failure(latest_job(project, "generate")) if project else ""
    if not names:
        text = texts.IMAGES_NO_PAIRS if project and project.image_engine_versions() else texts.IMAGES_PAIRS_FIRST
        return [gr.Button(interactive=ready), markup.line(text) + problem, "", gr.Gallery(visible=False)]
    flagged = sum(bool(entry.flags) for entry in all_entries(project))
    items = [(pictures.small_or_unreadable(partial(_pair_image, project, name)), name) for name in names[-6:]]
    text = texts.IMAGES_PAIRS.format(count=len(names), noun=texts.noun(len(names), "pair"), flagged=flagged)
    caption = markup.line(texts.IMAGES_LATEST)
    return [gr.Button(interactive=ready), markup.line(text) + problem, caption, gr.Gallery(items, visible=True)]


def _pair_image(project: Project, name: str) -> np.ndarray:
    return project.synthetic_pair(name).image
