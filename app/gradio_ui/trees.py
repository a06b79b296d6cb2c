"""Tab 2, Trees: vessel trees that grow while their parameters are moved."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path

import gradio as gr
import numpy as np

from app import texts
from app.gradio_ui import markup, pictures, tree_plots, tree_studio
from app.gradio_ui.context import Ui
from app.gradio_ui.errors import note
from app.gradio_ui.files import Upload, file_drop
from app.gradio_ui.state import Session
from app.gradio_ui.tree_studio import MASK, PRESET, Studio
from univg.errors import InputError
from univg.geometry import write_swc
from univg.io import check_stem, read_json, read_provenance, write_bytes_atomic, write_json_atomic, write_mask
from univg.overlay import MISSED, PREDICTION, REFERENCE
from univg.sca import SCAConfig, TreeScene, recipes_for, with_root_toggled
from univg.workflow.jobs import start_job
from univg.workflow.project import Project

_MAX_SEED = 2**31 - 1
_OWN, _CHANGED = "own:", "changed"
_COMPARED = 8  # trees: a second or two
_VARIATIONS = 9
_SETTINGS = list(texts.TREE_SLIDERS)


def build(ui: Ui) -> None:
    """Lay out the tab and wire it."""
    with gr.Row(elem_classes="tab-body"):
        with gr.Column(elem_classes="controls", scale=0, min_width=300):
            source = gr.Dropdown([], label=texts.TREES_SOURCE, info=texts.TREES_SOURCE_HELP, elem_id="tree-source")
            recipe = gr.Dropdown([], label=texts.TREES_RECIPE, info=texts.TREES_RECIPE_HELP, elem_id="tree-recipe")
            with gr.Row():
                seed = gr.Number(
                    0,
                    label=texts.TREES_SEED,
                    precision=0,
                    minimum=0,
                    maximum=_MAX_SEED,
                    elem_id="tree-seed",
                    min_width=80,
                )
                with gr.Column(min_width=110):
                    reroll = gr.Button(texts.TREES_REROLL, variant="primary", elem_id="tree-reroll", min_width=80)
                    lock = gr.Checkbox(False, label=texts.TREES_LOCK, elem_id="tree-lock", container=False)
            sliders = {name: _slider(name) for name in _SETTINGS[: texts.TREES_MAIN]}
            with gr.Accordion(texts.ADVANCED, open=False, elem_id="tree-advanced"):
                sliders |= {name: _slider(name) for name in _SETTINGS[texts.TREES_MAIN :]}
                closed = gr.Checkbox(
                    False, label=texts.TREES_CLOSED, info=texts.TREES_CLOSED_HELP, elem_id="tree-closed"
                )
                gr.HTML(markup.line(texts.TREES_UNIT_HELP, "help"))
            many = _ManyTrees()
            files = _Files()
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
            picture = gr.Image(
                format="png",
                interactive=False,
                show_label=False,
                container=False,
                buttons=["download", "fullscreen"],
                elem_id="tree-picture",
                elem_classes="picture",
                alt_text=texts.TAB_TREES,
            )
            with gr.Row(elem_classes="strip-head"):
                facts = gr.HTML(elem_id="tree-facts")
                gr.HTML(_legend())
            with gr.Row(elem_classes="strip-head"):
                meter = gr.HTML(elem_id="tree-meter")
                with gr.Row():
                    animate = gr.Button(texts.TREES_ANIMATE, size="sm", elem_id="tree-animate", min_width=90)
                    vary = gr.Button(texts.TREES_VARIATIONS, size="sm", elem_id="tree-vary", min_width=90)
                    compare = gr.Button(texts.TREES_COMPARE, size="sm", elem_id="tree-compare", min_width=130)
            strip = gr.Gallery(
                format="png",
                show_label=False,
                container=False,
                allow_preview=False,
                columns=_VARIATIONS,
                rows=1,
                object_fit="cover",
                buttons=[],
                interactive=False,
                visible=False,
                elem_id="tree-strip",
                elem_classes="strip",
            )
            plots = gr.HTML(elem_id="tree-plots")

    settings = [*sliders.values()]

    def slide(session: Session, is_closed: bool, *values: float) -> list:
        studio = _studio(session)
        before = studio.scene.config
        try:
            scene = tree_studio.with_settings(studio.scene, dict(zip(_SETTINGS, values, strict=True)), closed=is_closed)
            moved = [name for name in (*_SETTINGS, "venation") if getattr(before, name) != getattr(scene.config, name)]
            if not moved:
                return [gr.skip(), gr.skip()]
            shown = _shown(session, replace_scene=scene)
        except ValueError as error:
            # The handle stays where it is; the last tree that could grow stays on screen.
            return [gr.skip(), markup.line(str(error), "notice")]
        studio.go_to(scene, sliding=moved[0])
        return shown

    def choose_source(session: Session, chosen: str) -> list:
        studio, project = _studio(session), session.required_project()
        if chosen == studio.source:
            return _shown(session)
        kind_changes = chosen.startswith(MASK) != studio.source.startswith(MASK)
        keeps = not kind_changes and chosen.startswith(MASK)
        config = studio.scene.config if keeps else tree_studio.default_config(chosen, project.modality)
        seed = studio.scene.seed if studio.locked else _new_seed()
        studio.corners.clear()
        studio.go_to(tree_studio.scene_from(project, chosen, config=config, seed=seed), chosen)
        return _shown(session)

    def choose_recipe(session: Session, chosen: str) -> list:
        studio = _studio(session)
        if chosen not in ("", _CHANGED, _recipe_of(session)):
            seed = studio.scene.seed if studio.locked else _new_seed()
            studio.go_to(replace(studio.scene, config=_recipes(session)[chosen], seed=seed))
        return _shown(session)

    def set_seed(session: Session, number: float | None) -> list:
        studio = _studio(session)
        if number is None or not 0 <= number <= _MAX_SEED:
            raise InputError(f"The seed must lie between 0 and {_MAX_SEED}, got {number}", fix="0 is fine.")
        if int(number) != studio.scene.seed:
            studio.go_to(replace(studio.scene, seed=int(number)))
        return _shown(session)

    def reroll_seed(session: Session) -> list:
        studio = _studio(session)
        if studio.locked:
            raise InputError(texts.TREES_LOCKED, fix=texts.TREES_LOCKED_FIX.format(lock=texts.TREES_LOCK))
        studio.go_to(replace(studio.scene, seed=_new_seed()))
        return _shown(session)

    def set_lock(session: Session, locked: bool) -> None:
        _studio(session).locked = locked

    def set_show(session: Session, what: str) -> list:
        _studio(session).show = what
        return _shown(session)

    def clicked(session: Session, mode: str, at: list[int]) -> list:
        studio = _studio(session)
        factor = pictures.shown_factor(studio.scene.shape)
        point = (float(at[1]) / factor, float(at[0]) / factor)
        if mode == "root":
            reach = max(studio.scene.shape) / 50
            scene = with_root_toggled(studio.scene, point, reach=reach)
            _try(session, scene)
            studio.go_to(scene)
        else:
            studio.corners.append(point)
        return _shown(session)

    def close_shape(session: Session, mode: str) -> list:
        studio = _studio(session)
        if len(studio.corners) < 3:
            raise InputError(texts.TREES_TOO_FEW.format(got=len(studio.corners)), fix=texts.TREES_TOO_FEW_FIX)
        polygon = tuple(studio.corners)
        if mode == "boundary":
            scene = replace(studio.scene, boundary=polygon)
        else:
            scene = replace(studio.scene, obstacles=(*studio.scene.obstacles, polygon))
        _try(session, scene)
        studio.corners.clear()
        studio.go_to(scene)
        return _shown(session)

    def undo_last(session: Session) -> list:
        if not _studio(session).undo():
            raise InputError(texts.TREES_NOTHING_TO_UNDO)
        return _shown(session)

    def clear_drawing(session: Session) -> list:
        studio = _studio(session)
        studio.corners.clear()
        studio.go_to(replace(studio.scene, roots=(), obstacles=(), boundary=()))
        return _shown(session)

    def watch_growth(session: Session) -> str:
        grown = tree_studio.grow(session.required_project(), _studio(session).scene)
        return tree_studio.animation(grown.tree, session.folder / "pictures")

    def variations(session: Session) -> gr.Gallery:
        project, studio = session.required_project(), _studio(session)
        items = []
        for number in range(_VARIATIONS):
            scene = replace(studio.scene, seed=studio.scene.seed + 1 + number)
            mask = tree_studio.grow(project, scene).mask
            small = pictures.reduce(mask, pictures.THUMBNAIL_SIDE)
            items.append((np.repeat(small[..., None] * np.uint8(255), 3, axis=2), str(scene.seed)))
        return gr.Gallery(items, visible=True)

    def choose_variation(session: Session, caption: str) -> list:
        studio = _studio(session)
        studio.go_to(replace(studio.scene, seed=int(caption)))
        return _shown(session)

    def compare_with_masks(session: Session) -> str:
        project, studio = session.required_project(), _studio(session)
        real = tree_studio.real_measurements(project)
        if not real:
            raise InputError(texts.TREES_COMPARE_NEEDS, fix=texts.TREES_COMPARE_FIX)
        generated = tree_studio.generated_measurements(project, studio.scene, _COMPARED)
        return tree_plots.comparison(generated, real)

    ui.part([source, seed, lock, closed, *settings], _controls_signature, _controls)
    ui.part([recipe], _recipe_signature, _recipe_choice)
    # Handlers draw the picture themselves: a redraw that began earlier could put an older one in its place.
    ui.part([picture, facts], lambda session: session.project and session.project.path, _shown_part)
    ui.part([meter], _meter_signature, lambda session: [_meter(session)])
    ui.live([*(s.input for s in settings), closed.input], slide, [closed, *settings], [picture, facts])
    ui.on([s.release for s in settings], lambda session: None)  # the rest of the tab follows
    ui.on(source.input, choose_source, [source], [picture, facts])
    ui.on(recipe.input, choose_recipe, [recipe], [picture, facts])
    ui.on([seed.submit, seed.blur], set_seed, [seed], [picture, facts])
    ui.on(reroll.click, reroll_seed, [], [picture, facts])
    ui.on(lock.input, set_lock, [lock])
    ui.on(show.input, set_show, [show], [picture, facts])
    ui.on_clicked(picture, clicked, click, [picture, facts])
    ui.on(close.click, close_shape, [click], [picture, facts])
    ui.on(undo.click, undo_last, [], [picture, facts])
    ui.on(clear.click, clear_drawing, [], [picture, facts])
    ui.on(animate.click, watch_growth, [], [picture])
    ui.on(vary.click, variations, [], [strip])
    ui.on_selected(strip, choose_variation, [picture, facts])
    ui.on(compare.click, compare_with_masks, [], [plots])
    many.wire(ui)
    files.wire(ui, picture, facts)


class _ManyTrees:
    """A job that grows many trees of the present scene into the project."""

    def __init__(self) -> None:
        with gr.Accordion(texts.TREES_MANY_TITLE, open=False, elem_id="tree-many"):
            self.count = gr.Number(
                100, label=texts.TREES_COUNT_LABEL, precision=0, minimum=1, maximum=100_000, elem_id="tree-count"
            )
            self.every = gr.Checkbox(
                True, label=texts.TREES_ALL_MASKS, info=texts.TREES_ALL_MASKS_HELP, elem_id="tree-all-masks"
            )
            self.save = gr.Button(texts.TREES_SAVE_MANY, elem_id="tree-save-many")
            self.saved = gr.HTML(elem_id="tree-saved")

    def wire(self, ui: Ui) -> None:
        ui.on(self.save.click, _start_many, [self.count, self.every])
        ui.part([self.saved], _saved_sets, lambda session: [_saved_list(session)])


def _start_many(session: Session, count: float | None, every: bool) -> None:
    project, studio = session.required_project(), _studio(session)
    scene = studio.scene
    masks = [scene.mask_name] if scene.mask_name else []
    if masks and every:
        masks = project.support_names()
    folder = _free_name(project.trees_folder, "set")
    params = {"count": int(count or 0), "scene": scene.to_json(), "masks": masks, "folder": folder}
    start_job(project, "trees", params)
    note(texts.TREES_SAVED.format(count=int(count or 0), folder=f"trees/{folder}"))


def _free_name(folder: Path, stem: str) -> str:
    number = 1
    while (folder / f"{stem}-{number:03d}").exists():
        number += 1
    return f"{stem}-{number:03d}"


def _saved_sets(session: Session) -> tuple:
    if session.project is None or not session.project.trees_folder.is_dir():
        return ()
    folders = sorted(path.parent for path in session.project.trees_folder.glob("*/trees.json"))
    return tuple((folder.name, len(list(folder.glob("*.png")))) for folder in folders)


def _saved_list(session: Session) -> str:
    lines = [texts.SAVED_TREES.format(count=count, folder=f"trees/{name}") for name, count in _saved_sets(session)]
    return "".join(markup.line(text, "help") for text in lines)


class _Files:
    """Presets of the user's own, a picture dropped back, and downloads."""

    def __init__(self) -> None:
        with gr.Accordion(texts.TREES_PRESETS_TITLE, open=False, elem_id="tree-files"):
            self.name = gr.Textbox(label=texts.TREES_PRESET_NAME, max_lines=1, elem_id="tree-preset-name")
            self.save = gr.Button(texts.TREES_PRESET_SAVE, size="sm", elem_id="tree-preset-save")
            self.drop = file_drop(label=texts.TREES_DROP, height=92, elem_id="tree-drop")
            with gr.Row():
                self.mask = gr.DownloadButton(texts.TREES_GET_MASK, size="sm", elem_id="tree-get-mask", min_width=60)
                self.tree = gr.DownloadButton(texts.TREES_GET_TREE, size="sm", elem_id="tree-get-json", min_width=60)
                self.swc = gr.DownloadButton(texts.TREES_GET_SWC, size="sm", elem_id="tree-get-swc", min_width=60)

    def wire(self, ui: Ui, picture: gr.Image, facts: gr.HTML) -> None:
        ui.on(self.save.click, _save_preset, [self.name], [self.name])
        ui.on(self.drop.upload, _restore, [self.drop], [picture, facts, self.drop])
        ui.part([self.mask, self.tree, self.swc], _picture_signature, _downloads)


def _save_preset(session: Session, name: str) -> str:
    stem = check_stem(name.strip())
    folder = _presets_folder(session.required_project())
    folder.mkdir(parents=True, exist_ok=True)
    write_json_atomic(folder / f"{stem}.json", _studio(session).scene.to_json())
    _studio(session).changed += 1
    note(texts.TREES_PRESET_SAVED.format(name=stem))
    return ""


def _restore(session: Session, uploads: list[Upload]) -> list:
    """Bring back the scene inside a dropped PNG; the drop zone is empty afterwards."""
    if not uploads:
        return [gr.skip(), gr.skip(), None]
    project, studio = session.required_project(), _studio(session)
    scene = TreeScene.from_json(read_provenance(uploads[0].path))
    if scene.modality is not project.modality:
        theirs, ours = (texts.MODALITIES[modality] for modality in (scene.modality, project.modality))
        raise InputError(
            texts.TREES_OTHER_MODALITY.format(theirs=theirs, ours=ours), fix=texts.TREES_OTHER_MODALITY_FIX
        )
    source = f"{MASK}{scene.mask_name}" if scene.mask_name else f"{PRESET}{scene.preset}"
    if scene.mask_name:
        name = scene.mask_name
        known = name in project.support_names()
        same = known and project.load_support().sha256[f"masks/{name}.png"] == scene.mask_sha256
        if not known:
            first = next(iter(tree_studio.sources(project)))
            base = tree_studio.scene_from(project, first, config=scene.config, seed=scene.seed)
            drawn = {} if base.shape != scene.shape else {"roots": scene.roots, "obstacles": scene.obstacles}
            scene, source = replace(base, **drawn), first
        if not same:
            gr.Warning(texts.TREES_RESTORED_OTHER_MASK.format(name=name), title=texts.CHECK_THIS)
    _try(session, scene)
    studio.corners.clear()
    studio.go_to(scene, source)
    note(texts.TREES_RESTORED)
    return [*_shown(session), None]


def _downloads(session: Session) -> list:
    if session.project is None:
        return [gr.skip()] * 3
    studio = _studio(session)
    grown = tree_studio.grow(session.project, studio.scene)
    folder = session.folder / "downloads"
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"tree-{studio.scene.seed}"
    write_mask(stem.with_suffix(".png"), grown.mask, provenance=studio.scene.to_json())
    tree = replace(grown.tree, meta=studio.scene.to_json())
    write_bytes_atomic(stem.with_suffix(".json"), tree.to_json().encode())
    write_bytes_atomic(stem.with_suffix(".swc"), write_swc(grown.tree).encode())
    return [gr.DownloadButton(value=str(stem.with_suffix(suffix))) for suffix in (".png", ".json", ".swc")]


def _slider(name: str) -> gr.Slider:
    label, help_text, low, high, step = texts.TREE_SLIDERS[name]
    value = getattr(SCAConfig(), name)
    return gr.Slider(low, high, value, step=step, label=label, info=help_text, elem_id=f"tree-{name.replace('_', '-')}")


def _studio(session: Session) -> Studio:
    project = session.required_project()
    if session.trees is None:
        session.trees = Studio.of(project)
    elif session.trees.source not in tree_studio.sources(project):
        # Its pair was removed: go on with what is left, and keep the parameters.
        fresh = Studio.of(project)
        session.trees.go_to(replace(fresh.scene, config=session.trees.scene.config), fresh.source)
    return session.trees


def _new_seed() -> int:
    return secrets.randbelow(1_000_000)


def _try(session: Session, scene: TreeScene) -> None:
    """Raise what a person can act on when `scene` cannot be grown."""
    try:
        tree_studio.grow(session.required_project(), scene)
    except ValueError as error:
        raise InputError(str(error)) from error


def _shown(session: Session, replace_scene: TreeScene | None = None) -> list:
    """The picture, its parameters inside, and the line below it."""
    project, studio = session.required_project(), _studio(session)
    scene = replace_scene or studio.scene
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
    if grown.copy_dice is not None and grown.copy_dice > tree_studio.NEAR_COPY:
        line += markup.line(texts.TREES_COPY.format(dice=grown.copy_dice), "notice")
    return [pictures.save_picture(canvas, session.folder / "pictures", scene.to_json()), line]


def _shown_part(session: Session) -> list:
    if session.project is None:
        return [None, texts.TREES_EMPTY]
    try:
        return _shown(session)
    except ValueError as error:
        return [gr.skip(), markup.line(str(error), "notice")]


def _picture_signature(session: Session) -> tuple:
    if session.project is None:
        return ()
    studio = _studio(session)
    return session.project.path, studio.source, studio.scene, studio.show, len(studio.corners)


def _controls_signature(session: Session) -> tuple:
    if session.project is None:
        return ()
    studio = _studio(session)
    # Not the scene: a slider that is being moved must not be set back to where it was when the page was last drawn.
    return session.project.path, studio.changed, tuple(tree_studio.sources(session.project))


def _controls(session: Session) -> list:
    if session.project is None:
        return [gr.skip()] * (4 + len(_SETTINGS))
    studio, config = _studio(session), _studio(session).scene.config
    choices = [(_source_name(source), source) for source in tree_studio.sources(session.project)]
    return [
        gr.Dropdown(choices=choices, value=studio.source),
        studio.scene.seed,
        studio.locked,
        config.venation == "closed",
        *(getattr(config, name) for name in _SETTINGS),
    ]


def _recipe_signature(session: Session) -> tuple:
    if session.project is None:
        return ()
    return session.project.path, tuple(_recipes(session)), _recipe_of(session)


def _recipe_choice(session: Session) -> list:
    if session.project is None:
        return [gr.skip()]
    recipe = _recipe_of(session)
    names = [(_recipe_name(key), key) for key in _recipes(session)]
    if recipe == _CHANGED:
        names.insert(0, (texts.TREES_RECIPE_CHANGED, _CHANGED))
    return [gr.Dropdown(choices=names, value=recipe)]


def _meter_signature(session: Session) -> tuple:
    return _picture_signature(session)[:3]


def _meter(session: Session) -> str:
    if session.project is None:
        return ""
    try:
        mask = tree_studio.grow(session.project, _studio(session).scene).mask
    except ValueError:
        return ""
    return tree_plots.murray_meter(tree_studio.mean_compliance(mask), tree_studio.real_compliance(session.project))


def _recipes(session: Session) -> dict[str, SCAConfig]:
    """Parameters by key: the source's own, the paper's, and the user's."""
    studio, modality = _studio(session), session.required_project().modality
    recipes = recipes_for(modality)
    found = (
        {studio.source: tree_studio.default_config(studio.source, modality)} if studio.source.startswith(PRESET) else {}
    )
    found |= recipes if studio.source.startswith(MASK) else {"paper": recipes["paper"]}
    for path in sorted(_presets_folder(session.required_project()).glob("*.json")):
        try:
            found[f"{_OWN}{path.stem}"] = TreeScene.from_json(read_json(path)).config
        except InputError:
            continue  # damaged, or of another version: it is not offered
    return found


def _recipe_of(session: Session) -> str:
    config = _studio(session).scene.config
    return next((key for key, recipe in _recipes(session).items() if recipe == config), _CHANGED)


def _recipe_name(key: str) -> str:
    if key.startswith(_OWN):
        return texts.TREES_RECIPE_OWN.format(name=key.removeprefix(_OWN))
    return _source_name(key) if key.startswith(PRESET) else texts.TREES_RECIPES[key]


def _source_name(source: str) -> str:
    if source.startswith(MASK):
        return texts.TREES_SOURCE_MASK.format(name=source.removeprefix(MASK))
    return texts.TREES_SOURCE_PRESET.format(name=texts.TREE_PRESETS[source.removeprefix(PRESET)])


def _presets_folder(project: Project) -> Path:
    return project.trees_folder / "presets"


def _legend() -> str:
    colours = (PREDICTION, MISSED, REFERENCE, tree_studio.BOUNDARY)
    swatches = (
        f'<span><i style="background:rgb{colour}"></i>{text}</span>'
        for colour, text in zip(colours, texts.TREES_LEGEND.values(), strict=True)
    )
    return f'<div class="legend">{"".join(swatches)}</div>'
