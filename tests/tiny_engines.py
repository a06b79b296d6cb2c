"""Untrained engines of a few thousand weights, in the layout of the shipped ones."""

from __future__ import annotations

from pathlib import Path


def tiny_autoencoder():
    """The same untrained autoencoder each time."""
    import torch

    from univg.engines.backbone import new_autoencoder
    from univg.engines.config import AutoencoderConfig

    torch.manual_seed(0)
    config = AutoencoderConfig(latent_channels=4, channels=(8, 8, 16), encoder_layers=1, decoder_layers=1)
    return new_autoencoder(config).eval().requires_grad_(False)


def write_tiny_compact(root: Path, name: str) -> Path:
    """A compact engine in ``root / name``, its autoencoder beside it."""
    import torch

    from univg.engines import backbone as parts
    from univg.engines.folders import save_autoencoder, save_compact

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
        torch.zeros(1, 4, 1, 1),
        torch.ones(1, 4, 1, 1),
    )
    save_compact(made, root / name, figures={"steps": 0})
    save_autoencoder(autoencoder, root / "autoencoder")
    return root / name


def write_tiny_engines(root: Path) -> tuple[Path, Path]:
    """A mask engine and an image engine with its ControlNet."""
    import torch

    from univg.engines import load_backbone
    from univg.engines.backbone import new_controlnet
    from univg.engines.folders import save_controlnet

    masks, images = write_tiny_compact(root, "masks"), write_tiny_compact(root, "images")
    torch.manual_seed(3)
    save_controlnet(new_controlnet(load_backbone(images).unet), images / "controlnet")
    return masks, images
