"""Results of the Segment tab as pictures, as a table and as files to download."""

from __future__ import annotations

import csv
import io
import math
import zipfile
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from app import texts
from app.csv_cells import harmless
from app.gradio_ui import markup, pictures
from app.gradio_ui.segment_board import Board, Item
from univg import __version__
from univg.errors import InputError
from univg.io import write_bytes_atomic, write_mask
from univg.metrics import summarize
from univg.overlay import colour_probability, overlay_agreement, overlay_mask


def draw(board: Board, item: Item, *, mode: str, opacity: float, folder: Path) -> tuple[str, str]:
    """Paths of the original and of the result drawn as `mode`, both reduced to what a screen shows."""
    arrays = board.arrays(item)
    image = pictures.reduce(arrays.image)
    original = pictures.save_picture(pictures.as_rgb(image), folder)
    if arrays.probability is None:
        return original, original
    threshold = board.threshold_of(item)
    probability = pictures.reduce(arrays.probability)
    mask = probability >= threshold
    if mode == "probability":
        shown = colour_probability(probability, image, opacity=opacity)
    elif mode == "mask":
        shown = pictures.as_rgb(mask.astype(np.uint8) * 255)
    elif mode == "agreement" and arrays.reference is not None and arrays.reference.shape == arrays.image.shape[:2]:
        shown = overlay_agreement(image, mask, pictures.reduce(arrays.reference), opacity=opacity)
    else:
        shown = overlay_mask(image, mask, opacity=opacity, outline=mode == "outline")
    parameters = {**provenance(item, threshold), "view": mode, "opacity": opacity}
    return original, pictures.save_picture(shown, folder, parameters)


def thumbnail(board: Board, item: Item) -> np.ndarray:
    """The small picture of `item`, with its mask once there is one."""
    if item.thumbnail is None:
        return pictures.unreadable(96)
    if item.small is None:
        return item.thumbnail
    return overlay_mask(item.thumbnail, item.small >= board.threshold_of(item), opacity=0.8)


def is_measured(board: Board, item: Item) -> bool:
    """Whether the figures of `item` are those at the present threshold."""
    return item.figures is not None and item.figures_at == board.threshold_of(item)


def provenance(item: Item, threshold: float) -> dict:
    """How a mask was made; no file name, which may name a person."""
    return {
        "made_by": f"UniVG {__version__}",
        "image_sha256": item.sha256,
        "model": item.run.version if item.run else None,
        "test_time_augmentation": bool(item.run and item.run.augmented),
        "threshold": threshold,
    }


def figures_table(board: Board) -> str:
    """Figures of every image with a reference, and mean ± SD where all are of one model at one threshold."""
    items = [item for item in board.items if item.reference is not None and item.state == "done"]
    if not items:
        return ""
    rows, known = [], []
    for item in items:
        named = (item.name, item.run.label)
        if not is_measured(board, item):
            rows.append((*named, texts.FIGURES_WAIT, *[""] * (len(texts.FIGURES) - 1)))
            continue
        known.append(item)
        rows.append((*named, *(_number(getattr(item.figures, key), key) for key in texts.FIGURES)))
    head = [(texts.FIGURES_IMAGE, ""), (texts.FIGURES_MODEL, ""), *texts.FIGURES.values()]
    foot, remark = _summary_rows(known)
    at = texts.FIGURES_AT.format(threshold=", ".join(sorted({f"{board.threshold_of(item):.2f}" for item in items})))
    return f"<h3>{escape(texts.FIGURES_TITLE)}</h3>{markup.table(head, rows, foot)}{markup.line(at, 'help')}{remark}"


def _summary_rows(items: Sequence[Item]) -> tuple[list[tuple[str, ...]], str]:
    """Mean and SD over `items`, or why there are none."""
    if len(items) < 2:
        return [], markup.line(texts.FIGURES_ONE, "help")
    if len({(item.run, item.figures_at) for item in items}) > 1:
        return [], markup.line(texts.FIGURES_MIXED, "notice")
    summary, model = summarize([item.figures for item in items]), items[0].run.label
    mean = (_number(summary[key]["mean"], key, 1) for key in texts.FIGURES)
    spread = (_number(summary[key]["sd"], key, 1) for key in texts.FIGURES)
    return [(texts.FIGURES_MEAN.format(n=len(items)), model, *mean), (texts.FIGURES_SD, "", *spread)], ""


def masks_file(board: Board, items: Sequence[Item], folder: Path) -> str:
    """One mask as PNG, or several in a ZIP, at the size of their images."""
    done = [item for item in items if item.state == "done"]
    if not done:
        raise InputError(texts.SEG_NOTHING, fix=texts.SEG_NOTHING_FIX)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for item in done:
        path = folder / f"{item.name}_mask.png"
        threshold = board.threshold_of(item)
        probability = board.arrays(item).probability
        write_mask(path, probability >= threshold, provenance=provenance(item, threshold))
        files.append(path)
    if len(files) == 1:
        return str(files[0])
    archive = folder / "masks.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:
        for path in files:
            packed.write(path, path.name)
            path.unlink()
    return str(archive)


def table_file(board: Board, folder: Path) -> str:
    """The table of figures as CSV, one line an image, with what each was made with."""
    items = [item for item in board.items if item.figures is not None and item.run is not None]
    if not items:
        raise InputError(texts.SEG_NO_REFERENCE, fix=texts.SEG_NO_REFERENCE_FIX)
    text = io.StringIO(newline="")
    names = list(items[0].figures.to_json())
    writer = csv.writer(text)
    writer.writerow(["image", "width_px", "height_px", "model", "test_time_augmentation", "threshold", *names])
    for item in items:
        made = [item.run.version, item.run.augmented, item.figures_at]
        values = ["" if math.isnan(v) else f"{v:.6g}" for v in item.figures.to_json().values()]
        writer.writerow([harmless(item.name), item.shape[1], item.shape[0], *made, *values])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "figures.csv"
    write_bytes_atomic(path, text.getvalue().encode("utf-8-sig"))
    return str(path)


def _number(value: float, key: str, count_digits: int = 0) -> str:
    if math.isnan(value):
        return texts.UNDEFINED
    return f"{value:.{count_digits if key.startswith('betti') else 3}f}"
