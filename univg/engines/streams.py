"""Endless streams to pretrain from: R-SCA masks of all five modalities, and unlabelled images."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from univg.engines.conditions import vessel_condition
from univg.errors import InputError
from univg.geometry import estimate_fov
from univg.io import read_image, sha256_file
from univg.sca import generate_mask, presets_of, vary_config
from univg.training.ahead import results_in_order
from univg.types import Modality, as_float

_MODALITIES = list(Modality)
_LAYER_SHARES = (0.6, 0.25, 0.15)  # of patches that show one, two and three trees
_EXTENSIONS = (".jpg", ".jpeg", ".png", ".tif", ".tiff")


def in_order(draw: Callable[..., Any], items: Iterator[tuple], *, workers: int, ahead: int) -> Iterator[Any]:
    """The results of ``draw(*item)`` in the order of `items`, computed up to `ahead` items early by `workers`.

    Workers are processes, so `draw` must be importable. With no worker it runs in this process.
    """
    if workers < 1:
        yield from itertools.starmap(draw, items)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_single_thread) as pool:
        try:
            yield from results_in_order(pool, draw, items, ahead=ahead)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _single_thread() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the process that made this one ends it
    os.environ.pop("WORLD_SIZE", None)  # one that draws for a process of several is none of those itself
    cv2.setNumThreads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # for torch, which only some workers load


def grow_varied_mask(modality: Modality, *, size: int, rng: np.random.Generator) -> np.ndarray:
    """A whole tree of a random preset of `modality`, with random density, calibre and tortuosity; bool (H, W)."""
    presets = presets_of(modality)
    preset = presets[rng.integers(len(presets))]
    mask = generate_mask(modality, shape=(size, size), preset=preset, config=vary_config(preset.config, rng), rng=rng)
    return turned(mask, rng, quarter_turns=modality in (Modality.OCTA, Modality.OCT))


def turned(array: np.ndarray, rng: np.random.Generator, *, quarter_turns: bool) -> np.ndarray:
    """`array` mirrored left to right half of the time, and turned by quarters where there is no upright."""
    if rng.random() < 0.5:
        array = array[:, ::-1]
    if quarter_turns:
        array = np.rot90(array, rng.integers(4))
    return np.ascontiguousarray(array)


def draw_masks(seed: int, step: int, *, count: int, size: int) -> tuple[np.ndarray, list[int]]:
    """The masks of a step, ``(count, size, size)`` bool, and the numbers of their modalities."""
    rng = np.random.default_rng([seed, step])
    numbers = [(step * count + i) % len(_MODALITIES) for i in range(count)]
    return np.stack([grow_varied_mask(_MODALITIES[n], size=size, rng=rng) for n in numbers]), numbers


def unlabelled_images(folder: str | Path) -> dict[Modality, list[Path]]:
    """The images in a folder with one subfolder a modality, sorted by name.

    Raises
    ------
    InputError
        If there are none.
    """
    found = {}
    for modality in Modality:
        files = sorted(f for f in Path(folder).glob(f"{modality}/**/*") if f.suffix.lower() in _EXTENSIONS)
        if files:
            found[modality] = files
    if not found:
        names = ", ".join(Modality)
        raise InputError("No images found", path=folder, fix=f"Give a folder with subfolders called {names}.")
    return found


def training_list(images: str | Path) -> dict[str, dict[str, str]]:
    """What `unlabelled_images` finds, as ``{modality: {path in its folder: SHA-256}}``, to be kept beside weights."""
    return {
        str(m): {f.relative_to(Path(images) / m).as_posix(): sha256_file(f) for f in files}
        for m, files in unlabelled_images(images).items()
    }


def read_colour(path: Path) -> np.ndarray:
    """A float32 image ``(H, W, 3)`` in [0, 1]; grey images get three equal channels."""
    image = as_float(read_image(path))
    return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image


def random_crop(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """A window of `size` pixels a side; smaller images are mirrored at their borders first."""
    short = [max(size - n, 0) for n in image.shape[:2]]
    if any(short):
        image = np.pad(image, [(0, n) for n in short] + [(0, 0)] * (image.ndim - 2), mode="symmetric")
    row, col = (int(rng.integers(n - size + 1)) for n in image.shape[:2])
    return image[row : row + size, col : col + size]


def draw_patches(
    seed: int,
    step: int,
    *,
    images: Sequence[Sequence[Path]],
    polarities: Sequence[bool],
    count: int,
    masks: int,
    size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Pictures that an autoencoder learns from.

    The first `masks` are windows of vessel trees, some of them coarse, because annotations are stored at many sizes,
    and some of several trees in one another, because angiograms show all depths of the brain at once; the others
    windows of images at random magnifications. `polarities` says for each group of images whether its vessels are dark.

    Returns
    -------
    pictures : (count, 3, size, size) ndarray of float32 in [-1, 1]
    dark : (count,) ndarray of bool
        Where vessels are darker than what surrounds them.
    """
    rng = np.random.default_rng([seed, step])
    tree = grow_varied_mask(_MODALITIES[step % len(_MODALITIES)], size=512, rng=rng)
    pictures, dark = [], [False] * masks
    for _ in range(masks):
        patch = np.zeros((size, size), bool)
        for _ in range(rng.choice(len(_LAYER_SHARES), p=_LAYER_SHARES) + 1):
            patch |= _crop_with_vessels(turned(_rescaled(tree, rng), rng, quarter_turns=True), size, rng)
        pictures.append(np.repeat(patch[None].astype(np.float32), 3, axis=0))
    for _ in range(count - masks):
        group = rng.integers(len(images))
        files = images[group]
        image = read_colour(files[rng.integers(len(files))])
        dark.append(polarities[group])
        zoom = float(np.exp(rng.uniform(-0.7, 0.3)))
        image = cv2.resize(
            image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
        )
        patch = turned(random_crop(image, size, rng), rng, quarter_turns=True)
        pictures.append(_recoloured(patch, rng).transpose(2, 0, 1))
    return np.stack(pictures).astype(np.float32) * 2 - 1, np.array(dark)


# Gets an image (H, W[, 3]) float32 and its modality; returns the probability of a vessel, (H, W) float32 in [0, 1].
FindVessels = Callable[[np.ndarray, Modality], np.ndarray]


def draw_images(
    seed: int,
    step: int,
    *,
    images: Mapping[Modality, Sequence[Path]],
    find_vessels: FindVessels,
    count: int,
    size: int,
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Unlabelled images and what is found in them, for an image engine to learn from.

    Images are mirrored, sometimes enlarged, and recoloured a little. What a ControlNet is told is computed on the image
    itself: its vessels, mostly cut at a random probability, since annotators differ in what they draw, and its field.
    Where there are no OCT projections, inverted OCT angiograms stand for them.

    Returns
    -------
    images : (count, size, size, 3) ndarray of float32 in [0, 1]
    conditions : (count, size, size, 3) ndarray of uint8
        See `univg.engines.conditions.vessel_condition`.
    numbers : list of int
        Of the modalities.
    """
    rng = np.random.default_rng([seed, step])
    shown = [m for m in _MODALITIES if m in images or (m is Modality.OCT and Modality.OCTA in images)]
    drawn, conditions, numbers = [], [], []
    for i in range(count):
        modality = shown[(step * count + i) % len(shown)]
        stand_in = modality not in images
        source = Modality.OCTA if stand_in else modality
        files = images[source]
        image = _reframed(read_colour(files[rng.integers(len(files))]), size, rng)
        image = turned(image, rng, quarter_turns=source in (Modality.OCTA, Modality.OCT))
        fov = estimate_fov(image, source)
        probability = find_vessels(image, source)
        soft = rng.random() < 0.15
        vessels = probability if soft else probability > rng.uniform(0.2, 0.85)
        image = _recoloured(1 - image if stand_in else image, rng, 0.5, 0.15 if modality is Modality.FUNDUS else 0.0)
        drawn.append(np.where(fov[..., None], image, np.minimum(image, 0.1)))
        conditions.append(np.rint(vessel_condition(vessels, fov) * 255).astype(np.uint8))
        numbers.append(_MODALITIES.index(modality))
    return np.stack(drawn).astype(np.float32), np.stack(conditions), numbers


def _reframed(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """A whole image, or half of the time a window of it, as a square of `size` pixels; (size, size, 3) float32."""
    short = min(image.shape[:2])
    side = short if rng.random() < 0.5 else round(short * rng.uniform(0.6, 1.0))
    window = random_crop(image, side, rng)
    scaled = cv2.resize(window, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_LINEAR)
    return np.clip(scaled, 0, 1)  # resampling may exceed them by rounding


def _rescaled(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`mask` larger or smaller, with the edges that annotations get when they are brought to another size."""
    zoom = float(np.exp(rng.uniform(-1.0, 0.6)))
    if rng.random() < 0.3:
        return cv2.resize(mask.astype(np.uint8), None, fx=zoom, fy=zoom, interpolation=cv2.INTER_NEAREST) > 0
    grey = cv2.resize(
        mask.astype(np.float32), None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
    )
    return grey > rng.uniform(0.25, 0.6)


def _recoloured(image: np.ndarray, rng: np.random.Generator, amount: float = 1.0, cast: float = 0.15) -> np.ndarray:
    """`image` with another cast, brightness and contrast: cameras differ more than a few sets of images show."""
    image = np.clip(image, 0, 1) ** np.float32(np.exp(amount * rng.uniform(-0.4, 0.4)))
    cast, light = amount * cast * rng.standard_normal(3), amount * rng.uniform(-0.3, 0.3)
    image = image * np.exp(cast).astype(np.float32) * np.float32(np.exp(light))
    return np.clip(image, 0, 1)


def _crop_with_vessels(mask: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """A random window; one without a vessel is drawn again, a few times."""
    for _ in range(4):
        patch = random_crop(mask, size, rng)
        if patch.any():
            break
    return patch
