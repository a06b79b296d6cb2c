"""How long a preset will take here: the minutes of the reference machine, scaled by a glance at this one."""

from __future__ import annotations

from univg.workflow.machine import Machine, look_at_machine
from univg.workflow.presets import Preset

# `Preset.expected_minutes` are those of this many cores of this speed (`core_speed`) with native bfloat16.
REFERENCE_CORES, REFERENCE_SPEED = 2, 150.0
WITHOUT_BFLOAT16 = 2.5  # times as long: a step took 0.69 s instead of 0.27 s
ON_GRAPHICS_CARD = 0.2  # of the reference minutes; an estimate, not measured yet

_MOST_CORES = 8  # more hardly help a batch of this size
_AT_MOST, _AT_LEAST = 6.0, 0.4  # a matrix product says little about machines that differ by more


def expected_minutes(preset: Preset, machine: Machine) -> float:
    """Minutes that a run of `preset` takes on `machine` when nothing else uses it."""
    if machine.device != "cpu":
        return preset.expected_minutes * ON_GRAPHICS_CARD
    factor = REFERENCE_CORES * REFERENCE_SPEED / (min(machine.cores, _MOST_CORES) * machine.speed)
    if not machine.native_bfloat16:
        factor *= WITHOUT_BFLOAT16
    return preset.expected_minutes * min(max(factor, _AT_LEAST), _AT_MOST)


def minutes_here(preset: Preset, device: str = "auto") -> float:
    """`expected_minutes` of this machine on a device as the user names it."""
    return expected_minutes(preset, look_at_machine(".", device))
