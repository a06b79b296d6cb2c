"""What can be said of a synthetic pair without looking at it: does the image show the mask, and is it new?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np

from univg.engines import nearest_dice
from univg.engines.frames import resize
from univg.metrics import NEAR_COPY, betti_numbers, dice
from univg.segmentation import Segmenter, segment
from univg.types import ImageMaskPair, Modality
from univg.workflow.image_checks import FAINT, SAME_IMAGE, likeness, local_contrast, vessel_band

_LEAST_SHARE = 0.75  # of the agreement on real images, below which a pair is flagged
_MORE_PIECES = 1.5  # times those of the real mask that falls into most


@dataclass(frozen=True)
class PairChecks:
    """Figures of one synthetic pair.

    Attributes
    ----------
    agreement : float
        Dice between the mask and what a segmenter trained on the real images alone sees in the image.
    contrast : float
        See `univg.workflow.image_checks.local_contrast`.
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
    expected_agreement: float | None = None,
) -> PairChecks:
    """Check `pair` against the real ones.

    Parameters
    ----------
    pair : ImageMaskPair
    support : sequence of ImageMaskPair
    critic : Segmenter
        Trained on real images alone.
    expected_agreement : float, optional
        The critic's Dice on a real image that it has not seen; without it no disagreement is flagged.
    """
    agreement = dice(segment(pair.image, critic).mask, pair.mask)
    contrast = local_contrast(pair.image, pair.mask, critic.modality)
    nearest_mask = nearest_dice(pair.mask, [real.mask for real in support]) if support else 0.0
    band = vessel_band(pair.image, critic.modality)
    nearest_image = max((likeness(band, _band_of(real, critic.modality)) for real in support), default=0.0)
    components = betti_numbers(pair.mask)[0]
    most = max((_components_of(real, pair.shape) for real in support), default=components)
    found = {
        "broken": components > _MORE_PIECES * most + 3,
        "disagrees": expected_agreement is not None and agreement < _LEAST_SHARE * expected_agreement,
        "faint": not contrast >= FAINT,
        "copied mask": nearest_mask > NEAR_COPY,
        "copied image": nearest_image > SAME_IMAGE,
    }
    flags = tuple(name for name, holds in found.items() if holds)
    return PairChecks(agreement, contrast, nearest_mask, nearest_image, components, flags)


# Real pairs are told apart by identity: whoever checks many pairs passes the same.
@lru_cache(maxsize=32)
def _band_of(real: ImageMaskPair, modality: Modality) -> np.ndarray:
    return vessel_band(real.image, modality)


@lru_cache(maxsize=32)
def _components_of(real: ImageMaskPair, shape: tuple[int, int]) -> int:
    """Pieces of a real mask at the size of the pair that it is compared with."""
    return betti_numbers(resize(real.mask, shape))[0]
