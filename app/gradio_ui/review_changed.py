"""What the newest training changed, on the image that the models before and after kept apart."""

from __future__ import annotations

from functools import lru_cache
from html import escape
from pathlib import Path
from urllib.parse import quote

from app import texts
from app.gradio_ui import markup, pictures
from app.gradio_ui.job_watch import list_jobs
from app.gradio_ui.models import model_stamp
from app.gradio_ui.state import Session
from univg.errors import InputError
from univg.io import file_stamp
from univg.overlay import overlay_agreement
from univg.workflow.jobs import JobState
from univg.workflow.model_versions import FrozenImage, frozen_as_now, frozen_image
from univg.workflow.project import Project
from univg.workflow.what_changed import WhatChanged, centreline_figures, what_changed

_SHOWN_SIDE = 768


def signature(session: Session) -> tuple:
    project = session.project
    versions = None if project is None else _versions(project)
    return () if versions is None else (project.path, versions, _files(project, versions))


def draw(session: Session) -> str:
    """Figures and both pictures as HTML, or why there are none."""
    project = session.project
    versions = None if project is None else _versions(project)
    if versions is None:
        return markup.line(texts.CHANGED_NOTHING, "help")
    before, after = versions
    if not before:
        return markup.line(texts.CHANGED_FIRST.format(after=after), "help")
    try:
        found = _found(project, before, after, _files(project, versions))
    except InputError as error:
        return markup.line(str(error), "help")
    return _figures(found) + _both_pictures(found, session.folder / "changed") + markup.legend("agreement")


def _versions(project: Project) -> tuple[str, str] | None:
    """The versions before and after the newest training on reviewed pairs; None when there was none."""
    job = next((job for job in list_jobs(project) if job.kind == "retrain" and job.state is JobState.DONE), None)
    result = (job.result() or {}) if job else {}
    if not result.get("segmenter"):
        return None
    return str((result.get("versions") or {}).get("before") or ""), str(result["segmenter"])


def _files(project: Project, versions: tuple[str, str]) -> tuple:
    """Of what the comparison is made: one of other files of the same names is another one."""
    return _image_now(project), *(model_stamp(project.segmenters_folder / version) for version in versions)


def _image_now(project: Project) -> FrozenImage | None:
    """The image that models are compared on, as it is now; only what was written anew is read again."""
    frozen = frozen_image(project)
    if frozen is None:
        return None
    return _hashed(project, frozen, file_stamp(project.support_folder / "masks" / f"{frozen.name}.png"))


@lru_cache(maxsize=8)
def _hashed(project: Project, frozen: FrozenImage, stamp: tuple[int, int]) -> FrozenImage | None:
    return frozen_as_now(project)


@lru_cache(maxsize=4)
def _found(project: Project, before: str, after: str, files: tuple) -> WhatChanged:
    return what_changed(project, before, after)


def _figures(found: WhatChanged) -> str:
    names = {"image": found.figures_after.name}
    head = [
        (text.format(version=version, **names), tip)
        for (text, tip), version in zip(texts.CHANGED_HEAD, ("", found.before, found.after, ""), strict=True)
    ]
    centrelines = centreline_figures(found)
    pairs = {"dice": (found.figures_before.dice, found.figures_after.dice), "cldice": centrelines}
    rows = [
        (text, f"{pairs[key][0]:.3f}", f"{pairs[key][1]:.3f}", f"{pairs[key][1] - pairs[key][0]:+.3f}")
        for key, text in texts.CHANGED_ROWS.items()
    ]
    low, high = found.interval
    said = (texts.CHANGED_CHANCE if found.within_chance else texts.CHANGED_CLEAR).format(low=low, high=high)
    return markup.table(head, rows) + markup.line(said)


def _both_pictures(found: WhatChanged, folder: Path) -> str:
    shown = []
    for version, mask, caption in (
        (found.before, found.mask_before, texts.CHANGED_BEFORE),
        (found.after, found.mask_after, texts.CHANGED_AFTER),
    ):
        drawn = overlay_agreement(found.image, mask, found.reference, opacity=0.75)
        parameters = {"model": version, "mask_sha256": found.figures_after.mask_sha256, "view": "agreement"}
        path = pictures.save_picture(pictures.reduce(drawn, _SHOWN_SIDE), folder, parameters)
        alt = escape(texts.CHANGED_ALT.format(version=version))
        shown.append(
            f'<figure><img src="/gradio_api/file={quote(Path(path).as_posix())}" alt="{alt}">'
            f"<figcaption>{escape(caption.format(version=version))}</figcaption></figure>"
        )
    return f'<div class="changed-pictures">{"".join(shown)}</div>'
