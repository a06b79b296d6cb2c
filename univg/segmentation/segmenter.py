"""A trained segmenter: network, recipe, and what it was trained on, in one folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from univg.errors import InputError
from univg.io import read_json, sha256_file, write_bytes_atomic, write_image, write_json_atomic
from univg.segmentation.config import HELD_OUT_PICTURE, SegmentationConfig
from univg.segmentation.networks import build_network
from univg.training.device import resolve_device
from univg.types import Modality

_WEIGHTS, _CARD = "model.safetensors", "segmenter.json"
_FORMAT = "univg-segmenter/1"


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A network ready to segment images of one modality.

    Attributes
    ----------
    network : torch.nn.Module
        In evaluation mode, on `device`.
    config : SegmentationConfig
    modality : Modality
    threshold : float
        Probability from which a pixel is a vessel.
    card : mapping
        What it was trained on and how it did: names and hashes of the support images, figures on the held-out one.
    held_out_probability : (H, W) ndarray of float32 in [0, 1], or None
        Of the held-out image at working size, from before it joined the training: the only honest one there is. Known
        after training; `load` leaves it on the disk.
    """

    network: nn.Module
    config: SegmentationConfig
    modality: Modality
    threshold: float = 0.5
    card: Mapping = field(default_factory=dict)
    held_out_probability: np.ndarray | None = None

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def save(self, folder: str | Path) -> None:
        """Write weights (safetensors, float32) and card (JSON) to an existing folder, each atomically."""
        state = {name: value.detach().cpu().contiguous() for name, value in self.network.state_dict().items()}
        write_bytes_atomic(Path(folder) / _WEIGHTS, safetensors.torch.save(state))
        card = {
            "format": _FORMAT,
            "modality": str(self.modality),
            "threshold": self.threshold,
            "config": self.config.to_json(),
            "card": dict(self.card),
        }
        if self.held_out_probability is not None:
            write_image(Path(folder) / HELD_OUT_PICTURE, self.held_out_probability)
        write_json_atomic(Path(folder) / _CARD, card)

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> Segmenter:
        """Read what `save` wrote; `InputError` when it is missing, damaged or made by a newer version.

        It stays on the CPU, which is fast enough for single images, unless `device`, as in `train_segmenter`, is named.
        """
        folder = Path(folder)
        for name in (_CARD, _WEIGHTS):
            if not (folder / name).is_file():
                raise InputError(f"No segmenter here: {name} is missing", path=folder, fix="Adapt the project first.")
        try:
            data = read_json(folder / _CARD)
            if data["format"] != _FORMAT:
                raise ValueError(f"its format is {data['format']!r}, expected {_FORMAT!r}")
            config = SegmentationConfig.from_json(data["config"])
            network = build_network(config)
            network.load_state_dict(safetensors.torch.load_file(folder / _WEIGHTS))
            modality, threshold, card = Modality(data["modality"]), float(data["threshold"]), data["card"]
        except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0][:200]
            raise InputError(
                f"This segmenter cannot be read: {reason}", path=folder, fix="Use another version, or adapt again."
            ) from error
        return cls(network.to(resolve_device(device)).eval(), config, modality, threshold, card)


def weights_sha256(folder: Path) -> str:
    """Of the weights of the segmenter in `folder`; versions of two projects have the same names."""
    return sha256_file(folder / _WEIGHTS)
