"""What each modality looks like when no real mask is at hand: field, roots and density."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from univg.sca.config import SCAConfig
from univg.types import Modality


@dataclass(frozen=True)
class Preset:
    """A modality's default growth.

    Attributes
    ----------
    config : SCAConfig
        For growth from the preset alone; `SCAConfig()` is the default for growth conditioned on masks.
    round_field : bool
        Whether the boundary is the disc that a fundus camera sees, rather than the frame.
    """

    config: SCAConfig
    round_field: bool = False


# Without a real mask the grid is all there is: a coarse, jittered grid felt from afar gives long calm vessels.
_FREE = {
    "grid_reach": float("inf"),
    "direction_noise": 0.3,
    "kill_distance": 10.0,
    "prune_length": 14.0,
    "smoothing": 6,
}
_PRESETS = {
    Modality.FUNDUS: Preset(
        SCAConfig(**_FREE, grid_spacing=26, grid_fraction=0.8, attraction_distance=60, tip_radius=1.0),
        round_field=True,
    ),
    Modality.OCTA: Preset(
        SCAConfig(**_FREE, grid_spacing=20, grid_fraction=0.9, attraction_distance=45, tip_radius=1.0)
    ),
    Modality.OCT: Preset(
        SCAConfig(**_FREE, grid_spacing=28, grid_fraction=0.8, attraction_distance=60, tip_radius=1.2)
    ),
    Modality.BRAIN_DSA: Preset(
        SCAConfig(**_FREE, grid_spacing=26, grid_fraction=0.7, attraction_distance=60, tip_radius=1.1)
    ),
    Modality.CORONARY_DSA: Preset(
        SCAConfig(**_FREE, grid_spacing=60, grid_fraction=0.7, attraction_distance=110, tip_radius=1.8)
    ),
}


def preset_for(modality: Modality) -> Preset:
    """The preset of `modality`."""
    return _PRESETS[modality]


def default_boundary(modality: Modality, shape: tuple[int, int]) -> np.ndarray | None:
    """Where vessels may lie when nothing else is known: a disc for the fundus, else the whole frame (None)."""
    if not preset_for(modality).round_field:
        return None
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    centre = (np.asarray(shape) - 1) / 2
    return (rows - centre[0]) ** 2 + (cols - centre[1]) ** 2 <= (0.47 * min(shape)) ** 2


def default_roots(modality: Modality, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Anatomical origins (section 3.1): optic disc, foveal ring, great vessels or coronary ostium.

    Returns
    -------
    (R, 2) ndarray of float64
        ``(row, col)`` in pixels.
    """
    size = np.asarray(shape, np.float64)
    if modality is Modality.FUNDUS:
        side = rng.choice([0.3, 0.7])
        disc = size * [0.5 + rng.normal(0, 0.03), side + rng.normal(0, 0.02)]
        angles = np.array([0.25, 0.75, 1.25, 1.75]) * np.pi + rng.normal(0, 0.2, 4)
        roots = disc + 0.03 * size.min() * np.stack([np.sin(angles), np.cos(angles)], axis=1)
    elif modality in (Modality.OCTA, Modality.OCT):
        # The large vessels reach the scan from outside and end around the foveal avascular zone.
        n = int(rng.integers(6, 10))
        angles = 2 * np.pi * (np.arange(n) + rng.uniform(0, 0.6, n)) / n
        direction = np.stack([np.sin(angles), np.cos(angles)], axis=1)
        roots = size / 2 + 0.49 * size * direction / np.abs(direction).max(axis=1, keepdims=True)
    elif modality is Modality.BRAIN_DSA:
        roots = size * np.stack([[0.97, 0.97], 0.5 + rng.uniform(-0.12, 0.12, 2)], axis=1)
    else:
        roots = size * np.array([[0.03, rng.uniform(0.25, 0.5)]])
    return np.clip(roots, 1, size - 2)


def avascular_zone(modality: Modality, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray | None:
    """The foveal avascular zone that OCTA and OCT vessels go around, True inside; None elsewhere."""
    if modality not in (Modality.OCTA, Modality.OCT):
        return None
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    centre = np.asarray(shape) * (0.5 + rng.normal(0, 0.02, 2))
    radius = min(shape) * rng.uniform(0.07, 0.11)
    return (rows - centre[0]) ** 2 + (cols - centre[1]) ** 2 < radius**2
