"""R-SCA: vessel trees grown by space colonization, conditioned on real masks (paper section 3.1)."""

from univg.sca.config import SCAConfig
from univg.sca.generate import generate_mask, generate_tree
from univg.sca.growth import grow_tree
from univg.sca.presets import preset_for
from univg.sca.radii import assign_radii
from univg.sca.seeding import sample_attraction_points, sample_roots, warp_mask

__all__ = [
    "SCAConfig",
    "assign_radii",
    "generate_mask",
    "generate_tree",
    "grow_tree",
    "preset_for",
    "sample_attraction_points",
    "sample_roots",
    "warp_mask",
]
