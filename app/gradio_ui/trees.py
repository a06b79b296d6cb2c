"""Tab 2, Trees: vessel trees that grow while their parameters are moved."""

from __future__ import annotations

from dataclasses import replace

import gradio as gr
import numpy as np

from app import texts
from app.gradio_ui import markup, pictures, tree_files, tree_plots, tree_studio, tree_view
from app.gradio_ui.context import Ui
from app.gradio_ui.numbers import checked_seed, seed_field, slider
from app.gradio_ui.state import Session
from app.gradio_ui.tree_studio import MASK
from univg.errors import InputError
from univg.overlay import MISSED, PREDICTION, REFERENCE
from univg.sca import SCAConfig, TreeScene, with_root_toggled

# What changes the tree is done in the order in which it was asked for; of a choice, the newest value counts.
_IN_TURN = {"concurrency_id": "tree", "concurrency_limit": 1}
_CHOICE = {**_IN_TURN, "trigger_mode": "always_last"}
_COMPARED = 8  # trees: a second or two
_VARIATIONS = 9


def build(ui: Ui) -> None:
    """Lay out the tab and wire it."""
    with gr.Row(elem_classes="tab-body"):
        with gr.Column(elem_classes="controls", scale=0, min_width=300):
            source = gr.Dropdown([], label=texts.TREES_SOURCE, info=texts.TREES_SOURCE_HELP, elem_id="tree-source")
            recipe = gr.Dropdown([], label=texts.TREES_RECIPE, info=texts.TREES_RECIPE_HELP, elem_id="tree-recipe")
            with gr.Row():
                seed = seed_field("tree-seed")
                with gr.Column(min_width=110):
                    reroll = gr.Button(texts.TREES_REROLL, variant="primary", elem_id="tree-reroll", min_width=80)
                    lock = gr.Checkbox(False, label=texts.TREES_LOCK, elem_id="tree-lock", container=False)
            sliders = {name: _slider(name) for name in tree_view.SETTINGS[: texts.TREES_MAIN]}
            with gr.Accordion(texts.ADVANCED, open=False, elem_id="tree-advanced"):
                sliders |= {name: _slider(name) for name in tree_view.SETTINGS[texts.TREES_MAIN :]}
                closed = gr.Checkbox(
                    False, label=texts.TREES_CLOSED, info=texts.TREES_CLOSED_HELP, elem_id="tree-closed"
                )
                gr.HTML(markup.line(texts.TREES_UNIT_HELP, "help"))
            many = tree_files.ManyTrees()
            files = tree_files.TreeFiles()
        with gr.Column(elem_classes="canvas", scale=1, min_width=400):
            with gr.Row(elem_classes="tree-tools"):
                click = gr.Radio(
                    [(what, key) for key, what in texts.TREES_CLICKS.items()],
                    value="root",
                    label=texts.TREES_CLICK,
                    elem_id="tree-click",
                    scale=3,
                )
                show = gr.Radio(
                    [(what, key) for key, what in texts.TREES_SHOWS.items()],
                    value="image",
                    label=texts.TREES_SHOW,
                    elem_id="tree-show",
                    scale=2,
                )
                with gr.Column(min_width=190, scale=2), gr.Row():
                    close = gr.Button(texts.TREES_CLOSE, size="sm", elem_id="tree-close", min_width=60)
                    undo = gr.Button(texts.TREES_UNDO, size="sm", elem_id="tree-undo", min_width=50)
                    clear = gr.Button(texts.TREES_CLEAR, size="sm", elem_id="tree-clear", min_width=60)
            picture = gr.Image(elem_id="tree-picture", alt_text=texts.TAB_TREES, **pictures.PICTURE)
            with gr.Row(elem_classes="strip-head"):
                facts = gr.HTML(elem_id="tree-facts")
                gr.HTML(_legend())
            with gr.Row(elem_classes="strip-head"):
                meter = gr.HTML(elem_id="tree-meter")
                with gr.Row():
                    animate = gr.Button(texts.TREES_ANIMATE, size="sm", elem_id="tree-animate", min_width=90)
                    vary = gr.Button(texts.TREES_VARIATIONS, size="sm", elem_id="tree-vary", min_width=90)
                    compare = gr.Button(texts.TREES_COMPARE, size="sm", elem_id="tree-compare", min_width=130)
            strip = gr.Gallery(columns=_VARIATIONS, visible=False, elem_id="tree-strip", **pictures.STRIP)
            plots = gr.HTML(elem_id="tree-plots")

    settings = [*sliders.values()]

    ui.part([source, seed, lock, closed, *settings], tree_view.controls_signature, tree_view.controls, later=True)
    ui.part([recipe], tree_view.recipe_signature, tree_view.recipe_choice)
    # Handlers draw the picture themselves: a redraw that began earlier could put an older one in its place.
    ui.part([picture, facts], tree_view.project_signature, tree_view.shown_part, later=True)
    ui.part([strip], tree_view.varied_signature, tree_view.hide_other_variations, later=True)
    ui.part([meter], tree_view.meter_signature, lambda session: [tree_view.meter(session)], later=True)
    ui.live([*(s.input for s in settings), closed.input], slide, [closed, *settings], [picture, facts], **_IN_TURN)
    ui.on([s.release for s in settings], lambda session: None, **_CHOICE)  # the rest of the tab follows
    ui.on(source.input, choose_source, [source], [picture, facts], **_CHOICE)
    ui.on(recipe.input, _choose_recipe, [recipe], [picture, facts], **_CHOICE)
    ui.on([seed.submit, seed.blur], _set_seed, [seed], [picture, facts], **_CHOICE)
    ui.on(reroll.click, _reroll_seed, [], [picture, facts], **_IN_TURN)
    ui.on(lock.input, _set_lock, [lock], **_CHOICE)
    ui.on(show.input, _set_show, [show], [picture, facts], **_CHOICE)
    ui.on_clicked(picture, _clicked, click, [picture, facts], **_IN_TURN)
    ui.on(close.click, _close_shape, [click], [picture, facts], **_IN_TURN)
    ui.on(undo.click, _undo_last, [], [picture, facts], **_IN_TURN)
    ui.on(clear.click, _clear_drawing, [], [picture, facts], **_IN_TURN)
    ui.on(animate.click, _watch_growth, [], [picture], show_progress="minimal", **_IN_TURN)
    ui.on(vary.click, _variations, [], [strip], show_progress="minimal", **_IN_TURN)
    ui.on_selected(strip, _choose_variation, [picture, facts], **_IN_TURN)
    ui.on(compare.click, _compare_with_masks, [], [plots], show_progress="minimal")
    many.wire(ui)
    files.wire(ui, picture, facts, **_IN_TURN)


def slide(session: Session, is_closed: bool, *values: float) -> list:
    """Grow with what the sliders say: `values` in the order of `tree_view.SETTINGS`."""
    studio = tree_view.studio_of(session)
    before = studio.scene.config
    try:
        scene = tree_studio.with_settings(
            studio.scene, dict(zip(tree_view.SETTINGS, values, strict=True)), closed=is_closed
        )
        moved = [
            name for name in (*tree_view.SETTINGS, "venation") if getattr(before, name) != getattr(scene.config, name)
        ]
        if not moved:
            return [gr.skip(), gr.skip()]
        shown = tree_view.shown(session, replace_scene=scene)
    except ValueError as error:
        # The handle stays where it is; the last tree that could grow stays on screen.
        return [gr.skip(), markup.line(f"{texts.tree_problem(error)}.", "notice")]
    studio.go_to(scene, sliding=moved[0])
    return shown


def choose_source(session: Session, chosen: str) -> list:
    """Turn to the mask or preset `chosen`, as in `tree_studio.sources`."""
    studio, project = tree_view.studio_of(session), session.required_project()
    if chosen == studio.source:
        return tree_view.shown(session)
    kind_changes = chosen.startswith(MASK) != studio.source.startswith(MASK)
    keeps = not kind_changes and chosen.startswith(MASK)
    config = studio.scene.config if keeps else tree_studio.default_config(chosen, project.modality)
    seed = studio.scene.seed if studio.locked else tree_view.new_seed()
    studio.corners.clear()
    studio.go_to(tree_studio.scene_from(project, chosen, config=config, seed=seed), chosen)
    return tree_view.shown(session)


def _turn_to(session: Session, scene: TreeScene) -> list:
    """Not before it has grown: with roots and obstacles that were drawn, another seed may leave no way to."""
    try:
        shown = tree_view.shown(session, replace_scene=scene)
    except ValueError as error:
        raise InputError(texts.tree_problem(error)) from error
    tree_view.studio_of(session).go_to(scene)
    return shown


def _choose_recipe(session: Session, chosen: str) -> list:
    studio = tree_view.studio_of(session)
    if chosen not in ("", tree_view.CHANGED, tree_view.recipe_of(session)):
        seed = studio.scene.seed if studio.locked else tree_view.new_seed()
        return _turn_to(session, replace(studio.scene, config=tree_view.recipes_of(session)[chosen], seed=seed))
    return tree_view.shown(session)


def _set_seed(session: Session, number: float | None) -> list:
    studio = tree_view.studio_of(session)
    seed = checked_seed(number)
    if seed != studio.scene.seed:
        return _turn_to(session, replace(studio.scene, seed=seed))
    return tree_view.shown(session)


def _reroll_seed(session: Session) -> list:
    studio = tree_view.studio_of(session)
    if studio.locked:
        raise InputError(texts.TREES_LOCKED, fix=texts.TREES_LOCKED_FIX.format(lock=texts.TREES_LOCK))
    return _turn_to(session, replace(studio.scene, seed=tree_view.new_seed()))


def _set_lock(session: Session, locked: bool) -> None:
    tree_view.studio_of(session).locked = locked


def _set_show(session: Session, what: str) -> list:
    tree_view.studio_of(session).show = what
    return tree_view.shown(session)


def _clicked(session: Session, mode: str, at: list[int]) -> list:
    studio = tree_view.studio_of(session)
    factor = pictures.shown_factor(studio.scene.shape, studio.shown_side)
    point = (float(at[1]) / factor, float(at[0]) / factor)
    if mode == "root":
        reach = max(studio.scene.shape) / 50
        return _turn_to(session, with_root_toggled(studio.scene, point, reach=reach))
    studio.corners.append(point)
    return tree_view.shown(session)


def _close_shape(session: Session, mode: str) -> list:
    studio = tree_view.studio_of(session)
    if len(studio.corners) < 3:
        raise InputError(texts.TREES_TOO_FEW.format(got=len(studio.corners)), fix=texts.TREES_TOO_FEW_FIX)
    polygon = tuple(studio.corners)
    if mode == "boundary":
        scene = replace(studio.scene, boundary=polygon)
    else:
        scene = replace(studio.scene, obstacles=(*studio.scene.obstacles, polygon))
    tree_view.check_grows(session, scene)
    studio.corners.clear()
    studio.go_to(scene)
    return tree_view.shown(session)


def _undo_last(session: Session) -> list:
    if not tree_view.studio_of(session).undo():
        raise InputError(texts.TREES_NOTHING_TO_UNDO)
    return tree_view.shown(session)


def _clear_drawing(session: Session) -> list:
    studio = tree_view.studio_of(session)
    studio.corners.clear()
    studio.go_to(replace(studio.scene, roots=(), obstacles=(), boundary=()))
    return tree_view.shown(session)


def _watch_growth(session: Session) -> str:
    studio = tree_view.studio_of(session)
    grown = tree_studio.grow(session.required_project(), studio.scene)
    studio.shown_side = tree_studio.GROWTH_SIDE
    return tree_studio.animation(grown.tree, session.pictures_of("trees"))


def _variations(session: Session) -> gr.Gallery:
    project, studio = session.required_project(), tree_view.studio_of(session)
    items, problem = [], ""
    for number in range(_VARIATIONS):
        scene = replace(studio.scene, seed=studio.scene.seed + 1 + number)
        try:
            mask = tree_studio.grow(project, scene).mask
        except ValueError as error:  # of this seed alone, see `_turn_to`
            problem = texts.tree_problem(error)
            continue
        small = pictures.reduce(mask, pictures.THUMBNAIL_SIDE)
        items.append((np.repeat(small[..., None] * np.uint8(255), 3, axis=2), str(scene.seed)))
    if not items:
        raise InputError(problem)
    studio.varied = tree_view.varied_signature(session)
    return gr.Gallery(items, visible=True)


def _choose_variation(session: Session, caption: str) -> list:
    return _turn_to(session, replace(tree_view.studio_of(session).scene, seed=int(caption)))


def _compare_with_masks(session: Session) -> str:
    project, studio = session.required_project(), tree_view.studio_of(session)
    real = tree_studio.real_measurements(project, tree_studio.compared_side(studio.scene))
    if not real:
        raise InputError(texts.TREES_COMPARE_NEEDS, fix=texts.TREES_COMPARE_FIX)
    generated = tree_studio.generated_measurements(project, studio.scene, _COMPARED)
    return tree_plots.comparison({texts.TREES_GENERATED: generated}, real)


def _slider(name: str) -> gr.Slider:
    label, help_text, low, high, step = texts.TREE_SLIDERS[name]
    value = getattr(SCAConfig(), name)
    return slider(low, high, value, step=step, label=label, info=help_text, elem_id=f"tree-{name.replace('_', '-')}")


def _legend() -> str:
    colours = (PREDICTION, MISSED, REFERENCE, tree_studio.BOUNDARY)
    swatches = (
        f'<span><i style="background:rgb{colour}"></i>{text}</span>'
        for colour, text in zip(colours, texts.TREES_LEGEND.values(), strict=True)
    )
    return f'<div class="legend">{"".join(swatches)}</div>'
