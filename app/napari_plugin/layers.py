"""The border between the library's arrays and napari's layers: here alone are scale, units and (x, y) known.

The library works in ``(row, col)`` pixels. A layer has a scale, so that what a mouse event or the camera says is in
millimetres when the size of a pixel is known; napari's last two axes are row and column.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from napari.utils.colormaps import DirectLabelColormap

from app import texts
from univg.overlay import MISSED, PREDICTION, REFERENCE, Colour

if TYPE_CHECKING:
    from napari.layers import Image, Labels, Layer, Points, Shapes
    from napari.viewer import Viewer

BOUNDARY: Colour = (240, 228, 66)  # Okabe and Ito's yellow
VESSEL = 1
_MILLIMETRES = {"nanometer": 1e-6, "micrometer": 1e-3, "millimeter": 1.0, "centimeter": 10.0, "meter": 1000.0}
_UNIT_NAMES = {"mm": "millimeter", "pixel": "pixel"}  # as napari says them
_RING = 36.0  # pixels across
_ROUND = 48  # corners that stand for an ellipse


def placement(spacing_mm: float | None) -> dict:
    """Scale and units of a layer, as keyword arguments."""
    if not spacing_mm:
        return {"scale": (1.0, 1.0)}
    return {"scale": (spacing_mm, spacing_mm), "units": ("mm", "mm")}


def add_image(viewer: Viewer, image: np.ndarray, *, spacing_mm: float | None = None) -> Image:
    """An image as it is in the library: (H, W) or (H, W, 3)."""
    limits = [0, 255] if image.dtype == np.uint8 else [0.0, 1.0]
    settings = {"rgb": True} if image.ndim == 3 else {"rgb": False, "contrast_limits": limits}
    return viewer.add_image(image, name=texts.NAPARI_LAYERS["image"], **settings, **placement(spacing_mm))


def add_mask(viewer: Viewer, mask: np.ndarray, *, spacing_mm: float | None = None, name: str = "mask") -> Labels:
    """A bool mask as a Labels layer that can be painted in; vessels have label 1."""
    layer = viewer.add_labels(
        mask.astype(np.uint8),
        name=texts.NAPARI_LAYERS[name],
        opacity=0.6,
        colormap=mask_colours(PREDICTION),
        **placement(spacing_mm),
    )
    layer.selected_label = VESSEL
    layer.brush_size = 3
    return layer


def show_other(layer: Image | Labels, data: np.ndarray, *, spacing_mm: float | None) -> None:
    """Another image in a layer that is there: to remove a layer takes napari a quarter of a second each time."""
    if layer.data.dtype == np.uint8 and data.dtype == bool:
        layer.editable = False  # which also forgets the undo steps of the image before
        layer.data = data.astype(np.uint8)
        layer.editable = True
    else:
        layer.data = data
    _place(layer, spacing_mm)


def _place(layer: Layer, spacing_mm: float | None) -> None:
    scale, unit = spacing_mm or 1.0, "mm" if spacing_mm else "pixel"
    # Each of these draws the layer anew.
    if not np.allclose(layer.scale, scale):
        layer.scale = (scale, scale)
    if any(str(known) != _UNIT_NAMES[unit] for known in layer.units):
        layer.units = (unit, unit)


def fits(layer: Image | None, image: np.ndarray) -> bool:
    """Whether `show_other` can show `image` in `layer`: colour and number type of a layer do not change."""
    return layer is not None and layer.rgb == (image.ndim == 3) and layer.data.dtype == image.dtype


def add_map(viewer: Viewer, values: np.ndarray, *, name: str, spacing_mm: float | None, visible: bool) -> Image:
    """A map of values from 0 to 1 over the image, (H, W) float32; where uncertainty is 0 the image shows through."""
    return viewer.add_image(
        values,
        name=texts.NAPARI_LAYERS[name],
        colormap="cividis" if name == "probability" else "magma",
        contrast_limits=(0, 1),
        opacity=0.7,
        blending="translucent" if name == "probability" else "additive",
        visible=visible,
        **placement(spacing_mm),
    )


def add_picture(viewer: Viewer, rgba: np.ndarray, *, name: str, spacing_mm: float | None) -> Image:
    """An (H, W, 4) uint8 picture with transparency."""
    return viewer.add_image(
        rgba, rgb=True, name=texts.NAPARI_LAYERS[name], blending="translucent", **placement(spacing_mm)
    )


def show_growth(layer: Labels, data: np.ndarray, *, factor: float, spacing_mm: float | None) -> None:
    """A smaller picture in `layer`, as large on screen as the image: `factor` of its pixels go on one of `data`."""
    size = spacing_mm or 1.0
    layer.data = data
    layer.scale = (size * factor, size * factor)
    # The middle of the first pixel is where a layer lies, so a larger pixel must move by half of what it gained.
    layer.translate = (size * (factor - 1) / 2, size * (factor - 1) / 2)


def add_roots(viewer: Viewer, *, spacing_mm: float | None = None) -> Points:
    return viewer.add_points(
        np.empty((0, 2)),
        ndim=2,
        name=texts.NAPARI_LAYERS["roots"],
        size=9,
        face_color=np.array([_rgba(MISSED)]),
        border_color="white",
        **placement(spacing_mm),
    )


def add_marker(viewer: Viewer, *, spacing_mm: float | None = None) -> Points:
    """A layer for a ring around the place that is meant, see `mark`."""
    return viewer.add_points(
        np.empty((0, 2)),
        ndim=2,
        name=texts.NAPARI_LAYERS["here"],
        symbol="disc",
        size=_RING,
        face_color="transparent",
        border_color=np.array([_rgba(BOUNDARY)]),
        border_width=0.04,
        **placement(spacing_mm),
    )


def mark(layer: Points, pixel: tuple[float, float] | None, *, spacing_mm: float | None) -> None:
    """Put the ring around ``(row, col)``; None takes it away."""
    layer.data = np.empty((0, 2)) if pixel is None else np.array([pixel])
    layer.size = _RING
    _place(layer, spacing_mm)


def add_outlines(viewer: Viewer, *, name: str, spacing_mm: float | None = None) -> Shapes:
    """An empty Shapes layer for ``"boundary"``, ``"obstacles"`` or ``"roi"``."""
    colour = {"boundary": BOUNDARY, "obstacles": REFERENCE, "roi": (255, 255, 255)}[name]
    return viewer.add_shapes(
        None,
        ndim=2,
        name=texts.NAPARI_LAYERS[name],
        edge_color=np.array([_rgba(colour)]),
        face_color=np.array([_rgba(colour, 0.12)]),
        edge_width=2,
        **placement(spacing_mm),
    )


def mask_colours(colour: Colour) -> DirectLabelColormap:
    """Background clear, everything else in `colour`: a stray label is vessel too, and must be seen."""
    return DirectLabelColormap(color_dict={None: _rgba(colour), 0: (0, 0, 0, 0), VESSEL: _rgba(colour)})


def other_masks(viewer: Viewer, own: Labels | None) -> list[Labels]:
    """The Labels layers with two axes beside `own`, those that only illustrate left out."""
    from napari.layers import Labels

    left_out = (texts.NAPARI_LAYERS["growth"],)
    return [
        layer
        for layer in viewer.layers
        if isinstance(layer, Labels) and layer.ndim == 2 and layer is not own and layer.name not in left_out
    ]


def spacing_mm_of(layer: Layer) -> float | None:
    """Millimetres that a pixel of `layer` is wide, when its units say so."""
    row, col = layer.scale[-2:]
    factor = _MILLIMETRES.get(str(layer.units[-1]))
    return float(np.sqrt(row * col)) * factor if factor else None


def mask_in(layer: Labels) -> np.ndarray:
    """What is painted, as an (H, W) bool array of its own."""
    return np.asarray(layer.data) != 0


def write_mask(layer: Labels, mask: np.ndarray) -> bool:
    """Make `layer` show `mask`, as one step of its undo history; False when it did already."""
    where, values = pixel_changes(mask_in(layer), mask)
    return write_pixels(layer, where, values)


def pixel_changes(before: np.ndarray, after: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """(rows, cols) of the pixels in which two masks differ, and the values of `after` there."""
    # Much quicker on a large frame than `np.nonzero` in two dimensions.
    flat = np.flatnonzero(before != after)
    return np.divmod(flat, before.shape[1]), after.reshape(-1)[flat]


def write_pixels(layer: Labels, where: tuple[np.ndarray, np.ndarray], values: np.ndarray) -> bool:
    """Set pixels of a mask, as one step of its undo history; False when there are none."""
    if not len(values):
        return False
    layer.data_setitem(where, values.astype(layer.data.dtype))
    return True


def points_in(layer: Points) -> tuple[tuple[float, float], ...]:
    """``(row, col)`` of the points."""
    return tuple((float(row), float(col)) for row, col in np.asarray(layer.data)[:, -2:])


def polygons_in(layer: Shapes) -> tuple[tuple[tuple[float, float], ...], ...]:
    """The closed shapes as polygons of ``(row, col)``; lines have no inside and are left out."""
    found = []
    for corners, kind in zip(layer.data, layer.shape_type, strict=True):
        corners = np.asarray(corners)[:, -2:]
        if kind == "ellipse":
            corners = _ellipse(corners)
        if kind != "line" and len(corners) >= 3:
            found.append(tuple((float(row), float(col)) for row, col in corners))
    return tuple(found)


def drawn_in(layer: Points | Shapes) -> tuple[list[np.ndarray], list[str]]:
    """Copies of what was drawn, and the type of each shape (none for points), for `give_back`."""
    return [np.array(part) for part in layer.data], [str(kind) for kind in getattr(layer, "shape_type", ())]


def give_back(layer: Points | Shapes, drawn: tuple[list[np.ndarray], list[str]]) -> None:
    """Draw what `drawn_in` found in an empty layer of the same kind."""
    data, kinds = drawn
    if kinds:
        layer.add(data, shape_type=kinds)
    else:
        layer.data = np.array(data)


def window_in(layer: Shapes | None, shape: tuple[int, int]) -> tuple[slice, slice] | None:
    """The frame around the newest closed shape, within `shape`; None without one that holds a pixel."""
    polygons = polygons_in(layer) if layer is not None else ()
    if not polygons:
        return None
    corners = np.asarray(polygons[-1])
    low = np.clip(np.floor(corners.min(axis=0)), 0, shape).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0)) + 1, 0, shape).astype(int)
    if (high <= low).any():
        return None
    return slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))


def pixel_at(layer: Layer, world: Sequence[float]) -> tuple[float, float]:
    """``(row, col)`` in `layer` of a position that a mouse event gives."""
    row, col = layer.world_to_data(world)[-2:]
    return float(row), float(col)


def look_at(viewer: Viewer, layer: Layer, pixel: tuple[float, float], *, across: float = 160.0) -> None:
    """Bring ``(row, col)`` of `layer` to the middle; the frame becomes about `across` pixels wide if it was wider."""
    row, col = layer.data_to_world(pixel)[-2:]
    camera = getattr(viewer, "scene", viewer).camera  # its place since napari 0.9
    camera.center = (0.0, float(row), float(col))
    width = camera.zoom * across * float(layer.scale[-1])
    wanted = 500.0  # screen pixels
    if width < wanted:
        camera.zoom *= wanted / width


def _ellipse(corners: np.ndarray) -> np.ndarray:
    """napari keeps an ellipse as the four corners of its box, in order."""
    centre = corners.mean(axis=0)
    one, other = (corners[1] - corners[0]) / 2, (corners[2] - corners[1]) / 2
    angle = np.linspace(0, 2 * np.pi, _ROUND, endpoint=False)
    return centre + np.outer(np.cos(angle), one) + np.outer(np.sin(angle), other)


def _rgba(colour: Colour, alpha: float = 1.0) -> tuple[float, float, float, float]:
    red, green, blue = (value / 255 for value in colour)
    return red, green, blue, alpha
