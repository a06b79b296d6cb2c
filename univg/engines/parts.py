"""Reading and writing the parts of a diffusion model, as diffusers lays them out, without the network or pickle."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import DDPMScheduler
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from torch import nn

from univg.errors import InputError


def save_half(part: ModelMixin, folder: Path, changed: Mapping[str, torch.Tensor] = {}) -> None:
    """Write a float16 copy of `part`; the part itself stays as it is."""
    state = {**part.state_dict(), **changed}
    copy = type(part).from_config(part.config)
    copy.load_state_dict(state)
    copy.register_to_config(_name_or_path="")  # where it was once loaded from concerns nobody
    copy.half().save_pretrained(folder, safe_serialization=True)


def load_part(kind: type[ModelMixin], folder: Path) -> ModelMixin:
    with reading(folder):
        part, loading = kind.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            low_cpu_mem_usage=False,
            torch_dtype=torch.float32,
            output_loading_info=True,
        )
    check_complete(loading, folder)
    return part.eval().requires_grad_(False)


def check_complete(loading: Mapping, folder: Path) -> None:
    """`InputError` unless all weights came from the file, by what diffusers or transformers tell of a loading.

    Both fill what is missing with random numbers.
    """
    lacking = {*loading["missing_keys"], *(name for name, *_ in loading["mismatched_keys"])}
    lacking = sorted(name for name in lacking if not name.endswith("position_ids"))  # counted, not learnt
    if lacking:
        others = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise InputError(
            f"Weights are missing or of another shape: {lacking[0]}{others}",
            path=folder,
            fix="Check that the files are complete.",
        )


@contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """Networks in evaluation mode, and in training mode again whatever happens."""
    for network in networks:
        network.eval()
    try:
        yield
    finally:
        for network in networks:
            network.train()


def load_scheduler(folder: Path) -> DDPMScheduler:
    with reading(folder):
        return DDPMScheduler.from_pretrained(folder, local_files_only=True)


@contextmanager
def quietly():
    """No warnings of diffusers."""
    level = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(level)


@contextmanager
def reading(path: Path):
    """Turn what diffusers and transformers raise on missing or damaged files into one kind of error, quietly."""
    try:
        with quietly():
            yield
    except (SafetensorError, RuntimeError, OSError, KeyError, TypeError, ValueError, json.JSONDecodeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"These weights cannot be read: {reason}", path=path, fix="Check that the files are complete."
        ) from error
