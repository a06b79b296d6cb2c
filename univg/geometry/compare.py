"""How far the measurements of generated trees lie from those of real ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from univg.geometry.morphometry import TreeMorphometry


@dataclass(frozen=True)
class DistributionDistance:
    """Two samples of one quantity, side by side; NaN where a sample is empty.

    Attributes
    ----------
    distance : float
        1-Wasserstein distance divided by the interquartile range of the real sample: 0 is best, and 1 says that a
        value lies, on average, as far off as the middle half of the real ones is wide. NaN where this range is 0.
    generated_median, real_median : float
        In the unit of the quantity.
    generated_n, real_n : int
        Values compared, undefined ones left out.
    """

    distance: float
    generated_median: float
    real_median: float
    generated_n: int
    real_n: int


# One value a tree, or one a segment or bifurcation: those of all trees are pooled, so larger trees weigh more.
_QUANTITIES: dict[str, Callable[[TreeMorphometry], float | np.ndarray]] = {
    "vessel_density": lambda tree: tree.vessel_density,
    "segment_diameter": lambda tree: tree.segment_diameters,
    "branching_angle": lambda tree: tree.bifurcations.angles,
    "tortuosity": lambda tree: tree.tortuosities,
    "fractal_dimension": lambda tree: tree.fractal_dimension,
    "segment_length": lambda tree: tree.segment_lengths,
    "bifurcations_per_length": lambda tree: tree.bifurcations_per_length,
}


def compare_morphometry(
    generated: Sequence[TreeMorphometry], real: Sequence[TreeMorphometry]
) -> dict[str, DistributionDistance]:
    """Compare the distribution of each quantity over `generated` trees with that over `real` ones.

    Parameters
    ----------
    generated, real : sequence of TreeMorphometry
        Measured in the same way and in frames of the same scale.

    Returns
    -------
    dict of str to DistributionDistance
        Keys: vessel_density, segment_diameter, branching_angle, tortuosity, fractal_dimension, segment_length,
        bifurcations_per_length.
    """
    return {
        name: _distance(_pool(generated, quantity), _pool(real, quantity)) for name, quantity in _QUANTITIES.items()
    }


def _pool(trees: Sequence[TreeMorphometry], quantity: Callable[[TreeMorphometry], float | np.ndarray]) -> np.ndarray:
    values = np.concatenate([np.empty(0), *(np.atleast_1d(quantity(tree)) for tree in trees)])
    return values[~np.isnan(values)]


def _distance(generated: np.ndarray, real: np.ndarray) -> DistributionDistance:
    from scipy.stats import wasserstein_distance  # takes longer to load than the rest of the package

    # The quartiles and not the standard deviation: a few segments that wind tenfold would set the scale.
    spread = float(np.subtract(*np.percentile(real, [75, 25]))) if real.size else 0.0
    comparable = generated.size and spread > 0
    return DistributionDistance(
        distance=float(wasserstein_distance(generated, real)) / spread if comparable else float("nan"),
        generated_median=float(np.median(generated)) if generated.size else float("nan"),
        real_median=float(np.median(real)) if real.size else float("nan"),
        generated_n=generated.size,
        real_n=real.size,
    )
