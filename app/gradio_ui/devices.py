"""The devices that work can run on, in words."""

from __future__ import annotations

from app import texts
from univg.workflow import machine


def graphics_card() -> str:
    """Name and free memory of the graphics card that torch can use, or an empty string."""
    card = machine.graphics_card()
    if card is None:
        return ""
    return texts.DEVICES["mps"] if card.kind == "mps" else texts.GPU.format(name=card.name, free=card.free_mb)


def selectable() -> list[tuple[str, str]]:
    """Choices of a device, as (label, name for `univg`)."""
    card = machine.graphics_card()
    names = ["auto", "cpu", *([card.kind] if card else [])]
    return [(texts.DEVICES[name], name) for name in names]
