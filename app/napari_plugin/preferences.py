"""The plugin's settings, from napari's Preferences where this napari has a page for plugins."""

from __future__ import annotations

PLUGIN = "univg"
AUTOSAVE_SECONDS, SMALLEST_SPECK, SPUR_LENGTH = 3.0, 20, 8.0


def autosave_seconds() -> float:
    """How long a correction may stay unsaved."""
    return float(_setting("autosave_seconds", AUTOSAVE_SECONDS))


def smallest_speck() -> int:
    """Pixels of the smallest piece that "Remove specks" keeps."""
    return int(_setting("smallest_speck", SMALLEST_SPECK))


def spur_length() -> float:
    """Pixels of the shortest side branch that "Prune spurs" keeps."""
    return float(_setting("spur_length", SPUR_LENGTH))


def _setting(name: str, default: float) -> float:
    try:
        from napari.settings import get_plugin_settings

        return getattr(get_plugin_settings(PLUGIN).correction, name)
    except (ImportError, AttributeError, KeyError, ValueError):  # an older napari, or not installed as a plugin
        return default
