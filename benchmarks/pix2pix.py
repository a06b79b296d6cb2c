"""pix2pix (Isola et al. 2017) trained on the same few pairs: the baseline of the paper's Table 6.

A U-Net draws an image from the condition that the image engine gets too; a PatchGAN judges 70 x 70 windows. Loss,
optimiser and batch size are the paper's; both networks have half of its filters, and train on windows of 256 pixels, so
that a processor gets through enough steps.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import nn

from univg.engines.backbone import condition_to_picture, image_to_picture, picture_to_image
from univg.engines.conditions import vessel_condition
from univg.engines.frames import random_warp, to_square
from univg.engines.image_engine import as_colour
from univg.geometry import estimate_fov
from univg.training.device import autocast, resolve_device
from univg.types import ImageMaskPair, Modality

_FILTERS = 32
_DEPTH = 7
_WINDOW = 256
_L1 = 100.0


class Generator(nn.Module):
    """A U-Net of strided convolutions; dropout in the deepest levels is its only noise, as in the paper."""

    def __init__(self) -> None:
        super().__init__()
        widths = [min(_FILTERS * 2**level, 8 * _FILTERS) for level in range(_DEPTH)]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, (before, after) in enumerate(itertools.pairwise([3, *widths])):
            norm = nn.InstanceNorm2d(after) if 0 < level < _DEPTH - 1 else nn.Identity()
            act = nn.Identity() if level == 0 else nn.LeakyReLU(0.2)
            self.down.append(nn.Sequential(act, nn.Conv2d(before, after, 4, 2, 1), norm))
        for level in reversed(range(_DEPTH)):
            before = widths[level] * (1 if level == _DEPTH - 1 else 2)
            after = widths[level - 1] if level else 3
            norm = nn.InstanceNorm2d(after) if level else nn.Tanh()
            drop = nn.Dropout(0.5) if level >= _DEPTH - 3 else nn.Identity()
            self.up.append(nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(before, after, 4, 2, 1), norm, drop))

    def forward(self, condition: torch.Tensor) -> torch.Tensor:
        found, picture = [], condition
        for layer in self.down:
            picture = layer(picture)
            found.append(picture)
        for layer, skip in zip(self.up, [None, *reversed(found[:-1])], strict=True):
            picture = layer(picture if skip is None else torch.cat([picture, skip], 1))
        return picture


def new_discriminator() -> nn.Sequential:
    layers, widths = [], [6, _FILTERS, 2 * _FILTERS, 4 * _FILTERS, 8 * _FILTERS]
    for level, (before, after) in enumerate(itertools.pairwise(widths)):
        layers += [nn.Conv2d(before, after, 4, 2 if level < 3 else 1, 1)]
        layers += [nn.InstanceNorm2d(after)] if level else []
        layers += [nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, 1, 1))


def train_pix2pix(
    pairs: Sequence[ImageMaskPair], *, modality: Modality, size: int, seconds: float, seed: int = 0
) -> tuple[Generator, int]:
    """Train for `seconds`, with the augmentation of the image engine; returns the generator and its steps."""
    torch.manual_seed(seed)
    device = resolve_device("auto")
    generator, judge = Generator().to(device), new_discriminator().to(device)
    optimizers = [torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999)) for net in (generator, judge)]
    rng = np.random.default_rng(seed)
    squares = []
    for pair in pairs:
        seen = pair.fov if pair.fov is not None else estimate_fov(pair.image, modality)
        squares.append([to_square(part, size) for part in (as_colour(pair.image), pair.mask, seen)])
    entropy, started, steps = nn.BCEWithLogitsLoss(), time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        image, mask, seen = squares[rng.integers(len(squares))]
        warp = random_warp(size, modality, rng)
        image, mask, seen = (warp(part, border=cv2.BORDER_REFLECT_101) for part in (image, mask, seen))
        row, col = (int(rng.integers(size - _WINDOW + 1)) for _ in range(2))
        window = (slice(row, row + _WINDOW), slice(col, col + _WINDOW))
        real = image_to_picture(image[window][None]).to(device)
        condition = condition_to_picture(vessel_condition(mask, seen)[window][None]).to(device) * 2 - 1
        with autocast(device, "auto"):
            made = generator(condition)
            scores = [judge(torch.cat([condition, x], 1)).float() for x in (real, made.detach())]
        loss = entropy(scores[0], torch.ones_like(scores[0])) + entropy(scores[1], torch.zeros_like(scores[1]))
        _step(optimizers[1], loss / 2)
        with autocast(device, "auto"):
            score = judge(torch.cat([condition, made], 1)).float()
        _step(optimizers[0], entropy(score, torch.ones_like(score)) + _L1 * (made.float() - real).abs().mean())
        steps += 1
    return generator, steps


def _step(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


@torch.inference_mode()
def draw_pix2pix(
    generator: Generator, masks: Sequence[np.ndarray], fields: Sequence[np.ndarray], *, seed: int = 0
) -> np.ndarray:
    """Images ``(N, H, W, 3)`` uint8 of square masks and their fields of view; dropout stays on, as in the paper."""
    torch.manual_seed(seed)
    device, images = next(generator.parameters()).device, []
    for mask, seen in zip(masks, fields, strict=True):
        condition = condition_to_picture(vessel_condition(mask, seen)[None]).to(device) * 2 - 1
        with autocast(device, "auto"):
            image = picture_to_image(generator(condition).float())[0]
        images.append(np.rint(image * 255).astype(np.uint8))
    return np.stack(images)
