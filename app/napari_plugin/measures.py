"""What is measured on a mask, in the units of the image, and the centreline coloured by it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from app import texts
from app.csv_cells import harmless
from app.napari_plugin.branches import find_branches
from app.napari_plugin.uncertainty import uncertainty_map
from univg.geometry import TreeMorphometry, extract_network, local_radius, measure_tree
from univg.overlay import colour_probability

QUANTITIES = ("calibre", "tortuosity", "uncertainty")


@dataclass(frozen=True)
class Measure:
    """One figure: `value` in `unit`, `spread` over `n` vessels where it is a mean (else NaN and 0)."""

    key: str
    value: float
    unit: str
    spread: float = float("nan")
    n: int = 0


@dataclass(frozen=True, eq=False)
class Coloured:
    """A centreline in colours: (H, W, 4) uint8, transparent elsewhere, and the values at both ends of the scale."""

    picture: np.ndarray
    low: float
    high: float
    unit: str


def measure_mask(mask: np.ndarray, *, spacing_mm: float | None = None) -> list[Measure]:
    """Density, length density, calibre, tortuosity, fractal dimension and branch points of an (H, W) bool mask.

    Lengths are in millimetres when the size of a pixel is known, else in pixels.
    """
    found = measure_tree(extract_network(mask), mask=mask)
    mm, unit = spacing_mm or 1.0, "mm" if spacing_mm else "px"
    branch_points = len(found.bifurcations.angles)
    return [
        Measure("density", 100 * found.vessel_density, "%"),
        Measure("length_density", found.vessel_length_density / mm, f"{unit}/{unit}²"),
        _mean("calibre", found.segment_diameters * mm, unit),
        _mean("tortuosity", found.tortuosities, ""),
        Measure("fractal_dimension", found.fractal_dimension, ""),
        Measure("branch_points", float(branch_points), ""),
        Measure("branch_point_density", branch_points / (mask.size * mm**2) * _per_area(unit), _per_area_unit(unit)),
        Measure("length", _total_length(found) * mm, unit),
    ]


def colour_centreline(
    mask: np.ndarray, quantity: str, *, probability: np.ndarray | None = None, spacing_mm: float | None = None
) -> Coloured | None:
    """The centreline of `mask` coloured by ``"calibre"``, ``"tortuosity"`` or ``"uncertainty"``.

    None for an empty mask, or for the uncertainty where no probability is known.
    """
    if quantity not in QUANTITIES:
        raise ValueError(f"`quantity` must be one of {QUANTITIES}, got {quantity!r}")
    branches = find_branches(mask)
    rows, cols = branches.points.T
    if not len(rows) or (quantity == "uncertainty" and probability is None):
        return None
    unit = ""
    if quantity == "calibre":
        values = 2 * (local_radius(mask)[rows, cols] + 0.25) * (spacing_mm or 1.0)
        unit = "mm" if spacing_mm else "px"
    elif quantity == "uncertainty":
        values = uncertainty_map(probability)[rows, cols]
    else:
        values = _winding(branches)[branches.branch_of]
    low, high = float(np.nanmin(values)), float(np.nanpercentile(values, 98))
    share = np.clip((values - low) / max(high - low, 1e-9), 0, 1).astype(np.float32)
    return Coloured(_painted(branches.points, np.nan_to_num(share), mask.shape), low, high, unit)


def to_csv(rows: Sequence[tuple[str, str, Sequence[Measure]]]) -> bytes:
    """A table of measures, one line each: image, part, quantity, value, unit, spread and number of vessels."""
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(texts.NAPARI_CSV_HEAD)
    for image, part, measures in rows:
        for measure in measures:
            spread = "" if np.isnan(measure.spread) else f"{measure.spread:.6g}"
            value = "" if np.isnan(measure.value) else f"{measure.value:.6g}"
            name = texts.NAPARI_MEASURES[measure.key][0]
            row = [harmless(image), harmless(part), name, value, measure.unit, spread, measure.n or ""]
            table.writerow(row)
    return text.getvalue().encode("utf-8-sig")


def _mean(key: str, values: np.ndarray, unit: str) -> Measure:
    values = values[np.isfinite(values)]
    if not len(values):
        return Measure(key, float("nan"), unit)
    spread = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
    return Measure(key, float(values.mean()), unit, spread, len(values))


def _total_length(found: TreeMorphometry) -> float:
    return float(found.segment_lengths.sum())


def _per_area(unit: str) -> float:
    return 1.0 if unit == "mm" else 1e4


def _per_area_unit(unit: str) -> str:
    return "1/mm²" if unit == "mm" else "1/(100 px)²"


def _winding(branches) -> np.ndarray:
    """Length over chord of each branch; 1 where it is too short to tell."""
    winding = np.ones(branches.count + 1)
    for branch in range(1, branches.count + 1):
        points = branches.points[branches.branch_of == branch]
        if len(points) < 8:
            continue
        # The two ends of a chain of pixels lie farthest from its middle pixel on either side, or near enough.
        first = points[np.argmax(np.linalg.norm(points - points.mean(axis=0), axis=1))]
        chord = np.linalg.norm(points - first, axis=1).max()
        winding[branch] = max(branches.lengths[branch] / max(chord, 1.0), 1.0)
    return winding


def _painted(points: np.ndarray, share: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Dots in the colour map of the overlays, one pixel wide, or more on a large image so that they can be seen."""
    picture = np.zeros((*shape, 4), np.uint8)
    picture[points[:, 0], points[:, 1], :3] = colour_probability(share[:, None])[:, 0]
    picture[points[:, 0], points[:, 1], 3] = 255
    width = max(round(max(shape) / 400), 1) * 2 + 1
    return cv2.dilate(picture, np.ones((min(width, 5), min(width, 5)), np.uint8)) if max(shape) >= 400 else picture
