"""The nouns shared by every part: modalities, pairs and support sets.

Conventions: arrays are ``(row, col)``; images are uint8, or float32 in [0, 1], of shape ``(H, W)`` or ``(H, W, 3)``;
masks are bool ``(H, W)``; lengths are in pixels unless the name ends in ``_mm``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from univg.errors import InputError

_ROUNDING = 1e-6  # what resampling may add to a white area


class Modality(StrEnum):
    """The five kinds of image, spelt this way on the command line, in files and on screen."""

    FUNDUS = "fundus"
    OCTA = "octa"
    OCT = "oct"
    BRAIN_DSA = "brain-dsa"
    CORONARY_DSA = "coronary-dsa"

    @property
    def vessels_are_dark(self) -> bool:
        """Polarity: contrast agent and blood absorb, except where flow itself is imaged (OCTA)."""
        return self is not Modality.OCTA

    @classmethod
    def parse(cls, name: str) -> Modality:
        """The modality called `name`; `InputError` with the five spellings otherwise."""
        try:
            return cls(name)
        except ValueError:
            choices = ", ".join(cls)
            raise InputError(f"Unknown modality {name!r}", fix=f"Use one of: {choices}.") from None


@dataclass(frozen=True, eq=False)
class ImageMaskPair:
    """An image and the mask that says where its vessels are.

    Attributes
    ----------
    image : (H, W) or (H, W, 3) ndarray of uint8, or of float32 in [0, 1]
    mask : (H, W) ndarray of bool
    name : str
        The stem of the files it came from, or the identifier of a synthetic pair.
    fov : (H, W) ndarray of bool, optional
        Field of view; None means the whole frame.
    synthetic : bool
    weight : float
        How often it is drawn in training against a pair of weight 1; above 0.
    """

    image: np.ndarray
    mask: np.ndarray
    name: str
    fov: np.ndarray | None = None
    synthetic: bool = False
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.weight < float("inf"):
            raise ValueError(f"weight of {self.name!r} must be above 0, got {self.weight!r}")
        check_image(self.image, name=f"image of {self.name!r}")
        for label, array in (("mask", self.mask), ("fov", self.fov)):
            if array is None:
                continue
            if array.dtype != np.bool_ or array.ndim != 2:
                raise ValueError(
                    f"{label} of {self.name!r} must be a bool (H, W) array, got {array.dtype} {array.shape}"
                )
            if array.shape != self.image.shape[:2]:
                raise InputError(
                    f"Image and {label} {self.name!r} differ in size: "
                    f"{_size(self.image)} against {_size(array)} (width x height)",
                    fix="Export both at the same size; UniVG does not resize annotations silently.",
                )

    @property
    def shape(self) -> tuple[int, int]:
        return self.mask.shape


@dataclass(frozen=True, eq=False)
class SupportSet:
    """The few annotated images that everything is adapted to (five in the paper; at least two are needed
    to keep one out for choosing the model, one works without that choice).
    """

    modality: Modality
    pairs: tuple[ImageMaskPair, ...]
    pixel_spacing_mm: float | None = None
    sha256: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.pairs:
            raise InputError("No annotated image given", fix="Add at least one image with its mask; five is best.")
        names = [pair.name for pair in self.pairs]
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise InputError(f"Two pairs share the name {twice[0]!r}", fix="Rename one of the files.")

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[ImageMaskPair]:
        return iter(self.pairs)

    @property
    def masks(self) -> Sequence[np.ndarray]:
        return [pair.mask for pair in self.pairs]


def check_image(image: np.ndarray, *, name: str = "image") -> None:
    """Raise unless `image` keeps the conventions at the top of this module."""
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise ValueError(f"{name} must have shape (H, W) or (H, W, 3), got {image.shape}")
    if image.dtype == np.uint8:
        return
    if image.dtype != np.float32:
        raise ValueError(f"{name} must be uint8, or float32 in [0, 1], got {image.dtype}")
    if not np.isfinite(image).all():
        raise InputError(f"The {name} holds NaN or infinite values", fix="Replace them before loading the image.")
    if image.size and (image.min() < -_ROUNDING or image.max() > 1 + _ROUNDING):
        raise ValueError(f"{name} must lie in [0, 1], got [{image.min():.3g}, {image.max():.3g}]")


def as_float(image: np.ndarray) -> np.ndarray:
    """`image` as float32 in [0, 1]; a uint8 image is divided by 255."""
    check_image(image)
    return image.astype(np.float32) / 255.0 if image.dtype == np.uint8 else image


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"
