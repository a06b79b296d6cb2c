"""Small pieces of HTML; everything that comes from a user is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from app import texts
from univg.io import Finding
from univg.overlay import AGREEMENT, MISSED, PREDICTION, Colour
from univg.workflow.jobs import Job, JobState


def findings_list(findings: Sequence[Finding]) -> str:
    """Findings with an icon and a word each, so that colour is not all that tells them apart."""
    rows = []
    for finding in findings:
        icon, word = texts.LEVELS[finding.level]
        fix = f'<span class="fix">{escape(finding.fix)}</span>' if finding.fix else ""
        rows.append(
            f'<li class="{finding.level}"><span class="mark" role="img" aria-label="{word}">{icon}</span>'
            f"<span><b>{escape(finding.subject)}</b> {word}: {escape(finding.message)} {fix}</span></li>"
        )
    return f'<ul class="findings">{"".join(rows)}</ul>' if rows else ""


def empty_state(title: str, text: str) -> str:
    return f'<div class="empty"><h2>{escape(title)}</h2><p>{escape(text)}</p></div>'


def waiting(text: str) -> str:
    """Stands where a picture will be."""
    return f'<div class="waiting">{escape(text)}</div>'


def line(text: str, kind: str = "") -> str:
    return f'<p class="line {kind}">{escape(text)}</p>' if text else ""


def failure(job: Job | None) -> str:
    """Why `job` failed; nothing where it did not."""
    if job is None or job.state is not JobState.FAILED:
        return ""
    text = texts.JOB_FAILED.format(reason=(job.error or "").rstrip("."))
    return f'<p class="status failed" role="status">{escape(text)}</p>'


def problems_list(problems: Sequence[str]) -> str:
    return findings_list([Finding("error", "", problem) for problem in problems])


def table(head: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]], foot: Iterable[Sequence[str]] = ()) -> str:
    """A table of plain texts; each heading comes with the text shown when it is pointed at."""
    heads = "".join(
        f'<th scope="col" title="{escape(tip)}"{" tabindex=0" if tip else ""}>{escape(text)}</th>' for text, tip in head
    )
    body = "".join(f"<tr>{_cells(row)}</tr>" for row in rows)
    footer = "".join(f"<tr>{_cells(row)}</tr>" for row in foot)
    parts = f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody><tfoot>{footer}</tfoot>"
    return f'<div class="figures-table"><table>{parts}</table></div>'


def definitions(summary: str, entries: Iterable[tuple[str, str]]) -> str:
    """Terms and what they mean, folded away."""
    terms = "".join(f"<dt>{escape(term)}</dt><dd>{escape(meaning)}</dd>" for term, meaning in entries)
    return f'<details class="definitions"><summary>{escape(summary)}</summary><dl>{terms}</dl></details>'


def legend(view: str, remark: str = "") -> str:
    """What the colours of a view mean."""
    if view == "probability":
        scale = f'0 <span class="scale"></span> 1 {escape(texts.LEGEND_PROBABILITY)}'
        return f'<div class="legend">{scale}</div>'
    if view == "agreement":
        entries = ((AGREEMENT, "agreement"), (PREDICTION, "extra"), (MISSED, "missed"))
    elif view == "mask":
        entries = (((255, 255, 255), "prediction"),)
    else:
        entries = ((PREDICTION, "prediction"),)
    swatches = "".join(_swatch(colour, texts.LEGEND[key]) for colour, key in entries)
    return f'<div class="legend">{swatches}{f"<span>{escape(remark)}</span>" if remark else ""}</div>'


def _swatch(colour: Colour, text: str) -> str:
    return f'<span><i style="background:rgb{colour}"></i>{escape(text)}</span>'


def _cells(row: Sequence[str]) -> str:
    first, *rest = row
    return f'<th scope="row">{escape(first)}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in rest)
