"""What can be said of a synthetic pair without looking at it: does the image show the mask, and is it new?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import cv2
import numpy as np

from univg.engines import nearest_dice
from univg.engines.frames import resize
from univg.geometry import skeleton_points
from univg.metrics import NEAR_COPY, betti_numbers, dice
from univg.segmentation import Segmenter, segment
from univg.segmentation.inputs import to_grey
from univg.types import ImageMaskPair, Modality

NEAR_COPY_IMAGE = 0.95
_NEAR, _FAR = 3, 9  # pixels beyond a vessel's wall between which its background is measured
_FINE, _COARSE = 2.0, 12.0  # the scales between which two images are compared
_COMPARED_SIDE = 256
_LEAST_SHARE = 0.75  # of the agreement on real images, below which a pair is flagged
_LEAST_CONTRAST = 0.25
_MORE_PIECES = 1.5  # times those of the real mask that falls into most


@dataclass(frozen=True)
class PairChecks:
    """Figures of one synthetic pair.

    Attributes
    ----------
    agreement : float
        Dice between the mask and what a segmenter trained on the real images alone sees in the image.
    contrast : float
        How much centrelines stand out from beside the vessel, in standard deviations of the background there; negative
        when the polarity is wrong. NaN for an empty mask.
    nearest_mask, nearest_image : float
        Dice with the most similar real mask, and correlation with the most similar real image at the scale of vessels.
    components : int
        Pieces that the mask falls into.
    flags : tuple of str
        Of 'disagrees', 'faint', 'broken', 'copied mask', 'copied image'.
    """

    agreement: float
    contrast: float
    nearest_mask: float
    nearest_image: float
    components: int = 1
    flags: tuple[str, ...] = ()

    def to_json(self) -> dict:
        return {**asdict(self), "flags": list(self.flags)}


def check_synthetic_pair(
    pair: ImageMaskPair,
    support: Sequence[ImageMaskPair],
    critic: Segmenter,
    *,
    expected_agreement: float = 0.0,
) -> PairChecks:
    """Check `pair` against the real ones.

    Parameters
    ----------
    pair : ImageMaskPair
    support : sequence of ImageMaskPair
    critic : Segmenter
        Trained on real images alone.
    expected_agreement : float
        The critic's Dice on a real image that it has not seen; 0 flags no disagreement.
    """
    agreement = dice(segment(pair.image, critic).mask, pair.mask)
    contrast = centreline_contrast(pair.image, pair.mask, critic.modality)
    nearest_mask = nearest_dice(pair.mask, [real.mask for real in support]) if support else 0.0
    nearest_image = max((image_similarity(pair.image, real.image, critic.modality) for real in support), default=0.0)
    components = betti_numbers(pair.mask)[0]
    most = max((betti_numbers(resize(real.mask, pair.shape))[0] for real in support), default=components)
    found = {
        "broken": components > _MORE_PIECES * most + 3,
        "disagrees": agreement < _LEAST_SHARE * expected_agreement,
        "faint": not contrast >= _LEAST_CONTRAST,
        "copied mask": nearest_mask > NEAR_COPY,
        "copied image": nearest_image > NEAR_COPY_IMAGE,
    }
    flags = tuple(name for name, holds in found.items() if holds)
    return PairChecks(agreement, contrast, nearest_mask, nearest_image, components, flags)


def centreline_contrast(image: np.ndarray, mask: np.ndarray, modality: Modality) -> float:
    """How much the centrelines of `mask` stand out in `image` from what lies just beside the vessels.

    Parameters
    ----------
    image : (H, W) or (H, W, 3) ndarray of uint8, or float32 in [0, 1]
    mask : (H, W) ndarray of bool
    modality : Modality
        Says whether vessels are dark or bright.

    Returns
    -------
    float
        In standard deviations of the background beside vessels; positive where the polarity is right.
    """
    if not mask.any() or mask.all():
        return float("nan")
    grey = to_grey(image, modality)
    outside = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    beside = (outside > _NEAR) & (outside <= _FAR)
    points = skeleton_points(mask)
    if not beside.any() or not len(points):
        return float("nan")
    centre = grey[points[:, 0], points[:, 1]]
    return float((centre.mean() - grey[beside].mean()) / max(float(grey[beside].std()), 1e-3))


def image_similarity(first: np.ndarray, second: np.ndarray, modality: Modality) -> float:
    """Correlation of two images at the scale of vessels, over mirror images too; 1 for equal ones.

    Parameters
    ----------
    first, second : (H, W) or (H, W, 3) ndarray of uint8, or float32 in [0, 1]
    modality : Modality
    """
    one, other = _vessel_scale(first, modality), _vessel_scale(second, modality)
    views = (other, other[:, ::-1], other[::-1], other[::-1, ::-1])
    return float(max((one * view).mean() for view in views))


def _vessel_scale(image: np.ndarray, modality: Modality) -> np.ndarray:
    """`image` as a square of one size, without what is finer or coarser than vessels; mean 0, variance 1."""
    grey = cv2.resize(to_grey(image, modality), (_COMPARED_SIDE,) * 2, interpolation=cv2.INTER_AREA)
    band = cv2.GaussianBlur(grey, (0, 0), _FINE / 2) - cv2.GaussianBlur(grey, (0, 0), _COARSE / 2)
    return (band - band.mean()) / (band.std() + 1e-6)
