"""Tab 3, Masks: the mask engine adapted to the user's masks, and its strength under their finger."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import gradio as gr
import numpy as np

from app import texts
from app.gradio_ui import markup, mask_studio, pictures, tree_plots, tree_studio, tree_view
from app.gradio_ui.context import Ui
from app.gradio_ui.devices import selectable
from app.gradio_ui.engine_jobs import EngineJobs
from app.gradio_ui.mask_studio import COMPARED, NOISE, STRIP, TREE, MaskSettings, MaskStudio
from app.gradio_ui.models import support_key
from app.gradio_ui.numbers import checked_seed, is_measured, seed_field, slider
from app.gradio_ui.state import Session
from univg.errors import InputError
from univg.metrics import NEAR_COPY
from univg.overlay import overlay_mask
from univg.workflow.project import Project

# What draws a mask is done in the order in which it was asked for.
_IN_TURN = {"concurrency_id": "mask", "concurrency_limit": 1}
# A value that is chosen while another one is drawn must not be lost.
_CHOICE = {**_IN_TURN, "trigger_mode": "always_last"}
# Settings, from their controls.
_READ = {"scale": float, "seed": checked_seed, "start": str, "strength": float, "steps": int}
_ADAPTERS = ("loha", "lora", "lora+loha")


def _said_when_done(result: Mapping[str, object]) -> str:
    said = texts.MASKS_DONE.format(mask_engine=result.get("mask_engine", ""))
    nearest = result.get("nearest_dice")
    return f"{said} {texts.MASKS_DONE_NEAREST.format(dice=nearest)}" if is_measured(nearest) else said


JOBS = EngineJobs("mask-engine", texts.MASKS_ADAPT, texts.MASKS_READY, _said_when_done, "mask")


def build(ui: Ui, tab: gr.Tab) -> None:
    """Lay out the tab and wire it; the first mask is drawn when `tab` is opened."""
    with gr.Row(elem_classes="tab-body"):
        with gr.Column(elem_classes="controls", scale=0, min_width=300):
            jobs = JOBS.build()
            scale = slider(
                0, 1.5, 0.7, step=0.05, label=texts.MASKS_SCALE, info=texts.MASKS_SCALE_HELP, elem_id="mask-scale"
            )
            start = gr.Radio(
                [(text, key) for key, text in texts.MASKS_STARTS.items()],
                value=TREE,
                label=texts.MASKS_START,
                elem_id="mask-start",
            )
            strength = slider(
                0,
                1,
                0.45,
                step=0.05,
                label=texts.MASKS_STRENGTH,
                info=texts.MASKS_STRENGTH_HELP,
                elem_id="mask-strength",
            )
            with gr.Row():
                seed = seed_field("mask-seed")
                another = gr.Button(texts.TREES_REROLL, elem_id="mask-reroll", min_width=80)
            with gr.Accordion(texts.ADVANCED, open=False, elem_id="mask-advanced"):
                steps = slider(
                    4, 30, 12, step=1, label=texts.MASKS_STEPS, info=texts.MASKS_STEPS_HELP, elem_id="mask-steps"
                )
                version = gr.Dropdown([], label=texts.MASKS_ENGINE, elem_id="mask-engine")
                adapter = gr.Radio(
                    [(texts.MASKS_ADAPTERS[kind], kind) for kind in _ADAPTERS],
                    value="loha",
                    label=texts.MASKS_ADAPTER,
                    info=texts.MASKS_ADAPTER_HELP,
                    elem_id="mask-adapter",
                )
                device = gr.Radio(selectable(), value="auto", label=texts.DEVICE, elem_id="mask-device")
        with gr.Column(elem_classes="canvas", scale=1, min_width=400):
            with gr.Row(elem_id="mask-pictures"):
                with gr.Column(min_width=200, scale=1):
                    gr.HTML(markup.line(texts.MASKS_TREE_CAPTION), elem_classes="picture-caption")
                    tree = gr.Image(elem_id="mask-tree", alt_text=texts.MASKS_TREE_CAPTION, **pictures.PICTURE)
                with gr.Column(min_width=200, scale=1):
                    caption = gr.HTML(elem_id="mask-caption", elem_classes="picture-caption")
                    picture = gr.Image(elem_id="mask-picture", alt_text=texts.TAB_MASKS, **pictures.PICTURE)
            with gr.Row(elem_classes="strip-head"):
                facts = gr.HTML(elem_id="mask-facts")
                with gr.Row():
                    sweep = gr.Button(texts.MASKS_SWEEP, size="sm", elem_id="mask-sweep", min_width=110)
                    compare = gr.Button(texts.MASKS_COMPARE, size="sm", elem_id="mask-compare", min_width=130)
            frames = gr.HTML(elem_id="mask-frames", visible="hidden")
            strip = gr.Gallery(columns=len(STRIP), elem_id="mask-strip", visible=False, **pictures.STRIP)
            gr.HTML(markup.line(texts.MASKS_REAL_CAPTION), elem_classes="picture-caption")
            real = gr.Gallery(columns=6, elem_id="mask-real", **pictures.STRIP)
            plots = gr.HTML(elem_id="mask-plots")

    controls = [scale, start, strength, seed, steps]
    ui.part([*controls, version], _controls_signature, _controls)
    JOBS.wire(ui, jobs, {"adapter": adapter, "device": device})
    ui.part([real], _real_signature, lambda session: [_real(session)], later=True)
    shown = [picture, caption, tree, facts, frames]
    ui.part(shown, _first_signature, _first, later=True)
    ui.live([scale.input], scrub, [scale], [picture, caption])
    ui.on(scale.release, partial(_settle, "scale"), [scale], shown, **_CHOICE)
    ui.on(start.input, partial(_settle, "start"), [start], shown, **_CHOICE)
    ui.on(strength.release, partial(_settle, "strength"), [strength], shown, **_CHOICE)
    ui.on(steps.release, partial(_settle, "steps"), [steps], shown, **_CHOICE)
    ui.on([seed.submit, seed.blur], partial(_settle, "seed"), [seed], shown, **_CHOICE)
    ui.on(tab.select, _opened, [], shown, **_IN_TURN)
    ui.on(another.click, _another_seed, [], shown, **_IN_TURN)
    ui.on(version.input, _choose_version, [version], shown, **_CHOICE)
    ui.part([strip], _swept_signature, _hide_other_sweep, later=True)
    ui.on(sweep.click, _sweep, [], [strip, frames], show_progress="minimal", **_IN_TURN)
    ui.on_selected(strip, _choose_from_strip, shown, **_IN_TURN)
    ui.on(compare.click, _compare, [], [plots], show_progress="minimal")


def studio_of(session: Session) -> MaskStudio:
    project = session.required_project()
    if session.masks is None:
        session.masks = MaskStudio.of(project)
    session.masks.follow(project)
    return session.masks


def scrub(session: Session, scale: float) -> list:
    """While α is moved: the mask at the nearest α that is there already, at once."""
    studio = studio_of(session)
    wanted = replace(studio.settings, scale=float(scale))
    found = studio.nearest_found(wanted)
    if found is None:
        return [gr.skip(), _caption(wanted.scale, exact=False)]
    return [_save(session, found[1], replace(wanted, scale=found[0])), _caption(found[0], exact=found[0] == scale)]


def _settle(name: str, session: Session, value: float | str | None) -> list:
    """When the control of the setting `name` is let go: the mask for it and the other settings as they are.

    Of the other controls nothing is read: while the first mask is drawn the page may show a seed that is old by now.
    """
    studio = studio_of(session)
    settings = replace(studio.settings, **{name: _READ[name](value)})
    if settings == studio.settings and studio.found(settings) is not None:
        return [gr.skip()] * 5
    studio.settings = settings
    return _shown(session)


def _opened(session: Session) -> list:
    if session.project is None or studio_of(session).found(studio_of(session).settings) is not None:
        return [gr.skip()] * 5
    return _shown(session)


def _another_seed(session: Session) -> list:
    studio = studio_of(session)
    studio.settings = replace(studio.settings, seed=tree_view.new_seed())
    studio.changed += 1
    return _shown(session)


def _choose_version(session: Session, chosen: str) -> list:
    studio = studio_of(session)
    studio.version = chosen if chosen in session.required_project().mask_engine_versions() else ""
    return _shown(session)


def _sweep(session: Session) -> list:
    studio, made_of = studio_of(session), _swept_signature(session)
    wanted = [replace(studio.settings, scale=scale) for scale in STRIP]
    masks = mask_studio.draw(session.required_project(), studio, wanted)
    if _swept_signature(session) != made_of:  # some masks are of before, some of after
        raise InputError(texts.MASKS_CHANGED, fix=texts.MASKS_CHANGED_FIX.format(sweep=texts.MASKS_SWEEP))
    items = [
        (_thumbnail(mask), texts.MASKS_ALPHA.format(scale=scale)) for mask, scale in zip(masks, STRIP, strict=True)
    ]
    studio.swept = made_of
    return [gr.Gallery(items, visible=True), _frames(studio)]


def _swept_signature(session: Session) -> tuple:
    """What the masks of a sweep have in common: all but α."""
    project = session.project
    if project is None:
        return ()
    studio = studio_of(session)
    return project.path, studio.version, support_key(project), replace(studio.settings, scale=0.0)


def _hide_other_sweep(session: Session) -> list:
    """The strip goes when what it was made of has changed."""
    current = _swept_signature(session)
    return [gr.skip() if current and current == studio_of(session).swept else gr.Gallery(visible=False)]


def _choose_from_strip(session: Session, caption: str) -> list:
    studio = studio_of(session)
    labels = {texts.MASKS_ALPHA.format(scale=scale): scale for scale in STRIP}
    studio.settings = replace(studio.settings, scale=labels[caption])
    studio.changed += 1
    return _shown(session)


def _compare(session: Session) -> str:
    """Masks of as many seeds against the user's own, with the trees they started from between."""
    project, studio = session.required_project(), studio_of(session)
    real = mask_studio.support_masks(project)
    if not real:
        raise InputError(texts.TREES_COMPARE_NEEDS, fix=texts.TREES_COMPARE_FIX)
    wanted = [replace(studio.settings, seed=studio.settings.seed + number) for number in range(COMPARED)]
    drawn = mask_studio.draw(project, studio, wanted)
    trees = [mask_studio.start_tree(project, settings.seed) for settings in wanted]
    side = max(drawn[0].shape)  # diameters of the user's masks at their own size would be others
    groups = {
        texts.MASKS_GROUPS["trees"]: mask_studio.measure(trees, side),
        texts.MASKS_GROUPS["engine"]: mask_studio.measure(drawn, side),
    }
    histograms = tree_plots.comparison(groups, tree_studio.real_measurements(project, side))
    points = mask_studio.feature_map([trees, drawn, real])
    copies = [mask_studio.nearest_copy(project, mask) for mask in drawn]
    sentence = texts.MASKS_COPIES.format(
        median=float(np.median(copies)), near=sum(copy > NEAR_COPY for copy in copies), count=len(copies)
    )
    labels = [*groups, texts.TREES_REAL]
    return f"{histograms}{tree_plots.scatter(dict(zip(labels, points, strict=True)))}{markup.line(sentence)}"


# --- what is shown


def _shown(session: Session) -> list:
    project, studio = session.required_project(), studio_of(session)
    (mask,) = mask_studio.draw(project, studio, [studio.settings])
    return [
        _save(session, mask, studio.settings),
        _caption(studio.settings.scale, exact=True),
        _tree_picture(session),
        _facts(session, studio, mask),
        _frames(studio),
    ]


def _save(session: Session, mask: np.ndarray, settings: MaskSettings) -> str:
    return pictures.save_picture(_white(mask), session.pictures_of("masks"), _parameters(studio_of(session), settings))


def _parameters(studio: MaskStudio, settings: MaskSettings) -> dict:
    return {"synthetic": True, "mask_engine": studio.version or "pretrained", **vars(settings)}


def _tree_picture(session: Session) -> str | None:
    studio = studio_of(session)
    if studio.settings.start == NOISE:
        return None
    tree = mask_studio.start_tree(session.required_project(), studio.settings.seed)
    canvas = overlay_mask(np.full(tree.shape, 11, np.uint8), tree, opacity=0.9)
    return pictures.save_picture(pictures.reduce(canvas), session.pictures_of("masks"), {"seed": studio.settings.seed})


def _frames(studio: MaskStudio) -> str:
    """Every mask of these settings that is there already, for ``masks.js`` to show while α is moved."""
    images = []
    for scale, mask in sorted(studio.found_at_other_scales(studio.settings).items()):
        source = pictures.as_data_uri(mask, _parameters(studio, replace(studio.settings, scale=scale)))
        exact, near = (html.escape(_words(scale, exact=exact)) for exact in (True, False))
        images.append(f'<img alt="" data-scale="{scale:g}" data-line="{exact}" data-near="{near}" src="{source}">')
    return "".join(images)


def _caption(scale: float, *, exact: bool) -> str:
    return markup.line(_words(scale, exact=exact))


def _words(scale: float, *, exact: bool) -> str:
    return (texts.MASKS_AT if exact else texts.MASKS_NEAREST).format(scale=scale)


def _facts(session: Session, studio: MaskStudio, mask: np.ndarray | None = None) -> str:
    parts = []
    if mask is not None:
        parts.append(texts.MASKS_FACTS.format(density=100 * mask.mean(), seconds=studio.milliseconds / 1000))
    if not studio.version:
        parts.append(texts.MASKS_NOT_ADAPTED)
    elif mask is not None:
        copy = mask_studio.nearest_copy(session.required_project(), mask)
        if copy > NEAR_COPY:
            parts.append(texts.MASKS_COPY.format(dice=copy))
    return markup.line(" ".join(parts))


def _white(mask: np.ndarray) -> np.ndarray:
    return np.repeat((mask * np.uint8(255))[..., None], 3, axis=2)


def _thumbnail(mask: np.ndarray) -> np.ndarray:
    return _white(pictures.reduce(mask, pictures.THUMBNAIL_SIDE))


def _first_signature(session: Session) -> tuple:
    """The first mask is drawn when the project is opened or a new engine is there; later ones by their handlers."""
    project = session.project
    if project is None or session.at_start:
        return ()
    return project.path, tuple(project.mask_engine_versions()), support_key(project)


def _first(session: Session) -> list:
    if session.project is None:
        return [None, "", None, "", ""]
    studio = studio_of(session)
    studio.turn_to_newer(session.project.mask_engine_versions())
    if studio.found(studio.settings) is not None:  # a reload
        return _shown(session)
    return [None, markup.line(texts.MASKS_PRESS), _tree_picture(session), _facts(session, studio), _frames(studio)]


def _controls_signature(session: Session) -> tuple:
    project = session.project
    if project is None:
        return ()
    return project.path, tuple(project.mask_engine_versions()), studio_of(session).changed


def _controls(session: Session) -> list:
    if session.project is None:
        return [gr.skip()] * 6
    studio = studio_of(session)
    settings = studio.settings
    choices = [(texts.MASKS_PRETRAINED, "")] + [(v, v) for v in session.project.mask_engine_versions()]
    return [
        settings.scale,
        settings.start,
        settings.strength,
        settings.seed,
        settings.steps,
        gr.Dropdown(choices=choices, value=studio.version),
    ]


def _real_signature(session: Session) -> tuple:
    project = session.project
    return () if project is None else (project.path, support_key(project))


def _real(session: Session) -> gr.Gallery:
    project = session.project
    names = project.support_names() if project else []
    return gr.Gallery([(pictures.small_or_unreadable(partial(_real_mask, project, name)), name) for name in names])


def _real_mask(project: Project, name: str) -> np.ndarray:
    return _thumbnail(project.support_pair(name).mask)
