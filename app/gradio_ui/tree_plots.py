"""Plots of the Trees tab as inline SVG that takes its text colour from the page: generated against real."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from app import texts
from univg.geometry import TreeMorphometry, compare_morphometry
from univg.overlay import PREDICTION, REFERENCE, Colour

_INK = "#123456"  # replaced by the page's own text colour
_GREEN: Colour = (0, 158, 115)  # Okabe and Ito's bluish green
_BINS = 16


def comparison(groups: Mapping[str, Sequence[TreeMorphometry]], real: Sequence[TreeMorphometry]) -> str:
    """Histograms of five quantities, of one or two generated groups by name and of the real masks, with distances."""
    distances = {name: compare_morphometry(trees, real) for name, trees in groups.items()}
    colours = _colours(groups)
    with _style():
        figure = _figure(11, 1.9)
        for axis, (quantity, label) in zip(figure.subplots(1, 5), texts.TREES_QUANTITIES.items(), strict=True):
            samples = [(_values(trees, quantity), colours[name]) for name, trees in groups.items()]
            _histogram(axis, [*samples, (_values(real, quantity), REFERENCE)])
            axis.set_xlabel(label)
            axis.set_title(_distances_text(distances, quantity), fontsize=8)
    summary = "; ".join(
        f"{label}: {_distances_text(distances, quantity)}" for quantity, label in texts.TREES_QUANTITIES.items()
    )
    counts = [len(trees) for trees in groups.values()]
    sentence = texts.TREES_COMPARED.format(generated=" + ".join(map(str, counts)), real=len(real))
    legend = _legend({**colours, texts.TREES_REAL: REFERENCE}, sentence)
    return f'<div class="plots">{_svg(figure, summary)}</div>{legend}'


def scatter(groups: Mapping[str, np.ndarray]) -> str:
    """Points (N, 2) of each group in one plot; the last group is the real one."""
    *generated, real = groups
    colours = {**_colours(generated), real: REFERENCE}
    with _style():
        figure = _figure(5, 2.6)
        axis = figure.subplots()
        axis.patch.set_alpha(0)
        for (name, points), marker in zip(groups.items(), "os^D", strict=False):
            axis.scatter(*points.T, s=22, color=_share(colours[name]), marker=marker, label=name)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_xlabel(texts.MASKS_MAP)
    return f'<div class="plots map">{_svg(figure, texts.MASKS_MAP)}</div>{_legend(colours)}'


def _colours(names) -> dict[str, Colour]:
    """Sky blue for what is generated last, green for what it was made from."""
    names = list(names)
    return dict(zip(names, (_GREEN, PREDICTION)[-len(names) :], strict=True))


def _share(colour: Colour) -> tuple[float, ...]:
    return tuple(channel / 255 for channel in colour)


def _style():
    from matplotlib import rc_context

    ink = {key: _INK for key in ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")}
    return rc_context({**ink, "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 8})


def _figure(width: float, height: float):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    return figure


def _svg(figure, summary: str) -> str:
    """The figure as SVG that takes its text colour from the page and fills the width it is given."""
    buffer = io.StringIO()
    with _style():
        figure.savefig(buffer, format="svg")
    svg = buffer.getvalue()
    svg = re.sub(r"(?i)" + _INK, "currentColor", svg[svg.index("<svg") :])
    svg = re.sub(r"<svg ", '<svg role="img" aria-label="' + escape(summary, quote=True) + '" ', svg, count=1)
    return re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)


def _legend(colours: Mapping[str, Colour], sentence: str = "") -> str:
    swatches = "".join(
        f'<span><i style="background:rgb{colour}"></i>{escape(text)}</span>' for text, colour in colours.items()
    )
    return f'<div class="legend">{swatches}{f"<span>{escape(sentence)}</span>" if sentence else ""}</div>'


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


def _histogram(axis, samples: list[tuple[np.ndarray, Colour]]) -> None:
    pooled = np.concatenate([values for values, _ in samples])
    axis.set_yticks([])
    axis.patch.set_alpha(0)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    if not len(pooled):
        return
    low, high = np.percentile(pooled, [0, 98])
    edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    for values, colour in samples:
        if len(values):
            weights = np.full(len(values), 1 / len(values))
            axis.hist(values, edges, weights=weights, color=_share(colour), alpha=0.35)
            axis.hist(values, edges, weights=weights, color=_share(colour), histtype="step", linewidth=1.3)


def _distances_text(distances: Mapping[str, Mapping], quantity: str) -> str:
    """The distance of the only group, or of each by name."""
    found = {name: each[quantity].distance for name, each in distances.items()}
    if len(found) == 1:
        (distance,) = found.values()
        return texts.TREES_DISTANCE.format(distance=distance) if np.isfinite(distance) else ""
    return ", ".join(f"{name} {distance:.2f}" for name, distance in found.items() if np.isfinite(distance))
