"""Trees that masks start from; apart from the engines, which take seconds to load."""

from __future__ import annotations

from functools import cache

import numpy as np

from univg.sca import find_hub, generate_mask
from univg.types import SupportSet


def engine_size(working_size: int) -> int:
    """The multiple of 64 nearest to a project's working size: what engines draw."""
    return max(64 * round(working_size / 64), 64)


def grow_starts(support: SupportSet, count: int, *, seed: int) -> list[np.ndarray]:
    """Trees to start masks from, each a bool (H, W) along one of the support masks in turn.

    Tree i depends on `seed` + i alone.
    """
    pairs = list(support.pairs)

    @cache
    def hub(source: int) -> tuple[float, float] | None:
        return find_hub(support.modality, pairs[source].mask, pairs[source].image)

    trees = []
    for number in range(seed, seed + count):
        source = number % len(pairs)
        rng = np.random.default_rng(number)
        trees.append(generate_mask(support.modality, mask=pairs[source].mask, hub=hub(source), rng=rng))
    return trees
