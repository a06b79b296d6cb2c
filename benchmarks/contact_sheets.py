"""Draw the contact sheets of docs/trees: for each preset, trees grown along masks above those masks.

usage: python benchmarks/contact_sheets.py [FOLDER]

The masks are trees of the preset themselves, grown by this program, since no data set's masks may be passed on. For
sheets above real masks, for the eye alone, see `benchmarks/realism.py --sheet`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from univg.io import write_mask
from univg.sca import PRESETS, Preset, generate_mask

COLUMNS, SIDE = 6, 256
GAP = 4  # pixels of light between cells


def sheet(preset: Preset) -> np.ndarray:
    """Two rows: grown along the mask below, and the masks; a bool array."""
    masks = [generate_mask(preset.modality, preset=preset, rng=np.random.default_rng(seed)) for seed in range(COLUMNS)]
    grown = [
        generate_mask(preset.modality, mask=mask, rng=np.random.default_rng(100 + seed))
        for seed, mask in enumerate(masks)
    ]
    return np.concatenate([np.concatenate([cell(mask) for mask in row], axis=1) for row in (grown, masks)])


def cell(mask: np.ndarray) -> np.ndarray:
    small = cv2.resize(mask.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA) > 0.3
    return np.pad(small, GAP // 2, constant_values=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parents[1] / "docs" / "trees")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for name, preset in PRESETS.items():
        write_mask(args.folder / f"{name}.png", sheet(preset))


if __name__ == "__main__":
    main()
