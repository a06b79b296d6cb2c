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
    for folder in _places(kind, name):
        if folder.is_dir():
            return folder
    raise InputError(f"The {kind} {name!r} are not installed", fix="Reinstall UniVG.")


def is_shipped(kind: str, name: str) -> bool:
    """Whether `shipped_folder` would find it."""
    return any(folder.is_dir() for folder in _places(kind, name))


def _places(kind: str, name: str) -> tuple[Path, Path]:
    """In a checkout, and in an installed package."""
    return Path(__file__).resolve().parents[1] / kind / name, Path(str(resources.files("univg"))) / kind / name
