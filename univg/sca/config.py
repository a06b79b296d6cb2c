"""Every parameter of R-SCA in one frozen object."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from numbers import Integral

from univg.types import Modality

VENATIONS = ("open", "closed")


@dataclass(frozen=True)
class SCAConfig:
    """Parameters of space colonization; lengths in pixels of a 512-pixel frame.

    Attributes
    ----------
    attraction_distance : float
        D_a: how far an attractor is felt.
    kill_distance : float
        D_k: an attractor closer than this to a node is reached and removed.
    segment_length : float
        L_s: distance between a node and the one that grows from it.
    max_nodes, max_iterations : int
        Where growth ends at the latest (eq. 7).
    follow_distance : float
        Attractors within this distance pull together, which follows a vessel. Farther ones, up to D_a, pull one at a
        time where nothing nearer does, so that a gap is bridged by one branch and not by a comb of them; ``inf`` lets
        all within D_a pull together, as written in the paper.
    calibre_classes : int
        Growth follows the real vessels in this many turns, the widest first; 1 lets all attract at once.
    arteries_and_veins : bool
        Whether the vessels of a fundus mask are dealt out to two forests that may cross.
    vessel_fraction : float
        Share of the real centreline used as attractors, 0 to 1.
    grid_spacing : float
        Cell size of the jittered grid away from vessels.
    grid_fraction : float
        Share of the grid cells that get an attractor, 0 to 1.
    grid_reach : float
        Grid attractors farther than this from a real vessel are left out; ``inf`` keeps all.
    warp_amplitude, warp_sigma : float
        Elastic deformation of the real mask before it conditions growth: typical shift and smoothness.
    direction_noise : float
        Standard deviation added to each component of the unit growth direction.
    smoothing : int
        Passes that pull each node towards its neighbours along the vessel; more gives straighter vessels.
    prune_length : float
        Side branches that end within this length are removed as spurs.
    tortuosity : float
        How much grown vessels wind: shift across the vessel as a share of `winding_length`, 0 to 0.5.
    winding_length : float
        Length over which a vessel winds once to one side.
    capillary_spacing : float
        Mesh width of a layer of capillaries between the vessels; 0 leaves it out. Read by `generate_tree`.
    venation : {'open', 'closed'}
        'closed' also joins tips to the vessel ahead of them, so that vessels form loops.
    tip_radius : float
        Radius at the tips.
    taper : float
        Share by which a vessel widens per 100 pixels towards its base, on top of Murray's law at bifurcations.
    murray_exponent : float
        k in ``r_parent^k = sum r_child^k``; 2 conserves area, 3 is Murray's optimum.
    calibre_noise : float
        Standard deviation of the logarithm of a factor by which each branch is wider or thinner than that; it is cut
        at one standard deviation.
    real_radius_range : tuple of float
        Bounds of the radius on a real vessel, as shares of the real local radius; ``(0, inf)`` ignores it.
    """

    attraction_distance: float = 24.0
    kill_distance: float = 3.5
    segment_length: float = 4.0
    max_nodes: int = 20_000
    max_iterations: int = 1_000
    follow_distance: float = 10.0
    calibre_classes: int = 3
    arteries_and_veins: bool = True
    vessel_fraction: float = 0.6
    grid_spacing: float = 12.0
    grid_fraction: float = 0.05
    grid_reach: float = 24.0
    warp_amplitude: float = 9.0
    warp_sigma: float = 60.0
    direction_noise: float = 0.25
    smoothing: int = 4
    prune_length: float = 6.0
    tortuosity: float = 0.0
    winding_length: float = 30.0
    capillary_spacing: float = 0.0
    venation: str = "open"
    tip_radius: float = 0.6
    taper: float = 0.0
    murray_exponent: float = 2.0
    calibre_noise: float = 0.5
    real_radius_range: tuple[float, float] = (0.9, 1.4)

    def __post_init__(self) -> None:
        for name in (
            "attraction_distance",
            "kill_distance",
            "segment_length",
            "follow_distance",
            "grid_spacing",
            "warp_sigma",
            "winding_length",
        ):
            _require(getattr(self, name) > 0, name, getattr(self, name), "above 0")
        for name in (
            "grid_reach",
            "warp_amplitude",
            "direction_noise",
            "smoothing",
            "prune_length",
            "capillary_spacing",
            "tip_radius",
            "taper",
            "calibre_noise",
        ):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        _require(0 <= self.tortuosity <= 0.5, "tortuosity", self.tortuosity, "between 0 and 0.5")
        _require(self.venation in VENATIONS, "venation", self.venation, f"one of {VENATIONS}")
        for name in ("vessel_fraction", "grid_fraction"):
            _require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "between 0 and 1")
        for name in ("max_nodes", "max_iterations", "calibre_classes"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("max_nodes", "max_iterations", "calibre_classes", "smoothing"):
            _require(isinstance(getattr(self, name), Integral), name, getattr(self, name), "a whole number")
        _require(1 <= self.murray_exponent <= 4, "murray_exponent", self.murray_exponent, "between 1 and 4")
        low, high = self.real_radius_range
        _require(0 <= low <= high, "real_radius_range", self.real_radius_range, "an increasing pair from 0 up")
        # A node that cannot feel what lies one segment ahead, or steps over what it should reach, oscillates.
        if self.attraction_distance <= self.segment_length:
            raise ValueError(
                f"`attraction_distance` ({self.attraction_distance:g}) must exceed `segment_length` "
                f"({self.segment_length:g}); shorten the segments"
            )
        if self.kill_distance <= self.segment_length / 2:
            raise ValueError(
                f"`kill_distance` ({self.kill_distance:g}) must exceed half of `segment_length` "
                f"({self.segment_length:g}); shorten the segments or reach farther"
            )
        if self.kill_distance >= self.attraction_distance:
            raise ValueError(
                f"`kill_distance` ({self.kill_distance:g}) must be below `attraction_distance` "
                f"({self.attraction_distance:g}), or every attractor dies before it attracts"
            )

    def to_json(self) -> dict:
        return {**asdict(self), "real_radius_range": list(self.real_radius_range)}

    @classmethod
    def from_json(cls, data: dict) -> SCAConfig:
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(data) - known)
        if unknown:
            raise ValueError(f"Unknown parameter {unknown[0]!r}; known: {', '.join(sorted(known))}")
        if "real_radius_range" in data:
            data = {**data, "real_radius_range": tuple(data["real_radius_range"])}
        return cls(**data)


def _require(holds: bool, name: str, got: object, expected: str) -> None:
    if not holds or (isinstance(got, float) and math.isnan(got)):
        raise ValueError(f"`{name}` must be {expected}, got {got!r}")


RECIPES = {
    "natural": SCAConfig(),
    # As written in the paper: D_a 20, D_k 10, L_s 15, dense on the real vessels, a jittered grid elsewhere, calibre by
    # recursion from the tips. It names no grid spacing; D_a gives every cell a node that can feel it.
    "paper": SCAConfig(
        attraction_distance=20.0,
        kill_distance=10.0,
        segment_length=15.0,
        follow_distance=math.inf,
        calibre_classes=1,
        arteries_and_veins=False,
        vessel_fraction=1.0,
        grid_spacing=20.0,
        grid_fraction=0.5,
        grid_reach=math.inf,
        warp_amplitude=0.0,
        direction_noise=0.0,
        smoothing=0,
        prune_length=0.0,
        tip_radius=1.0,
        murray_exponent=3.0,
        calibre_noise=0.0,
        real_radius_range=(0.0, math.inf),
    ),
}

# Annotators of these draw the larger vessels alone, which have few and long branches; en face, of even calibre.
_FEW_BRANCHES = {"prune_length": 16.0, "grid_fraction": 0.02}
_EN_FACE = {**_FEW_BRANCHES, "calibre_noise": 0.3}
# Half of what annotators draw on a fundus is one pixel wide, which a radius read from pixels makes too thick.
_MOSTLY_THIN = {"real_radius_range": (0.85, 1.3)}
_NATURAL = {
    Modality.FUNDUS: _MOSTLY_THIN,
    Modality.OCTA: _EN_FACE,
    Modality.OCT: _EN_FACE,
    Modality.CORONARY_DSA: _FEW_BRANCHES,
}


def recipes_for(modality: Modality) -> dict[str, SCAConfig]:
    """The named ways to grow along a real mask of `modality`, ``natural`` first."""
    return {**RECIPES, "natural": replace(RECIPES["natural"], **_NATURAL.get(modality, {}))}
