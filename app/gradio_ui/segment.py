"""Tab 3, Segment: find the vessels in new images, look at them, measure and download them."""

from __future__ import annotations

import hashlib

import gradio as gr
import numpy as np

from app import texts
from app.gradio_ui import markup, pictures, segment_views, versions
from app.gradio_ui.context import Ui
from app.gradio_ui.errors import note
from app.gradio_ui.files import MASK_ENDINGS, Upload, file_drop
from app.gradio_ui.models import warm_up
from app.gradio_ui.numbers import slider
from app.gradio_ui.segment_board import Board, Item, Run
from app.gradio_ui.state import Session
from univg.errors import InputError
from univg.workflow.model_versions import active_segmenter
from univg.workflow.sample import SAMPLE_MODALITY, sample_unseen_images

DEVICE = "auto"
SECONDS_WAITED_FOR_THE_FIRST = 2.0
# The click comes after the page has got the new address.
_CLICK = "() => {{ window.setTimeout(() => document.querySelector('#{id}').click(), 150); }}"


def build(ui: Ui, tab: gr.Tab) -> None:
    with gr.Row(elem_classes="tab-body"):
        with gr.Column(elem_classes="controls", scale=0, min_width=300):
            images = file_drop(label=texts.SEG_IMAGES, height=86, elem_id="segment-images")
            references = file_drop(label=texts.SEG_REFERENCES, height=86, elem_id="segment-references")
            kept = gr.HTML(elem_id="segment-kept")
            forget = gr.Button(texts.SEG_KEPT_REMOVE, size="sm", elem_id="segment-kept-remove", visible=False)
            files_help = gr.HTML()
            sample = gr.Button(texts.SEG_SAMPLE, size="sm", elem_id="segment-sample", visible=False)
            model = gr.Dropdown([], label=texts.SEG_MODEL, info=" ", elem_id="model")
            use = gr.Button(texts.SEG_USE, size="sm", elem_id="model-use", visible=False)
            augment = gr.Checkbox(False, label=texts.SEG_AUGMENT, info=texts.SEG_AUGMENT_HELP, elem_id="augment")
            run = gr.Button(texts.SEG_BUTTON, variant="primary", elem_id="segment")
            stop = gr.Button(texts.SEG_STOP, size="sm", elem_id="segment-stop", visible=False)
            problems = gr.HTML(elem_id="segment-problems")
            view = gr.Radio(
                [(label, key) for key, label in texts.SEG_VIEWS.items()],
                value="overlay",
                label=texts.SEG_VIEW,
                info=texts.SEG_VIEW_HELP,
                elem_id="segment-view",
            )
            threshold = slider(
                0.01,
                0.99,
                0.5,
                step=0.01,
                label=texts.SEG_THRESHOLD,
                info=texts.SEG_THRESHOLD_HELP,
                elem_id="threshold",
            )
            own = gr.Button(size="sm", elem_id="threshold-own", visible=False)
            opacity = slider(
                0, 100, 60, step=1, label=texts.SEG_OPACITY, info=texts.SEG_OPACITY_HELP, elem_id="segment-opacity"
            )
        with gr.Column(elem_classes="canvas", scale=1, min_width=400):
            empty = gr.HTML()
            picture = gr.ImageSlider(
                format="png",
                show_label=False,
                container=False,
                interactive=False,
                buttons=["download", "fullscreen"],
                elem_id="segment-picture",
                elem_classes="picture",
                max_height=4000,
            )
            with gr.Row(elem_classes="strip-head"):
                status = gr.HTML(elem_id="segment-status")
                legend = gr.HTML(elem_id="segment-legend")
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
                elem_id="segment-strip",
                elem_classes="strip",
            )
            table = gr.HTML(elem_id="figures")
            versions.build(ui)
            with gr.Row(elem_id="downloads") as downloads:
                one = gr.Button(texts.SEG_DOWNLOAD_ONE, size="sm", elem_id="get-mask")
                every = gr.Button(texts.SEG_DOWNLOAD_ALL, size="sm", elem_id="get-masks")
                csv = gr.Button(texts.SEG_DOWNLOAD_TABLE, size="sm", elem_id="get-table")
            ready = gr.DownloadButton(visible="hidden", elem_id="ready-file")

    def take_files(session: Session, dropped: list[Upload], masks: list[Upload]) -> str:
        images = _still_kept(session.kept_images, dropped)
        references = _still_kept(session.kept_references, masks, MASK_ENDINGS)
        found = session.board.set_files([*images, *dropped], [*references, *masks])
        session.kept_images, session.kept_references = images, references
        return markup.problems_list(found)

    def forget_kept(session: Session, dropped: list[Upload], masks: list[Upload]) -> str:
        session.kept_images, session.kept_references = [], []
        return take_files(session, dropped, masks)

    def forget_images(session: Session, masks: list[Upload]) -> str:
        session.kept_images = []
        return take_files(session, [], masks)

    def forget_references(session: Session, dropped: list[Upload]) -> str:
        session.kept_references = []
        return take_files(session, dropped, [])

    def take_sample(session: Session) -> list:
        unseen = sample_unseen_images()
        masks = [path.parents[1] / "masks" / path.name for path in unseen]
        return [[str(path) for path in unseen], [str(path) for path in masks if path.is_file()]]

    def start(session: Session, version: str | None, augmented: bool) -> None:
        project, board = session.required_project(), session.board
        if version is None or version not in project.segmenter_versions():
            raise InputError(texts.SEG_NO_MODEL_TITLE, fix=texts.SEG_NO_MODEL)
        if not board.items:
            raise InputError(texts.SEG_EMPTY_TITLE, fix=texts.SEG_EMPTY)
        board.start(Run(version, project.segmenters_folder / version, augmented), DEVICE)
        board.wait(board.selected, SECONDS_WAITED_FOR_THE_FIRST)

    def warm(session: Session) -> None:
        folder = session.project and active_segmenter(session.project)
        if folder:
            warm_up(folder, DEVICE)

    def choose_model(session: Session, version: str | None) -> None:
        session.segment_view.model = version or ""

    def select(session: Session, name: str) -> None:
        session.board.selected = name

    def change_view(session: Session, mode: str, percent: float) -> tuple[str, str] | None:
        session.segment_view.mode, session.segment_view.opacity = mode, percent / 100
        return _picture(session)

    def change_threshold(session: Session, probability: float) -> tuple[str, str] | None:
        session.board.set_threshold(probability)
        return _picture(session)

    def download_one(session: Session) -> str:
        item = session.board.selected_item
        return segment_views.masks_file(session.board, [item] if item else [], session.folder / "downloads")

    def download_all(session: Session) -> str:
        return segment_views.masks_file(session.board, session.board.items, session.folder / "downloads")

    def download_table(session: Session) -> str:
        return segment_views.table_file(session.board, session.folder / "downloads")

    ui.part([files_help, sample, model, use], _models_signature, _models)
    ui.on(use.click, versions.use, [model])
    ui.part([kept, forget], _kept_text, _kept)
    ui.part([empty, run, stop, status, downloads], _board_signature, _board)
    ui.part([picture], _picture_signature, _show_picture)
    ui.part([strip], _strip_signature, _strip)
    ui.part([legend], _legend_signature, _legend)
    ui.part([table], _figures_signature, lambda session: [segment_views.figures_table(session.board)])
    ui.part([threshold, own], _threshold_signature, _threshold)
    ui.on([images.change, references.change], take_files, [images, references], [problems])
    ui.on(images.clear, forget_images, [references], [problems])
    ui.on(references.clear, forget_references, [images], [problems])
    ui.on(forget.click, forget_kept, [images, references], [problems])
    # The page shows the choice itself; the latest one counts.
    ui.on(model.input, choose_model, [model], redraw=False, trigger_mode="always_last")
    ui.on(own.click, lambda session: session.board.set_threshold(None))
    ui.on(sample.click, take_sample, [], [images, references])
    ui.on(run.click, start, [model, augment])
    ui.on(stop.click, lambda session: session.board.stop())
    ui.on(tab.select, warm)
    ui.on_selected(strip, select)
    ui.live([view.input, opacity.input], change_view, [view, opacity], [picture])
    ui.live(threshold.input, change_threshold, [threshold], [picture])
    ui.on([view.input, threshold.release], lambda session: None, trigger_mode="always_last")
    for button, handler in ((one, download_one), (every, download_all), (csv, download_table)):
        prepared = ui.on(button.click, handler, [], [ready], redraw=False)
        prepared.success(None, None, None, js=_CLICK.format(id="ready-file"), api_visibility="private")


def _still_kept(kept: list[Upload], dropped: list[Upload], endings: tuple[str, ...] = ()) -> list[Upload]:
    """What was on the board when a reload emptied its field, without what files in the field take the place of."""
    newer = {_subject(upload, endings): upload for upload in dropped}
    for upload in kept:
        new = newer.get(_subject(upload, endings))
        if new is not None and new.name != upload.name:
            note(texts.SEG_KEPT_REPLACED.format(new=new.name, old=upload.name))
    return [upload for upload in kept if _subject(upload, endings) not in newer]


def _subject(upload: Upload, endings: tuple[str, ...]) -> str:
    """The name of the image that a file is, or is of."""
    try:
        stem = upload.stem
    except InputError:
        return upload.name
    return next((stem.removesuffix(ending) for ending in endings if stem.endswith(ending)), stem)


def _kept_text(session: Session) -> str:
    counts = ((len(session.kept_images), "image"), (len(session.kept_references), "reference mask"))
    files = ", ".join(f"{count} {texts.noun(count, what)}" for count, what in counts if count)
    return texts.SEG_KEPT.format(files=files) if files else ""


def _kept(session: Session) -> list:
    text = _kept_text(session)
    return [markup.line(text, "help"), gr.Button(visible=bool(text))]


def _picture(session: Session) -> tuple[str, str] | None:
    item = session.board.selected_item
    if item is None or (item.thumbnail is None and item.state != "done"):
        return None  # not read yet, or it cannot be
    view = session.segment_view
    return segment_views.draw(
        session.board, item, mode=view.mode, opacity=view.opacity, folder=session.pictures_of("segment")
    )


def _models_signature(session: Session) -> tuple:
    project = session.project
    if project is None:
        return ()
    active = active_segmenter(project)
    return project.path, tuple(project.segmenter_versions()), active and active.name


def _models(session: Session) -> list:
    project = session.project
    if project is None:
        return ["", gr.Button(visible=False), gr.Dropdown(choices=[], value=None), gr.Button(visible=False)]
    versions, active = project.segmenter_versions()[::-1], active_segmenter(project)
    in_use = active.name if active else None
    chosen = session.segment_view.model if session.segment_view.model in versions else in_use
    used = texts.SEG_MODEL_HELP.format(active=active.name) if active else texts.SEG_NO_MODEL_TITLE
    text = texts.SEG_FILES_HELP.format(modality=texts.MODALITIES[project.modality])
    return [
        markup.line(text, "help"),
        gr.Button(visible=project.modality is SAMPLE_MODALITY),
        gr.Dropdown(choices=versions, value=chosen, info=used),
        gr.Button(visible=len(versions) > 1),
    ]


def _board_signature(session: Session) -> tuple:
    has_model = bool(session.project and active_segmenter(session.project))
    return session.board.revision, session.board.selected, session.board.threshold, has_model


def _board(session: Session) -> list:
    items = session.board.items
    has_model = bool(session.project and active_segmenter(session.project))
    done = [item for item in items if item.state == "done"]
    todo = [item for item in items if item.state in ("new", "waiting", "working")]
    working = [item for item in items if item.state in ("waiting", "working")]
    if not has_model:
        blank = markup.empty_state(texts.SEG_NO_MODEL_TITLE, texts.SEG_NO_MODEL)
    else:
        blank = "" if items else markup.empty_state(texts.SEG_EMPTY_TITLE, texts.SEG_EMPTY)
    count = len(items)
    label = texts.SEG_BUTTON_COUNT.format(count=count, noun=texts.noun(count, "image")) if items else texts.SEG_BUTTON
    return [
        gr.HTML(blank, visible=bool(blank)),
        gr.Button(label, interactive=has_model and bool(items) and not working),
        gr.Button(visible=bool(working)),
        _status(session, items, done, todo, working),
        gr.Row(visible=bool(done)),
    ]


def _picture_signature(session: Session) -> tuple:
    item = session.board.selected_item
    if item is None:
        return ()
    of_item = item.name, item.upload, item.reference, item.state, item.run, item.thumbnail is None
    return of_item, session.board.threshold_of(item), session.segment_view.mode


def _show_picture(session: Session) -> list:
    shown = _picture(session)
    return [gr.ImageSlider(shown, visible=shown is not None)]


def _strip_signature(session: Session) -> tuple:
    return tuple(_thumbnail_key(session.board, item) for item in session.board.items)


def _thumbnail_key(board: Board, item: Item) -> tuple:
    run = item.run if item.state == "done" else None
    return item.name, item.upload, item.thumbnail is None, run, board.threshold_of(item)


def _strip(session: Session) -> list:
    """As files, of which those that are new are drawn: Gradio would write every array anew, each time."""
    board, files, shown = session.board, {}, []
    for item in board.items:
        # A folder each: in one for all, the oldest files would be forgotten while they are on screen. Not by its name,
        # which would stand in addresses.
        key, own = _thumbnail_key(board, item), hashlib.sha256(item.name.encode()).hexdigest()[:16]
        folder = session.folder / "thumbnails" / own
        path = session.thumbnails.get(key) or pictures.save_picture(segment_views.thumbnail(board, item), folder)
        files[key] = path
        shown.append((path, item.name))
    session.thumbnails = files
    return [gr.Gallery(shown, visible=len(shown) > 1)]


def _status(session: Session, items: list[Item], done: list[Item], todo: list[Item], working: list[Item]) -> str:
    item = session.board.selected_item
    first = ""
    if item is not None and item.state != "failed" and item.shape[0]:
        first = markup.line(_facts(session.board, item))
    if item is not None and item.problem:  # of a result that is there, too: another model or its reference failed
        first += markup.problems_list([f"{item.upload.name}: {item.problem}"])
    if working:
        second = texts.SEG_WORKING.format(done=len(done), total=len(items))
        second = second if done else f"{second}. {texts.SEG_WARMING}"
    elif done:
        seconds = float(np.mean([item.seconds for item in done]))
        second = texts.SEG_DONE.format(done=len(done), total=len(items), seconds=seconds)
    else:
        second = texts.SEG_WAITING if todo else ""
    return first + markup.line(second)


def _facts(board: Board, item: Item) -> str:
    """Size and main figures of the image on screen."""
    height, width = item.shape
    factor = pictures.shown_factor(item.shape)
    shown = f"{round(width * factor)} × {round(height * factor)}"
    text = (texts.SEG_SIZE if factor == 1 else texts.SEG_REDUCED).format(width=width, height=height, shown=shown)
    if item.state == "done" and item.run is not None:
        text = f"{text.removesuffix('.')}. {texts.SEG_BY.format(model=item.run.label)}"
    if item.reference is None or item.state != "done":
        return f"{item.name}: {text}"
    if segment_views.is_measured(board, item):
        figures = texts.SEG_FIGURES.format(dice=item.figures.dice, cldice=item.figures.cldice)
    else:
        figures = f"{texts.FIGURES_WAIT.capitalize()}."
    return f"{item.name}: {text.removesuffix('.')}. {figures}"


def _has_result(session: Session) -> bool:
    return any(item.state == "done" for item in session.board.items)


def _legend_signature(session: Session) -> tuple:
    item = session.board.selected_item
    return session.segment_view.mode, _has_result(session), bool(item and item.reference)


def _legend(session: Session) -> list:
    if not _has_result(session):
        return [""]
    mode, item = session.segment_view.mode, session.board.selected_item
    if mode == "agreement" and (item is None or item.reference is None):
        return [markup.legend("overlay", texts.SEG_AGREEMENT_NEEDS)]
    return [markup.legend(mode)]


def _figures_signature(session: Session) -> tuple:
    board = session.board
    return tuple((item.name, item.state, item.run, item.figures, board.threshold_of(item)) for item in board.items)


def _threshold_signature(session: Session) -> tuple:
    item = session.board.selected_item
    return session.board.threshold, item.model_threshold if item and item.state == "done" else 0.5


def _threshold(session: Session) -> list:
    item = session.board.selected_item
    own, chosen = item.model_threshold if item and item.state == "done" else 0.5, session.board.threshold
    label = texts.SEG_THRESHOLD_OWN.format(threshold=own)
    return [own if chosen is None else chosen, gr.Button(label, visible=chosen is not None)]
