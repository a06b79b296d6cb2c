"""The stages of an adaptation that can be begun with again, and which settings each of them depends on.

A changed setting makes its stage stale, and every later one.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from univg.errors import InputError
from univg.workflow.presets import Preset

MASK_ENGINE, IMAGE_ENGINE, PAIRS, SEGMENTER = "mask-engine", "image-engine", "pairs", "segmenter"

# Stage -> parameters of an ``adapt`` job. The seed decides which image is held out, and so belongs to the first.
FULL_STAGES: dict[str, tuple[str, ...]] = {
    MASK_ENGINE: ("seed", "mask_backbone", "mask_steps"),
    IMAGE_ENGINE: ("image_backbone", "image_steps"),
    PAIRS: ("pairs", "pairs_seed", "alpha", "conditioning"),
    SEGMENTER: ("network", "segmenter_steps", "full_length"),
}
# Without engines, trees and pairs follow from the seed and take seconds: nothing of them is kept, all is made again.
QUICK_STAGES: dict[str, tuple[str, ...]] = {"trees": ("seed",), PAIRS: (), SEGMENTER: FULL_STAGES[SEGMENTER]}
# Where the work runs and whether it waits for a review makes no result stale.
FREE_SETTINGS = ("device", "review")

# What settings that are not given amount to.
FULL_DEFAULTS = {"seed": 0, "mask_steps": 240, "image_steps": 400, "pairs": 200, "alpha": 0.7, "network": "unet"}
NUMBERS = (
    *("seed", "mask_steps", "image_steps", "segmenter_steps"),
    *("pairs", "pairs_seed", "alpha", "conditioning"),
)
LARGEST_SEED = 2**62
MAX_PAIRS = 100_000
_MAX_STEPS = 10**9
_WHOLE_NUMBERS = {
    **dict.fromkeys(("seed", "pairs_seed"), (0, LARGEST_SEED)),
    **dict.fromkeys(("mask_steps", "image_steps", "segmenter_steps"), (1, _MAX_STEPS)),
    "pairs": (1, MAX_PAIRS),
}


def check_setting(setting: str, value: object) -> None:
    """Raise `InputError` when `value` is none that `setting` can have."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if setting in NUMBERS and not is_number:
        raise InputError(f"The setting {setting!r} must be a number, got {value!r}")
    if setting in _WHOLE_NUMBERS:
        least, most = _WHOLE_NUMBERS[setting]
        if not least <= value <= most or value % 1:
            raise InputError(
                f"The setting {setting!r} must be a whole number from {least} on, at most {most}, got {value!r}"
            )
    elif setting in NUMBERS and not 0 <= value <= sys.float_info.max:
        raise InputError(f"The setting {setting!r} must be a number from 0 on, got {value!r}")
    if setting == "full_length" and not isinstance(value, bool):
        raise InputError(f"The setting {setting!r} must be true or false, got {value!r}")


def full_backbone_path(name: object) -> str:
    """`name` of a backbone as a job can find it, which runs in another folder: 'compact', or a whole path."""
    if name == "compact":
        return name
    if not isinstance(name, str) or not name:
        raise InputError(f"A backbone must be compact or a path, got {name!r}")
    path = Path(name).expanduser().resolve()
    if not path.exists():
        raise InputError("No such backbone", path=path, fix="Name a folder with a checkpoint, or use compact.")
    return str(path)


def stages_of(preset: Preset) -> dict[str, tuple[str, ...]]:
    """The stages of `preset` in order, with the settings of each."""
    return FULL_STAGES if preset.engine_pairs else QUICK_STAGES


def stage_of_setting(setting: str, stages: Mapping[str, tuple[str, ...]]) -> str:
    """The stage that `setting` belongs to; `InputError` when it belongs to none."""
    for stage, settings in stages.items():
        if setting in settings:
            return stage
    known = ", ".join(name for settings in stages.values() for name in settings)
    raise InputError(f"There is no setting {setting!r} to change", fix=f"There are: {known}.")


def first_stale(before: Mapping, after: Mapping, stages: Mapping[str, tuple[str, ...]]) -> str | None:
    """The first stage whose settings differ between two sets of parameters; None where none do."""
    for stage, settings in stages.items():
        if any(_value(before, name) != _value(after, name) for name in settings):
            return stage
    return None


def _value(params: Mapping, name: str) -> object:
    value = params.get(name)
    return FULL_DEFAULTS.get(name) if value is None else value


def from_stage_on(stage: str, stages: Mapping[str, tuple[str, ...]]) -> list[str]:
    """`stage` and every later one; `InputError` when there is no such stage."""
    names = list(stages)
    if stage not in names:
        raise InputError(f"There is no stage {stage!r}", fix=f"There are: {', '.join(names)}.")
    return names[names.index(stage) :]
