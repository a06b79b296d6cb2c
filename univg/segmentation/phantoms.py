"""Phantoms: made-up vessel images in the manner of each modality, with the exact mask, for training without labels.

Trees come from R-SCA without a real mask; everything else is drawn at random over wide ranges, so that to a network
trained on phantoms a real image is one more variation (domain randomisation: Tobin et al. 2017; in segmentation:
SynthSeg, Billot et al. 2023). Vessels are bright, as `univg.segmentation.inputs.to_grey` makes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import cv2
import numpy as np

from univg.geometry import local_radius, nearest_centreline
from univg.sca import generate_mask, preset_for, vary_config
from univg.segmentation.inputs import network_inputs
from univg.types import Modality

_FARTHEST = 12.0  # pixels outside a vessel up to which its distance is kept


@dataclass(frozen=True, eq=False)
class VesselShape:
    """A grown tree in a form that can be warped and thickened.

    Attributes
    ----------
    distance : (H, W) ndarray of float16
        Distance to the vessel wall in pixels, positive inside.
    radius : (H, W) ndarray of float16
        Radius of the nearest vessel, in pixels.
    """

    distance: np.ndarray
    radius: np.ndarray


def grow_shape(modality: Modality, *, size: int = 512, rng: np.random.Generator) -> VesselShape:
    """Grow a tree from the modality's preset with randomised density, calibre and tortuosity.

    Returns
    -------
    VesselShape
        Of `size` x `size` pixels.
    """
    config = vary_config(preset_for(modality).config, rng)
    mask = generate_mask(modality, shape=(size, size), config=config, rng=rng)
    outside = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    distance = np.where(mask, local_radius(mask), np.maximum(0.5 - outside, -_FARTHEST))
    return VesselShape(distance.astype(np.float16), nearest_centreline(mask)[0].astype(np.float16))


def draw_phantom(
    shapes: Sequence[VesselShape], modality: Modality, *, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A made-up image and its mask.

    Parameters
    ----------
    shapes : sequence of VesselShape
        One to three of them are warped and superposed.
    modality : Modality
        Whose look to vary.
    size : int
        Side in pixels.
    rng : numpy.random.Generator

    Returns
    -------
    grey : (size, size) ndarray of float32 in [0, 1]
        With bright vessels.
    mask : (size, size) ndarray of float32 in {0, 1}
    """
    look = _LOOKS[modality]
    if rng.random() < 0.15:  # what no modality looks like keeps the network from relying on what all share
        look = _LOOKS[list(_LOOKS)[rng.integers(len(_LOOKS))]]
    magnification = np.exp(rng.uniform(*look.log_magnification))
    image = _background(look, size, rng)
    mask = np.zeros((size, size), bool)
    vessels = np.zeros((size, size), np.float32)
    for _ in range(1 + (rng.random() < look.second_tree) + (rng.random() < 0.1)):
        shape = shapes[rng.integers(len(shapes))]
        distance, radius = _warped(shape, size, magnification, rng)
        added = _vessel_profile(distance, radius, look, rng)
        vessels = np.maximum(vessels, added) if rng.random() < look.opaque else vessels + added
        mask |= distance > 0
    if rng.random() < look.distractor:  # a catheter or an electrode: a tube of constant calibre, not annotated
        image += _tube(size, rng) * rng.uniform(*look.contrast)
    image = image + vessels * rng.uniform(*look.contrast)
    image = _acquire(image, look, rng)
    field = _field_of_view(look, size, rng)
    if field is not None:
        surround = np.float32(look.surround if rng.random() < 0.9 else rng.random())
        image = surround + field * (image - surround)
        mask &= field > 0.5
    return np.clip(image, 0, 1).astype(np.float32), mask.astype(np.float32)


# --- how modalities look


@dataclass(frozen=True)
class _Look:
    """Ranges that a phantom's appearance is drawn from; lengths in pixels, grey levels in [0, 1], vessels bright."""

    level: tuple[float, float]  # of the background
    contrast: tuple[float, float]  # of a vessel of 3 pixels' radius
    log_magnification: tuple[float, float]
    calibre: tuple[float, float]  # added to every radius
    second_tree: float  # how often arteries and veins, or two projections, cross
    opaque: float  # how often crossing vessels hide instead of add up
    profile: tuple[float, float]  # exponent: 0.5 is the chord of a cylinder, 0 a flat band
    reflex: float = 0.0  # how often thick vessels have a light streak
    illumination: tuple[float, float] = (0.0, 0.2)
    texture: tuple[float, float] = (0.0, 0.05)
    mesh: tuple[float, float] = (0.0, 0.0)  # capillaries too fine to annotate
    speckle: tuple[float, float] = (0.0, 0.0)
    noise: tuple[float, float] = (0.0, 0.03)
    blur: tuple[float, float] = (0.4, 1.2)
    resolution: tuple[float, float] = (0.6, 1.0)
    spots: int = 0
    bands: int = 0
    disc: float = 0.0
    zone: float = 0.0
    deposits: float = 0.0  # how often a group of irregular spots with sharp edges lies somewhere
    relief: float = 0.0  # how often tissue that moved between mask and contrast frame shows its edges
    streaks: tuple[float, float] = (0.0, 0.0)  # grain that is drawn out along rows or columns
    fields: tuple[str, ...] = ()  # shapes that the field of view can have
    surround: float = 1.0
    distractor: float = 0.0


_LOOKS = {
    Modality.FUNDUS: _Look(
        level=(0.3, 0.75),
        contrast=(0.06, 0.3),
        log_magnification=(-0.3, 0.6),
        calibre=(-0.1, 1.0),
        second_tree=0.7,
        opaque=0.5,
        profile=(0.1, 0.6),
        reflex=0.3,
        illumination=(0.02, 0.25),
        texture=(0.0, 0.06),
        noise=(0.0, 0.04),
        spots=25,
        disc=0.5,
        deposits=0.25,
        fields=("round",),
    ),
    Modality.OCTA: _Look(
        level=(0.1, 0.45),
        contrast=(0.2, 0.6),
        log_magnification=(-0.2, 0.6),
        calibre=(0.2, 1.6),
        second_tree=0.5,
        opaque=0.9,
        profile=(0.0, 0.4),
        illumination=(0.0, 0.1),
        mesh=(0.05, 0.4),
        speckle=(0.0, 0.3),
        noise=(0.0, 0.08),
        blur=(0.3, 1.0),
        resolution=(0.5, 1.0),
        zone=0.6,
        deposits=0.1,
        streaks=(0.0, 0.06),
        surround=0.0,
    ),
    Modality.OCT: _Look(
        level=(0.2, 0.6),
        contrast=(0.06, 0.3),
        log_magnification=(-0.2, 0.6),
        calibre=(0.0, 1.6),
        second_tree=0.5,
        opaque=0.7,
        profile=(0.1, 0.5),
        illumination=(0.0, 0.2),
        texture=(0.0, 0.1),
        mesh=(0.0, 0.1),
        speckle=(0.1, 0.4),
        noise=(0.02, 0.1),
        zone=0.5,
        streaks=(0.0, 0.04),
    ),
    Modality.BRAIN_DSA: _Look(
        level=(0.15, 0.45),
        contrast=(0.1, 0.6),
        log_magnification=(-0.6, 0.5),
        calibre=(-0.4, 1.2),
        second_tree=0.8,
        opaque=0.2,
        profile=(0.3, 0.6),
        illumination=(0.0, 0.1),
        texture=(0.0, 0.05),
        noise=(0.0, 0.04),
        blur=(0.3, 1.0),
        bands=6,
        relief=0.6,
        streaks=(0.0, 0.03),
        fields=("box",),
        distractor=0.15,
    ),
    Modality.CORONARY_DSA: _Look(
        level=(0.3, 0.7),
        contrast=(0.06, 0.3),
        log_magnification=(-0.3, 0.7),
        calibre=(-0.2, 2.5),
        second_tree=0.4,
        opaque=0.2,
        profile=(0.3, 0.6),
        illumination=(0.05, 0.3),
        texture=(0.0, 0.06),
        noise=(0.0, 0.05),
        blur=(0.6, 2.0),
        resolution=(0.4, 1.0),
        bands=8,
        relief=0.3,
        streaks=(0.0, 0.03),
        fields=("box", "round"),
        distractor=0.4,
    ),
}


# --- vessels


def _warped(
    shape: VesselShape, size: int, magnification: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Distance and radius of `shape`, turned, magnified, bent and thickened, on a window of `size` pixels."""
    side = shape.distance.shape[0]
    angle = rng.uniform(0, 2 * np.pi)
    linear = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / magnification
    if rng.random() < 0.5:
        linear[:, 0] *= -1
    reach = max(side / 2 - 0.35 * size / magnification, 0)
    centre = side / 2 + rng.uniform(-reach, reach, 2)
    rows, cols = np.mgrid[:size, :size].astype(np.float32) - np.float32(size / 2)
    for sigma, steepest in ((rng.uniform(25, 70), 0.2), (rng.uniform(8, 16), 0.12)):  # steeper ones would fold
        amplitude = np.float32(sigma * rng.uniform(0, steepest))
        rows = rows + amplitude * smooth_noise(size, sigma, rng)
        cols = cols + amplitude * smooth_noise(size, sigma, rng)
    from_rows = (centre[0] + linear[0, 0] * rows + linear[0, 1] * cols).astype(np.float32)
    from_cols = (centre[1] + linear[1, 0] * rows + linear[1, 1] * cols).astype(np.float32)

    def sampled(array: np.ndarray, outside: float) -> np.ndarray:
        array = array.astype(np.float32)
        return cv2.remap(array, from_cols, from_rows, cv2.INTER_LINEAR, None, cv2.BORDER_CONSTANT, outside)

    distance, radius = sampled(shape.distance, -_FARTHEST), sampled(shape.radius, 1.0)
    return np.float32(magnification) * distance, np.float32(magnification) * radius


def _vessel_profile(distance: np.ndarray, radius: np.ndarray, look: _Look, rng: np.random.Generator) -> np.ndarray:
    """Brightness that vessels add, in units of a vessel of 3 pixels' radius. Thickens `distance` and `radius`."""
    grown = np.float32(rng.uniform(*look.calibre))
    distance += grown
    radius += grown
    np.maximum(radius, 0.5, out=radius)
    from_axis = np.clip(1 - distance / radius, 0, 1)
    profile = (1 - from_axis**2 + 1e-6) ** np.float32(rng.uniform(*look.profile))
    if rng.random() < look.reflex:
        streak = np.exp(-((from_axis / np.float32(rng.uniform(0.2, 0.5))) ** 2))
        profile -= np.float32(rng.uniform(0.1, 0.7)) * streak * np.clip(radius - 2, 0, 1)
    by_calibre = np.clip((radius / 3) ** np.float32(rng.uniform(0.1, 1.0)), 0.2, 2.0)
    size = distance.shape[0]
    along = smooth_noise(size, rng.uniform(15, 80), rng) * np.float32(rng.uniform(0, 0.5))
    return np.clip(distance + 0.5, 0, 1) * profile * by_calibre * np.exp(along)


def _tube(size: int, rng: np.random.Generator) -> np.ndarray:
    """A smooth curve of constant calibre across the frame."""
    t = np.linspace(0, 1, 60)
    ends = rng.uniform(-0.2, 1.2, (4, 2)) * size
    ends[0], ends[3] = (rng.random() * size, -20), (rng.random() * size, size + 20)
    weights = np.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], axis=1)
    canvas = np.zeros((size, size), np.uint8)
    points = np.rint(weights @ ends * 8).astype(np.int32)[:, None, ::-1]
    cv2.polylines(canvas, [points], False, 255, int(rng.integers(2, 9)), cv2.LINE_AA, 3)
    return canvas.astype(np.float32) / 255


# --- what surrounds them


def _background(look: _Look, size: int, rng: np.random.Generator) -> np.ndarray:
    image = np.full((size, size), rng.uniform(*look.level), np.float32)
    image += smooth_noise(size, rng.uniform(60, 200), rng) * np.float32(rng.uniform(*look.illumination))
    roughness, amount = rng.uniform(0.3, 1.0), rng.uniform(*look.texture)
    for octave in range(5):
        image += smooth_noise(size, 1.5 * 2**octave, rng) * np.float32(amount * roughness ** (4 - octave))
    if look.mesh[1]:
        # Zero crossings of band-limited noise form a net of closed loops, as capillaries do.
        width = rng.uniform(0.25, 0.7)
        net = np.exp(-((smooth_noise(size, rng.uniform(2.0, 5.0), rng) / width) ** 2))
        image += net * np.float32(rng.uniform(*look.mesh)) * np.exp(0.3 * smooth_noise(size, 6, rng))
    for _ in range(rng.integers(look.bands + 1) if look.bands else 0):
        image += _band(size, rng) * np.float32(rng.normal(0, 0.09))
    if rng.random() < look.relief:
        image += _relief(size, rng) * np.float32(rng.uniform(0.03, 0.25))
    if look.streaks[1] and rng.random() < 0.5:
        image += _streaks(size, rng) * np.float32(rng.uniform(*look.streaks))
    for _ in range(rng.integers(look.spots + 1) if look.spots and rng.random() < 0.6 else 0):
        _add_disc(image, rng.uniform(0, size, 2), rng.uniform(1, 7), rng.normal(0, 0.12), rng)
    if rng.random() < look.deposits:
        image += _deposits(size, rng) * np.float32(rng.choice([-1, 1], p=[0.7, 0.3]) * rng.uniform(0.05, 0.4))
    if rng.random() < look.disc:
        _add_disc(image, rng.uniform(0, size, 2), rng.uniform(25, 50), -rng.uniform(0.1, 0.4), rng)
    if rng.random() < look.zone:
        _add_disc(image, rng.uniform(0, size, 2), rng.uniform(20, 60), -rng.uniform(0.1, 0.3), rng)
    return image


def _band(size: int, rng: np.random.Generator) -> np.ndarray:
    """An edge or a stripe, straight or curved: ribs, the diaphragm, the skull, misregistered bone."""
    rows, cols = np.mgrid[:size, :size].astype(np.float32)
    centre = rng.uniform(-2, 3, 2).astype(np.float32) * size
    distance = np.hypot(rows - centre[0], cols - centre[1])
    offset = distance - np.float32(distance[int(rng.integers(size)), int(rng.integers(size))])
    softness = np.float32(rng.uniform(0.7, 12))
    edge = 1 / (1 + np.exp(np.clip(-offset / softness, -30, 30)))
    if rng.random() < 0.5:
        return edge
    width = np.float32(rng.uniform(2, 40))
    return edge - 1 / (1 + np.exp(np.clip(-(offset - width) / softness, -30, 30)))


def _relief(size: int, rng: np.random.Generator) -> np.ndarray:
    """What subtraction leaves of tissue that moved: bright and dark edges side by side, in a part of the frame."""
    tissue = sum(_band(size, rng) * np.float32(rng.normal()) for _ in range(rng.integers(1, 4)))
    tissue = tissue + smooth_noise(size, rng.uniform(4, 25), rng) * np.float32(rng.uniform(0, 0.6))
    moved = np.float32([[1, 0, rng.uniform(-3, 3)], [0, 1, rng.uniform(-3, 3)]])
    edges = tissue - cv2.warpAffine(tissue, moved, (size, size), borderMode=cv2.BORDER_REPLICATE)
    where = smooth_noise(size, rng.uniform(60, 150), rng) + np.float32(rng.uniform(-0.5, 1.5))
    return edges / (1 + np.exp(-4 * where))


def _streaks(size: int, rng: np.random.Generator) -> np.ndarray:
    """Noise of unit variance that is drawn out along the rows, or, less often, the columns."""
    length = rng.uniform(5, 60)
    noise = rng.standard_normal((size, size), dtype=np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), sigmaX=length, sigmaY=rng.uniform(0.3, 2.0))
    noise /= noise.std()
    return noise if rng.random() < 0.8 else noise.T


def _deposits(size: int, rng: np.random.Generator) -> np.ndarray:
    """A group of irregular spots, as exudates, drusen and calcifications are, with values from 0 to 1."""
    near = np.zeros((size, size), np.float32)
    _add_disc(near, rng.uniform(0, size, 2), rng.uniform(15, 60), 1.0, rng)
    field = smooth_noise(size, rng.uniform(2, 12), rng) + 2.5 * near - np.float32(rng.uniform(2.0, 3.5))
    return 1 / (1 + np.exp(-np.clip(field * np.float32(rng.uniform(3, 12)), -30, 30)))


def _add_disc(image: np.ndarray, centre: np.ndarray, radius: float, amount: float, rng: np.random.Generator) -> None:
    """Add a soft ellipse to `image`, in place."""
    reach = int(3 * radius) + 3
    row, col = centre.astype(int)
    height, width = image.shape
    window = np.s_[max(row - reach, 0) : min(row + reach, height), max(col - reach, 0) : min(col + reach, width)]
    rows, cols = np.mgrid[window].astype(np.float32)
    angle, flat = rng.uniform(0, np.pi), rng.uniform(0.6, 1.0)
    y, x = rows - centre[0], cols - centre[1]
    u, v = x * np.cos(angle) + y * np.sin(angle), (y * np.cos(angle) - x * np.sin(angle)) / flat
    softness = radius * rng.uniform(0.05, 0.4)
    image[window] += (amount / (1 + np.exp(np.clip((np.hypot(u, v) - radius) / softness, -30, 30)))).astype(np.float32)


def _field_of_view(look: _Look, size: int, rng: np.random.Generator) -> np.ndarray | None:
    """How much of each pixel is not the detector's surround, 0 to 1; None when the image fills the window."""
    if not look.fields or rng.random() < 0.5:
        return None
    softness = np.float32(0.3 if rng.random() < 0.5 else rng.uniform(0.5, 10))
    rows, cols = np.mgrid[:size, :size].astype(np.float32)
    if look.fields[rng.integers(len(look.fields))] == "round":
        radius = size * rng.uniform(0.6, 1.2)
        angle, away = rng.uniform(0, 2 * np.pi), radius - size * rng.uniform(-0.2, 0.5)
        centre = size / 2 + max(away, 0) * np.array([np.sin(angle), np.cos(angle)])
        inside = radius - np.hypot(rows - centre[0], cols - centre[1])
    else:
        sides = np.stack([rows, size - 1 - rows, cols, size - 1 - cols])
        starts = np.where(rng.random(4) < 0.5, size * rng.uniform(0.01, 0.3, 4), -size).astype(np.float32)
        inside = (sides - starts[:, None, None]).min(axis=0)
    return 1 / (1 + np.exp(-np.clip(inside / softness, -30, 30)))


def _acquire(image: np.ndarray, look: _Look, rng: np.random.Generator) -> np.ndarray:
    """Blur, grain, loss of resolution and a transfer curve."""
    size = image.shape[0]
    if look.speckle[1]:
        grain = cv2.GaussianBlur(rng.standard_normal((size, size), dtype=np.float32), (0, 0), rng.uniform(0.5, 1.2))
        image = image * (1 + grain / grain.std() * np.float32(rng.uniform(*look.speckle)))
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(*look.blur))
    coarse = max(round(size * rng.uniform(*look.resolution)), 16)
    if rng.random() < 0.5:
        image = cv2.resize(image, (coarse, coarse), interpolation=cv2.INTER_AREA)
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(*look.noise))
    image = image + (noise if rng.random() < 0.7 else cv2.GaussianBlur(noise, (0, 0), 0.8) * 2)
    if image.shape[0] != size:
        image = cv2.resize(
            image, (size, size), interpolation=cv2.INTER_LINEAR if rng.random() < 0.5 else cv2.INTER_CUBIC
        )
    return np.clip(image, 0, 1) ** np.float32(np.exp(rng.uniform(-0.4, 0.4)))


def smooth_noise(size: int, scale: float, rng: np.random.Generator) -> np.ndarray:
    """A random field of about unit variance that varies over `scale` pixels, (size, size) float32."""
    cells = max(int(np.ceil(size / scale)), 1) + 3
    coarse = rng.standard_normal((cells, cells), dtype=np.float32)
    side = int(np.ceil(cells * scale))
    field = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    start = (side - size) // 2
    field = field[start : start + size, start : start + size]
    return field * np.float32(1.35)  # cubic interpolation between cells takes that much of the spread


# --- an endless stream


def grow_shapes(
    count: int, *, seed: int, workers: int, on_grown: Callable[[int], None] = lambda done: None
) -> np.ndarray:
    """Trees of all five modalities in turn, grown in processes of their own.

    Parameters
    ----------
    count : int
    seed : int
        Shape i depends on `seed` and i alone.
    workers : int
        Number of processes.
    on_grown : callable
        Gets the number of shapes done.

    Returns
    -------
    (count, 2, 512, 512) ndarray of float16
        Distance and radius, see `VesselShape`; shape i is of the modality ``i % 5``.
    """
    shapes = np.empty((count, 2, 512, 512), np.float16)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for i, shape in enumerate(pool.map(_grow_numbered, range(count), [seed] * count, chunksize=4)):
            shapes[i] = shape.distance, shape.radius
            on_grown(i + 1)
    return shapes


def phantom_batch(
    shapes: np.ndarray, *, count: int, size: int, inputs: str, seed: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """A batch for training, wholly determined by `shapes` and `seed`.

    Parameters
    ----------
    shapes : (N, 2, H, W) ndarray of float16
        From `grow_shapes`.
    count, size : int
        Number and side, in pixels, of the phantoms.
    inputs : str
        See `univg.segmentation.inputs.network_inputs`.
    seed : sequence of int

    Returns
    -------
    inputs : (count, C, size, size) ndarray of float32
    masks : (count, 1, size, size) ndarray of float32 in {0, 1}
    """
    rng = np.random.default_rng(seed)
    modalities = list(Modality)
    features, masks = [], []
    for _ in range(count):
        kind = int(rng.integers(len(modalities)))
        chosen = rng.choice(np.arange(kind, len(shapes), len(modalities)), 3)
        if rng.random() < 0.2:
            chosen = rng.integers(len(shapes), size=3)
        grey, mask = draw_phantom([VesselShape(*shapes[i]) for i in chosen], modalities[kind], size=size, rng=rng)
        features.append(network_inputs(grey, inputs))
        masks.append(mask[None])
    return np.stack(features), np.stack(masks)


def _grow_numbered(number: int, seed: int) -> VesselShape:
    modalities = list(Modality)
    return grow_shape(modalities[number % len(modalities)], rng=np.random.default_rng([seed, number]))
