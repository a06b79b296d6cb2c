"""The commands of the manifest that are not widgets: what menus and the command palette call."""

from __future__ import annotations

from napari.viewer import Viewer

from app.napari_plugin import preferences, tools
from app.napari_plugin.background import in_words
from app.napari_plugin.session import Session, session_of


def next_image(viewer: Viewer) -> None:
    """Open the image of the queue that is worth most."""
    _run(viewer, lambda session: session.open_next())


def approve(viewer: Viewer) -> None:
    """Say that the mask on screen is right."""
    _run(viewer, lambda session: session.approve())


def next_doubt(viewer: Viewer) -> None:
    """Go to the next of the least certain segments."""
    _run(viewer, lambda session: session.jump(1))


def previous_doubt(viewer: Viewer) -> None:
    """Go back to the one before."""
    _run(viewer, lambda session: session.jump(-1))


def segment_image(viewer: Viewer) -> None:
    """Segment the image on screen with the model in use."""
    _run(viewer, lambda session: session.segment())


def remove_specks(viewer: Viewer) -> None:
    """Remove small separate pieces of the mask on screen."""
    smallest = preferences.smallest_speck()
    _run(viewer, lambda session: session.correct(lambda mask: tools.remove_specks(mask, smallest)))


def prune_spurs(viewer: Viewer) -> None:
    """Remove short side branches of the mask on screen."""
    length = preferences.spur_length()
    _run(viewer, lambda session: session.correct(lambda mask: tools.prune_spurs(mask, length)))


def save_mask(viewer: Viewer) -> None:
    """Write the mask on screen into the project now."""
    _run(viewer, lambda session: session.save_now())


def _run(viewer: Viewer, act) -> None:
    session: Session = session_of(viewer)
    try:
        act(session)
    except Exception as error:  # panels may be closed, so napari says it
        from napari.utils.notifications import show_error

        show_error(in_words(error))
