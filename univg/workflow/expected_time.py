"""How long a preset will take here: the minutes of the reference machine, scaled by a glance at this one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from univg.io import read_json, write_json_atomic
from univg.workflow.machine import Machine, look_at_machine
from univg.workflow.presets import Preset
from univg.workflow.stages import check_setting

# `Preset.expected_minutes` are those of this many cores of this speed (`core_speed`; five looks gave 80 to 92) with
# native bfloat16.
REFERENCE_CORES, REFERENCE_SPEED = 2, 88.0
WITHOUT_BFLOAT16 = 2.2  # times as long: a step took 0.6 s instead of 0.28 s
MINUTES_A_STEP = 0.0057  # of a segmenter's training, in `Preset.expected_minutes`
PREPARATION = 0.25  # minutes of loading, trees and pairs, on a slow computer too
# Shares of its steps to which a training is shortened; so few that a glance at the computer seldom gives another one.
LENGTHS = (0.7, 0.4)
ON_GRAPHICS_CARD = 0.2  # of the reference minutes; an estimate, not measured yet

_MOST_CORES = 8  # more hardly help a batch of this size
_AT_MOST, _AT_LEAST = 6.0, 0.4  # a matrix product says little about machines that differ by more


def expected_minutes(preset: Preset, machine: Machine) -> float:
    """Minutes that a run of `preset` takes on `machine` when nothing else uses it."""
    preparation = min(PREPARATION, preset.expected_minutes)
    return preparation + (preset.expected_minutes - preparation) * _times_as_long(machine)


def _times_as_long(machine: Machine) -> float:
    """How long computing takes on `machine`, as a multiple of the reference."""
    if machine.device != "cpu":
        return ON_GRAPHICS_CARD
    factor = REFERENCE_CORES * REFERENCE_SPEED / (min(machine.cores, _MOST_CORES) * machine.speed)
    if not machine.native_bfloat16:
        factor *= WITHOUT_BFLOAT16
    return min(max(factor, _AT_LEAST), _AT_MOST)


def minutes_here(preset: Preset, device: str = "auto", *, full_length: bool = False) -> float:
    """`expected_minutes` of this machine on a device as the user names it, of `preset` as it runs here."""
    machine = look_at_machine(".", device)
    return expected_minutes(preset if full_length else fitted(preset, machine), machine)


def fitted(preset: Preset, machine: Machine) -> Preset:
    """`preset` with no more steps than a run on `machine` has time for: all, or one of the shares in `LENGTHS`.

    The slowest computers train for the last of those, even where that takes longer than it should.
    """
    steps = preset.segmentation.steps
    too_long = expected_minutes(preset, machine) - preset.minutes_at_most
    if too_long <= 0:
        return preset
    fits = 1 - too_long / (steps * MINUTES_A_STEP * _times_as_long(machine))
    shorter = round(next((share for share in LENGTHS if share <= fits), LENGTHS[-1]) * steps)
    saved = (steps - shorter) * MINUTES_A_STEP
    return replace(preset.with_steps(shorter), expected_minutes=preset.expected_minutes - saved)


def preset_of_run(preset: Preset, params: Mapping, checkpoint_folder: Path) -> Preset:
    """`preset` with the length of a run: as its ``segmenter_steps`` say, all steps for ``full_length``, else `fitted`.

    What was fitted is put on record, so that a run which is resumed on a busier computer goes on as it began.
    """
    for setting in ("segmenter_steps", "full_length"):
        if setting in params:
            check_setting(setting, params[setting])
    if "segmenter_steps" in params:
        return preset.with_steps(int(params["segmenter_steps"]))
    if params.get("full_length"):
        return preset
    record = checkpoint_folder / "length.json"
    if not record.is_file():
        from univg.training.device import resolve_device  # loads torch, which a job needs anyway

        # Torch has the last word on the device: a driver may be too old for it, or of a kind that a glance overlooks.
        machine = look_at_machine(checkpoint_folder, resolve_device(params.get("device", "auto")).type)
        write_json_atomic(record, {"steps": fitted(preset, machine).segmentation.steps})
    return preset.with_steps(read_json(record)["steps"])
