"""What rounding explains depends on how each tensor is stored: one name a file is not enough."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from lmwright.formats.gguf import open_gguf
from lmwright.model.checkpoint import save_gguf
from lmwright.model.config import ModelConfig
from lmwright.model.transformer import DecoderLM
from lmwright.tokenizer.encode import Tokenizer
from lmwright.tokenizer.gguf.writer import gguf_metadata
from lmwright.verification.stored import StoredWeights, stored_weights, weights_of


@pytest.mark.parametrize(
    ("form", "name"),
    [("fp32", "fp32"), ("bf16", "bf16"), ("fp16", "fp16"), ("int8", "int8"), ("int4", "int4"),
     ("F16", "fp16"), ("BF16", "bf16"), ("Q8_0", "Q8_0"), ("Q4_0", "Q4_0")],
)  # fmt: skip
def test_the_format_of_weights_is_read_from_their_file(form: str, name: str, written) -> None:
    assert weights_of(written(form)) == name
    assert stored_weights(written(form)).most == name


@pytest.mark.parametrize(
    ("form", "matrix", "embedding", "norm"),
    [
        ("bf16", "bf16", "bf16", "bf16"),
        ("int4", "int4", "bf16", "fp32"),
        ("F16", "fp16", "fp16", "fp32"),
        ("Q4_0", "Q4_0", "Q8_0", "fp32"),
    ],
)
def test_each_tensor_has_its_own_format(
    form: str, matrix: str, embedding: str, norm: str, written, model: DecoderLM
) -> None:
    stored = stored_weights(written(form))
    assert set(stored.by_name) == set(model.state_dict())
    found = {name.split(".")[-2]: stored.of(name) for name in stored.by_name}
    assert (found["up"], found["embedding"]) == (matrix, embedding)
    assert {stored.of(name) for name in stored.by_name if "norm" in name} == {norm}
    # The head is the embedding once more.
    assert stored.of("head.weight") == embedding
    assert stored.is_gguf is (form in ("F16", "Q4_0"))


def test_a_large_embedding_does_not_make_a_file_of_four_bits_one_of_eight(
    config: ModelConfig, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    small = DecoderLM(replace(config, n_layers=1, d_ff=32)).requires_grad_(False)
    path, metadata = tmp_path / "small.gguf", gguf_metadata(tiny_tokenizer)
    save_gguf(small, path, type_name="Q4_0", tokenizer_metadata=metadata, name="small")
    with open_gguf(path) as file:
        shapes = {name: tensor.shape for name, tensor in file.tensors.items()}
    embedding = math.prod(shapes.pop("token_embd.weight"))
    assert embedding > sum(math.prod(shape) for shape in shapes.values())
    assert weights_of(path) == "Q4_0"


def test_what_is_not_named_is_stored_like_most() -> None:
    stored = StoredWeights("bf16", {"a": "fp32"})
    assert (stored.of("a"), stored.of("b")) == ("fp32", "bf16")
