"""What the Trees tab keeps: many trees at once, presets of the user's own, and files to take away or bring back."""

from __future__ import annotations

from dataclasses import replace
from html import escape

import gradio as gr

from app import texts
from app.gradio_ui import markup, tree_studio, tree_view
from app.gradio_ui.context import Ui
from app.gradio_ui.errors import note
from app.gradio_ui.files import Upload, file_drop
from app.gradio_ui.job_watch import latest_job
from app.gradio_ui.numbers import checked_whole
from app.gradio_ui.state import Session
from app.gradio_ui.tree_studio import MASK, PRESET
from univg.errors import InputError
from univg.geometry import write_swc
from univg.io import read_json, read_provenance, write_bytes_atomic, write_mask
from univg.sca import TreeScene
from univg.workflow.jobs import Job, start_job
from univg.workflow.tree_presets import save_tree_preset
from univg.workflow.tree_sets import tree_set_params, tree_sets

_MOST_TREES = 100_000


class ManyTrees:
    """A job that grows many trees of the present scene into the project."""

    def __init__(self) -> None:
        with gr.Accordion(texts.TREES_MANY_TITLE, open=False, elem_id="tree-many"):
            self.count = gr.Number(100, label=texts.TREES_COUNT_LABEL, precision=0, elem_id="tree-count")
            self.every = gr.Checkbox(
                True, label=texts.TREES_ALL_MASKS, info=texts.TREES_ALL_MASKS_HELP, elem_id="tree-all-masks"
            )
            self.save = gr.Button(texts.TREES_SAVE_MANY, elem_id="tree-save-many")
            self.saved = gr.HTML(elem_id="tree-saved")

    def wire(self, ui: Ui) -> None:
        ui.on(self.save.click, _start_many, [self.count, self.every])
        ui.part([self.saved], _saved_signature, lambda session: [_saved_list(session)])


def _start_many(session: Session, count: float | None, every: bool) -> None:
    project, studio = session.required_project(), tree_view.studio_of(session)
    scene, trees = studio.scene, checked_whole(count, texts.TREES_COUNT_LABEL, 1, _MOST_TREES, usual=100)
    params = tree_set_params(project, scene, count=trees, every_mask=bool(every))
    start_job(project, "trees", params)
    note(texts.TREES_SAVED.format(count=trees, noun=texts.noun(trees, "tree"), folder=f"trees/{params['folder']}"))


def _saved_sets(session: Session) -> tuple:
    return () if session.project is None else tuple(tree_sets(session.project))


def _saved_signature(session: Session) -> tuple:
    job = _latest_job(session)
    return _saved_sets(session), job and (job.id, job.state)


def _latest_job(session: Session) -> Job | None:
    return None if session.project is None else latest_job(session.project, "trees")


def _saved_list(session: Session) -> str:
    lines = [
        texts.SAVED_TREES.format(count=count, noun=texts.noun(count, "tree"), folder=f"trees/{name}")
        for name, count in _saved_sets(session)
    ]
    return "".join(markup.line(text, "help") for text in lines) + markup.failure(_latest_job(session))


class TreeFiles:
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

    def wire(self, ui: Ui, picture: gr.Image, facts: gr.HTML, **in_turn: object) -> None:
        ui.on(self.save.click, _save_preset, [self.name], [self.name])
        ui.on(self.drop.upload, _restore, [self.drop], [picture, facts, self.drop], **in_turn)
        ui.part([self.mask, self.tree, self.swc], tree_view.picture_signature, _downloads, later=True)


def _save_preset(session: Session, name: str) -> str:
    studio = tree_view.studio_of(session)
    stem = save_tree_preset(session.required_project(), name, studio.scene)
    studio.changed += 1
    note(texts.TREES_PRESET_SAVED.format(name=stem))
    return ""


def _restore(session: Session, uploads: list[Upload]) -> list:
    """Bring back the scene inside a dropped file; the drop zone is empty afterwards."""
    if not uploads:
        return [gr.skip(), gr.skip(), None]
    project, studio = session.required_project(), tree_view.studio_of(session)
    scene = scene_in(uploads[0])
    if scene.modality is not project.modality:
        theirs, ours = (texts.MODALITIES[modality] for modality in (scene.modality, project.modality))
        raise InputError(
            texts.TREES_OTHER_MODALITY.format(theirs=theirs, ours=ours), fix=texts.TREES_OTHER_MODALITY_FIX
        )
    source = f"{MASK}{scene.mask_name}" if scene.mask_name else f"{PRESET}{scene.preset}"
    if scene.mask_name:
        name = scene.mask_name
        known = name in project.support_names()
        same = known and project.support_hashes()[f"masks/{name}.png"] == scene.mask_sha256
        if not known:
            first = tree_studio.first_source(project)
            base = tree_studio.scene_from(project, first, config=scene.config, seed=scene.seed)
            fits = base.shape == scene.shape
            drawn = {name: getattr(scene, name) for name in ("roots", "obstacles", "boundary")} if fits else {}
            scene, source = replace(base, **drawn), first
        if not same:
            gr.Warning(escape(texts.TREES_RESTORED_OTHER_MASK.format(name=name)), title=texts.CHECK_THIS)
    tree_view.check_grows(session, scene)
    studio.corners.clear()
    studio.go_to(scene, source)
    note(texts.TREES_RESTORED)
    return [*tree_view.shown(session), None]


def scene_in(upload: Upload) -> TreeScene:
    """The scene in a picture, in the JSON of a tree or in that of a preset."""
    if upload.path.suffix.lower() != ".json":
        return TreeScene.from_json(read_provenance(upload.path))
    data = read_json(upload.path)
    return TreeScene.from_json(data["meta"] if isinstance(data, dict) and "meta" in data else data)


def _downloads(session: Session) -> list:
    if session.project is None:
        return [gr.skip()] * 3
    studio = tree_view.studio_of(session)
    grown = tree_studio.grow(session.project, studio.scene)
    folder = session.folder / "downloads"
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"tree-{studio.scene.seed}"
    write_mask(stem.with_suffix(".png"), grown.mask, provenance=studio.scene.to_json())
    tree = replace(grown.tree, meta=studio.scene.to_json())
    write_bytes_atomic(stem.with_suffix(".json"), tree.to_json().encode())
    write_bytes_atomic(stem.with_suffix(".swc"), write_swc(grown.tree).encode())
    return [gr.DownloadButton(value=str(stem.with_suffix(suffix))) for suffix in (".png", ".json", ".swc")]
