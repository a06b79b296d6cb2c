"""Tiny networks compute on one thread: more would wait for each other longer than they work."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture(autouse=True)
def _one_torch_thread():
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_autoencoder():
    """Makes the same untrained autoencoder of a few thousand weights each time."""
    import torch

    from univg.engines.backbone import new_autoencoder
    from univg.engines.config import AutoencoderConfig

    def make():
        torch.manual_seed(0)
        config = AutoencoderConfig(latent_channels=4, channels=(8, 8, 16), encoder_layers=1, decoder_layers=1)
        return new_autoencoder(config).eval().requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def tiny_compact(tiny_autoencoder):
    """Writes an untrained compact engine of a few thousand weights: ``tiny_compact(root, name) -> folder``."""
    import torch

    from univg.engines import backbone as parts

    def write(root, name):
        autoencoder = tiny_autoencoder()
        unet = parts.new_unet(4, channels=(16, 32), layers=1, token_width=8)
        with torch.no_grad():  # an untrained U-Net ends in values too small to tell two adapters apart
            unet.conv_out.weight.mul_(5)
        made = parts.DiffusionBackbone(
            "compact",
            autoencoder,
            unet,
            parts.ModalityEmbedding(tokens=2, width=8),
            parts.new_scheduler(),
            torch.zeros(4, 1, 1),
            torch.ones(4, 1, 1),
        )
        parts.save_compact(made, root / name, figures={"steps": 0})
        parts.save_autoencoder(autoencoder, root / "autoencoder")
        return root / name

    return write
