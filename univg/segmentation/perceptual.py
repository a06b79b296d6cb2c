"""What the vessel prior sees in pictures, as a differentiable function of them: a perceptual loss for vessels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torchvision.transforms.functional import gaussian_blur

from univg.segmentation.inputs import LOCAL_SHRINK, LOCAL_SIGMA, RIDGE_SIGMAS
from univg.segmentation.networks import UNet, build_network
from univg.segmentation.prior import PriorConfig, load_prior

_GREEN = 1


class VesselFeatures(nn.Module):
    """Features of the vessel prior, which never saw a label.

    Perceptual losses are usually computed with networks that were trained on photographs (Johnson et al. 2016); those
    of a segmenter say what a segmenter would miss.

    Parameters
    ----------
    folder : path-like, optional
        Of the prior; the shipped one by default.
    levels : int
        Of the U-Net's way down, finest first, that count, besides its last features.
    """

    def __init__(self, folder: str | Path | None = None, *, levels: int = 3) -> None:
        super().__init__()
        config = replace(PriorConfig().segmentation, start="prior")
        network = build_network(config)
        network.load_state_dict(load_prior(config, folder).tensors)
        if not isinstance(network, UNet):
            raise TypeError(f"The vessel prior must be a U-Net, got {type(network).__name__}")
        self.network, self.levels = network.eval().requires_grad_(False), levels

    def forward(self, pictures: torch.Tensor, dark: torch.Tensor) -> list[torch.Tensor]:
        """Features of each level and those that the head reads.

        Parameters
        ----------
        pictures : (B, 3, H, W) tensor in [-1, 1]
            Sides multiples of 16.
        dark : (B,) tensor of bool
            Where vessels are darker than what surrounds them.
        """
        with torch.autocast(pictures.device.type, enabled=False):
            grey = (pictures[:, _GREEN : _GREEN + 1].float() + 1) / 2
            x = differentiable_inputs(torch.where(dark[:, None, None, None], 1 - grey, grey))
        return self.network.features(x.contiguous(memory_format=torch.channels_last), self.levels)

    def distance(self, decoded: torch.Tensor, pictures: torch.Tensor, dark: torch.Tensor) -> torch.Tensor:
        """Mean absolute difference of the features of two pictures, relative to those of the second."""
        with torch.no_grad():
            wanted = self(pictures, dark)
        pairs = zip(self(decoded, dark), wanted, strict=True)
        return sum((f - w).float().abs().mean() / w.float().abs().mean() for f, w in pairs) / len(wanted)


def differentiable_inputs(grey: torch.Tensor) -> torch.Tensor:
    """`univg.segmentation.inputs.network_inputs` of ``(B, 1, H, W)`` grey levels in [0, 1], with gradients."""
    standard = (grey - grey.mean(dim=(2, 3), keepdim=True)) / (grey.std(dim=(2, 3), keepdim=True) + 1e-3)
    deviation = grey - _wide_blur(grey)
    local = (deviation / (_wide_blur(deviation.square()) + 1e-4).sqrt()).clamp(-4, 4)
    return torch.cat([standard, local, *(_ridges(local, sigma) for sigma in RIDGE_SIGMAS)], dim=1)


def _wide_blur(grey: torch.Tensor) -> torch.Tensor:
    small, sigma = functional.avg_pool2d(grey, LOCAL_SHRINK), LOCAL_SIGMA / LOCAL_SHRINK
    radius = min(round(3 * sigma), *(side - 1 for side in small.shape[2:]))  # as far as reflection can reach
    small = gaussian_blur(small, [2 * radius + 1] * 2, [sigma] * 2)
    return functional.interpolate(small, size=grey.shape[2:], mode="bilinear", align_corners=False)


def _ridges(grey: torch.Tensor, sigma: float) -> torch.Tensor:
    """The curvature of `univg.geometry.ridge_strength`."""
    radius = int(4 * sigma)
    for size in ([2 * radius + 1, 1], [1, 2 * radius + 1]):
        grey = gaussian_blur(grey, size, [sigma] * 2)
    second, smooth, first = (grey.new_tensor(k) for k in ((1, -2, 1), (1, 2, 1), (-1, 0, 1)))
    kernels = torch.stack([torch.outer(smooth, second), torch.outer(second, smooth), torch.outer(first, first)])
    around = functional.pad(grey, (1, 1, 1, 1), mode="reflect")
    xx, yy, xy = functional.conv2d(around, kernels[:, None]).chunk(3, dim=1)
    root = ((0.5 * (xx - yy)).square() + xy.square() + 1e-8).sqrt()  # a root of 0 has no slope
    return (root - 0.5 * (xx + yy)).clamp(min=0) * (sigma**2 / 4)
