"""Clicks and strokes on a layer, handed on as ``(row, col)``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from app.napari_plugin.layers import pixel_at

if TYPE_CHECKING:
    from napari.layers import Labels

_JITTER = 4.0  # pixels of the screen that a hand moves during a click
_LEFT = 1  # the button, as napari counts them
_MODE = "pan_zoom"


class Pointer:
    """Listens to the mouse on one layer until it is let go.

    Parameters
    ----------
    layer : Labels
        In pan and zoom mode meanwhile, so that a click paints nothing.
    on_click : callable
        Gets a ``(row, col)``.
    on_stroke : callable, optional
        Gets an (N, 2) array; with it a drag draws, and does not move the picture.
    on_other_mode : callable, optional
        Called when the layer turns to another mode, such as that of the brush.
    """

    def __init__(
        self,
        layer: Labels,
        *,
        on_click: Callable[[tuple[float, float]], None] | None = None,
        on_stroke: Callable[[np.ndarray], None] | None = None,
        on_other_mode: Callable[[], None] | None = None,
    ) -> None:
        self._layer, self._on_click, self._on_stroke = layer, on_click, on_stroke
        self._on_other_mode = on_other_mode
        layer.mode = _MODE
        layer.mouse_pan = on_stroke is None
        layer.mouse_drag_callbacks.append(self._pressed)
        layer.events.mode.connect(self._mode_changed)

    def let_go(self) -> None:
        if self._pressed in self._layer.mouse_drag_callbacks:
            self._layer.mouse_drag_callbacks.remove(self._pressed)
        self._layer.events.mode.disconnect(self._mode_changed)
        self._layer.mouse_pan = self._layer.mode == _MODE  # a brush must go on drawing

    def _mode_changed(self, _event=None) -> None:
        if self._on_other_mode is not None and self._layer.mode != _MODE:
            self._on_other_mode()

    def _pressed(self, layer: Labels, event):
        """A generator, as napari wants it: it goes on with each move, and after the release."""
        if event.button != _LEFT or layer.mode != _MODE:
            return
        points, moved = [pixel_at(layer, event.position)], 0.0
        start = np.array(event.pos)  # on the screen: a drag that moves the picture stays at its pixel
        yield
        while event.type == "mouse_move":
            points.append(pixel_at(layer, event.position))
            moved = max(moved, float(np.abs(np.array(event.pos) - start).max()))
            yield
        still = moved < _JITTER
        if self._on_stroke is not None and not still:
            self._on_stroke(np.array(points))
        elif self._on_click is not None and still:
            self._on_click(points[0])
