from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from univg.engines.adapters import (
    adapted_prediction,
    add_stage,
    attach_adapter,
    import_loha,
    load_adapter,
    save_adapter,
    training_prediction,
)
from univg.engines.config import AdapterConfig
from univg.engines.diffusion import unet_prediction
from univg.engines.folders import load_backbone
from univg.errors import InputError
from univg.types import Modality

KINDS = ("lora", "loha", "lora+loha")


def new_adapter(backbone, kind="loha", *, learnt=True, **settings):
    config = AdapterConfig(kind, **{"rank": 4, "alpha": 2, "conv_rank": 2, "conv_alpha": 2, **settings})
    generator = torch.Generator().manual_seed(0)
    adapter = attach_adapter(backbone, config, generator=generator)
    stages = kind.split("+")
    for number in range(len(stages)):
        if number:
            adapter = add_stage(adapter, stages[number], generator=generator)
        if learnt:
            for factor in adapter.factors().values():
                factor.data += 0.1 * torch.randn(factor.shape, generator=generator)
    return adapter


def inputs(backbone):
    latents = torch.randn(1, backbone.unet.config.in_channels, 8, 8, generator=torch.Generator().manual_seed(1))
    return latents, torch.tensor([500]), backbone.condition([Modality.OCTA]).detach()


@torch.no_grad()
def predict(backbone, adapter, scale):
    return adapted_prediction(backbone, adapter, scale)(*inputs(backbone))


@torch.no_grad()
def base_prediction(backbone):
    return unet_prediction(backbone)(*inputs(backbone))


@pytest.mark.parametrize("kind", KINDS)
def test_scale_zero_is_the_base_model_to_the_bit(backbone, kind):
    adapter = new_adapter(backbone, kind)
    assert not torch.equal(predict(backbone, adapter, 1.0), base_prediction(backbone))
    assert torch.equal(predict(backbone, adapter, 0.0), base_prediction(backbone))


@pytest.mark.parametrize("kind", KINDS)
def test_fresh_adapter_changes_nothing(backbone, kind):
    adapter = new_adapter(backbone, kind, learnt=False)
    assert torch.equal(predict(backbone, adapter, 1.0), base_prediction(backbone))


@pytest.mark.parametrize("kind", ("lora", "loha"))
def test_scale_multiplies_the_change_of_the_weights(backbone, kind):
    adapter = new_adapter(backbone, kind)
    half, double = adapter.weights(0.5), adapter.weights(2.0)
    for name, weight in backbone.unet.state_dict().items():
        if name in half:
            assert torch.allclose(4 * (half[name] - weight), double[name] - weight, atol=1e-5)


@pytest.mark.parametrize("kind", ("lora", "loha"))
def test_weights_in_place_equal_layers_that_run_beside_each_other(backbone, kind):
    """PEFT's own way adds the output of a second layer; merging the weights must give the same picture."""
    adapter = new_adapter(backbone, kind)
    merged = predict(backbone, adapter, 1.0)
    layers = {path.replace(".", "_"): path for path, _ in list(backbone.unet.named_modules())}
    for name, layer in adapter.stages[0].items():
        backbone.unet.set_submodule(layers[name], layer)
    assert torch.allclose(base_prediction(backbone), merged, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_adapter_survives_the_disk(backbone, compact_folder, tmp_path, kind):
    adapter = new_adapter(backbone, kind)
    save_adapter(adapter, tmp_path)
    again = load_adapter(tmp_path, load_backbone(compact_folder))
    assert again.config == adapter.config
    assert torch.equal(predict(backbone, again, 0.7), predict(backbone, adapter, 0.7))


def test_equal_adapters_are_equal_files(backbone, tmp_path):
    adapter = new_adapter(backbone, "loha")
    contents = set()
    for _ in range(6):
        save_adapter(adapter, tmp_path)
        contents.add((tmp_path / "loha.safetensors").read_bytes())
    assert len(contents) == 1


def test_gradients_reach_the_factors_and_nothing_else(backbone):
    adapter = new_adapter(backbone)
    training_prediction(adapter)(*inputs(backbone)).square().mean().backward()
    assert all(factor.grad is not None for factor in adapter.factors().values())
    assert all(weight.grad is None for weight in backbone.unet.parameters())


def test_second_stage_learns_on_top_of_the_first(backbone):
    adapter = new_adapter(backbone, "lora+loha", learnt=False)
    training_prediction(adapter)(*inputs(backbone)).square().mean().backward()
    assert all(factor.grad is not None for factor in adapter.factors(1).values())
    assert all(factor.grad is None for factor in adapter.factors(0).values())


def test_large_convolutions_have_a_rank_of_their_own(backbone):
    factors = new_adapter(backbone, rank=4, conv_rank=2).factors()
    for name, layer in backbone.unet.named_modules():
        factor = factors.get(f"lora_unet_{name.replace('.', '_')}.hada_w1_b")
        if factor is not None:
            large = isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1)
            assert len(factor) == (2 if large else 4)
    assert not any("conv1." in name for name in new_adapter(backbone, conv_rank=0).factors())


def test_first_values_are_those_of_lycoris(backbone):
    factors = new_adapter(backbone, learnt=False, rank=16).factors()

    def spread(ending):
        return np.mean([float(f.detach().std()) for name, f in factors.items() if name.endswith(ending)])

    assert spread("w1_a") == pytest.approx(0.1, rel=0.2)
    assert spread("w1_b") == pytest.approx(1, rel=0.2) and spread("w2_b") == pytest.approx(1, rel=0.2)
    assert spread("w2_a") == 0


def test_exported_loha_means_the_same_to_lycoris(backbone, tmp_path):
    """LyCORIS: ΔW = (w1_a w1_b) ∘ (w2_a w2_b) alpha / rank, by the names in the file."""
    adapter = new_adapter(backbone, rank=4, alpha=2)
    save_adapter(adapter, tmp_path)
    tensors = load_file(tmp_path / "loha.safetensors")
    changed = adapter.weights(1.0)
    names = {name.rsplit(".", 1)[0] for name in tensors}
    assert names and all(name.startswith("lora_unet_") for name in names)
    layers = {f"lora_unet_{path.replace('.', '_')}": path for path, _ in backbone.unet.named_modules()}
    for name in names:
        t = {n.rsplit(".", 1)[1]: v for n, v in tensors.items() if n.startswith(f"{name}.")}
        change = (t["hada_w1_a"] @ t["hada_w1_b"]) * (t["hada_w2_a"] @ t["hada_w2_b"])
        change = change * float(t["alpha"]) / len(t["hada_w1_b"])
        weight = backbone.unet.get_submodule(layers[name]).weight
        assert torch.allclose(changed[f"{layers[name]}.weight"] - weight, change.reshape(weight.shape), atol=1e-5)


def test_lycoris_loads_the_exported_loha(backbone, tmp_path):
    lycoris = pytest.importorskip("lycoris", reason="lycoris-lora is not installed")
    adapter = new_adapter(backbone, rank=4, alpha=2)
    save_adapter(adapter, tmp_path)
    tensors = load_file(tmp_path / "loha.safetensors")
    wanted = adapter.weights(1.0)
    layers = {f"lora_unet_{path.replace('.', '_')}": path for path, _ in backbone.unet.named_modules()}
    for name in {name.rsplit(".", 1)[0] for name in tensors}:
        layer = backbone.unet.get_submodule(layers[name])
        own = {n.rsplit(".", 1)[1]: v for n, v in tensors.items() if n.startswith(f"{name}.")}
        factors = (own.get(k) for k in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "t1", "t2"))
        with torch.no_grad():  # it copies into parameters in place
            module = lycoris.modules.loha.LohaModule.make_module_from_state_dict(
                name, layer, *factors, own["alpha"], None
            )
        change = module.get_weight(layer.weight.shape).detach()  # what its forward pass adds
        assert torch.allclose(wanted[f"{layers[name]}.weight"] - layer.weight, change, atol=1e-5)


def test_loha_of_another_tool_is_imported(backbone, tmp_path):
    adapter = new_adapter(backbone, rank=4, alpha=2)
    save_adapter(adapter, tmp_path)
    save_file(load_file(tmp_path / "loha.safetensors"), tmp_path / "foreign.safetensors")
    imported = import_loha(tmp_path / "foreign.safetensors", backbone)
    assert (imported.config.rank, imported.config.alpha, imported.config.conv_rank) == (4, 2, 2)
    assert torch.equal(predict(backbone, imported, 0.5), predict(backbone, adapter, 0.5))


def test_loha_that_changes_unknown_layers_is_refused(backbone, tmp_path):
    save_adapter(new_adapter(backbone), tmp_path)
    tensors = load_file(tmp_path / "loha.safetensors")
    save_file(tensors | {"lora_unet_conv_in.alpha": torch.tensor(1.0)}, tmp_path / "foreign.safetensors")
    with pytest.raises(InputError, match="conv_in"):
        import_loha(tmp_path / "foreign.safetensors", backbone)


@pytest.mark.parametrize("part", ["lora_te_text_model_encoder_layers_0_mlp_fc1.hada_w1_a", "dora_scale", "hada_t1"])
def test_loha_with_what_adapters_here_cannot_do_is_refused(backbone, tmp_path, part):
    save_adapter(new_adapter(backbone), tmp_path)
    tensors = load_file(tmp_path / "loha.safetensors")
    name = part if "." in part else min(tensors).replace(min(tensors).rsplit(".", 1)[1], part)
    save_file(tensors | {name: torch.ones(4, 1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(InputError, match=name):
        import_loha(tmp_path / "foreign.safetensors", backbone)


@pytest.mark.parametrize("alpha", [0.5, 1.5])
def test_imported_loha_keeps_a_fractional_alpha(backbone, tmp_path, alpha):
    save_adapter(new_adapter(backbone, rank=4, alpha=2, conv_rank=2, conv_alpha=2), tmp_path)
    tensors = load_file(tmp_path / "loha.safetensors")
    tensors |= {name: torch.tensor(alpha) for name in tensors if name.endswith(".alpha")}
    save_file(tensors, tmp_path / "foreign.safetensors")
    imported = import_loha(tmp_path / "foreign.safetensors", backbone)
    whole = load_adapter(tmp_path, backbone)
    for name, weight in whole.weights(1.0).items():
        base = backbone.unet.get_parameter(name)
        torch.testing.assert_close(imported.weights(1.0)[name] - base, (weight - base) * alpha / 2)
    save_file(tensors | {n: torch.tensor(0.0) for n in tensors if n.endswith(".alpha")}, tmp_path / "zero.safetensors")
    with pytest.raises(InputError, match="alpha"):
        import_loha(tmp_path / "zero.safetensors", backbone)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", KINDS)
def test_factors_start_alike_on_a_gpu(compact_folder, kind):
    found = [new_adapter(load_backbone(compact_folder, device=device), kind) for device in ("cpu", "cuda")]
    for name, weight in found[0].weights(1.0).items():
        torch.testing.assert_close(found[1].weights(1.0)[name].cpu(), weight)


def test_adapter_of_another_base_is_refused(backbone, tmp_path):
    save_adapter(replace(new_adapter(backbone), base_sha256="0" * 64), tmp_path)
    with pytest.raises(InputError, match="another base model"):
        load_adapter(tmp_path, backbone)


@pytest.mark.parametrize("lost", ["lora", "loha"])
def test_half_of_a_hybrid_adapter_is_refused(backbone, tmp_path, lost):
    save_adapter(new_adapter(backbone, "lora+loha"), tmp_path)
    (tmp_path / f"{lost}.safetensors").unlink()
    with pytest.raises(InputError, match=r"lora\+loha.* got lo[rh]a.safetensors"):
        load_adapter(tmp_path, backbone)


@pytest.mark.parametrize("damage", ["truncate", "rename", "reshape", "remove"])
def test_damaged_adapter_is_refused(backbone, tmp_path, damage):
    save_adapter(new_adapter(backbone), tmp_path)
    file = tmp_path / "loha.safetensors"
    tensors = load_file(file)
    name = next(iter(tensors))
    if damage == "truncate":
        file.write_bytes(file.read_bytes()[:100])
    elif damage == "rename":
        save_file({f"x{n}": t for n, t in tensors.items()}, file)
    elif damage == "reshape":
        save_file({**tensors, name: torch.zeros(1)}, file)
    else:
        file.unlink()
    with pytest.raises(InputError):
        load_adapter(tmp_path, backbone)


def test_foreign_loha_that_does_not_fit_is_refused(backbone, tmp_path):
    save_file({"lora_unet_somewhere.hada_w1_b": torch.zeros(4, 4)}, tmp_path / "foreign.safetensors")
    with pytest.raises(InputError, match="does not fit"):
        import_loha(tmp_path / "foreign.safetensors", backbone)


@pytest.mark.parametrize("wrong", [{"kind": "dora"}, {"rank": 0}, {"conv_rank": -1}, {"alpha": 0}])
def test_nonsense_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AdapterConfig(**wrong)


def test_stable_diffusion_takes_adapters_too(sd_folder):
    backbone = load_backbone(sd_folder)
    adapter = new_adapter(backbone, rank=4)
    assert not torch.equal(predict(backbone, adapter, 0.7), base_prediction(backbone))
    assert torch.equal(predict(backbone, adapter, 0.0), base_prediction(backbone))
