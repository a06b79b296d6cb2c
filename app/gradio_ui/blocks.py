"""The page: header, start view, and the tabs in the order of the work."""

from __future__ import annotations

import gradio as gr

from app import texts
from app.gradio_ui import adapt, data, header, images, masks, review, segment, start, trees
from app.gradio_ui.context import QUIET, Ui
from app.gradio_ui.guide import Guide
from app.gradio_ui.job_watch import active_job
from app.gradio_ui.models import is_stale
from app.gradio_ui.state import Session, Sessions
from app.gradio_ui.tabs import TABS, TITLES, tab_title, tabs_of
from univg import __version__
from univg.workflow.project import Project

_BUSY_SECONDS, _IDLE_SECONDS = 1.0, 2.0
# Files of the page (drops, pictures) older than a day are removed every hour.
_CACHE = (3600, 86400)


def build_page(sessions: Sessions) -> gr.Blocks:
    """The whole page, ready to be launched."""
    with gr.Blocks(title=texts.TITLE, analytics_enabled=False, delete_cache=_CACHE, fill_width=True) as page:
        ui = Ui(sessions)
        timer = gr.Timer(_IDLE_SECONDS)
        stored_id = gr.Textbox(visible="hidden", elem_id="session-id")
        with ui.group():
            switch, guide_button, page_state = header.build(ui)
            guide = Guide(guide_button)
            workspace = start.build(ui, switch)
        with workspace, gr.Tabs(selected="data", elem_id="tabs") as tabs:
            with _tab("data") as data_tab, ui.group():
                to_adapt = data.build(ui)
            with _tab("trees") as trees_tab, ui.group():
                trees.build(ui)
            shown = [data_tab, trees_tab]
            if "masks" in TABS:
                with _tab("masks") as masks_tab, ui.group():
                    masks.build(ui, masks_tab)
                shown.append(masks_tab)
            if "images" in TABS:
                with _tab("images") as images_tab, ui.group():
                    images.build(ui, images_tab)
                shown.append(images_tab)
            with _tab("adapt") as adapt_tab, ui.group():
                to_segment, to_review = adapt.build(ui)
            shown.append(adapt_tab)
            with _tab("review") as review_tab, ui.group():
                review.build(ui, review_tab)
            shown.append(review_tab)
            with _tab("segment") as segment_tab, ui.group():
                segment.build(ui, segment_tab)
        gr.HTML(f"{texts.FOOTER} {texts.APP} {__version__}", elem_id="page-footer")

        with ui.group():
            ui.part([*shown, segment_tab], lambda s: (*_marks(s).items(), tabs_of(s.project)), _labels)
            ui.part([timer], _is_busy, lambda s: [gr.Timer(_BUSY_SECONDS if _is_busy(s) else _IDLE_SECONDS)])
            guide.wire(ui, tabs)
            ui.part([page_state], _shown, lambda session: [_page_state(session)])
        to_adapt.click(lambda: gr.Tabs(selected="adapt"), None, [tabs], **QUIET)
        to_review.click(lambda: gr.Tabs(selected="review"), None, [tabs], **QUIET)
        to_segment.click(lambda: gr.Tabs(selected="segment"), None, [tabs], **QUIET)
        ui.finish(page, timer, stored_id)
    return page


def _shown(session: Session) -> tuple[str, str]:
    view = "start" if session.at_start else "work"
    return view, "no" if session.painting is None else "yes"


def _page_state(session: Session) -> str:
    """Tells the style which views are on screen; it follows sooner than Gradio's `visible`."""
    view, painting = _shown(session)
    return f'<i id="page-state" data-view="{view}" data-painting="{painting}"></i>'


def _label(tab: str, mark: str, project: Project | None) -> str:
    return f"{tab_title(tab, project)} {texts.TAB_MARKS[mark]}"


def _tab(name: str) -> gr.Tab:
    return gr.Tab(_label(name, "empty", None), id=name, elem_id=f"tab-{name}", visible=name in tabs_of(None))


def _labels(session: Session) -> list[gr.Tab]:
    marks, tabs = _marks(session), tabs_of(session.project)
    return [gr.Tab(_label(tab, marks[tab], session.project), visible=tab in tabs) for tab in TABS]


def _is_busy(session: Session) -> bool:
    return session.board.busy or (session.project is not None and active_job(session.project) is not None)


def _marks(session: Session) -> dict[str, str]:
    """The state of each tab: empty, ready, running, stale or done."""
    project = session.project
    if project is None:
        return dict.fromkeys(TITLES, "empty")
    has_pairs, has_model = bool(project.support_names()), bool(project.segmenter_versions())
    running = active_job(project)
    if running is not None and running.kind == "trees":
        grown = "running"
    else:
        grown = "done" if any(project.trees_folder.glob("*/trees.json")) else "ready"
    if running is not None and running.kind == "mask-engine":
        drawn = "running"
    else:
        drawn = "done" if project.mask_engine_versions() else "ready"
    if running is not None and running.kind in ("image-engine", "generate"):
        imaged = "running"
    else:
        imaged = "done" if project.image_engine_versions() else "ready"
    if running is not None and running.kind == "adapt":
        adapted = "running"
    elif has_model:
        adapted = "stale" if is_stale(project) else "done"
    else:
        adapted = "ready" if has_pairs else "empty"
    if running is not None and running.kind == "retrain":
        reviewed = "running"
    else:
        reviewed = "ready" if project.pair_names() else "empty"
    if session.board.busy:
        segmented = "running"
    elif any(item.state == "done" for item in session.board.items):
        segmented = "done"
    else:
        segmented = "ready" if has_model else "empty"
    return {
        "data": "done" if has_pairs else "empty",
        "trees": grown,
        "masks": drawn,
        "images": imaged,
        "adapt": adapted,
        "review": reviewed,
        "segment": segmented,
    }
