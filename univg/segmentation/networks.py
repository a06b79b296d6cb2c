"""Segmentation networks, one line each in `NETWORKS`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from univg.errors import InputError
from univg.segmentation.config import INPUT_SETS, SegmentationConfig

_DYNUNET_ALIASES = ("input_block", "downsamples", "bottleneck", "upsamples")


class UNet(nn.Module):
    """The U-Net of Ronneberger et al. (2015) with batch normalisation, padding, and resized instead of learned
    upsampling; as narrow as `channels` says, so that two CPU cores can train it.
    """

    def __init__(self, in_channels: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        widths = (in_channels, *channels)
        self.down = nn.ModuleList(nn.Sequential(*_layers(i, o)) for i, o in pairwise(widths))
        self.up = nn.ModuleList(
            _UpBlock(*_layers(below + skip, skip))
            for below, skip in zip(channels[:0:-1], channels[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(channels[0], 1, kernel_size=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(batch, 1, H, W)`` of ``(batch, in_channels, H, W)``; sides a multiple of 2^(levels-1)."""
        return self.head(self.features(x)[-1])

    def features(self, x: torch.Tensor, levels: int = 0) -> list[torch.Tensor]:
        """Features of the first `levels` blocks of the way down, finest first, and those that the head reads."""
        skips = []
        for block in self.down[:-1]:
            x = block(x)
            skips.append(x)
            x = functional.max_pool2d(x, 2)
        seen = skips[:levels]
        x = self.down[-1](x)
        for block in self.up:
            x = block(skips.pop(), x)
        return [*seen, x]


class _UpBlock(nn.Sequential):
    """Two convolutions of a skip joined with what comes from below, which is first repeated to twice its size."""

    def forward(self, skip: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
        first, *rest = self
        x = _convolve_joined(skip, below, first.weight)
        for layer in rest:
            x = layer(x)
        return x


def _convolve_joined(skip: torch.Tensor, below: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The 3 × 3 convolution of `skip` and of `below` with every pixel repeated 2 × 2, as one transposed convolution.

    A row of the convolution sees two rows below it only, so rows of the kernel that meet the same one are added up:
    four ninths of the products, and neither the repeated nor the joined tensor is ever made.
    """
    weight_of_skip, weight = weight.split([skip.shape[1], below.shape[1]], dim=1)
    first, middle, last = weight.unbind(2)
    first, middle, last = torch.stack([last, middle + last, first + middle, first], dim=2).unbind(3)
    kernel = torch.stack([last, middle + last, first + middle, first], dim=3)
    below = functional.conv_transpose2d(below, kernel.transpose(0, 1), stride=2, padding=1)
    return functional.conv2d(skip, weight_of_skip, padding=1) + below


def _layers(in_channels: int, out_channels: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for width in (in_channels, out_channels):
        layers += [
            nn.Conv2d(width, out_channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        ]
    return layers


def _dynamic_unet(in_channels: int, channels: tuple[int, ...]) -> nn.Module:
    """nnU-Net's U-Net (Isensee et al. 2021): instance normalisation, strided convolutions, learned upsampling."""
    halvings = len(channels) - 1
    network = _monai().DynUNet(
        2, in_channels, 1, [3] * len(channels), [1] + [2] * halvings, [2] * halvings, filters=channels
    )
    # Its forward pass knows these blocks as parts of `skip_layers`; registered twice, a weight is averaged twice and
    # cannot be saved.
    for alias in _DYNUNET_ALIASES:
        delattr(network, alias)
    network.register_load_state_dict_pre_hook(_forget_aliases)
    return network


def _forget_aliases(network: nn.Module, state: dict[str, torch.Tensor], *_: object) -> None:
    """Files that were saved on a graphics card while blocks were registered twice hold both names."""
    for name in [name for name in state if name.split(".")[0] in _DYNUNET_ALIASES]:
        del state[name]


def _attention_unet(in_channels: int, channels: tuple[int, ...]) -> nn.Module:
    """A U-Net whose skips are gated by attention (Oktay et al. 2018)."""
    return _monai().AttentionUnet(2, in_channels, 1, channels, (2,) * (len(channels) - 1))


def _swin_unetr(in_channels: int, channels: tuple[int, ...]) -> nn.Module:
    """Swin transformer encoder, convolutional decoder (Hatamizadeh et al. 2022); of `channels` the first counts."""
    return _monai().SwinUNETR(in_channels, 1, feature_size=12 * -(-channels[0] // 12), spatial_dims=2)


def _monai():
    """MONAI's networks, loaded when one is asked for: that takes seconds."""
    try:
        from monai.networks import nets
    except ImportError as error:
        raise InputError(
            "This network needs the package MONAI", fix="Install it: pip install 'univg[networks]', or use unet."
        ) from error
    return nets


NETWORKS: dict[str, Callable[[int, tuple[int, ...]], nn.Module]] = {
    "unet": UNet,
    "dynunet": _dynamic_unet,
    "attention-unet": _attention_unet,
    "swin-unetr": _swin_unetr,
}


def build_network(config: SegmentationConfig) -> nn.Module:
    """A freshly initialised network; seed torch first for a reproducible one."""
    network = NETWORKS[config.network](INPUT_SETS[config.inputs], config.channels)
    return network.to(memory_format=torch.channels_last)
