"""Where the weights and samples that come with the software lie."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from univg.errors import InputError


def shipped_folder(kind: str, name: str) -> Path:
    """A folder that is shipped with the software.

    Parameters
    ----------
    kind : {'assets', 'models'}
    name : str
        For example ``"prior"`` among the models.

    Raises
    ------
    InputError
        If this installation lacks it.
    """
    checkout = Path(__file__).resolve().parents[1] / kind / name
    installed = Path(str(resources.files("univg"))) / kind / name
    for folder in (checkout, installed):
        if folder.is_dir():
            return folder
    raise InputError(f"The {kind} {name!r} are not installed", fix="Reinstall UniVG.")
