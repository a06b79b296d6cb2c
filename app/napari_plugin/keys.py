"""Keys that work wherever the focus is in the viewer. napari does not read them from a manifest, so they are bound."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.napari_plugin.background import in_words

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from app.napari_plugin.session import Session

KEYS = {
    "Shift-N": lambda session: session.open_next(),
    "Shift-A": lambda session: session.approve(),
    "Shift-E": lambda session: session.jump(1),
    "Shift-W": lambda session: session.jump(-1),
}


def bind_keys(viewer: Viewer, session: Session) -> None:
    """Shift-N next image, Shift-A approve, Shift-E and Shift-W the next and previous uncertain segment."""
    for key, act in KEYS.items():
        viewer.bind_key(key, _pressed(session, act), overwrite=True)


def _pressed(session: Session, act):
    def press(viewer: Viewer) -> None:
        try:
            act(session)
        except Exception as error:  # said in the panels; a key must not end the window
            session.said.emit(in_words(error), "error")

    return press
