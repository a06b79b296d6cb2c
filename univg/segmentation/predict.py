"""Segmenting an image: tiles blended where they overlap, optionally averaged over flips and turns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from univg.errors import Cancelled
from univg.progress import OnProgress, ProgressEvent, ShouldStop, ignore_progress, never_stop
from univg.segmentation.config import SegmentationConfig
from univg.segmentation.inputs import fit_to_working_size, network_inputs, to_grey
from univg.segmentation.segmenter import Segmenter
from univg.training.device import autocast, is_out_of_memory, release_memory

TILE = 640
SMALLEST_TILE = 160
SMALLER_TILES = "The graphics card ran out of memory; going on with smaller tiles."
OVERLAP = 96  # more than the ridge filters and most of the network's receptive field


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The result of `segment`.

    Attributes
    ----------
    probability : (H, W) ndarray of float32 in [0, 1]
    threshold : float
    """

    probability: np.ndarray
    threshold: float

    @property
    def mask(self) -> np.ndarray:
        """(H, W) ndarray of bool: where the probability reaches the threshold."""
        return self.probability >= self.threshold


def segment(
    image: np.ndarray,
    segmenter: Segmenter,
    *,
    test_time_augmentation: bool = False,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> Segmentation:
    """Segment the vessels of `image`.

    The image is scaled to the segmenter's working size (longer side) and the probability scaled back.

    Parameters
    ----------
    image : (H, W) or (H, W, 3) ndarray of uint8, or float32 in [0, 1]
    segmenter : Segmenter
    test_time_augmentation : bool
        Average over the eight flips and quarter turns: eight times slower, a little better.
    on_progress, should_stop : callable
        Called between tiles.

    Returns
    -------
    Segmentation
        At the size of `image`.
    """
    grey = fit_to_working_size(to_grey(image, segmenter.modality), segmenter.config.working_size)
    probability = predict_probability(
        grey,
        segmenter.network,
        segmenter.config,
        test_time_augmentation=test_time_augmentation,
        on_progress=on_progress,
        should_stop=should_stop,
    )
    height, width = image.shape[:2]
    if probability.shape != (height, width):
        probability = cv2.resize(probability, (width, height), interpolation=cv2.INTER_LINEAR)
    return Segmentation(probability, segmenter.threshold)


def predict_probability(
    grey: np.ndarray,
    network: nn.Module,
    config: SegmentationConfig,
    *,
    test_time_augmentation: bool = False,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> np.ndarray:
    """Vessel probability of a grey image with bright vessels at working size, (H, W) float32.

    Puts `network` in evaluation mode for the call and back as it was.
    """
    inputs = network_inputs(grey, config.inputs)
    options = (test_time_augmentation, on_progress, should_stop)
    training = network.training
    network.eval()
    tile = TILE
    try:
        while True:
            try:
                return _predict_in_tiles(inputs, network, config, tile, *options)
            except RuntimeError as error:
                if not is_out_of_memory(error) or tile <= SMALLEST_TILE:
                    raise
                tile //= 2
                release_memory(next(network.parameters()).device)
                on_progress(ProgressEvent("segment", 0, 1, message=SMALLER_TILES))
    finally:
        network.train(training)


def recalibrate(network: nn.Module, greys: Sequence[np.ndarray], config: SegmentationConfig) -> None:
    """Take the statistics of batch normalisation anew, from whole images as `predict_probability` sees them.

    Those gathered in training belong to other weights than a moving average has, and to patches (Izmailov et al. 2018,
    section 3.2). Networks without batch normalisation are left as they are.

    Parameters
    ----------
    network : torch.nn.Module
        Changed in place.
    greys : sequence of (H, W) ndarray of float32
        The images that the network learnt from, with bright vessels, at working size.
    config : SegmentationConfig
    """
    inputs = [network_inputs(grey, config.inputs) for grey in greys]
    momenta = {m: m.momentum for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    training, tile = network.training, TILE
    while True:
        try:
            return _take_statistics(network, inputs, config, tile)
        except RuntimeError as error:
            if not is_out_of_memory(error) or tile <= SMALLEST_TILE:
                raise
            for layer, momentum in momenta.items():
                layer.momentum = momentum
            network.train(training)
            tile //= 2
            release_memory(next(network.parameters()).device)


def _take_statistics(network: nn.Module, inputs: list[np.ndarray], config: SegmentationConfig, tile: int) -> None:
    device = next(network.parameters()).device
    batches = (
        _as_batch(image[:, rows, columns], config).contiguous(memory_format=torch.channels_last)
        for image in inputs
        for rows, columns in _tiles(image.shape[1:], tile)
    )
    with autocast(device, config.precision):
        update_bn(batches, network, device)


def _predict_in_tiles(
    inputs: np.ndarray,
    network: nn.Module,
    config: SegmentationConfig,
    tile_size: int,
    test_time_augmentation: bool,
    on_progress: OnProgress,
    should_stop: ShouldStop,
) -> np.ndarray:
    tiles = list(_tiles(inputs.shape[1:], tile_size))
    total = np.zeros(inputs.shape[1:], np.float32)
    weight = np.zeros_like(total)
    for done, window in enumerate(tiles):
        if should_stop():
            raise Cancelled
        tile = inputs[:, window[0], window[1]]
        blend = _blend_weight(tile.shape[1:])
        total[window] += blend * _predict_tile(tile, network, config, test_time_augmentation)
        weight[window] += blend
        on_progress(ProgressEvent("segment", done + 1, len(tiles)))
    return np.clip(total / weight, 0, 1)


def _predict_tile(tile: np.ndarray, network: nn.Module, config: SegmentationConfig, augment: bool) -> np.ndarray:
    """Probability of one (C, H, W) tile."""
    parameter = next(network.parameters())
    height, width = tile.shape[1:]
    batch = _as_batch(tile, config).to(parameter.device)
    total = torch.zeros(batch.shape[2:], device=parameter.device)
    views = [(turn, flip) for turn in range(4) for flip in (False, True)] if augment else [(0, False)]
    with torch.inference_mode(), autocast(parameter.device, config.precision):
        for turn, flip in views:
            view = torch.rot90(batch.flip(3) if flip else batch, turn, (2, 3))
            logits = network(view.contiguous(memory_format=torch.channels_last))[0, 0]
            probability = torch.rot90(logits.float().sigmoid(), -turn, (0, 1))
            total += probability.flip(1) if flip else probability
    return (total / len(views)).cpu().numpy()[:height, :width]


def _as_batch(tile: np.ndarray, config: SegmentationConfig) -> torch.Tensor:
    """A (C, H, W) tile as a batch of one, continued by reflection to a size that the network can halve."""
    height, width = tile.shape[1:]
    multiple = config.size_multiple
    padding = ((0, 0), (0, -height % multiple), (0, -width % multiple))
    return torch.from_numpy(np.pad(tile, padding, mode="symmetric"))[None]


def _tiles(shape: tuple[int, ...], size: int) -> Iterator[tuple[slice, slice]]:
    """Overlapping windows that cover the frame; a single one when it is no larger than a tile."""
    for row in _starts(shape[0], size):
        for col in _starts(shape[1], size):
            yield slice(row, min(row + size, shape[0])), slice(col, min(col + size, shape[1]))


def _starts(length: int, size: int) -> list[int]:
    if length <= size:
        return [0]
    count = int(np.ceil((length - OVERLAP) / (size - OVERLAP)))
    return [round(start) for start in np.linspace(0, length - size, count)]


def _blend_weight(shape: tuple[int, ...]) -> np.ndarray:
    """Falls linearly towards the tile's edge over the overlap, never to 0."""
    ramps = [np.minimum(np.minimum(np.arange(n) + 1, n - np.arange(n)) / OVERLAP, 1.0) for n in shape]
    return np.multiply.outer(*ramps).astype(np.float32)
