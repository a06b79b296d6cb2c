"""Synthetic pairs that are almost the same as another one: the later of two says nothing new.

Whether a pair is new depends on all others, so this is no part of a pair's own record: it is worked out for the whole
project, from small fingerprints that are kept. Thousands of pairs take seconds.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import cv2
import numpy as np

from univg.errors import InputError
from univg.io import read_json, write_bytes_atomic, write_json_atomic
from univg.progress import ShouldStop, never_stop
from univg.segmentation.inputs import to_grey
from univg.types import ImageMaskPair, Modality
from univg.workflow.folder_access import locked
from univg.workflow.project import Project

FLAG = "near-duplicate"
RESULT_FILE = "near-duplicates.json"
LIKE_MASK = 0.9  # Dice of two masks shifted onto each other above which they count as almost the same
LIKE_IMAGE = 0.75  # correlation of the images, at the scale of vessels and at the same shift
_FINGERPRINTS_FILE = ".fingerprints.npz"
_MASK_SIDE, _IMAGE_SIDE, _COARSE_SIDE = 128, 64, 32
_VESSEL_SHARE = 0.3  # of a small mask's pixel from which it counts as vessel
_LIKELY = 0.85  # cosine of two coarse masks below which they are not looked at closely
_CANDIDATES = 3  # of the most similar earlier pairs, those looked at closely
_FARTHEST = 6  # pixels of the small mask by which one may be shifted against the other
_BLOCK = 512
# Mirror images count as the same pair: training mirrors them anyway.
_VIEWS = tuple((slice(None, None, rows), slice(None, None, cols)) for rows in (1, -1) for cols in (1, -1))


@dataclass(frozen=True, eq=False)
class Fingerprints:
    """Small versions of pairs, in the order of their names.

    Attributes
    ----------
    names : list of str
    masks : (N, 128, 16) ndarray of uint8
        Bits of square masks.
    images : (N, 64, 64) ndarray of int8
        What is as fine as vessels, in eighths of its standard deviation.
    """

    names: list[str]
    masks: np.ndarray
    images: np.ndarray

    def mask(self, index: int) -> np.ndarray:
        return np.unpackbits(self.masks[index], axis=1).astype(bool)


def fingerprint(pair: ImageMaskPair, modality: Modality) -> tuple[np.ndarray, np.ndarray]:
    """The small mask and image of one pair, see `Fingerprints`."""
    size = (_MASK_SIDE, _MASK_SIDE)
    mask = cv2.resize(pair.mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) > _VESSEL_SHARE
    grey = cv2.resize(to_grey(pair.image, modality), size, interpolation=cv2.INTER_AREA)
    band = cv2.GaussianBlur(grey, (0, 0), 0.8) - cv2.GaussianBlur(grey, (0, 0), 5.0)
    small = cv2.resize(band, (_IMAGE_SIDE, _IMAGE_SIDE), interpolation=cv2.INTER_AREA)
    small = (small - small.mean()) / (small.std() + 1e-6)
    return np.packbits(mask, axis=1), np.clip(np.rint(8 * small), -127, 127).astype(np.int8)


def near_duplicates(prints: Fingerprints, *, should_stop: ShouldStop = never_stop) -> dict[str, str]:
    """Which pairs are almost the same as an earlier one, and as which.

    Coarse masks are compared each with each, in blocks; of those that are alike the small masks are shifted onto each
    other, and images are compared at the same shift. The answer depends on the pairs alone, not on how they arrived.

    Parameters
    ----------
    prints : Fingerprints
    should_stop : callable
        Asked between blocks; when it says yes, what was found so far is returned.

    Returns
    -------
    dict of str to str
        The later pair, by name, and the earlier one that it resembles.
    """
    found: dict[str, str] = {}
    for index, candidates in _alike(prints):
        if should_stop():
            break
        mask, image = prints.mask(index), prints.images[index]
        twin = next((c for c in candidates if _is_same(mask, image, prints.mask(c), prints.images[c])), None)
        if twin is not None:
            found[prints.names[index]] = prints.names[twin]
    return found


def update_near_duplicates(project: Project, *, should_stop: ShouldStop = never_stop) -> dict[str, str]:
    """Compare all synthetic pairs of `project` and put on record what is almost the same; only new pairs are read."""
    folder = project.pairs_folder
    names = project.pair_names()
    if not names or _compared(project) == names:
        return read_near_duplicates(project)
    with locked(folder / ".near-duplicates.lock"):
        prints = _brought_up_to_date(project, names, should_stop)
        if should_stop():
            return read_near_duplicates(project)
        found = near_duplicates(prints, should_stop=should_stop)
        if not should_stop():
            write_json_atomic(folder / RESULT_FILE, {"compared": prints.names, "same_as": found})
    return read_near_duplicates(project)


def read_near_duplicates(project: Project) -> dict[str, str]:
    """What `update_near_duplicates` found last; empty where pairs were never compared."""
    return dict(_read_result(project).get("same_as", {}))


def are_compared(project: Project) -> bool:
    """Whether every synthetic pair was compared with all others."""
    return _compared(project) == project.pair_names()


def _compared(project: Project) -> list[str]:
    return list(_read_result(project).get("compared", []))


def _read_result(project: Project) -> dict:
    file = project.pairs_folder / RESULT_FILE
    try:
        result = read_json(file) if file.is_file() else {}
    except InputError:  # damaged: worked out again
        return {}
    return result if isinstance(result, dict) else {}


def _brought_up_to_date(project: Project, names: Sequence[str], should_stop: ShouldStop) -> Fingerprints:
    """The fingerprints of `names`; those not kept yet are made, and all are kept."""
    file = project.pairs_folder / _FINGERPRINTS_FILE
    known = {name: (mask, image) for name, mask, image in _read_fingerprints(file)}
    for name in names:
        if should_stop():
            break
        if name not in known:
            known[name] = fingerprint(project.synthetic_pair(name), project.modality)
    kept = [name for name in names if name in known]
    masks = np.empty((len(kept), _MASK_SIDE, _MASK_SIDE // 8), np.uint8)
    images = np.empty((len(kept), _IMAGE_SIDE, _IMAGE_SIDE), np.int8)
    for i, name in enumerate(kept):
        masks[i], images[i] = known[name]
    buffer = io.BytesIO()
    np.savez(buffer, names=np.array(kept), masks=masks, images=images)
    write_bytes_atomic(file, buffer.getvalue())
    return Fingerprints(kept, masks, images)


def _read_fingerprints(file: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    try:
        with np.load(file, allow_pickle=False) as stored:
            names, masks, images = stored["names"], stored["masks"], stored["images"]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):  # none yet, or damaged
        return
    if masks.shape[1:] == (_MASK_SIDE, _MASK_SIDE // 8) and images.shape[1:] == (_IMAGE_SIDE, _IMAGE_SIDE):
        yield from zip(names.tolist(), masks, images, strict=True)


def _alike(prints: Fingerprints) -> Iterator[tuple[int, list[int]]]:
    """Each pair that resembles earlier ones, with the most similar of them first."""
    coarse = _coarse(prints)
    flat = coarse.reshape(len(coarse), -1)
    for start in range(0, len(coarse), _BLOCK):
        stop = min(start + _BLOCK, len(coarse))
        views = (np.ascontiguousarray(coarse[(slice(start, stop), *view)]).reshape(stop - start, -1) for view in _VIEWS)
        cosines = np.maximum.reduce([view @ flat[:stop].T for view in views])
        # Only what comes before: of two pairs the later one is flagged.
        cosines[np.arange(stop)[None, :] >= np.arange(start, stop)[:, None]] = 0
        for row in np.flatnonzero(cosines.max(axis=1) > _LIKELY):
            best = np.argsort(-cosines[row], kind="stable")[:_CANDIDATES]
            yield start + int(row), [int(other) for other in best if cosines[row, other] > _LIKELY]


def _coarse(prints: Fingerprints) -> np.ndarray:
    """(N, 32, 32) float32 of length 1: blurred, so that a small shift changes little."""
    side = _MASK_SIDE // _COARSE_SIDE
    found = np.empty((len(prints.names), _COARSE_SIDE, _COARSE_SIDE), np.float32)
    for index in range(len(found)):
        blocks = prints.mask(index).reshape(_COARSE_SIDE, side, _COARSE_SIDE, side).mean(axis=(1, 3), dtype=np.float32)
        blurred = cv2.GaussianBlur(blocks, (0, 0), 1.0)
        found[index] = blurred / max(float(np.linalg.norm(blurred)), 1e-6)
    return found


def _is_same(mask: np.ndarray, image: np.ndarray, other_mask: np.ndarray, other_image: np.ndarray) -> bool:
    return any(_is_same_view(mask, image, other_mask[view], other_image[view]) for view in _VIEWS)


def _is_same_view(mask: np.ndarray, image: np.ndarray, other_mask: np.ndarray, other_image: np.ndarray) -> bool:
    shift = _best_shift(mask, other_mask)
    if _tolerant_dice(mask, np.roll(other_mask, shift, axis=(0, 1))) <= LIKE_MASK:
        return False
    scale = _IMAGE_SIDE / _MASK_SIDE
    moved = np.roll(other_image, [round(scale * step) for step in shift], axis=(0, 1))
    return _correlation(image, moved) >= LIKE_IMAGE


def _tolerant_dice(mask: np.ndarray, other: np.ndarray) -> float:
    """Dice that counts a neighbouring pixel as a hit: a shift by half a small pixel would cost much otherwise."""
    total = int(mask.sum()) + int(other.sum())
    if total == 0:
        return 0.0
    kernel = np.ones((3, 3), np.uint8)
    wide, other_wide = (cv2.dilate(m.astype(np.uint8), kernel).astype(bool) for m in (mask, other))
    return (int((mask & other_wide).sum()) + int((other & wide).sum())) / total


def _best_shift(mask: np.ndarray, other: np.ndarray) -> tuple[int, int]:
    """The shift of `other` that covers most of `mask`."""
    product = np.fft.rfft2(mask.astype(np.float32)) * np.conj(np.fft.rfft2(other.astype(np.float32)))
    shared = np.fft.irfft2(product, mask.shape)
    steps = np.arange(-_FARTHEST, _FARTHEST + 1)
    near = shared[np.ix_(steps, steps)]
    row, col = np.unravel_index(int(near.argmax()), near.shape)
    return int(steps[row]), int(steps[col])


def _correlation(image: np.ndarray, other: np.ndarray) -> float:
    one, two = (cv2.GaussianBlur(i.astype(np.float32), (0, 0), 1.0).ravel() for i in (image, other))
    one, two = one - one.mean(), two - two.mean()
    return float(one @ two / max(float(np.linalg.norm(one) * np.linalg.norm(two)), 1e-6))
