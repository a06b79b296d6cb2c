"""Low-rank changes of a U-Net with a scale α that can be changed between two pictures (section 3.3.1, eqs. 8 and 15).

PEFT makes the factors. The U-Net itself is never altered: its layers are handed to PEFT in a dictionary of their own,
and the U-Net runs with the weights W + α ΔW put in their place. α = 0 is therefore the base model, to the bit, and one
U-Net serves any number of adapters. Training this way also computes each layer once instead of twice.

Files use the names of kohya's scripts and LyCORIS (``lora_unet_<path>.hada_w1_a`` …), so other tools load them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import peft
import safetensors.torch
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from torch import nn
from torch.func import functional_call

from univg.engines.backbone import DiffusionBackbone
from univg.engines.config import AdapterConfig
from univg.engines.diffusion import Predict
from univg.errors import InputError
from univg.io import write_bytes_atomic

_PREFIX = "lora_unet_"
_NAME = "default"  # PEFT's name of an adapter; each of ours has layers of its own
_FORMAT = "univg-adapter/1"
_BLOCKS = ("down_blocks", "mid_block", "up_blocks")
# Name of a factor in files: where PEFT keeps it.
_FACTORS = {
    "loha": {n: (n,) for n in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")},
    "lora": {"lora_down.weight": ("lora_A", "weight"), "lora_up.weight": ("lora_B", "weight")},
}


@dataclass(frozen=True, eq=False)
class Adapter:
    """A change of a U-Net's weights.

    Attributes
    ----------
    config : AdapterConfig
    base_sha256 : str
        Of the U-Net that it belongs to.
    unet : torch.nn.Module
        Stays as it is.
    stages : tuple of ModuleDict
        PEFT layers by the name of the U-Net layer, dots replaced: one stage, or a LoRA and then a LoHa.
    card : mapping
        What it was trained on.
    """

    config: AdapterConfig
    base_sha256: str
    unet: nn.Module
    stages: tuple[nn.ModuleDict, ...]
    card: Mapping = field(default_factory=dict)

    def factors(self, stage: int = -1) -> dict[str, nn.Parameter]:
        """The trainable factors of a stage, by their name in files."""
        return dict(_factors(self.stages[stage]))

    def weights(self, scale: float) -> dict[str, torch.Tensor]:
        """The changed weights W + α ΔW of the U-Net by name; empty for a scale of 0."""
        if scale == 0:
            return {}
        names = {_file_name(path): path for path, _ in _target_layers(self.unet, self.config)}
        changed = {}
        for name, path in names.items():
            change = sum(stage[name].get_delta_weight(_NAME) for stage in self.stages if name in stage)
            if isinstance(change, torch.Tensor):
                base = self.unet.get_submodule(path).weight
                # A copy has the layout of the base, by which kernels are chosen: a change of zero changes no bit.
                changed[f"{path}.weight"] = base.detach().clone().add_(scale * change.to(base.dtype))
        return changed


def attach_adapter(
    backbone: DiffusionBackbone, config: AdapterConfig, *, generator: torch.Generator, kind: str | None = None
) -> Adapter:
    """A fresh adapter, which changes nothing yet.

    Parameters
    ----------
    backbone : DiffusionBackbone
    config : AdapterConfig
        For 'lora+loha' the adapter begins as a LoRA; `add_stage` puts the LoHa on top of it.
    generator : torch.Generator
        For the first values of the factors.
    kind : {'lora', 'loha'}, optional
        Of the first stage; the first of ``config.kind`` by default.
    """
    kind = kind or config.kind.split("+")[0]
    stage = _new_stage(backbone.unet, config, kind, generator)
    return Adapter(config, backbone.sha256, backbone.unet, (stage,))


def add_stage(adapter: Adapter, kind: str, *, generator: torch.Generator) -> Adapter:
    """Freeze what `adapter` has learnt and put fresh factors of `kind` on top."""
    for stage in adapter.stages:
        stage.requires_grad_(False)
    stage = _new_stage(adapter.unet, adapter.config, kind, generator)
    return replace(adapter, stages=(*adapter.stages, stage))


def adapted_prediction(backbone: DiffusionBackbone, adapter: Adapter | None, scale: float) -> Predict:
    """The U-Net with an adapter at a fixed scale, as a `univg.engines.diffusion.Predict`, for sampling."""
    with torch.no_grad():
        changed = {} if adapter is None else adapter.weights(scale)
    return _prediction_with(backbone.unet, changed)


def training_prediction(adapter: Adapter) -> Predict:
    """The U-Net with an adapter at scale 1, through which gradients reach the factors."""

    def predict(latents: torch.Tensor, timesteps: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return _prediction_with(adapter.unet, adapter.weights(1.0))(latents, timesteps, tokens)

    return predict


def _prediction_with(unet: nn.Module, changed: Mapping[str, torch.Tensor]) -> Predict:
    def predict(latents: torch.Tensor, timesteps: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        arguments = {"encoder_hidden_states": tokens}
        if not changed:
            return unet(latents, timesteps, **arguments).sample
        return functional_call(unet, dict(changed), (latents, timesteps), arguments).sample

    return predict


# --- PEFT


def _target_layers(unet: nn.Module, config: AdapterConfig) -> Iterator[tuple[str, nn.Module]]:
    """Linear layers and convolutions inside the blocks, as LyCORIS takes them."""
    for path, layer in unet.named_modules():
        if path.split(".")[0] not in _BLOCKS:
            continue
        if isinstance(layer, nn.Linear) or (
            isinstance(layer, nn.Conv2d) and (layer.kernel_size == (1, 1) or config.conv_rank)
        ):
            yield path, layer


def _file_name(path: str) -> str:
    return path.replace(".", "_")


def _new_stage(unet: nn.Module, config: AdapterConfig, kind: str, generator: torch.Generator) -> nn.ModuleDict:
    layers = {_file_name(path): layer for path, layer in _target_layers(unet, config)}
    large = [n for n, layer in layers.items() if isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1)]
    patterns = {
        "rank_pattern": dict.fromkeys(large, config.conv_rank),
        "alpha_pattern": dict.fromkeys(large, config.conv_alpha),
    }
    if kind == "loha":
        settings = peft.LoHaConfig(
            r=config.rank, alpha=config.alpha, target_modules=list(layers), use_effective_conv2d=False, **patterns
        )
    else:
        settings = peft.LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=list(layers), **patterns)
    stage = peft.inject_adapter_in_model(settings, nn.ModuleDict(layers), adapter_name=_NAME)
    if kind == "loha":
        _initialise_as_lycoris(stage, generator)
    else:
        for name, factor in _factors(stage):
            if name.endswith("lora_down.weight"):
                bound = (factor[0].numel()) ** -0.5
                # Drawn on the CPU, where the generator is, and so the same on every device.
                factor.data.copy_(torch.empty(factor.shape).uniform_(-bound, bound, generator=generator))
    return stage


@torch.no_grad()
def _initialise_as_lycoris(stage: nn.ModuleDict, generator: torch.Generator) -> None:
    """PEFT's first values are so small that a LoHa hardly moves in a few hundred steps; LyCORIS' are not.

    The change is still exactly zero at the start.
    """
    for name, factor in _factors(stage):
        if name.endswith("hada_w2_a"):
            factor.zero_()
        else:
            sd = 0.1 if name.endswith("hada_w1_a") else 1.0
            factor.copy_(torch.randn(factor.shape, generator=generator) * sd)


def _factors(stage: nn.ModuleDict) -> Iterator[tuple[str, nn.Parameter]]:
    for name, layer in stage.items():
        for file_name, where in _FACTORS[_kind_of(stage)].items():
            found = getattr(layer, where[0])[_NAME]
            yield f"{_PREFIX}{name}.{file_name}", getattr(found, where[1]) if len(where) > 1 else found


def _kind_of(stage: nn.ModuleDict) -> str:
    first = next(iter(stage.values()))
    return "loha" if hasattr(first, "hada_w1_a") else "lora"


# --- files


def save_adapter(adapter: Adapter, folder: str | Path) -> None:
    """Write each stage as ``lora.safetensors`` or ``loha.safetensors`` (float32) to an existing folder, atomically.

    The configuration, the hash of the base and the card are in the files' metadata.
    """
    for stage in adapter.stages:
        kind = _kind_of(stage)
        tensors = {name: factor.detach().cpu().contiguous().float() for name, factor in _factors(stage)}
        for name, layer in stage.items():
            tensors[f"{_PREFIX}{name}.alpha"] = torch.tensor(_alpha_of(layer))
        metadata = {
            "format": _FORMAT,
            "config": json.dumps(adapter.config.to_json()),
            "base_sha256": adapter.base_sha256,
            "card": json.dumps(dict(adapter.card)),
        }
        content = _with_sorted_metadata(safetensors.torch.save(tensors, metadata))
        write_bytes_atomic(Path(folder) / f"{kind}.safetensors", content)


def _with_sorted_metadata(content: bytes) -> bytes:
    """A safetensors file whose bytes follow from its content: the library writes metadata in an order of chance."""
    start, size = 8, int.from_bytes(content[:8], "little")
    header = json.loads(content[start : start + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return content[:start] + text.ljust(size) + content[start + size :]


def load_adapter(folder: str | Path, backbone: DiffusionBackbone) -> Adapter:
    """Read what `save_adapter` wrote.

    Raises
    ------
    InputError
        If it is missing, in part or whole, or damaged, or belongs to another base.
    """
    folder = Path(folder)
    files = [folder / f"{kind}.safetensors" for kind in ("lora", "loha")]
    files = [file for file in files if file.is_file()]
    if not files:
        raise InputError("No adapter here", path=folder, fix="Adapt the mask engine first.")
    stages, metadata = [], {}
    for file in files:
        tensors, metadata = _read(file)
        try:
            if metadata["format"] != _FORMAT:
                raise ValueError(f"its format is {metadata['format']!r}, expected {_FORMAT!r}")
            config = AdapterConfig.from_json(json.loads(metadata["config"]))
            card = json.loads(metadata["card"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError("This adapter cannot be read", path=file, fix="Adapt the engine again.") from error
        if [found.stem for found in files] != config.kind.split("+"):
            raise InputError(
                f"An adapter of kind {config.kind} has a file for each part, got {' and '.join(f.name for f in files)}",
                path=folder,
                fix="Put back the files that were saved together, or adapt the engine again.",
            )
        if metadata["base_sha256"] != backbone.sha256:
            raise InputError(
                "This adapter was made for another base model",
                path=file,
                fix="Choose that one, or adapt the engine again.",
            )
        stages.append(_filled_stage(backbone.unet, config, file.stem, tensors, file))
    return Adapter(config, backbone.sha256, backbone.unet, tuple(stages), card)


def import_loha(file: str | Path, backbone: DiffusionBackbone) -> Adapter:
    """A LoHa that kohya's scripts or LyCORIS made for this U-Net; ranks are read from the file.

    Raises
    ------
    InputError
        If the file is damaged, changes anything but layers of this U-Net, or them in another way (as DoRA does), or has
        other shapes.
    """
    tensors, _ = _read(Path(file))
    ranks: dict[bool, set[tuple[int, float]]] = {False: set(), True: set()}
    paths = {_file_name(path): layer for path, layer in _target_layers(backbone.unet, AdapterConfig())}
    for name, layer in paths.items():
        factor = tensors.get(f"{_PREFIX}{name}.hada_w1_b")
        if factor is None:
            continue
        large = isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1)
        alpha = tensors.get(f"{_PREFIX}{name}.alpha")
        ranks[large].add((len(factor), len(factor) if alpha is None else float(alpha)))
    if not ranks[False] or any(len(found) > 1 for found in ranks.values()):
        raise InputError(
            "This LoHa does not fit: " + ("its ranks differ from layer to layer" if ranks[False] else "no known layer"),
            path=file,
            fix="Use one made for this base model, with one rank for linear layers and one for convolutions.",
        )
    known = {f"{_PREFIX}{path}.{part}" for path in paths for part in (*_FACTORS["loha"], "alpha")}
    if unknown := sorted(tensors.keys() - known):
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise InputError(
            f"This LoHa has parts that adapters here do not have: {unknown[0]}{more}",
            path=file,
            fix="Use one without DoRA, for the attention, feed-forward and convolution layers of this U-Net alone.",
        )
    (rank, alpha), (conv_rank, conv_alpha) = next(iter(ranks[False])), next(iter(ranks[True]), (0, 1))
    try:
        config = AdapterConfig("loha", rank, alpha, conv_rank, conv_alpha)
    except ValueError as error:
        raise InputError(f"This LoHa cannot be used: {error}", path=file, fix="Use another file.") from error
    stage = _filled_stage(backbone.unet, config, "loha", tensors, Path(file))
    return Adapter(config, backbone.sha256, backbone.unet, (stage,), {"imported": True})


def _filled_stage(
    unet: nn.Module, config: AdapterConfig, kind: str, tensors: Mapping[str, torch.Tensor], path: Path
) -> nn.ModuleDict:
    stage = _new_stage(unet, config, kind, torch.Generator().manual_seed(0))
    for name, factor in _factors(stage):
        if name not in tensors or tensors[name].shape != factor.shape:
            got = "nothing" if name not in tensors else f"shape {tuple(tensors[name].shape)}"
            raise InputError(
                f"This adapter does not fit the base model: {name} has {got}, expected shape {tuple(factor.shape)}",
                path=path,
                fix="Choose the base model that it was made for.",
            )
        factor.data.copy_(tensors[name])
    return stage.requires_grad_(False)


def _alpha_of(layer: BaseTunerLayer) -> float:
    return float((layer.alpha if hasattr(layer, "alpha") else layer.lora_alpha)[_NAME])


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    try:
        with safetensors.safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(
            "This adapter file is damaged", path=path, fix="Adapt the engine again, or use another file."
        ) from error
