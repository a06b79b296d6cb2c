"""Choosing where and in which precision to compute."""

from __future__ import annotations

import torch

from univg.errors import InputError
from univg.training import parallel


def resolve_device(name: str) -> torch.device:
    """The device called `name`: 'auto', 'cpu', 'cuda' or 'mps'; 'auto' takes the fastest one present."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    parallel.join()
    if parallel.process_count() > 1 and name in ("auto", "cuda") and available["cuda"]:
        return parallel.own_device()
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if available[kind]))
    if name not in available:
        raise InputError(f"Unknown device {name!r}", fix="Use auto, cpu, cuda or mps.")
    if not available[name]:
        raise InputError(f"This machine has no usable {name!r} device", fix="Use --device cpu, or auto.")
    return torch.device(name)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Mixed precision on `device`; 'auto' takes bfloat16 only where the hardware computes it natively."""
    if precision == "auto":
        precision = "bfloat16" if _has_native_bfloat16(device) else "float32"
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that the device has no memory left; the one of Apple's GPUs has no class of its own."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "MPS backend out of memory" in str(error)


def release_memory(device: torch.device) -> None:
    """Give back what the allocator of `device` keeps for later."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def _has_native_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        if not torch.backends.mkldnn.is_available():  # builds for Apple silicon lack the operator that is asked below
            return False
        return torch.ops.mkldnn._is_mkldnn_bf16_supported() and torch.cpu._is_avx512_bf16_supported()
    return False
