"""Scores of a predicted mask against a reference, by the literature's definitions or by the authors' code.

The published code of UniVG scores a few cases in its own way. `evaluate` follows it under
``definitions="authors"``, so that figures can be compared with the paper's:

* Dice and IoU are smoothed by 1e-5;
* clDice of two empty masks is 0, although their Dice is 1;
* NSD measures the distance from a boundary to the other *region*, not to its boundary, so that a boundary
  lying anywhere inside the other mask counts as right; and it takes diagonal neighbours into the boundary and
  leaves the image frame out of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Literal, get_args

import numpy as np
from scipy import ndimage
from skimage.morphology import skeletonize

Definitions = Literal["standard", "authors"]

_AUTHORS_SMOOTHING = 1e-5
_EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)


NEAR_COPY = 0.85  # Dice with a real mask above which a made-up one adds nothing new


@dataclass(frozen=True)
class SegmentationMetrics:
    """Scores of one mask; NaN where a score is undefined.

    Attributes
    ----------
    dice, iou, cldice, nsd, auc : float
        In [0, 1], higher is better; `auc` is NaN unless a probability was given.
    betti0_error, betti1_error : float
        Absolute difference in the number of components and of holes; 0 is best.
    sensitivity, specificity, precision, accuracy : float
        Pixel rates in [0, 1].
    """

    dice: float
    iou: float
    cldice: float
    nsd: float
    auc: float
    betti0_error: float
    betti1_error: float
    sensitivity: float
    specificity: float
    precision: float
    accuracy: float

    def to_json(self) -> dict[str, float]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, float | None]) -> SegmentationMetrics:
        """The inverse of `to_json`; a score stored as null comes back as NaN."""
        values = {field.name: data[field.name] for field in fields(cls)}
        return cls(**{name: float("nan") if value is None else value for name, value in values.items()})


def evaluate(
    mask: np.ndarray,
    reference: np.ndarray,
    *,
    probability: np.ndarray | None = None,
    fov: np.ndarray | None = None,
    definitions: Definitions = "standard",
    nsd_tolerance: float = 2.0,
) -> SegmentationMetrics:
    """Score `mask` against `reference`.

    Parameters
    ----------
    mask, reference : (H, W) ndarray of bool
    probability : (H, W) ndarray of float, optional
        Vessel score of each pixel, for the AUC; any monotone scale will do.
    fov : (H, W) ndarray of bool, optional
        Pixels outside the field of view are left out of the pixel counts and cleared in both masks.
    definitions : {'standard', 'authors'}
        See the top of this module.
    nsd_tolerance : float
        In pixels.

    Raises
    ------
    ValueError
        Shapes differ, an array is not bool, or the probability holds NaN.
    """
    if definitions not in get_args(Definitions):
        raise ValueError(f"`definitions` must be one of {get_args(Definitions)}, got {definitions!r}")
    _check_masks(mask, reference)
    for name, array in (("probability", probability), ("fov", fov)):
        if array is not None:
            _check_same_shape(name, array, reference)
    if fov is not None:
        inside = fov.astype(bool)
        mask, reference = mask & inside, reference & inside
    else:
        inside = np.ones(reference.shape, dtype=bool)

    authors = definitions == "authors"
    smoothing = _AUTHORS_SMOOTHING if authors else 0.0
    counts = _confusion(mask, reference, inside)
    betti0_error, betti1_error = betti_errors(mask, reference)
    return SegmentationMetrics(
        dice=dice(mask, reference, smoothing=smoothing),
        iou=iou(mask, reference, smoothing=smoothing),
        cldice=cldice(mask, reference, both_empty=0.0 if authors else 1.0),
        nsd=(nsd_to_region if authors else nsd)(mask, reference, tolerance=nsd_tolerance),
        auc=float("nan") if probability is None else auc(probability[inside], reference[inside]),
        betti0_error=float(betti0_error),
        betti1_error=float(betti1_error),
        **counts,
    )


def dice(mask: np.ndarray, reference: np.ndarray, *, smoothing: float = 0.0) -> float:
    """Dice coefficient, ``2 |A & B| / (|A| + |B|)``, in [0, 1]; 1 for two empty masks.

    Parameters
    ----------
    mask, reference : (H, W) ndarray of bool
    smoothing : float
        Added to numerator and denominator.

    References
    ----------
    L. R. Dice, "Measures of the amount of ecologic association between species", Ecology 26 (1945),
    :DOI:`10.2307/1932409`.
    """
    _check_masks(mask, reference)
    overlap = np.count_nonzero(mask & reference)
    total = np.count_nonzero(mask) + np.count_nonzero(reference)
    return float((2 * overlap + smoothing) / (total + smoothing)) if total else 1.0


def iou(mask: np.ndarray, reference: np.ndarray, *, smoothing: float = 0.0) -> float:
    """Intersection over union (Jaccard index), in [0, 1]; 1 for two empty masks.

    Parameters
    ----------
    mask, reference : (H, W) ndarray of bool
    smoothing : float
        Added to numerator and denominator.
    """
    _check_masks(mask, reference)
    union = np.count_nonzero(mask | reference)
    return float((np.count_nonzero(mask & reference) + smoothing) / (union + smoothing)) if union else 1.0


def cldice(mask: np.ndarray, reference: np.ndarray, *, both_empty: float = 1.0) -> float:
    """Centre-line Dice, in [0, 1]: harmonic mean of topology precision and topology sensitivity.

    Parameters
    ----------
    mask, reference : (H, W) ndarray of bool
    both_empty : float
        The score of two empty masks. When only one of them is empty, the score is 0.

    References
    ----------
    S. Shit et al., "clDice - a novel topology-preserving loss function for tubular structure segmentation",
    CVPR 2021, equations 1 and 2, :DOI:`10.1109/CVPR46437.2021.01629`.
    """
    _check_masks(mask, reference)
    if not mask.any() or not reference.any():
        return both_empty if mask.any() == reference.any() else 0.0
    precision = float(reference[skeletonize(mask)].mean())
    sensitivity = float(mask[skeletonize(reference)].mean())
    total = precision + sensitivity
    return 2 * precision * sensitivity / total if total else 0.0


def nsd(mask: np.ndarray, reference: np.ndarray, *, tolerance: float = 2.0) -> float:
    """Normalised surface distance: the share of both boundaries within `tolerance` of the other boundary.

    Boundary pixels are foreground pixels with a 4-neighbour that is background or off the image.
    Two empty masks score 1, one empty mask 0.

    Parameters
    ----------
    mask, reference : (H, W) ndarray of bool
    tolerance : float
        In pixels, inclusive.

    References
    ----------
    S. Nikolov et al., "Clinically applicable segmentation of head and neck anatomy for radiotherapy",
    J. Med. Internet Res. 23 (2021), :DOI:`10.2196/26151`.
    """
    _check_masks(mask, reference)
    edges = [region & ~ndimage.binary_erosion(region) for region in (mask, reference)]
    return _surface_agreement(edges, near=edges, tolerance=tolerance)


def nsd_to_region(mask: np.ndarray, reference: np.ndarray, *, tolerance: float = 2.0) -> float:
    """The NSD of the authors' code: boundaries within `tolerance` pixels of the other region.

    Boundary pixels are foreground pixels with an 8-neighbour that is background; the image frame is no
    boundary. Two empty masks score 1, one empty mask 0. Often far above `nsd`: a mask drawn too thick or too
    thin loses half as much. Use it only to compare with published figures.

    Parameters
    ----------
    mask, reference : (H, W) ndarray of bool
    tolerance : float
        In pixels, inclusive.

    References
    ----------
    ``Segmentation/utils/metrics.py`` of https://github.com/XinAloha/UniVG at 2ece317.
    """
    _check_masks(mask, reference)
    cores = [ndimage.binary_erosion(m, structure=_EIGHT_CONNECTED, border_value=1) for m in (mask, reference)]
    edges = [mask & ~cores[0], reference & ~cores[1]]
    return _surface_agreement(edges, near=[mask, reference], tolerance=tolerance)


def auc(probability: np.ndarray, reference: np.ndarray) -> float:
    """Area under the ROC curve, in [0, 1]; ties count one half; NaN when only one class is present.

    Parameters
    ----------
    probability : ndarray of float
        A vessel score per pixel.
    reference : ndarray of bool
        Same shape.

    References
    ----------
    The Mann-Whitney form: J. A. Hanley and B. J. McNeil, Radiology 143 (1982),
    :DOI:`10.1148/radiology.143.1.7063747`.
    """
    _check_same_shape("probability", probability, reference)
    if np.isnan(probability).any():
        raise ValueError("`probability` holds NaN")
    truth = reference.astype(bool)
    positive, negative = np.sort(probability[truth]), np.sort(probability[~truth])
    if not positive.size or not negative.size:
        return float("nan")
    below = np.searchsorted(negative, positive, side="left")
    not_above = np.searchsorted(negative, positive, side="right")
    return float((below.sum() + not_above.sum()) / (2 * positive.size * negative.size))


def betti_numbers(mask: np.ndarray) -> tuple[int, int]:
    """Number of 8-connected components and of holes (4-connected background not open to the outside).

    Parameters
    ----------
    mask : (H, W) ndarray of bool
    """
    components = ndimage.label(mask, structure=_EIGHT_CONNECTED)[1]
    background = ndimage.label(np.pad(~mask, 1, constant_values=True))[1]
    return components, background - 1


def betti_errors(mask: np.ndarray, reference: np.ndarray) -> tuple[int, int]:
    """Absolute differences of the two `betti_numbers` over the whole image.

    Parameters
    ----------
    mask, reference : (H, W) ndarray of bool

    References
    ----------
    X. Hu et al., "Topology-preserving deep image segmentation", NeurIPS 2019, arXiv:1906.05404 (there
    averaged over random patches).
    """
    _check_masks(mask, reference)
    (b0, b1), (r0, r1) = betti_numbers(mask), betti_numbers(reference)
    return abs(b0 - r0), abs(b1 - r1)


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Fréchet distance between two samples of feature vectors, each taken for a normal distribution.

    ``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))`` (Dowson & Landau 1982; Heusel et al. 2017), computed from the
    singular values of the product of the centred samples, so that samples smaller than their features are no problem.
    Its value depends on the size of the samples: compare only samples of equal size.

    Parameters
    ----------
    first, second : (N, F) ndarray of float
        At least two vectors each, of one length.

    Returns
    -------
    float
        0 for equal samples.
    """
    for name, sample in (("first", first), ("second", second)):
        if sample.ndim != 2 or len(sample) < 2 or sample.shape[1] != first.shape[1]:
            raise ValueError(
                f"`{name}` must hold at least two vectors of one length, got an array of shape {sample.shape}"
            )
    means = [sample.mean(axis=0) for sample in (first, second)]
    centred = [(s - m) / np.sqrt(len(s) - 1) for s, m in zip((first, second), means, strict=True)]
    shared = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    spread = sum(float((c**2).sum()) for c in centred)
    return max(float(((means[0] - means[1]) ** 2).sum() + spread - 2 * shared), 0.0)


def summarize(metrics: Sequence[SegmentationMetrics]) -> dict[str, dict[str, float]]:
    """Mean, sample standard deviation and count of each score over images, leaving out undefined (NaN) ones.

    Returns
    -------
    dict
        ``{"dice": {"mean": …, "sd": …, "n": …}, …}``; the mean of nothing and the deviation of fewer than two
        values are NaN.
    """
    summary = {}
    for field in fields(SegmentationMetrics):
        values = np.array([getattr(m, field.name) for m in metrics], dtype=float)
        values = values[~np.isnan(values)]
        summary[field.name] = {
            "mean": float(values.mean()) if values.size else float("nan"),
            "sd": float(values.std(ddof=1)) if values.size > 1 else float("nan"),
            "n": int(values.size),
        }
    return summary


def _surface_agreement(edges: Sequence[np.ndarray], *, near: Sequence[np.ndarray], tolerance: float) -> float:
    """Share of the pixels of two boundaries that lie within `tolerance` of the other mask's `near` set."""
    if tolerance < 0:
        raise ValueError(f"`tolerance` must be at least 0 pixels, got {tolerance}")
    if not near[0].any() or not near[1].any():
        return 1.0 if near[0].any() == near[1].any() else 0.0
    total = sum(np.count_nonzero(edge) for edge in edges)
    if not total:
        return 1.0
    agreeing = 0
    for edge, other in zip(edges, reversed(near), strict=True):
        agreeing += np.count_nonzero(ndimage.distance_transform_edt(~other)[edge] <= tolerance)
    return float(agreeing / total)


def _confusion(mask: np.ndarray, reference: np.ndarray, inside: np.ndarray) -> dict[str, float]:
    """Pixel rates over `inside`; both masks are already clear outside it."""
    hits = np.count_nonzero(mask & reference)
    predicted, actual, total = (np.count_nonzero(a) for a in (mask, reference, inside))
    clear = total - predicted - actual + hits
    return {
        "sensitivity": _ratio(hits, actual),
        "specificity": _ratio(clear, total - actual),
        "precision": _ratio(hits, predicted),
        "accuracy": _ratio(hits + clear, total),
    }


def _ratio(part: int, whole: int) -> float:
    return float(part / whole) if whole else float("nan")


def _check_masks(mask: np.ndarray, reference: np.ndarray) -> None:
    for name, array in (("mask", mask), ("reference", reference)):
        if array.dtype != np.bool_ or array.ndim != 2:
            raise ValueError(f"`{name}` must be a bool (H, W) array, got {array.dtype} {array.shape}")
    _check_same_shape("mask", mask, reference)


def _check_same_shape(name: str, array: np.ndarray, reference: np.ndarray) -> None:
    if array.shape != reference.shape:
        raise ValueError(
            f"`{name}` (shape {array.shape}) must have same shape as `reference` (shape {reference.shape})"
        )
