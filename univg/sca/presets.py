"""What each modality looks like when no real mask is at hand: field, territory, roots and density."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from univg.errors import InputError
from univg.sca.config import SCAConfig
from univg.types import Modality


@dataclass(frozen=True)
class Preset:
    """A named way to grow trees of a modality without a real mask.

    Attributes
    ----------
    name : str
        As in `PRESETS`.
    modality : Modality
    config : SCAConfig
        For growth from the preset alone; `SCAConfig()` is the default for growth conditioned on masks.
    forests : int
        Trees grown one after the other: arteries, then veins.
    crossing : bool
        Whether the vessels of one forest may cross those of another.
    round_field : bool
        Whether the boundary is the disc that a fundus camera sees, rather than the frame.
    """

    name: str
    modality: Modality
    config: SCAConfig
    forests: int = 1
    crossing: bool = True
    round_field: bool = False


@dataclass(frozen=True, eq=False)
class Layout:
    """Where one tree of a preset grows, with its own random position.

    Attributes
    ----------
    roots : list of (R, 2) ndarray of float64
        ``(row, col)`` of the roots of each forest, in pixels.
    boundary : (H, W) ndarray of bool or None
        Where nodes may lie; None is the whole frame.
    territory : (H, W) ndarray of bool or None
        Where attractors lie.
    """

    roots: list[np.ndarray]
    boundary: np.ndarray | None = None
    territory: np.ndarray | None = None


# Without a real mask the grid is all there is: a coarse, jittered grid felt from afar gives long calm vessels.
_FREE = {
    "grid_reach": float("inf"),
    "follow_distance": float("inf"),
    "murray_exponent": 2.5,
    "direction_noise": 0.3,
    "calibre_noise": 0.3,
    "kill_distance": 10.0,
    "prune_length": 14.0,
    "smoothing": 6,
}
_CORONARY = SCAConfig(
    **{**_FREE, "prune_length": 24.0, "smoothing": 12},
    grid_spacing=40,
    grid_fraction=0.85,
    attraction_distance=110,
    tip_radius=1.9,
    tortuosity=0.15,
    winding_length=40,
    taper=0.08,
)
PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            "fundus",
            Modality.FUNDUS,
            SCAConfig(**_FREE, grid_spacing=26, grid_fraction=0.8, attraction_distance=60, tip_radius=0.9, taper=0.1),
            forests=2,
            round_field=True,
        ),
        Preset(
            "octa",
            Modality.OCTA,
            SCAConfig(**_FREE, grid_spacing=30, grid_fraction=0.8, attraction_distance=60, tip_radius=1.2, taper=0.2),
            forests=2,
            crossing=False,
        ),
        Preset(
            "oct",
            Modality.OCT,
            SCAConfig(**_FREE, grid_spacing=34, grid_fraction=0.8, attraction_distance=70, tip_radius=1.4, taper=0.2),
            forests=2,
            crossing=False,
        ),
        Preset(
            "brain-dsa",
            Modality.BRAIN_DSA,
            SCAConfig(
                **{**_FREE, "kill_distance": 6.0, "prune_length": 10.0, "direction_noise": 0.5},
                grid_spacing=14,
                grid_fraction=0.6,
                attraction_distance=44,
                tip_radius=0.6,
                tortuosity=0.3,
                winding_length=22,
                taper=0.1,
            ),
        ),
        Preset("coronary-right", Modality.CORONARY_DSA, _CORONARY),
        Preset("coronary-left", Modality.CORONARY_DSA, _CORONARY),
    )
}


def presets_of(modality: Modality) -> list[Preset]:
    """The presets of `modality`; more than one where the anatomy has several forms."""
    return [preset for preset in PRESETS.values() if preset.modality is modality]


def preset_for(modality: Modality) -> Preset:
    """The first preset of `modality`."""
    return presets_of(modality)[0]


def preset_named(name: str) -> Preset:
    """The preset called `name`; `InputError` with the choices otherwise."""
    if name not in PRESETS:
        raise InputError(f"Unknown tree preset {name!r}", fix=f"Use one of: {', '.join(PRESETS)}.")
    return PRESETS[name]


def vary_config(config: SCAConfig, rng: np.random.Generator) -> SCAConfig:
    """`config` with random density, calibre and tortuosity, for streams of trees that should not all look alike."""
    density = float(np.exp(rng.uniform(-0.5, 0.5)))
    return replace(
        config,
        grid_spacing=config.grid_spacing * density,
        attraction_distance=config.attraction_distance * density,
        kill_distance=config.kill_distance * density,
        prune_length=config.prune_length * density,
        direction_noise=rng.uniform(0.15, 0.6),
        smoothing=int(rng.integers(2, 8)),
        tip_radius=config.tip_radius * float(np.exp(rng.uniform(-0.4, 0.4))),
        murray_exponent=rng.uniform(2.0, 3.2),
    )


def lay_out(preset: Preset, shape: tuple[int, int], rng: np.random.Generator) -> Layout:
    """Anatomical origins and field of one tree (section 3.1), at a random position within what is natural.

    Optic disc for the fundus; arcades that reach an OCTA or OCT scan from outside and end at the foveal avascular zone;
    the internal carotid artery below for brain DSA; the coronary ostium on the upper border.
    """
    rows, cols = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    frame = _Frame(np.asarray(shape, np.float64), rows, cols)
    make = {
        "fundus": _fundus,
        "octa": _around_fovea,
        "oct": _around_fovea,
        "brain-dsa": _brain,
        "coronary-right": _coronary_right,
        "coronary-left": _coronary_left,
    }[preset.name]
    layout = make(frame, rng)
    roots = [np.clip(points, 1, np.asarray(shape) - 2) for points in layout.roots]
    return Layout(roots, layout.boundary, layout.territory)


@dataclass(frozen=True, eq=False)
class _Frame:
    """Pixel coordinates of a frame; places are given as shares of its sides, lengths as shares of the shorter one."""

    size: np.ndarray
    rows: np.ndarray
    cols: np.ndarray

    @property
    def unit(self) -> float:
        return float(self.size.min())

    def at(self, row: float, col: float) -> np.ndarray:
        return self.size * [row, col]

    def disc(self, centre: np.ndarray, radius: float) -> np.ndarray:
        return self.ellipse(centre, radius, radius)

    def ellipse(self, centre: np.ndarray, half_height: float, half_width: float) -> np.ndarray:
        v = (self.rows - centre[0]) / (half_height * self.unit)
        u = (self.cols - centre[1]) / (half_width * self.unit)
        return u * u + v * v < 1


def _fundus(frame: _Frame, rng: np.random.Generator) -> Layout:
    """Four vessels of each kind leave the disc, two above and two below; none cross the fovea."""
    side = rng.choice([-1, 1])
    disc = frame.at(0.5 + rng.normal(0, 0.03), 0.5 + side * rng.uniform(0.18, 0.3))
    fovea = disc + frame.unit * np.array([rng.normal(0.03, 0.02), -side * rng.uniform(0.27, 0.32)])
    boundary = frame.disc(frame.size / 2 - 0.5, 0.47) & ~frame.disc(fovea, rng.uniform(0.05, 0.08))
    roots = []
    for _ in range(2):
        angles = np.array([0.25, 0.75, 1.25, 1.75]) * np.pi + rng.normal(0, 0.25, 4)
        roots.append(disc + 0.03 * frame.unit * np.stack([np.sin(angles), np.cos(angles)], axis=1))
    return Layout(roots, boundary)


def _around_fovea(frame: _Frame, rng: np.random.Generator) -> Layout:
    """Arteries and veins in turn along the border; none within the foveal avascular zone."""
    zone = frame.disc(frame.size * (0.5 + rng.normal(0, 0.02, 2)), rng.uniform(0.07, 0.11))
    n = 2 * int(rng.integers(3, 5))
    angles = 2 * np.pi * (np.arange(n) + rng.uniform(0, 1) + rng.uniform(-0.25, 0.25, n)) / n
    direction = np.stack([np.sin(angles), np.cos(angles)], axis=1)
    border = frame.size / 2 + 0.49 * frame.size * direction / np.abs(direction).max(axis=1, keepdims=True)
    return Layout([border[0::2], border[1::2]], ~zone)


def _brain(frame: _Frame, rng: np.random.Generator) -> Layout:
    """The internal carotid artery rises from below and fans out within the skull."""
    foot = frame.at(0.97, 0.5 + rng.normal(0, 0.08))
    crown = frame.at(rng.uniform(0.36, 0.44), 0.5 + rng.normal(0, 0.05))
    skull = frame.ellipse(crown, rng.uniform(0.3, 0.36), rng.uniform(0.36, 0.44))
    trunk_col = foot[1] + (crown[1] - foot[1]) * (frame.size[0] - frame.rows) / (frame.size[0] - crown[0])
    trunk = (np.abs(frame.cols - trunk_col) < 0.05 * frame.unit) & (frame.rows > crown[0])
    return Layout([foot[None]], None, skull | trunk)


def _coronary_right(frame: _Frame, rng: np.random.Generator) -> Layout:
    """A C along the right border of the heart, with branches at its lower end."""
    ostium = frame.at(0.04, rng.uniform(0.45, 0.6))
    centre = frame.at(0.47 + rng.normal(0, 0.02), rng.uniform(0.56, 0.64))
    radius, width = rng.uniform(0.34, 0.4), rng.uniform(0.05, 0.09)
    ring = frame.disc(centre, radius + width) & ~frame.disc(centre, radius - width)
    left = ring & (frame.cols < centre[1] + 0.05 * frame.unit)
    below = frame.ellipse(centre + frame.unit * np.array([0.33, 0.08]), 0.16, 0.28)
    inward = frame.disc(centre, radius) & (frame.rows > centre[0]) & (frame.cols < centre[1] - 0.1 * frame.unit)
    return Layout([ostium[None]], None, left | below | inward)


def _coronary_left(frame: _Frame, rng: np.random.Generator) -> Layout:
    """A short main stem that parts into a fan of descending and circumflex branches."""
    ostium = frame.at(0.05, rng.uniform(0.12, 0.3))
    centre = ostium + frame.unit * np.array([rng.uniform(0.42, 0.5), rng.uniform(0.28, 0.36)])
    fan = frame.ellipse(centre, rng.uniform(0.38, 0.45), rng.uniform(0.32, 0.4))
    stem = frame.ellipse(0.6 * ostium + 0.4 * centre, 0.16, 0.12)
    return Layout([ostium[None]], None, fan | stem)
