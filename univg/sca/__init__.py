"""R-SCA: vessel trees grown by space colonization, conditioned on real masks (paper section 3.1)."""

from univg.sca.anatomy import find_hub, find_optic_disc, vessel_hub
from univg.sca.capillaries import grow_capillaries
from univg.sca.centreline import Centreline, find_centreline, split_arteries_and_veins, warp_centrelines
from univg.sca.config import RECIPES, SCAConfig, recipes_for
from univg.sca.generate import generate_mask, generate_tree
from univg.sca.growth import grow_tree
from univg.sca.presets import PRESETS, Preset, preset_for, preset_named, presets_of, vary_config
from univg.sca.radii import assign_radii
from univg.sca.scene import TreeScene, grow_scene, with_root_toggled
from univg.sca.seeding import sample_attraction_points, sample_roots

__all__ = [
    "PRESETS",
    "RECIPES",
    "Centreline",
    "Preset",
    "SCAConfig",
    "TreeScene",
    "assign_radii",
    "find_centreline",
    "find_hub",
    "find_optic_disc",
    "generate_mask",
    "generate_tree",
    "grow_capillaries",
    "grow_scene",
    "grow_tree",
    "preset_for",
    "preset_named",
    "presets_of",
    "recipes_for",
    "sample_attraction_points",
    "sample_roots",
    "split_arteries_and_veins",
    "vary_config",
    "vessel_hub",
    "warp_centrelines",
    "with_root_toggled",
]
