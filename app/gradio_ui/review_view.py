"""The Review tab as HTML: the pair on screen, with the mask as a layer of its own, and the grid of thumbnails.

Pictures are fetched by their addresses (`app.gradio_ui.review_routes`), so drawing the HTML of thousands of pairs reads
none of them. ``review.js`` turns to the next pair by itself, from what the grid says of each.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from html import escape
from pathlib import Path
from urllib.parse import quote

from app import texts
from app.gradio_ui import markup
from app.gradio_ui.review_board import PAGE, Entry, counts, flag_counts
from app.gradio_ui.review_pictures import LAYERS

MARKS = {"accepted": "✓", "rejected": "✕", "undecided": ""}
# A page that is drawn again with the same text keeps what its script changed meanwhile; so no text comes twice.
_drawn = itertools.count()


def base_address(session_id: str) -> str:
    """Where the pictures of the pairs that a session looks at are found, and where its verdicts go."""
    return f"/review/{quote(session_id)}"


def picture_address(session_id: str, project_path: Path, layer: str, name: str) -> str:
    return f"{base_address(session_id)}/{layer}/{quote(name, safe='')}?of={_key_of(project_path)}"


def stage(session_id: str, project_path: Path, entry: Entry, *, position: str) -> str:
    """The pair large: image, and its mask above it with an opacity that the page sets."""
    image, mask, alone = (picture_address(session_id, project_path, layer, entry.name) for layer in LAYERS[:3])
    alt = escape(texts.REVIEW_ALT.format(name=entry.name))
    words = {name: texts.REVIEW_VERDICTS[name] for name in MARKS}
    badge = f'<span class="verdict {entry.verdict}">{MARKS[entry.verdict]} {escape(words[entry.verdict])}</span>'
    data = {
        "name": entry.name,
        "base": base_address(session_id),
        "of": _key_of(project_path),
        "alt": texts.REVIEW_ALT,
        "drawn": next(_drawn),
        **{f"word-{name}": f"{MARKS[name]} {word}" for name, word in words.items()},
    }
    attributes = " ".join(f'data-{key}="{escape(str(value))}"' for key, value in data.items())
    return (
        f'<div class="review-stage" {attributes}>'
        f'<div class="review-pictures"><figure class="alone"><img data-layer="image" src="{image}" alt="{alt}">'
        f'<img data-layer="white" class="white" src="{alone}" alt="">'
        f'<figcaption><span class="of-image">{escape(texts.REVIEW_IMAGE)}</span>'
        f'<span class="of-mask">{escape(texts.REVIEW_MASK)}</span></figcaption></figure>'
        f'<figure class="layered"><img data-layer="image" src="{image}" alt="">'
        f'<img data-layer="mask" class="layer" src="{mask}" alt="">'
        f"<figcaption>{escape(texts.REVIEW_OVERLAY)}</figcaption></figure></div>{badge}</div>"
        f'<p class="line" id="review-line">{escape(position)}</p>'
    )


def grid(session_id: str, project_path: Path, entries: Sequence[Entry], current: str) -> str:
    """The page of thumbnails that holds `current`, and those beside it in waiting."""
    if not entries:
        return ""
    names = [entry.name for entry in entries]
    page = names.index(current) // PAGE if current in names else 0
    waiting = "".join(
        f'<template data-page="{number}">{_page(session_id, project_path, entries, number)}</template>'
        for number in pages_beside(page, len(entries))
    )
    shown = _page(session_id, project_path, entries, page, current)
    return f'<div class="review-pages" data-drawn="{next(_drawn)}">{shown}{waiting}</div>'


def pages_beside(page: int, count: int) -> list[int]:
    """Numbers of the pages before and after `page` that a list of `count` pairs has."""
    return [number for number in (page - 1, page + 1) if 0 <= number < -(-count // PAGE)]


def pages(session_id: str, project_path: Path, entries: Sequence[Entry], numbers: Iterable[int]) -> dict[int, str]:
    """Pages of the grid by number, for a page that asks for them ahead of time."""
    return {number: _page(session_id, project_path, entries, number) for number in numbers}


def _page(session_id: str, project_path: Path, entries: Sequence[Entry], page: int, current: str = "") -> str:
    first = page * PAGE
    cells = "".join(
        _cell(session_id, project_path, entry, facts(entry, first + at + 1, len(entries)), entry.name == current)
        for at, entry in enumerate(entries[first:][:PAGE])
    )
    line = escape(page_line(page, len(entries)))
    return f'<div class="review-grid" data-page="{page}">{cells}</div><p class="line">{line}</p>'


def page_line(page: int, count: int) -> str:
    """Which page of a list of `count` pairs is on screen; nothing where there is one alone."""
    pages = -(-count // PAGE)
    return texts.REVIEW_PAGE.format(page=page + 1, pages=pages, all=count) if pages > 1 else ""


def tally(entries: Sequence[Entry]) -> str:
    """How many of all pairs were judged, and how."""
    found = counts(entries)
    flags = ((texts.REVIEW_FLAGS[flag], n) for flag, n in flag_counts(entries).items() if n)
    carried = "".join(f"<li>{escape(texts.REVIEW_TALLY_FLAG.format(text=text, n=n))}</li>" for text, n in flags)
    return (
        f'<div class="review-count" data-drawn="{next(_drawn)}"><b>{escape(texts.REVIEW_COUNT.format(**found))}</b>'
        f'<progress max="{found["all"]}" value="{found["judged"]}"></progress>'
        f"<span>{escape(texts.REVIEW_TALLY.format(**found))}</span><ul>{carried}</ul></div>"
    )


def facts(entry: Entry, at: int, count: int) -> str:
    """What is known of a pair, in a line."""
    parts = [texts.REVIEW_AT.format(at=at, count=count)]
    if not math.isnan(entry.agreement):
        parts.append(texts.REVIEW_AGREEMENT.format(agreement=entry.agreement))
    parts.append(flags_text(entry))
    if entry.judgement.note:
        parts.append(texts.REVIEW_NOTED.format(note=entry.judgement.note))
    return " ".join(filter(None, parts))


def flags_text(entry: Entry) -> str:
    found = [texts.IMAGES_FLAGS[flag] for flag in entry.flags if flag in texts.IMAGES_FLAGS]
    return " ".join([*found, *([texts.REVIEW_TWIN.format(twin=entry.twin)] if entry.twin else [])])


def keys_dialog() -> str:
    """The list of keys, opened by ``?``."""
    keys = ((escape(key), escape(text)) for key, text in texts.REVIEW_KEYS)
    rows = "".join(f"<tr><th><kbd>{key}</kbd></th><td>{text}</td></tr>" for key, text in keys)
    return (
        f'<dialog id="review-help" aria-label="{escape(texts.REVIEW_KEYS_TITLE)}">'
        f"<h3>{escape(texts.REVIEW_KEYS_TITLE)}</h3><table>{rows}</table>"
        f'<form method="dialog"><button>{escape(texts.REVIEW_KEYS_CLOSE)}</button></form></dialog>'
        f"{markup.line(texts.REVIEW_KEYS_LINE, 'help')}"
    )


def _cell(session_id: str, project_path: Path, entry: Entry, line: str, is_current: bool) -> str:
    chosen = ' aria-current="true"' if is_current else ""
    title = escape(f"{entry.name}. {line}")
    flag = '<i class="flag" aria-hidden="true">!</i>' if entry.flags else ""
    address = picture_address(session_id, project_path, "small", entry.name)
    return (
        f'<button type="button" class="cell {entry.verdict}" data-name="{escape(entry.name)}" title="{title}"'
        f' data-verdict="{entry.verdict}" data-facts="{escape(line)}"{chosen}><img alt="{title}" src="{address}">'
        f"<b>{MARKS[entry.verdict]}</b>{flag}</button>"
    )


@lru_cache(maxsize=64)
def _key_of(project_path: Path) -> str:
    """Part of every address, so that a browser never shows a picture of the project that was open before."""
    return hashlib.sha256(str(project_path).encode()).hexdigest()[:12]
