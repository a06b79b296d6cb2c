"""Plots of the Trees tab as inline SVG that takes its text colour from the page: generated against real."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from html import escape

import numpy as np

from app import texts
from univg.geometry import TreeMorphometry, compare_morphometry
from univg.overlay import PREDICTION, REFERENCE

_INK = "#123456"  # replaced by the page's own text colour
_GENERATED, _REAL = (tuple(channel / 255 for channel in colour) for colour in (PREDICTION, REFERENCE))
_BINS = 16


def comparison(generated: Sequence[TreeMorphometry], real: Sequence[TreeMorphometry]) -> str:
    """Histograms of five quantities, each with its distance and the two medians."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    distances = compare_morphometry(generated, real)
    ink = {key: _INK for key in ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")}
    with rc_context({**ink, "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 8}):
        figure = Figure(figsize=(11, 1.9), layout="constrained")
        figure.patch.set_alpha(0)
        for axis, (name, label) in zip(figure.subplots(1, 5), texts.TREES_QUANTITIES.items(), strict=True):
            samples = [_values(trees, name) for trees in (generated, real)]
            _histogram(axis, samples)
            axis.set_xlabel(label)
            axis.set_title(_distance_text(distances[name].distance), fontsize=8)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg")
    svg = buffer.getvalue()
    svg = re.sub(r"(?i)" + _INK, "currentColor", svg[svg.index("<svg") :])
    svg = re.sub(
        r"<svg ", '<svg role="img" aria-label="' + escape(_summary(distances), quote=True) + '" ', svg, count=1
    )
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    legend = "".join(
        f'<span><i style="background:rgb{colour}"></i>{escape(text)}</span>'
        for colour, text in ((PREDICTION, texts.TREES_GENERATED), (REFERENCE, texts.TREES_REAL))
    )
    sentence = texts.TREES_COMPARED.format(generated=len(generated), real=len(real))
    return f'<div class="plots">{svg}</div><div class="legend">{legend}<span>{escape(sentence)}</span></div>'


def murray_meter(this: float, yours: float) -> str:
    """Two bars from 0 to 100 percent; what is not known is left out."""
    bars = []
    for label, value, kind in ((texts.TREES_MURRAY_THIS, this, "this"), (texts.TREES_MURRAY_YOURS, yours, "yours")):
        if np.isfinite(value):
            bars.append(
                f"<span>{escape(label)}</span>"
                f'<i class="{kind}" style="--share:{value:.1f}%" role="img" aria-label="{value:.1f} %"></i>'
                f"<b>{value:.1f} %</b>"
            )
    if not bars:
        return ""
    title = f'<h3 title="{escape(texts.TREES_MURRAY_HELP)}">{escape(texts.TREES_MURRAY)}</h3>'
    return f'{title}<div class="meter">{"".join(bars)}</div>'


def _values(trees: Sequence[TreeMorphometry], name: str) -> np.ndarray:
    read = {
        "vessel_density": lambda tree: [tree.vessel_density],
        "segment_diameter": lambda tree: tree.segment_diameters,
        "branching_angle": lambda tree: tree.bifurcations.angles,
        "tortuosity": lambda tree: tree.tortuosities,
        "fractal_dimension": lambda tree: [tree.fractal_dimension],
    }[name]
    values = np.concatenate([np.empty(0), *(np.asarray(read(tree), np.float64) for tree in trees)])
    return values[np.isfinite(values)]


def _histogram(axis, samples: list[np.ndarray]) -> None:
    pooled = np.concatenate(samples)
    axis.set_yticks([])
    axis.patch.set_alpha(0)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    if not len(pooled):
        return
    low, high = np.percentile(pooled, [0, 98])
    edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    for values, colour in zip(samples, (_GENERATED, _REAL), strict=True):
        if len(values):
            weights = np.full(len(values), 1 / len(values))
            axis.hist(values, edges, weights=weights, color=colour, alpha=0.35)
            axis.hist(values, edges, weights=weights, color=colour, histtype="step", linewidth=1.3)


def _distance_text(distance: float) -> str:
    return texts.TREES_DISTANCE.format(distance=distance) if np.isfinite(distance) else ""


def _summary(distances) -> str:
    parts = (f"{label}: {_distance_text(distances[name].distance)}" for name, label in texts.TREES_QUANTITIES.items())
    return "; ".join(parts)
