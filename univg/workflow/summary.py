"""What a run did, as one HTML file that needs nothing else: settings, seeds, figures, pictures, how long it took."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from html import escape
from pathlib import Path

from univg import __version__
from univg.errors import InputError
from univg.io import read_json
from univg.io.write import write_bytes_atomic
from univg.progress import ProgressEvent
from univg.workflow.jobs import Job
from univg.workflow.model_versions import held_out_of
from univg.workflow.project import Project

_MAX_PICTURES = 12
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 860px; margin: 2rem auto; padding: 0 1rem; color: #1c1c1f; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: 3px 12px 3px 0; vertical-align: top; }
th { font-weight: 600; white-space: nowrap; } td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
figure { margin: 1rem 0; background: #0b0b0c; padding: 6px; border-radius: 4px; }
figure img { max-width: 100%; display: block; margin: auto; } figcaption { color: #c9c9cf; font-size: 13px; }
svg { max-width: 100%; height: auto; } footer { margin-top: 3rem; color: #666; font-size: 13px; }
@media (prefers-color-scheme: dark) { body { background: #18181b; color: #ececef; } h2 { border-color: #333; } }
"""
_NO_FIGURES = "No image was held out, so nothing is known of its quality."


def write_summary(project: Project, job: Job, output: str | Path) -> None:
    """Write the summary of a finished or unfinished job.

    It names no folder and no file of the user's but the names of the annotated images, which are those in the project.

    Parameters
    ----------
    project : Project
    job : Job
        Of this project.
    output : path-like
        An ``.html`` file; a file that is there already is replaced.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    write_bytes_atomic(output, summary_html(project, job).encode())


def summary_html(project: Project, job: Job) -> str:
    """The summary as one string of HTML, pictures inside."""
    events = job.events()
    sections = [
        _section("Run", _table(_facts(project, job))),
        _section("Settings", _table(_settings(job))),
        _section("How well it does", _quality(project, job)),
        _section("Stages", _stage_table(events)),
        _section("Learning", _curve(events)),
        _section("Pictures", _pictures(job, events)),
    ]
    title = f"UniVG run {escape(job.id)}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1>{''.join(sections)}"
        f"<footer>Made by UniVG {__version__}. Research use. Not a medical device.</footer></body></html>"
    )


def _facts(project: Project, job: Job) -> dict[str, object]:
    last = "last attempt " if job.attempt > 1 else ""  # the stages below are those of all attempts
    return {
        "kind": job.kind,
        "state": job.state,
        "reason": job.record.error_without_path or job.error,
        "modality": project.modality,
        "working size": f"{project.working_size} pixels",
        f"{last}started": job.started,
        "finished": job.finished,
        f"{last}took": _duration(job.started, job.finished),
        "attempts": job.attempt,
    }


def _settings(job: Job) -> dict[str, object]:
    # Left out: folders and addresses of the user's, results of stages that an earlier run finished, what stands for the
    # pairs, and a number for each of them.
    left_out = ("given", "support", "scheduler", "weights")
    shown = {key: value for key, value in job.params.items() if not key.endswith("backbone") and key not in left_out}
    if isinstance(shown.get("pairs"), list):
        shown["pairs"] = f"{len(shown['pairs'])} synthetic pairs"
    if isinstance(shown.get("held_out"), list):  # files of the user's that napari keeps as test images
        shown["held_out"] = f"{len(shown['held_out'])} images"
    return shown


def _quality(project: Project, job: Job) -> str:
    result = job.result() or {}
    version = result.get("segmenter")
    folder = project.segmenters_folder / version if version else None
    figures = None if folder is None else held_out_of(folder)
    rows = {key: value for key, value in result.items() if isinstance(value, (int, float, str))}
    if figures is None:
        return _table(rows) + (f"<p>{_NO_FIGURES}</p>" if version else "")
    try:
        card = read_json(folder / "segmenter.json")["card"]
    except (InputError, KeyError):
        card = {}
    rows |= {
        "held-out image": figures.name,
        "Dice on it (n = 1)": f"{figures.dice:.3f}",
        "clDice on it (n = 1)": f"{figures.cldice:.3f}",
        "trained on": ", ".join(card.get("train", [])),
        "synthetic pairs": card.get("synthetic_pairs", 0),
    }
    note = "<p>One image says how well it went on one image only; the spread over images is not known.</p>"
    versions = result.get("versions") or {}
    if versions.get("dice_before") is not None:
        rows["Dice of the model before"] = f"{versions['dice_before']:.3f}"
        rows["model in use"] = versions.get("active")
    return _table(rows) + note


def _stage_table(events: list[ProgressEvent]) -> str:
    stages: dict[str, ProgressEvent] = {}
    for event in events:
        stages[event.stage] = event
    return _table({stage: f"{event.step} of {event.total}" for stage, event in stages.items() if event.total})


def _curve(events: list[ProgressEvent]) -> str:
    loss = _points(events, "loss")
    dice = _points(events, "held_out_dice")
    if len(loss) < 2:
        return ""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2.6), layout="constrained")
    FigureCanvasSVG(figure)
    axis = figure.subplots()
    axis.plot(*zip(*loss, strict=True), color="#56b4e9", linewidth=0.8)
    axis.set_xlabel("training step")
    axis.set_ylabel("loss")
    axis.spines[["top", "right"]].set_visible(False)
    if dice:
        other = axis.twinx()
        other.plot(*zip(*dice, strict=True), color="#d55e00", marker="o", markersize=3)
        other.set_ylabel("Dice, held-out image")
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return re.sub(r"^.*?(?=<svg)", "", buffer.getvalue(), flags=re.DOTALL)


def _points(events: Iterable[ProgressEvent], name: str) -> list[tuple[int, float]]:
    """Of the segmenter's own training; after a resume the repeated steps count once."""
    found: dict[int, float] = {}
    for event in events:
        if event.stage == "segmenter" and name in event.metrics:
            found[event.step] = float(event.metrics[name])
    return sorted(found.items())


def _pictures(job: Job, events: list[ProgressEvent]) -> str:
    latest: dict[tuple[str, str], ProgressEvent] = {}
    for event in events:
        if event.picture:
            latest[event.stage, event.picture] = event
    shown = []
    root = job.folder.resolve()
    for event in list(latest.values())[-_MAX_PICTURES:]:
        path = (job.folder / event.picture).resolve()
        # The folder may come from elsewhere; nothing outside it is read.
        if path.suffix != ".png" or not path.is_relative_to(root) or not path.is_file():
            continue
        data = base64.b64encode(path.read_bytes()).decode()
        caption = escape(f"{event.stage}, step {event.step}")
        shown.append(
            f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )
    return "".join(shown)


def _section(title: str, content: str) -> str:
    return f"<h2>{escape(title)}</h2>{content}" if content else ""


def _table(rows: Mapping[str, object]) -> str:
    lines = []
    for key, value in rows.items():
        if value is None or value == "":
            continue
        text = f"{value:.4g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)
        lines.append(f"<tr><th>{escape(str(key))}</th><td>{escape(text)}</td></tr>")
    return f"<table>{''.join(lines)}</table>" if lines else ""


def _duration(started: str | None, finished: str | None) -> str | None:
    try:
        seconds = (datetime.fromisoformat(finished) - datetime.fromisoformat(started)).total_seconds()
    except (TypeError, ValueError):
        return None
    return f"{seconds / 60:.1f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"
