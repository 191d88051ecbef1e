"""An adapter that is not what was trained, or a merge that rounds twice, is found by nobody."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file

from lmwright.finetuning.lora import LoraLinear, _LoraProduct, add_lora, merge, save_adapter

IDS = torch.randint(3, 300, (2, 12), generator=torch.Generator().manual_seed(0))


def lora_layers(model):
    return {n: m for n, m in model.named_modules() if isinstance(m, LoraLinear)}


@pytest.fixture
def adapted(tiny_model):
    """An adapter as after training: no part of it is nought."""
    add_lora(tiny_model, 4, alpha=8, seed=0)
    generator = torch.Generator().manual_seed(1)
    for layer in lora_layers(tiny_model).values():
        layer.b.data.normal_(0, 0.2, generator=generator)
    return tiny_model


def test_it_starts_as_the_model_it_was_added_to(tiny_model):
    expected = tiny_model(IDS)
    add_lora(tiny_model, 4, alpha=8, seed=0)
    assert torch.equal(tiny_model(IDS), expected)


def test_only_the_update_is_trained_in_every_linear_layer_of_the_blocks(tiny_model):
    add_lora(tiny_model, 4, alpha=8, seed=0)
    assert len(lora_layers(tiny_model)) == 2 * 7
    trained = {n.rsplit(".", 1)[1] for n, p in tiny_model.named_parameters() if p.requires_grad}
    assert trained == {"a", "b"}
    assert not isinstance(tiny_model.head, LoraLinear)


def test_the_start_depends_on_the_seed_alone(tiny_model):
    models = [copy.deepcopy(tiny_model) for _ in range(3)]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        add_lora(model, 4, alpha=8, seed=seed)
    first, same, other = ({n: m.a for n, m in lora_layers(m).items()} for m in models)
    assert all(torch.equal(a, same[name]) for name, a in first.items())
    assert not any(torch.equal(a, other[name]) for name, a in first.items())
    # PEFT's range: 1 / sqrt(K), reached on both sides.
    a = first["decoder.blocks.0.mlp.down"]
    assert 0.9 < float(a.detach().abs().max()) * 128**0.5 <= 1
    assert float(a.detach().min()) < 0 < float(a.detach().max())


def tensors(dtype):
    generator = torch.Generator().manual_seed(0)
    shapes = {"x": (2, 3, 6), "weight": (5, 6), "a": (2, 6), "b": (5, 2)}
    made = {n: torch.randn(s, dtype=dtype, generator=generator) for n, s in shapes.items()}
    for name in ("x", "a", "b"):
        made[name].requires_grad_()
    return made


def test_value_and_gradients_are_those_of_autograd():
    t = tensors(torch.float32)
    upstream = torch.randn(2, 3, 5)
    before = upstream.clone()
    found = _LoraProduct.apply(t["x"], t["weight"], t["a"], t["b"], 1.5)
    expected = t["x"] @ (t["weight"] + 1.5 * t["b"] @ t["a"]).T
    torch.testing.assert_close(found, expected)
    inputs = (t["x"], t["a"], t["b"])
    for mine, theirs in zip(
        torch.autograd.grad(found, inputs, upstream),
        torch.autograd.grad(expected, inputs, upstream),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
    assert torch.equal(upstream, before)


def test_gradcheck():
    t = tensors(torch.float64)
    # Gradients of a and b are handed back in fp32, hence the tolerance.
    assert torch.autograd.gradcheck(
        lambda x, a, b: _LoraProduct.apply(x, t["weight"], a, b, 1.5),
        (t["x"], t["a"], t["b"]), atol=1e-5, rtol=1e-5,
    )  # fmt: skip


def test_an_input_that_needs_no_gradient_gets_none():
    t = tensors(torch.float32)
    x = t["x"].detach()
    _LoraProduct.apply(x, t["weight"], t["a"], t["b"], 1.0).sum().backward()
    assert x.grad is None
    assert t["a"].grad is not None


def test_the_merged_model_has_the_adapters_logits(adapted):
    expected = adapted(IDS).detach()
    merge(adapted)
    assert not lora_layers(adapted)
    torch.testing.assert_close(adapted(IDS).detach(), expected, rtol=0, atol=1e-5)


def test_merging_adds_the_update_in_fp32_bit_for_bit(adapted):
    expected = {}
    for name, layer in lora_layers(adapted).items():
        update = torch.tensor(8 / 4) * (layer.b.detach() @ layer.a.detach())
        expected[f"{name}.weight"] = layer.base.weight + update
    merge(adapted)
    weights = adapted.state_dict()
    for name, weight in expected.items():
        assert torch.equal(weights[name], weight), name


def test_a_rounded_model_is_merged_with_the_exact_base_and_rounded_once(adapted, tiny_config):
    exact = copy.deepcopy(adapted)
    for name, layer in lora_layers(exact).items():
        exact.set_submodule(name, layer.base)
    updates = {name: layer.delta() for name, layer in lora_layers(adapted).items()}
    for layer in lora_layers(adapted).values():
        layer.base.to(torch.bfloat16)
    merge(adapted, exact=exact)
    for name, update in updates.items():
        expected = (exact.get_submodule(name).weight + update).bfloat16()
        assert torch.equal(adapted.get_submodule(name).weight, expected), name


def test_in_bf16_the_update_keeps_fp32_masters(tiny_model):
    tiny_model.bfloat16()
    tiny_model.compute_dtype = torch.bfloat16
    add_lora(tiny_model, 4, alpha=8, seed=0)
    logits = tiny_model(IDS)
    logits.float().square().sum().backward()
    assert logits.dtype == torch.bfloat16
    for layer in lora_layers(tiny_model).values():
        assert (layer.a.dtype, layer.b.dtype) == (torch.float32, torch.float32)
        assert layer.b.grad.dtype == torch.float32
        assert bool(layer.b.grad.any())


def test_the_adapter_on_disk_is_complete(adapted, tmp_path):
    save_adapter(adapted, tmp_path, base="some/base", rank=4, alpha=8)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (4, 8)
    assert config["base_model_name_or_path"] == "some/base"
    assert config["target_modules"] == sorted(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert len(tensors) == 2 * 2 * 7
    prefix = "base_model.model.model.layers.1.self_attn.o_proj"
    layer = adapted.decoder.blocks[1].attention.out
    assert torch.equal(tensors[f"{prefix}.lora_A.weight"], layer.a)
    assert torch.equal(tensors[f"{prefix}.lora_B.weight"], layer.b)
