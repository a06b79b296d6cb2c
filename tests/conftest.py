"""What tests share: where the real data is, and tiny pairs to train on."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from univg.sca import generate_mask
from univg.types import ImageMaskPair, Modality, SupportSet

# Without a screen Qt would end the process; set before anything imports it.
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
# Tests run beside one another, and threads of torch that wait for a core cost more than they bring.
if "PYTEST_XDIST_WORKER" in os.environ:
    _threads = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(_threads, 1)))


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real images; skips the test when there is none."""
    folder = os.environ.get("UNIVG_DATA")
    if not folder:
        pytest.skip("UNIVG_DATA is not set")
    return Path(folder)


def make_pair(name: str, *, size: int = 96, seed: int = 0, colour: bool = False) -> ImageMaskPair:
    """A made-up image with dark vessels on a bright textured ground."""
    rng = np.random.default_rng(seed)
    mask = ndimage.binary_dilation(generate_mask(Modality.BRAIN_DSA, shape=(size, size), rng=rng))
    image = 170 + 10 * rng.standard_normal((size, size)) - 70 * mask
    image = np.clip(image, 0, 255).astype(np.uint8)
    return ImageMaskPair(np.dstack([image] * 3) if colour else image, mask, name)


@pytest.fixture(scope="session")
def tiny_support() -> SupportSet:
    return SupportSet(Modality.CORONARY_DSA, tuple(make_pair(f"pair-{i}", seed=i) for i in range(3)))
