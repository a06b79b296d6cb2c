"""Tiny networks compute on one thread: more would wait for each other longer than they work."""

from __future__ import annotations

import sys

import pytest

from tests import tiny_engines


@pytest.fixture(autouse=True)
def _one_torch_thread():
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_autoencoder():
    """Makes the same untrained autoencoder of a few thousand weights each time."""
    return tiny_engines.tiny_autoencoder


@pytest.fixture(scope="session")
def tiny_compact():
    """Writes an untrained compact engine of a few thousand weights: ``tiny_compact(root, name) -> folder``."""
    return tiny_engines.write_tiny_compact
