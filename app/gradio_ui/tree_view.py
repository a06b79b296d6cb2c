"""What the Trees tab shows of the scene being worked on: the values of the page's components."""

from __future__ import annotations

import secrets
from dataclasses import replace

import gradio as gr

from app import texts
from app.gradio_ui import markup, pictures, tree_plots, tree_studio
from app.gradio_ui.state import Session
from app.gradio_ui.tree_studio import MASK, PRESET, Studio
from univg.errors import InputError
from univg.metrics import NEAR_COPY
from univg.sca import SCAConfig, TreeScene, recipes_for
from univg.workflow.tree_presets import tree_presets

CHANGED = "changed"  # the choice shown when the parameters are no named ones
SETTINGS = list(texts.TREE_SLIDERS)
_OWN = "own:"


def studio_of(session: Session) -> Studio:
    project = session.required_project()
    if session.trees is None:
        session.trees = Studio.of(project)
    elif session.trees.source not in tree_studio.sources(project):
        # Its pair was removed: go on with what is left, and keep the parameters.
        fresh = Studio.of(project)
        session.trees.go_to(replace(fresh.scene, config=session.trees.scene.config), fresh.source)
    try:
        scene = tree_studio.brought_up_to_date(project, session.trees.scene)
    except InputError:  # its image is damaged, which is said where a tree would grow; others can be chosen
        return session.trees
    if scene.shape != session.trees.scene.shape:
        session.trees.corners.clear()
    session.trees.scene = scene
    return session.trees


def new_seed() -> int:
    return secrets.randbelow(1_000_000)


def check_grows(session: Session, scene: TreeScene) -> None:
    """Raise what a person can act on when `scene` cannot be grown."""
    try:
        tree_studio.grow(session.required_project(), scene)
    except ValueError as error:
        raise InputError(texts.tree_problem(error)) from error


def shown(session: Session, replace_scene: TreeScene | None = None) -> list:
    """The picture, its parameters inside, and the line below it."""
    project, studio = session.required_project(), studio_of(session)
    scene = replace_scene or studio.scene
    studio.shown_side = pictures.SHOWN_SIDE
    grown = tree_studio.grow(project, scene)
    canvas = tree_studio.draw(project, replace(studio, scene=scene), grown.mask)
    canvas = pictures.reduce(tree_studio.mark_roots(canvas, grown.tree))
    roots = len(grown.tree.roots)
    text = texts.TREES_FACTS.format(
        nodes=len(grown.tree),
        roots=roots,
        noun=texts.noun(roots, "root"),
        density=100 * grown.mask.mean(),
        ms=grown.milliseconds,
    )
    line = markup.line(text)
    if grown.copy_dice is not None and grown.copy_dice > NEAR_COPY:
        line += markup.line(texts.TREES_COPY.format(dice=grown.copy_dice), "notice")
    return [pictures.save_picture(canvas, session.pictures_of("trees"), scene.to_json()), line]


def project_signature(session: Session) -> object:
    return session.project and session.project.path


def shown_part(session: Session) -> list:
    if session.project is None:
        return [None, texts.TREES_EMPTY]
    try:
        return shown(session)
    except ValueError as error:
        return [gr.skip(), markup.line(f"{texts.tree_problem(error)}.", "notice")]


def picture_signature(session: Session) -> tuple:
    if session.project is None:
        return ()
    studio = studio_of(session)
    return session.project.path, studio.source, studio.scene, studio.show, len(studio.corners)


def varied_signature(session: Session) -> tuple:
    """What variations have in common: all but the seed, which the strip says."""
    if session.project is None:
        return ()
    studio = studio_of(session)
    return session.project.path, studio.source, replace(studio.scene, seed=0)


def hide_other_variations(session: Session) -> list:
    """The strip goes when what it was made of has changed."""
    current = varied_signature(session)
    return [gr.skip() if current and current == studio_of(session).varied else gr.Gallery(visible=False)]


def controls_signature(session: Session) -> tuple:
    if session.project is None:
        return ()
    studio = studio_of(session)
    # Not the scene: a slider that is being moved must not be set back to where it was when the page was last drawn.
    return session.project.path, studio.changed, tuple(tree_studio.sources(session.project))


def controls(session: Session) -> list:
    if session.project is None:
        return [gr.skip()] * (4 + len(SETTINGS))
    studio, config = studio_of(session), studio_of(session).scene.config
    choices = [(_source_name(source), source) for source in tree_studio.sources(session.project)]
    return [
        gr.Dropdown(choices=choices, value=studio.source),
        studio.scene.seed,
        studio.locked,
        config.venation == "closed",
        *(getattr(config, name) for name in SETTINGS),
    ]


def recipe_signature(session: Session) -> tuple:
    if session.project is None:
        return ()
    return session.project.path, tuple(recipes_of(session)), recipe_of(session)


def recipe_choice(session: Session) -> list:
    if session.project is None:
        return [gr.skip()]
    recipe = recipe_of(session)
    names = [(_recipe_name(key), key) for key in recipes_of(session)]
    if recipe == CHANGED:
        names.insert(0, (texts.TREES_RECIPE_CHANGED, CHANGED))
    return [gr.Dropdown(choices=names, value=recipe)]


def meter_signature(session: Session) -> tuple:
    return picture_signature(session)[:3]


def meter(session: Session) -> str:
    if session.project is None:
        return ""
    try:
        mask = tree_studio.grow(session.project, studio_of(session).scene).mask
    except ValueError:
        return ""
    return tree_plots.murray_meter(tree_studio.mean_compliance(mask), tree_studio.real_compliance(session.project))


def recipes_of(session: Session) -> dict[str, SCAConfig]:
    """Parameters by key: the source's own, the paper's, and the user's."""
    studio, modality = studio_of(session), session.required_project().modality
    recipes = recipes_for(modality)
    found = (
        {studio.source: tree_studio.default_config(studio.source, modality)} if studio.source.startswith(PRESET) else {}
    )
    found |= recipes if studio.source.startswith(MASK) else {"paper": recipes["paper"]}
    found |= {f"{_OWN}{name}": scene.config for name, scene in tree_presets(session.required_project()).items()}
    return found


def recipe_of(session: Session) -> str:
    config = studio_of(session).scene.config
    return next((key for key, recipe in recipes_of(session).items() if recipe == config), CHANGED)


def _recipe_name(key: str) -> str:
    if key.startswith(_OWN):
        return texts.TREES_RECIPE_OWN.format(name=key.removeprefix(_OWN))
    return _source_name(key) if key.startswith(PRESET) else texts.TREES_RECIPES[key]


def _source_name(source: str) -> str:
    if source.startswith(MASK):
        return texts.TREES_SOURCE_MASK.format(name=source.removeprefix(MASK))
    return texts.TREES_SOURCE_PRESET.format(name=texts.TREE_PRESETS[source.removeprefix(PRESET)])
