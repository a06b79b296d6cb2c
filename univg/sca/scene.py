"""Everything that one picture of a tree is made from, as text: what a page shows can be grown again from its file."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from univg.errors import InputError
from univg.geometry.tree import VesselTree
from univg.sca.config import SCAConfig
from univg.sca.generate import generate_tree
from univg.sca.presets import preset_for, preset_named
from univg.types import Modality

SCENE_FORMAT = "univg-scene/1"
_MOST_POINTS = 10_000  # in all roots and polygons of a scene that is read
# What a file may ask for, so that time and memory end.
_BOUNDS = {
    "attraction_distance": (1, 1e4),
    "kill_distance": (0.1, 1e4),
    "segment_length": (0.1, 1e4),
    "max_nodes": (1, 10_000_000),
    "max_iterations": (1, 1_000_000),
    "calibre_classes": (1, 64),
    "grid_spacing": (1, 1e4),
    "warp_amplitude": (0, 1e4),
    "warp_sigma": (1, 1e4),
    "direction_noise": (0, 100),
    "smoothing": (0, 1000),
    "prune_length": (0, 1e4),
    "winding_length": (1, 1e4),
    "capillary_spacing": (0, 1e4),
    "tip_radius": (0, 256),
    "taper": (0, 10),
    "calibre_noise": (0, 10),
}
_MOST_SHARE = 100  # of the real radius that vessels have at least

Polygon = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class TreeScene:
    """A tree to be grown.

    Attributes
    ----------
    modality : Modality
    shape : tuple of int
        ``(height, width)``, in pixels.
    config : SCAConfig
        Lengths for a 512-pixel frame.
    seed : int
    mask_name : str
        Name of the mask that conditions growth; empty to grow from `preset`.
    mask_sha256 : str
        Hash of that mask's file, to tell whether another one of the name is the same.
    hub : tuple of float or None
        ``(row, col)`` that the vessels of the mask come from, in pixels; None to have it found.
    preset : str
        Name in `univg.sca.PRESETS`; lays out growth without a mask.
    roots : tuple of (row, col)
        In pixels; empty to have them found.
    obstacles : tuple of polygons
        Each at least three ``(row, col)`` points, in pixels: no vessel inside.
    boundary : polygon
        No vessel outside; empty for the preset's own field.
    """

    modality: Modality
    shape: tuple[int, int]
    config: SCAConfig
    seed: int = 0
    mask_name: str = ""
    mask_sha256: str = ""
    hub: tuple[float, float] | None = None
    preset: str = ""
    roots: tuple[tuple[float, float], ...] = ()
    obstacles: tuple[Polygon, ...] = field(default=())
    boundary: Polygon = ()

    def __post_init__(self) -> None:
        for polygon in (*self.obstacles, *([self.boundary] if self.boundary else [])):
            if len(polygon) < 3:
                raise ValueError(f"`obstacles` and `boundary` need at least three points each, got {len(polygon)}")

    @property
    def boundary_mask(self) -> np.ndarray | None:
        """(H, W) ndarray of bool, or None without a boundary."""
        return fill_polygon(self.boundary, self.shape) if self.boundary else None

    @property
    def obstacle_mask(self) -> np.ndarray | None:
        """(H, W) ndarray of bool, or None without obstacles."""
        if not self.obstacles:
            return None
        return np.any([fill_polygon(polygon, self.shape) for polygon in self.obstacles], axis=0)

    def to_json(self) -> dict:
        """JSON values; `from_json` gives back an equal scene."""
        config = {name: _finite(value) for name, value in self.config.to_json().items()}
        return {
            "format": SCENE_FORMAT,
            "synthetic": True,
            "modality": str(self.modality),
            "shape": list(self.shape),
            "config": config,
            "seed": self.seed,
            "mask_name": self.mask_name,
            "mask_sha256": self.mask_sha256,
            "hub": None if self.hub is None else list(self.hub),
            "preset": self.preset,
            "roots": [list(point) for point in self.roots],
            "obstacles": [[list(point) for point in polygon] for polygon in self.obstacles],
            "boundary": [list(point) for point in self.boundary],
        }

    @classmethod
    def from_json(cls, data: object) -> TreeScene:
        """The scene in what `to_json` gave; `InputError` for anything else, since files come from anywhere."""
        try:
            if not isinstance(data, dict) or data.get("format") != SCENE_FORMAT:
                raise ValueError("it holds no parameters of a tree")
            height, width = (int(side) for side in data["shape"])
            if not (2 <= height <= 16384 and 2 <= width <= 16384):
                raise ValueError(f"its frame of {width} x {height} pixels is out of range")
            polygons = [*data["obstacles"], data["boundary"], data["roots"]]
            if sum(len(points) for points in polygons) > _MOST_POINTS:
                raise ValueError("it holds too many points")
            if int(data["seed"]) < 0:
                raise ValueError(f"its seed is {data['seed']}")
            config = {name: _unbounded(value) for name, value in data["config"].items()}
            config = SCAConfig.from_json(config)
            _check_bounds(config)
            if data["preset"]:
                preset_named(data["preset"])
            return cls(
                modality=Modality.parse(data["modality"]),
                shape=(height, width),
                config=config,
                seed=int(data["seed"]),
                mask_name=str(data["mask_name"]),
                mask_sha256=str(data["mask_sha256"]),
                hub=None if data["hub"] is None else _points([data["hub"]])[0],
                preset=str(data["preset"]),
                roots=_points(data["roots"]),
                obstacles=tuple(_points(polygon) for polygon in data["obstacles"]),
                boundary=_points(data["boundary"]),
            )
        except (InputError, AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            reason = error.problem if isinstance(error, InputError) else str(error)
            raise InputError(
                f"No tree can be grown from this file: {reason}", fix="Use a picture or preset saved under Trees."
            ) from error


def grow_scene(scene: TreeScene, *, mask: np.ndarray | None = None) -> VesselTree:
    """The tree of `scene`: equal scenes and masks give equal trees.

    Parameters
    ----------
    scene : TreeScene
    mask : (H, W) ndarray of bool, optional
        The one that ``scene.mask_name`` stands for.

    Returns
    -------
    VesselTree
    """
    return generate_tree(
        scene.modality,
        mask=mask,
        hub=scene.hub,
        shape=None if mask is not None else scene.shape,
        roots=np.asarray(scene.roots, np.float64) if scene.roots else None,
        boundary=scene.boundary_mask,
        obstacles=scene.obstacle_mask,
        config=scene.config,
        preset=preset_named(scene.preset) if scene.preset else preset_for(scene.modality),
        rng=np.random.default_rng(scene.seed),
    )


def fill_polygon(polygon: Polygon, shape: tuple[int, int]) -> np.ndarray:
    """The inside of a polygon with its outline, (H, W) ndarray of bool; corners are ``(row, col)``."""
    canvas = np.zeros(shape, np.uint8)
    corners = np.rint(np.asarray(polygon, np.float64)[:, ::-1]).astype(np.int32)
    cv2.fillPoly(canvas, [corners], 1)
    return canvas.astype(bool)


def with_root_toggled(scene: TreeScene, point: tuple[float, float], *, reach: float) -> TreeScene:
    """`scene` with a root at `point`, or without the one that lies within `reach` pixels of it."""
    near = [root for root in scene.roots if math.dist(root, point) <= reach]
    if near:
        closest = min(near, key=lambda root: math.dist(root, point))
        return replace(scene, roots=tuple(root for root in scene.roots if root != closest))
    return replace(scene, roots=(*scene.roots, point))


def _check_bounds(config: SCAConfig) -> None:
    for name, (lowest, highest) in _BOUNDS.items():
        value = getattr(config, name)
        if not lowest <= value <= highest:
            raise ValueError(f"its `{name}` must be from {lowest:g} to {highest:g}, got {value:g}")
    if config.real_radius_range[0] > _MOST_SHARE:
        raise ValueError(f"its `real_radius_range` must start below {_MOST_SHARE}, got {config.real_radius_range[0]:g}")


def _points(data: list) -> tuple[tuple[float, float], ...]:
    points = tuple((float(row), float(col)) for row, col in data)
    if not all(math.isfinite(value) for point in points for value in point):
        raise ValueError("a point is not finite")
    return points


def _finite(value: object) -> object:
    """JSON has no infinity; the two parameters that may have it are written as text."""
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return "inf" if value == math.inf else value


def _unbounded(value: object) -> object:
    if isinstance(value, list):
        return [_unbounded(item) for item in value]
    return math.inf if value == "inf" else value
