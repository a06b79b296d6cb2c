"""No image of a benchmark set took part in any shipped weight."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from univg.engines.streams import training_list
from univg.io import read_image, read_json, sha256_file
from univg.types import as_float
from univg.weights import is_shipped, shipped_folder

WEIGHTS = [name for name in ("prior", "autoencoder", "masks", "images") if is_shipped("models", name)]
MODALITY_OF = {
    "drive": "fundus",
    "chasedb1": "fundus",
    "octa500_3m": "octa",
    "dias": "brain-dsa",
    "dca1": "coronary-dsa",
}
SAME_PICTURE = 0.9  # the closest of different pictures, two cerebral angiograms in the same frame, reach 0.85


def trained_on(weights: str) -> dict[str, dict[str, str]]:
    return read_json(shipped_folder("models", weights) / "trained_on.json")


def benchmark_images(data: Path) -> dict[str, list[Path]]:
    return {name: sorted((data / "benchmark" / name / "images").iterdir()) for name in MODALITY_OF}


def thumbnail(path: Path, side: int = 64) -> np.ndarray:
    """The structures of a small grey picture, of length 1, so that a product of two is their correlation."""
    image = as_float(read_image(path))
    grey = image if image.ndim == 2 else image.mean(axis=2)
    small = cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA)
    small = (small - cv2.GaussianBlur(small, (0, 0), 3)).ravel()
    typical = np.median(np.abs(small)) + 1e-3
    small = np.clip(small, -3 * typical, 3 * typical)  # the edge of the field is not the picture
    return small / max(float(np.linalg.norm(small)), 1e-6)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_the_record_lists_every_real_image(weights):
    listed = trained_on(weights)
    assert all(len(digest) == 64 for files in listed.values() for digest in files.values())
    assert bool(listed) == (weights in ("autoencoder", "images"))


@pytest.mark.realdata
@pytest.mark.parametrize("weights", WEIGHTS)
def test_no_benchmark_image_by_hash(weights, data_folder):
    listed = {digest for files in trained_on(weights).values() for digest in files.values()}
    measured_on = {sha256_file(f) for files in benchmark_images(data_folder).values() for f in files}
    assert len(measured_on) > 300
    assert not listed & measured_on


@pytest.mark.slow
@pytest.mark.realdata
def test_no_benchmark_image_in_another_file_format(data_folder):
    """What the weights were trained on, looked at, and compared with every benchmark image of its modality."""
    unlabelled = data_folder / "unlabelled"
    listed = trained_on("autoencoder")
    assert training_list(unlabelled) == listed
    for name, files in benchmark_images(data_folder).items():
        modality = MODALITY_OF[name]
        seen = np.stack([thumbnail(unlabelled / modality / f) for f in listed[modality]])
        tested = np.stack([thumbnail(f) for f in files])
        assert (tested @ seen.T).max() < SAME_PICTURE, name


@pytest.mark.realdata
@pytest.mark.parametrize("name", MODALITY_OF)
def test_the_comparison_would_find_a_copy(name, data_folder, tmp_path):
    """Smaller and compressed anew."""
    original = benchmark_images(data_folder)[name][0]
    copy = tmp_path / "copy.jpg"
    image = cv2.imread(str(original))
    cv2.imwrite(str(copy), cv2.resize(image, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA))
    assert thumbnail(original) @ thumbnail(copy) > SAME_PICTURE
