"""The learning curve as inline SVG: it takes colours and fonts from the page, in both themes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from app import texts

WIDTH, HEIGHT = 380, 210
LEFT, RIGHT, TOP, BOTTOM = 36, 34, 26, 38

Points = Sequence[tuple[float, float]]


def learning_curve(loss: Points, dice: Points, total: int, *, title: str = "") -> str:
    """Loss (left axis) and held-out Dice (right axis, 0 to 1) over the steps of training.

    Parameters
    ----------
    loss, dice : sequence of (step, value)
    total : int
        Steps in all; the axis spans them from the start, so that the curve also shows how much is left.
    title : str
        What learns; above the curve.
    """
    if not loss:
        return f'<div class="curve empty-curve"><p>{escape(texts.CURVE_EMPTY)}</p></div>'
    top = _nice_ceiling(max(value for _, value in loss))
    total = max(total, 1)

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / total

    def y(share: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(max(share, 0), 1)

    parts = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(share):.1f}" y2="{y(share):.1f}"/>')
        parts.append(_text(LEFT - 6, y(share) + 4, f"{share * top:.2g}", "loss", "end"))
        if dice:
            parts.append(_text(WIDTH - RIGHT + 6, y(share) + 4, f"{share:.2g}", "dice", "start"))
    for share in (0, 0.5, 1):
        parts.append(_text(x(share * total), HEIGHT - BOTTOM + 16, f"{round(share * total)}", "", "middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, texts.CURVE_STEP, "", "middle"))
    parts.append(_text(4, 14, texts.CURVE_LOSS, "loss", "start"))
    if title:
        parts.append(_text(WIDTH / 2, 14, title, "", "middle"))
    if dice:
        parts.append(_text(WIDTH - 4, 14, texts.CURVE_DICE, "dice", "end"))
    parts.append(_path([(x(step), y(value / top)) for step, value in _thinned(loss)], "loss"))
    if dice:
        parts.append(_path([(x(step), y(value)) for step, value in dice], "dice"))
        parts += [f'<circle class="dice" cx="{x(s):.1f}" cy="{y(v):.1f}" r="3"/>' for s, v in dice]
    label = f"{texts.CURVE_LOSS} {loss[-1][1]:.3f}" + (f", {texts.CURVE_DICE} {dice[-1][1]:.2f}" if dice else "")
    return (
        f'<div class="curve"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg></div>"
    )


def _path(points: Points, kind: str) -> str:
    return f'<polyline class="{kind}" points="{" ".join(f"{px:.1f},{py:.1f}" for px, py in points)}"/>'


def _text(px: float, py: float, text: str, kind: str, anchor: str) -> str:
    return f'<text class="{kind}" x="{px:.1f}" y="{py:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _thinned(points: Points, most: int = 240) -> list[tuple[float, float]]:
    """At most about `most` points, each the mean of its neighbours in a bin."""
    size = math.ceil(len(points) / most)
    bins = (points[start : start + size] for start in range(0, len(points), size))
    return [(sum(s for s, _ in b) / len(b), sum(v for _, v in b) / len(b)) for b in bins]


def _nice_ceiling(value: float) -> float:
    if value <= 0:
        return 1.0
    power = 10 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * power >= value)
