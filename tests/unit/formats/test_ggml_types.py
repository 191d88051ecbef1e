"""Every weight of a GGUF model passes through these decoders: one wrong bit is another model."""

import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize as library_dequantize
from gguf.quants import quantize

from lmwright.formats.ggml_types import CHUNK, COMMON, DECODERS, dequantize, type_of


@pytest.mark.parametrize("type_id", sorted(COMMON))
def test_sizes_are_those_of_the_library(type_id):
    known = GGMLQuantizationType(type_id)
    mine = type_of(type_id)
    assert mine is not None
    assert (mine.name, mine.block_size, mine.block_bytes) == (known.name, *GGML_QUANT_SIZES[known])


def test_other_types_are_looked_up_in_the_library():
    mine = type_of(GGMLQuantizationType.Q6_K)
    assert mine is not None
    assert (mine.name, mine.block_size, mine.block_bytes) == ("Q6_K", 256, 210)
    assert type_of(4711) is None


@pytest.mark.parametrize("name", [*DECODERS, "Q5_1", "Q6_K"])
@pytest.mark.parametrize("n_rows", [1, 3])
def test_decodes_to_the_same_bits_as_the_library(name, n_rows):
    # More blocks than a chunk has, and no multiple of it.
    n_columns = 32 * (CHUNK + 8) if n_rows == 1 else 512
    kind = GGMLQuantizationType[name]
    rng = np.random.default_rng(7)
    weights = rng.normal(size=(n_rows, n_columns)).astype(np.float32)
    # The library quantizes no Q6_K, but decodes it: any bytes of finite scales will do.
    if name == "Q6_K":
        raw = rng.integers(0, 60, (n_rows, n_columns // 256 * 210), dtype=np.uint8)
    else:
        raw = quantize(weights, kind).view(np.uint8)
    expected = library_dequantize(raw, kind)
    got = dequantize(raw, name)
    assert got.dtype == np.float32
    assert got.shape == (n_rows, n_columns)
    np.testing.assert_array_equal(got.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("name", DECODERS)
def test_any_bytes_decode_to_the_same_bits_as_the_library(name):
    kind = GGMLQuantizationType[name]
    rng = np.random.default_rng(11)
    raw = rng.integers(0, 256, (64, 4 * GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)
    with np.errstate(all="ignore"):
        expected, got = library_dequantize(raw, kind), dequantize(raw, name)
    # A NaN may carry either sign after arithmetic; all else is equal to the bit.
    is_nan = np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(got), is_nan)
    np.testing.assert_array_equal(got[~is_nan].view("u4"), expected[~is_nan].view("u4"))


def test_result_does_not_share_memory_with_the_file():
    raw = np.ones((1, 16), np.float32).view(np.uint8)
    weights = dequantize(raw, "F32")
    raw[:] = 0
    assert weights.tolist() == [[1.0] * 16]


def test_a_type_that_nobody_decodes_says_so():
    with pytest.raises(NotImplementedError):
        dequantize(np.zeros((1, 4), np.uint8), "I8")
