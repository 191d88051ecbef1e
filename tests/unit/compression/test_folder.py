"""What compressing changes must be the rounding and nothing else, and a refusal must be early."""

import json
import math

import pytest
import torch

from lmwright.compression.config import Compress
from lmwright.compression.folder import compress_folder
from lmwright.compression.rtn import quantize_groups
from lmwright.core.errors import ModelError, RequestError
from lmwright.formats.packed import dequantize, unpack
from lmwright.formats.safetensors_folder import read_weights, write_weights

D_MODEL, D_FF, N_VOCAB = 32, 48, 40
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": N_VOCAB,
    "hidden_size": D_MODEL,
    "intermediate_size": D_FF,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SHAPES = {
    "self_attn.q_proj": (D_MODEL, D_MODEL),
    "self_attn.k_proj": (D_MODEL // 2, D_MODEL),
    "self_attn.v_proj": (D_MODEL // 2, D_MODEL),
    "self_attn.o_proj": (D_MODEL, D_MODEL),
    "mlp.gate_proj": (D_FF, D_MODEL),
    "mlp.up_proj": (D_FF, D_MODEL),
    "mlp.down_proj": (D_MODEL, D_FF),
    "input_layernorm": (D_MODEL,),
    "post_attention_layernorm": (D_MODEL,),
}
N_PARAMS = 2 * sum(math.prod(shape) for shape in SHAPES.values()) + D_MODEL + N_VOCAB * D_MODEL


def random_weight(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def write_model(folder, *, dtype=torch.float32, extra=None, **settings):
    tensors = {
        "model.embed_tokens.weight": random_weight(N_VOCAB, D_MODEL, seed=1, dtype=dtype),
        "model.norm.weight": random_weight(D_MODEL, seed=2, dtype=dtype),
    }
    for layer in range(2):
        for number, (name, shape) in enumerate(SHAPES.items()):
            seed = 100 * layer + number
            tensors[f"model.layers.{layer}.{name}.weight"] = random_weight(
                *shape, seed=seed, dtype=dtype
            )
    tensors.update(extra or {})
    write_weights(tensors, folder)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **settings}))
    (folder / "tokenizer.json").write_text('{"tokenizer": true}')
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "README.md").write_text("of the uncompressed model")
    return tensors


def config(**values):
    return Compress(**{"model": "x", "method": "int4", "group_size": 16, **values})


@pytest.mark.parametrize("method", ["int8", "int4"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_folder_reads_back_as_the_rounded_weights(tmp_path, method, dtype):
    tensors = write_model(tmp_path / "in", dtype=dtype)
    result = compress_folder(tmp_path / "in", config(method=method), tmp_path / "out")
    stored = read_weights(tmp_path / "out")
    settings = json.loads((tmp_path / "out" / "config.json").read_text())
    restored = unpack(stored, settings["quantization_config"])
    bits = {"int8": 8, "int4": 4}[method]
    assert restored.keys() == tensors.keys()
    for name, weight in tensors.items():
        if "_proj" in name:
            assert f"{name}_packed" in stored
            expected = dequantize(*quantize_groups(weight, bits=bits, group_size=16))
        elif name == "model.embed_tokens.weight":
            expected = weight.bfloat16() if dtype == torch.float32 else weight
        else:
            expected = weight
        assert restored[name].dtype == expected.dtype
        assert torch.equal(restored[name], expected), name
    assert result["n_params"] == N_PARAMS


def test_config_and_tokenizer_go_along_and_the_model_card_does_not(tmp_path):
    write_model(tmp_path / "in")
    compress_folder(tmp_path / "in", config(), tmp_path / "out")
    settings = json.loads((tmp_path / "out" / "config.json").read_text())
    quantization = settings.pop("quantization_config")
    assert settings == CONFIG
    assert quantization["ignore"] == ["lm_head"]
    assert quantization["config_groups"]["group_0"]["weights"]["num_bits"] == 4
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert (tmp_path / "out" / "tokenizer.json").read_text() == '{"tokenizer": true}'


def test_result_counts_each_part(tmp_path):
    tensors = write_model(tmp_path / "in")
    result = compress_folder(tmp_path / "in", config(), tmp_path / "out")
    sizes = {
        when: (tmp_path / folder / "model.safetensors").stat().st_size
        for when, folder in (("before", "in"), ("after", "out"))
    }
    assert result["size_bytes"] == sizes
    assert result["bits_per_weight"] == {k: 8 * size / N_PARAMS for k, size in sizes.items()}
    parts = result["parts"]
    assert list(parts) == ["embedding", "attention", "feed-forward", "norms"]
    assert sum(part["n_params"] for part in parts.values()) == N_PARAMS
    n_mlp, n_matrices = 2 * 3 * D_MODEL * D_FF, 6
    # 4 bits a weight, 16 for each 16 weights, and the shape: two int64.
    assert parts["feed-forward"]["size_bytes"] == n_mlp // 2 + n_mlp // 8 + 16 * n_matrices
    assert parts["embedding"]["size_bytes"] == 2 * N_VOCAB * D_MODEL
    assert parts["norms"] == {
        "n_params": 5 * D_MODEL,
        "size_bytes": 4 * 5 * D_MODEL,
        "bits_per_weight": 32.0,
        "relative_error": 0.0,
    }
    mlp = [name for name in tensors if ".mlp." in name]
    rounded = {n: dequantize(*quantize_groups(tensors[n], bits=4, group_size=16)) for n in mlp}
    error = sum(float((rounded[n] - tensors[n]).double().square().sum()) for n in mlp)
    norm = sum(float(tensors[n].double().square().sum()) for n in mlp)
    assert parts["feed-forward"]["relative_error"] == pytest.approx(
        math.sqrt(error / norm), rel=1e-6
    )
    assert json.loads(json.dumps(result)) == result


def test_untied_head_stays_in_16_bits(tmp_path):
    head = random_weight(N_VOCAB, D_MODEL, seed=9)
    extra = {"lm_head.weight": head}
    write_model(tmp_path / "in", extra=extra, tie_word_embeddings=False)
    result = compress_folder(tmp_path / "in", config(), tmp_path / "out")
    assert torch.equal(read_weights(tmp_path / "out")["lm_head.weight"], head.bfloat16())
    sizes = {name: part["n_params"] for name, part in result["parts"].items()}
    assert sizes["embedding"] == sizes["head"] == N_VOCAB * D_MODEL


def test_second_copy_of_a_tied_head_is_left_out(tmp_path):
    write_model(tmp_path / "in", extra={"lm_head.weight": random_weight(N_VOCAB, D_MODEL, seed=1)})
    result = compress_folder(tmp_path / "in", config(), tmp_path / "out")
    assert "lm_head.weight" not in read_weights(tmp_path / "out")
    assert result["n_params"] == N_PARAMS


def test_sharded_model_is_read(tmp_path):
    tensors = write_model(tmp_path / "in")
    write_weights(tensors, tmp_path / "in", max_shard_bytes=10_000)
    assert not (tmp_path / "in" / "model.safetensors").exists()
    write_model(tmp_path / "whole")
    compress_folder(tmp_path / "in", config(), tmp_path / "a")
    compress_folder(tmp_path / "whole", config(), tmp_path / "b")
    first, second = ((tmp_path / x / "model.safetensors").read_bytes() for x in "ab")
    assert sorted(read_weights(tmp_path / "a")) == sorted(read_weights(tmp_path / "b"))
    assert first == second


def test_unfitting_group_size_names_the_tensor_and_what_fits(tmp_path):
    write_model(tmp_path / "in")
    with pytest.raises(RequestError) as caught:
        compress_folder(tmp_path / "in", config(group_size=32), tmp_path / "out")
    assert str(caught.value) == (
        "group_size = 32: does not divide the width 48 of "
        "'model.layers.0.mlp.down_proj.weight'; sizes that fit all matrices: 8, 16"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weight_that_is_not_finite_is_named(tmp_path, value):
    name = "model.layers.1.mlp.up_proj.weight"
    bad = torch.zeros(D_FF, D_MODEL)
    bad[3, 4] = value
    write_model(tmp_path / "in", extra={name: bad})
    with pytest.raises(ModelError, match=f"{name}.*holds 1 values that are not finite"):
        compress_folder(tmp_path / "in", config(), tmp_path / "out")
    assert not (tmp_path / "out" / "config.json").exists()


def test_quantised_model_is_refused_with_the_remedy(tmp_path):
    write_model(tmp_path / "in")
    compress_folder(tmp_path / "in", config(), tmp_path / "int4")
    with pytest.raises(RequestError, match=r"quantised already .*Compress the model that it was"):
        compress_folder(tmp_path / "int4", config(method="int8"), tmp_path / "out")


def test_own_folder_is_refused(tmp_path):
    write_model(tmp_path / "in")
    with pytest.raises(RequestError, match="write to another folder"):
        compress_folder(tmp_path / "in", config(), tmp_path / "in")


@pytest.mark.parametrize(
    ("extra", "settings", "message"),
    [
        ({}, {"num_hidden_layers": 3}, "'model.layers.2.*' is missing"),
        ({"model.strange.weight": torch.ones(2)}, {}, "'model.strange.weight' has no place"),
        ({}, {"model_type": "gpt5"}, "gpt5"),
        ({}, {"tie_word_embeddings": False}, "'lm_head.weight' is missing"),
        ({}, {"rope_theta": "much"}, "config.json: rope_theta = 'much'"),
        ({"model.norm.weight": torch.ones(32, dtype=torch.int32)}, {}, "floating-point"),
        ({"model.norm.weight": torch.ones(0)}, {}, "is empty"),
    ],
)
def test_models_that_cannot_be_read_are_refused(tmp_path, extra, settings, message):
    write_model(tmp_path / "in", extra=extra, **settings)
    with pytest.raises(ModelError, match=message):
        compress_folder(tmp_path / "in", config(), tmp_path / "out")
