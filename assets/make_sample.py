"""Draw the sample project: seven made-up fundus photographs and their vessel masks. No real image is involved.

usage: python assets/make_sample.py [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from univg.io import write_image, write_mask
from univg.sca import generate_mask
from univg.segmentation.render import Appearance, render_vessels
from univg.types import Modality

SIZE = 512
SEED = 20


def draw_fundus(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One uint8 (512, 512, 3) image and its bool mask."""
    rows, cols = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    centre = (SIZE - 1) / 2
    radius = np.hypot(rows - centre, cols - centre) / (0.47 * SIZE)
    fov = radius <= 1

    side = rng.choice([0.3, 0.7])
    disc = np.array([0.5 + rng.normal(0, 0.02), side]) * SIZE
    roots = disc + SIZE * 0.02 * rng.standard_normal((6, 2))
    macula = np.array([0.52, 1 - side * 0.75 - 0.125]) * SIZE
    mask = generate_mask(Modality.FUNDUS, roots=roots, boundary=fov & (_distance(rows, cols, macula) > 34), rng=rng)

    tint = np.array([0.78, 0.40, 0.20]) * (1 + rng.normal(0, 0.06, 3))
    light = 1 - 0.35 * radius**2 + 0.10 * _smooth(rng, 130)
    image = light[..., None] * tint
    image = image + 0.035 * _smooth(rng, 22)[..., None] * tint + 0.02 * _smooth(rng, 7)[..., None] * tint
    image = image * (1 - 0.35 * np.exp(-((_distance(rows, cols, macula) / 40) ** 2)))[..., None]
    glow = np.exp(-((_distance(rows, cols, disc) / 26) ** 4))[..., None]
    image = image * (1 - glow) + glow * np.array([0.97, 0.80, 0.48])
    image = image + 0.012 * rng.standard_normal(image.shape)
    image = np.where(fov[..., None], image, 0.015)

    positions = np.array([0.08, 0.2, 0.45, 0.7, 0.9, 1.0, 0.97, 0.9])  # outside to centreline, with a light reflex
    depth = np.array([0.45, 0.7, 0.9, 1.0])[:, None, None]
    colour = np.array([0.16, 0.17, 0.07])
    contrast = -(depth * positions[None, :, None] * colour).astype(np.float32)
    appearance = Appearance(np.clip(image, 0, 1).astype(np.float32), contrast, fov)
    rendered = render_vessels(appearance, mask, rng=rng)
    rendered = cv2.GaussianBlur(rendered, (0, 0), 0.6) + 0.008 * rng.standard_normal(rendered.shape)
    return np.rint(np.clip(rendered, 0, 1) * 255).astype(np.uint8), mask & fov


def _distance(rows: np.ndarray, cols: np.ndarray, point: np.ndarray) -> np.ndarray:
    return np.hypot(rows - point[0], cols - point[1])


def _smooth(rng: np.random.Generator, sigma: float) -> np.ndarray:
    coarse = rng.standard_normal((int(SIZE / sigma) + 3,) * 2).astype(np.float32)
    return cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "sample"
    provenance = {"synthetic": True, "made_by": "assets/make_sample.py", "seed": SEED}
    for number in range(7):
        image, mask = draw_fundus(np.random.default_rng([SEED, number]))
        unseen = number >= 5
        name = f"unseen-{number - 4}" if unseen else f"sample-{number + 1}"
        for kind in ("images", "masks"):
            target = folder / ("unseen" if unseen else "") / kind
            target.mkdir(parents=True, exist_ok=True)
        write_image(folder / ("unseen" if unseen else "") / "images" / f"{name}.png", image, provenance=provenance)
        write_mask(folder / ("unseen" if unseen else "") / "masks" / f"{name}.png", mask, provenance=provenance)


if __name__ == "__main__":
    main()
