"""Clicks and strokes on a layer, handed on as ``(row, col)``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from app.napari_plugin.layers import pixel_at

if TYPE_CHECKING:
    from napari.layers import Labels

_JITTER = 2.0  # pixels that a hand moves during a click


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
    """

    def __init__(
        self,
        layer: Labels,
        *,
        on_click: Callable[[tuple[float, float]], None] | None = None,
        on_stroke: Callable[[np.ndarray], None] | None = None,
    ) -> None:
        self._layer, self._on_click, self._on_stroke = layer, on_click, on_stroke
        layer.mode = "pan_zoom"
        layer.mouse_pan = on_stroke is None
        layer.mouse_drag_callbacks.append(self._pressed)

    def let_go(self) -> None:
        if self._pressed in self._layer.mouse_drag_callbacks:
            self._layer.mouse_drag_callbacks.remove(self._pressed)
        self._layer.mouse_pan = True

    def _pressed(self, layer: Labels, event):
        """A generator, as napari wants it: it goes on with each move, and after the release."""
        points = [pixel_at(layer, event.position)]
        yield
        while event.type == "mouse_move":
            points.append(pixel_at(layer, event.position))
            yield
        path = np.array(points)
        still = np.abs(path - path[0]).max() < _JITTER
        if self._on_stroke is not None and not still:
            self._on_stroke(path)
        elif self._on_click is not None and still:
            self._on_click(points[0])
