"""A bit in the wrong place turns a good model into noise that still loads: packing is exact."""

import copy

import pytest
import torch

from lmwright.core.errors import ModelError
from lmwright.formats.packed import (
    Scheme,
    dequantize,
    describe,
    pack,
    pack_words,
    scheme_of,
    unpack,
    unpack_words,
)

NAME = "model.layers.0.mlp.up_proj.weight"


def random_ints(rows, columns, *, bits, seed=0):
    generator = torch.Generator().manual_seed(seed)
    high = 2 ** (bits - 1)
    return torch.randint(-high, high, (rows, columns), generator=generator, dtype=torch.int8)


def packed_model(*, bits=4, group_size=8, dtype=torch.bfloat16):
    generator = torch.Generator().manual_seed(1)
    ints = random_ints(6, 32, bits=bits)
    scales = torch.rand(6, 32 // group_size, generator=generator).to(dtype)
    norm = torch.ones(32)
    tensors = {**pack(NAME, ints, scales, bits=bits), "model.norm.weight": norm}
    return tensors, describe(Scheme(bits, group_size), ignore=["lm_head"]), ints, scales


def test_known_words():
    ints = torch.tensor([[-8, -7, 0, 7, -8, -8, -8, 7]], dtype=torch.int8)
    # Nibbles from the lowest: 0, 1, 8, 15, 0, 0, 0, 15.
    assert pack_words(ints, 4).tolist() == [[int.from_bytes(b"\x10\xf8\x00\xf0", "little") - 2**32]]
    ints = torch.tensor([[-128, -1, 0, 127]], dtype=torch.int8)
    assert pack_words(ints, 8).tolist() == [[int.from_bytes(b"\x00\x7f\x80\xff", "little") - 2**32]]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("columns", [1, 7, 8, 9, 32, 61])
def test_words_give_back_every_integer(bits, columns):
    ints = random_ints(5, columns, bits=bits, seed=columns)
    words = pack_words(ints, bits)
    assert words.dtype == torch.int32
    assert words.shape == (5, -(-columns * bits // 32))
    assert torch.equal(unpack_words(words, bits, columns), ints)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_unpack_equals_integer_times_scale(bits, dtype):
    tensors, config, ints, scales = packed_model(bits=bits, dtype=dtype)
    result = unpack(tensors, config)
    expected = ints.float() * scales.float().repeat_interleave(8, dim=1)
    assert result[NAME].dtype == torch.float32
    assert torch.equal(result[NAME], expected)
    assert set(result) == {NAME, "model.norm.weight"}
    assert result["model.norm.weight"] is tensors["model.norm.weight"]


def test_unpack_multiplies_in_fp32_and_casts_at_the_end():
    tensors, config, ints, scales = packed_model(bits=8, dtype=torch.float16)
    result = unpack(tensors, config, dtype=torch.bfloat16)
    assert torch.equal(result[NAME], dequantize(ints, scales).bfloat16())


def test_channel_strategy_has_one_scale_a_row():
    ints = random_ints(3, 20, bits=4)
    scales = torch.tensor([[0.5], [1.0], [2.0]])
    tensors = pack(NAME, ints, scales, bits=4)
    config = describe(Scheme(4, None), ignore=[])
    assert config["config_groups"]["group_0"]["weights"]["strategy"] == "channel"
    assert torch.equal(unpack(tensors, config)[NAME], ints * scales)


def test_a_name_beats_a_pattern_and_a_pattern_beats_a_class():
    schemes = {
        "Linear": Scheme(4, 64),
        "Embedding": Scheme(8, None),
        "re:.*down_proj$": Scheme(8, 64),
        "layers.1.down_proj": Scheme(8, 32),
    }
    assert scheme_of("layers.0.up_proj", schemes) == Scheme(4, 64)
    assert scheme_of("layers.0.down_proj", schemes) == Scheme(8, 64)
    assert scheme_of("layers.1.down_proj", schemes) == Scheme(8, 32)
    assert scheme_of("model.embed_tokens", schemes) == Scheme(8, None)
    with pytest.raises(ModelError, match="no target of quantization_config"):
        scheme_of("layers.0.up_proj", {"Embedding": Scheme(8, None)})
    with pytest.raises(ModelError, match="no regular expression"):
        scheme_of("layers.0.up_proj", {"re:(": Scheme(8, None)})


def set_in(config, *keys, value):
    config = copy.deepcopy(config)
    table = config
    for key in keys[:-1]:
        table = table[key]
    table[keys[-1]] = value
    return config


WEIGHTS = ("config_groups", "group_0", "weights")


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("quant_method",), "gptq", "quant_method = 'gptq': known is 'compressed-tensors'"),
        (("config_groups",), {}, "config_groups: missing"),
        (("config_groups", "group_0"), ["W4A16"], "must say how `weights`|expected an object"),
        (("config_groups", "group_0", "format"), "nvfp4-pack-quantized", "known is 'pack-quant"),
        (("config_groups", "group_0", "input_activations"), {"num_bits": 8}, "weights only"),
        ((*WEIGHTS, "num_bits"), 3, "num_bits = 3: known: 4, 8"),
        ((*WEIGHTS, "type"), "float", "type = 'float': known: 'int'"),
        ((*WEIGHTS, "symmetric"), False, "symmetric = False: known: True"),
        ((*WEIGHTS, "strategy"), "block", "strategy = 'block': known: 'group', 'channel'"),
        ((*WEIGHTS, "group_size"), 0, "group_size = 0"),
        ((*WEIGHTS, "group_size"), 5, "in groups of 5"),
        ((*WEIGHTS, "group_size"), 16, "in groups of 16"),
        ((*WEIGHTS, "num_bits"), 8, "are not the"),
        (("kv_cache_scheme",), {"num_bits": 8}, "kv_cache_scheme"),
        (("transform_config",), {"config_groups": {}}, "transform_config"),
    ],
)
def test_unknown_ways_of_quantising_are_refused(keys, value, message):
    tensors, config, _, _ = packed_model()
    with pytest.raises(ModelError, match=message):
        unpack(tensors, set_in(config, *keys, value=value))


@pytest.mark.parametrize(
    ("suffix", "tensor", "message"),
    [
        ("_packed", torch.zeros(6, 4, dtype=torch.int64), "must be int32"),
        ("_packed", torch.zeros(6, 3, dtype=torch.int32), "are not the"),
        ("_packed", torch.zeros(6, dtype=torch.int32), "must be int32"),
        ("_shape", torch.tensor([6, 2**40]), "announces"),
        ("_shape", torch.tensor([6, -32]), "announces"),
        ("_shape", torch.tensor([6]), "two whole numbers"),
        ("_scale", torch.ones(6, 3), "does not fit"),
        ("_scale", torch.ones(6, 4, dtype=torch.int32), "finite floating-point"),
        ("_scale", torch.full((6, 4), float("nan")), "finite floating-point"),
        ("_scale", None, "weight_scale missing"),
        ("_packed", None, "nothing here to read it with"),
        ("_zero_point", torch.zeros(6, 4), "nothing here to read it with"),
        ("_g_idx", torch.zeros(32, dtype=torch.int32), "nothing here to read it with"),
        ("", torch.zeros(6, 32), "stored twice"),
    ],
)
def test_damaged_or_foreign_tensors_are_refused_by_name(suffix, tensor, message):
    tensors, config, _, _ = packed_model()
    tensors = {**tensors, NAME + suffix: tensor}
    if tensor is None:
        del tensors[NAME + suffix]
    with pytest.raises(ModelError, match=message) as caught:
        unpack(tensors, config)
    assert "model.layers.0.mlp.up_proj" in str(caught.value)
