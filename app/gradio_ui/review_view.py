"""The Review tab as HTML: the pair on screen, with the mask as a layer of its own, and the grid of thumbnails."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from html import escape
from pathlib import Path
from urllib.parse import quote

import cv2
import numpy as np

from app import texts
from app.gradio_ui import pictures
from app.gradio_ui.review_board import PAGE, Entry
from univg.overlay import PREDICTION, overlay_mask
from univg.workflow.project import Project

_THUMBNAIL = 96
_MARKS = {"accepted": "✓", "rejected": "✕", "undecided": ""}


def stage(project: Project, entry: Entry, neighbours: list[Entry], folder: Path) -> str:
    """The pair large: image, and its mask above it with an opacity that the page sets; neighbours are fetched early."""
    image, mask = _layers(project, entry.name, folder)
    alt = escape(texts.REVIEW_ALT.format(name=entry.name))
    ahead = "".join(
        f'<img class="ahead" alt="" src="{url}">'
        for other in neighbours
        for url in _layers(project, other.name, folder)
    )
    verdict = str(entry.verdict)
    badge = f'<span class="verdict {verdict}">{_MARKS[verdict]} {escape(texts.REVIEW_VERDICTS[verdict])}</span>'
    return (
        f'<div class="review-stage" data-name="{escape(entry.name)}">'
        f'<div class="review-pictures"><figure><img src="{image}" alt="{alt}">'
        f"<figcaption>{escape(texts.REVIEW_IMAGE)}</figcaption></figure>"
        f'<figure class="layered"><img src="{image}" alt=""><img class="layer" src="{mask}" alt="">'
        f"<figcaption>{escape(texts.REVIEW_OVERLAY)}</figcaption></figure></div>{badge}{ahead}</div>"
    )


def grid(project: Project, entries: list[Entry], current: str, folder: Path) -> str:
    """The page of thumbnails that holds `current`."""
    if not entries:
        return ""
    names = [entry.name for entry in entries]
    page = names.index(current) // PAGE if current in names else 0
    cells = []
    for entry in entries[page * PAGE :][:PAGE]:
        chosen = ' aria-current="true"' if entry.name == current else ""
        title = escape(f"{entry.name}. {texts.REVIEW_VERDICTS[str(entry.verdict)]}. {flags_text(entry)}")
        flag = '<i class="flag" aria-hidden="true">!</i>' if entry.flags else ""
        cells.append(
            f'<button type="button" class="cell {entry.verdict}" data-name="{escape(entry.name)}" title="{title}"'
            f'{chosen}><img alt="{title}" src="{_thumbnail(project, entry.name, folder)}">'
            f"<b>{_MARKS[str(entry.verdict)]}</b>{flag}</button>"
        )
    pages = -(-len(entries) // PAGE)
    where = texts.REVIEW_PAGE.format(page=page + 1, pages=pages) if pages > 1 else ""
    return f'<div class="review-grid">{"".join(cells)}</div><p class="line">{escape(where)}</p>'


def flags_text(entry: Entry) -> str:
    return " ".join(texts.IMAGES_FLAGS[flag] for flag in entry.flags if flag in texts.IMAGES_FLAGS)


def _url(path: Path) -> str:
    return f"/gradio_api/file={quote(path.as_posix())}"


def _layers(project: Project, name: str, folder: Path) -> tuple[str, str]:
    key = _key(project, name)
    image, mask = folder / f"{key}-image.png", folder / f"{key}-mask.png"
    if not (image.exists() and mask.exists()):
        pair = project.synthetic_pair(name)
        shown = pictures.reduce(pictures.as_rgb(pair.image), 1024)
        layer = np.zeros((*shown.shape[:2], 4), np.uint8)
        layer[pictures.reduce(pair.mask, 1024)] = (*PREDICTION, 255)
        _write(image, cv2.cvtColor(shown, cv2.COLOR_RGB2BGR))
        _write(mask, cv2.cvtColor(layer, cv2.COLOR_RGBA2BGRA))
    return _url(image), _url(mask)


def _thumbnail(project: Project, name: str, folder: Path) -> str:
    path = folder / f"{_key(project, name)}-small.png"
    if not path.exists():
        _write(path, cv2.cvtColor(_small(project.path, name), cv2.COLOR_RGB2BGR))
    return _url(path)


@lru_cache(maxsize=5000)
def _small(path: Path, name: str) -> np.ndarray:
    pair = Project.open(path).synthetic_pair(name)
    drawn = overlay_mask(pictures.as_rgb(pair.image), pair.mask, opacity=0.35)
    return cv2.resize(drawn, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)


@lru_cache(maxsize=100_000)
def _key_of(path: Path, name: str) -> str:
    return hashlib.sha256(f"{path}\n{name}".encode()).hexdigest()[:20]


def _key(project: Project, name: str) -> str:
    return _key_of(project.path, name)


def _write(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
    temporary = path.with_suffix(f".{id(picture)}.tmp")
    temporary.write_bytes(encoded.tobytes())
    temporary.replace(path)
