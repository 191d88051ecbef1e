"""A GGUF is the model that was written, or refused; its writer here is llama.cpp's own library."""

import re

import gguf
import numpy as np
import pytest
import torch

from lmwright.core.errors import ModelError
from lmwright.formats.gguf import open_gguf
from lmwright.model import checkpoint
from lmwright.model.config import Rope
from lmwright.model.families import family
from lmwright.model.families.family import rows_of
from lmwright.model.position import inverse_frequencies


def interleaved(weight, n_heads):
    """Order rows as llama.cpp does: each head's two halves in turn (convert_hf_to_gguf.py)."""
    heads = weight.reshape(n_heads, 2, -1, weight.shape[1])
    return heads.swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path, model, *, changes=None, **metadata):
    config = model.config
    writer = gguf.GGUFWriter(path, metadata.pop("architecture", "llama"))
    values = {
        "context_length": config.max_positions,
        "embedding_length": config.d_model,
        "block_count": config.n_layers,
        "feed_forward_length": config.d_ff,
        "attention.head_count": config.n_heads,
        "attention.head_count_kv": config.n_kv_heads,
        "attention.layer_norm_rms_epsilon": config.norm_eps,
        "rope.freq_base": config.rope.theta,
        **metadata,
    }
    adders = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string,
              list: writer.add_array}  # fmt: skip
    for key, value in values.items():
        if value is not None:
            adders[type(value)](f"llama.{key}", value)
    writer.add_array("tokenizer.ggml.tokens", [f"t{i}" for i in range(config.vocab_size)])
    weights = model.state_dict()
    tensors = {}
    for row in rows_of(family("llama"), config, set(weights)):
        array = weights[row.ours[0]].numpy()
        n_heads = {"attn_q": config.n_heads, "attn_k": config.n_kv_heads}
        if part := [n for key, n in n_heads.items() if key in row.gguf]:
            array = interleaved(array, *part)
        tensors[row.gguf] = np.ascontiguousarray(array)
    for name, array in {**tensors, **(changes or {})}.items():
        if array is not None:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def load_gguf(path):
    with open_gguf(path) as file:
        return checkpoint.load_gguf(file, torch.float32)


def test_a_gguf_is_the_model_that_was_written(tiny_model, tmp_path):
    read = load_gguf(write_gguf(tmp_path / "m.gguf", tiny_model))
    for name, tensor in read.state_dict().items():
        assert torch.equal(tensor, tiny_model.state_dict()[name]), name
    assert read.config.rope == tiny_model.config.rope
    assert read.config.norm_eps == pytest.approx(tiny_model.config.norm_eps)


def test_a_gguf_without_a_head_is_tied(tiny_model, tmp_path):
    read = load_gguf(write_gguf(tmp_path / "m.gguf", tiny_model, changes={"output.weight": None}))
    assert read.config.ties_embeddings
    assert read.head.weight is read.decoder.embedding.weight


def llama31_factors(rope, d_head):
    """What convert_hf_to_gguf.py writes into rope_freqs.weight, wavelength by wavelength."""
    factors = []
    for i in range(0, d_head, 2):
        wavelength = 2 * np.pi * rope.theta ** (i / d_head)
        if wavelength < rope.original_max_positions / rope.high_freq_factor:
            factors.append(1.0)
        elif wavelength > rope.original_max_positions / rope.low_freq_factor:
            factors.append(rope.factor)
        else:
            smooth = (rope.original_max_positions / wavelength - rope.low_freq_factor) / (
                rope.high_freq_factor - rope.low_freq_factor
            )
            factors.append(1 / ((1 - smooth) / rope.factor + smooth))
    return np.array(factors, dtype=np.float32)


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_the_scaling_of_llama_31_is_recognised(tiny_model, tmp_path, factor):
    rope = Rope(theta=500_000.0, scaling="llama3", factor=factor)
    factors = llama31_factors(rope, 16)
    assert len({round(float(f), 3) for f in factors}) > 2  # all three bands
    path = write_gguf(
        tmp_path / "m.gguf", tiny_model, changes={"rope_freqs.weight": factors},
        **{"rope.freq_base": 500_000.0},
    )  # fmt: skip
    assert load_gguf(path).config.rope == rope
    plain = inverse_frequencies(Rope(theta=500_000.0), 16)
    scaled = inverse_frequencies(rope, 16)
    torch.testing.assert_close(plain / torch.from_numpy(factors), scaled, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    "factors",
    [[2.0] * 8, [1, 1, 2, 3, 4, 5, 6, 8], [1.0] * 7 + [8.0, 8.0], [0.0] * 8, [float("nan")] * 8],
    ids=["all", "other", "too-many", "zero", "nan"],
)
def test_other_rope_factors_are_refused(tiny_model, tmp_path, factors):
    changes = {"rope_freqs.weight": np.array(factors, dtype=np.float32)}
    path = write_gguf(tmp_path / "m.gguf", tiny_model, changes=changes)
    with pytest.raises(ModelError, match=rf"{re.escape(str(path))}.*rope"):
        load_gguf(path)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"blk.1.attn_q.weight": None}, r"blk\.1\.attn_q\.weight"),
        ({"blk.0.attn_q.bias": np.zeros(64, np.float32)}, r"blk\.0\.attn_q\.bias"),
        ({"blk.0.attn_q.weight": np.zeros((63, 64), np.float32)}, r"attn_q\.weight"),
        ({"blk.0.attn_k.weight": np.zeros((64,), np.float32)}, r"attn_k\.weight"),
        ({"blk.0.ffn_up.weight": np.zeros((128, 32), np.float32)}, r"ffn_up\.weight"),
    ],
    ids=["missing", "extra", "misshaped-q", "one-dimension", "misshaped-mlp"],
)
def test_a_wrong_tensor_of_a_gguf_is_named(tiny_model, tmp_path, changes, names):
    path = write_gguf(tmp_path / "m.gguf", tiny_model, changes=changes)
    with pytest.raises(ModelError, match=rf"{re.escape(str(path))}.*{names}"):
        load_gguf(path)


@pytest.mark.parametrize(
    "metadata",
    [
        {"architecture": "mamba"},
        {"attention.head_count": None},
        {"attention.head_count": 0},
        {"attention.head_count": [4, 4]},
        {"embedding_length": "64"},
        {"embedding_length": 2**31},
        {"rope.freq_base": "10000"},
        {"rope.freq_base": 0.0},
        {"rope.scaling.type": "spiral"},
        {"rope.scaling.type": "yarn"},  # without its factor
        {"attention.key_length": 16, "attention.value_length": 8},
        {"attention.layer_norm_rms_epsilon": "x"},
    ],
    ids=str,
)
def test_strange_metadata_of_a_gguf_is_refused_with_the_file_named(tiny_model, tmp_path, metadata):
    path = write_gguf(tmp_path / "m.gguf", tiny_model, **metadata)
    with pytest.raises(ModelError, match=re.escape(str(path))):
        load_gguf(path)
