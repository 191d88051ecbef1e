"""Sizes are read from headers: they must be the file's, and hold for models larger than memory."""

import json
import math
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import weights
from lmwright.compression.config import Compress
from lmwright.compression.folder import compress_folder
from lmwright.core.errors import ModelError
from lmwright.formats.gguf import GgufFile, open_gguf
from lmwright.formats.safetensors_folder import Weights, read_weights, write_weights
from lmwright.model import checkpoint
from lmwright.model.transformer import DecoderLM
from lmwright.summary.inventory import NOT_NEEDED, folder_inventory, gguf_inventory

LLAMA_70B = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 128_256,
    "hidden_size": 8192, "intermediate_size": 28_672, "num_hidden_layers": 80,
    "num_attention_heads": 64, "num_key_value_heads": 8, "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
}  # fmt: skip


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may change."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the tensors that were read; whoever reads a matrix fails."""
    read: list[str] = []
    original = Weights.__getitem__

    def noted(self: Weights, name: str) -> torch.Tensor:
        read.append(name)
        assert name.endswith("_shape"), f"{name} was read"
        return original(self, name)

    def refuse(_: GgufFile, name: str) -> None:
        raise AssertionError(f"{name} was read")

    monkeypatch.setattr(Weights, "__getitem__", noted)
    monkeypatch.setattr(GgufFile, "read", refuse)
    monkeypatch.setattr(GgufFile, "blocks", refuse)
    return read


def change(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    settings = {**json.loads(path.read_text(encoding="utf-8")), **values}
    path.write_text(json.dumps(settings), encoding="utf-8")


def test_parameters_and_bytes_are_those_of_the_loaded_model(
    tiny_folder: Path, tiny_model: DecoderLM, no_weights: list[str]
) -> None:
    found = folder_inventory(tiny_folder)
    assert no_weights == []
    assert found.assembly == "decoder"
    assert found.n_params == sum(p.numel() for p in tiny_model.parameters())
    assert found.size_bytes == 4 * found.n_params
    assert [(part.name, part.bits_per_weight) for part in found.parts] == [
        (name, 32.0) for name in ("embedding", "attention", "feed-forward", "norms", "head")
    ]
    # q and out 64 x 64, k and v 32 x 64, in two layers.
    assert found.parts[1].n_params == 2 * (2 * 64 * 64 + 2 * 32 * 64)


@pytest.mark.parametrize("method", ["int8", "int4"])
def test_packed_weights_count_with_their_scales(
    method: str, tiny_folder: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    config = Compress(model="plain", method=method, group_size=32)  # type: ignore[arg-type]
    story = compress_folder(tiny_folder, config, tmp_path / "packed")
    read = request.getfixturevalue("no_weights")
    found = folder_inventory(tmp_path / "packed")
    assert all(name.endswith("_shape") for name in read)
    assert found.n_params == folder_inventory(tiny_folder).n_params
    parts = {part.name: part for part in found.parts}
    assert parts["attention"].formats == (f"{method}, groups of 32",)
    for part in ("attention", "feed-forward"):
        assert parts[part].size_bytes == story["parts"][part]["size_bytes"]
    entries = read_weights(tmp_path / "packed").entries.values()
    assert found.size_bytes == sum(entry.end - entry.start for entry in entries)


def test_a_gguf_is_counted_in_the_formats_of_its_parts(
    tiny_model: DecoderLM, tmp_path: Path, no_weights: list[str]
) -> None:
    path = tmp_path / "tiny.gguf"
    checkpoint.save_gguf(tiny_model, path, type_name="Q8_0", tokenizer_metadata={}, name="tiny")
    with open_gguf(path) as file:
        found = gguf_inventory(file)
        assert found.size_bytes == sum(tensor.n_bytes for tensor in file.tensors.values())
    assert found.n_params == sum(p.numel() for p in tiny_model.parameters())
    parts = {part.name: part for part in found.parts}
    assert parts["attention"].formats == ("Q8_0",)
    assert parts["attention"].bits_per_weight == 8.5  # 32 weights and a scale of 16 bits
    assert parts["norms"].formats == ("F32",)


def test_a_model_larger_than_memory_takes_no_time(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_70B), encoding="utf-8")
    shapes = {"model.embed_tokens.weight": [128_256, 8192], "lm_head.weight": [128_256, 8192]}
    shapes["model.norm.weight"] = [8192]
    for i in range(80):
        layer = f"model.layers.{i}"
        for name, rows in (("q", 8192), ("k", 1024), ("v", 1024), ("o", 8192)):
            shapes[f"{layer}.self_attn.{name}_proj.weight"] = [rows, 8192]
        for name in ("gate", "up"):
            shapes[f"{layer}.mlp.{name}_proj.weight"] = [28_672, 8192]
        shapes[f"{layer}.mlp.down_proj.weight"] = [8192, 28_672]
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{layer}.{name}.weight"] = [8192]
    header, at = {}, 0
    for name, shape in shapes.items():
        end = at + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + at)  # a hole of 141 GB
    started = time.process_time()
    found = folder_inventory(tmp_path)
    assert time.process_time() - started < 5
    assert found.n_params == 70_553_706_496  # as Meta's model card and transformers have it
    assert found.size_bytes == 2 * found.n_params


def test_a_head_that_is_stored_once_more_is_not_counted_twice(folder: Path) -> None:
    tensors = dict(read_weights(folder))
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    write_weights(tensors, folder)
    change(folder, tie_word_embeddings=True)
    found = folder_inventory(folder)
    rest = found.parts[-1]
    assert (rest.name, rest.n_params, rest.size_bytes) == (NOT_NEEDED, 0, 4 * 300 * 64)
    assert "head" not in {part.name for part in found.parts}


def test_a_shape_that_the_configuration_does_not_ask_for_is_an_error(folder: Path) -> None:
    change(folder, intermediate_size=64)
    with pytest.raises(ModelError) as found:
        folder_inventory(folder)
    with pytest.raises(ModelError) as loaded:
        checkpoint.load_folder(folder, torch.float32)
    assert str(found.value) == str(loaded.value)
    assert "has shape" in str(found.value)


def test_a_missing_tensor_is_an_error(folder: Path) -> None:
    tensors = dict(read_weights(folder))
    del tensors["model.norm.weight"]
    write_weights(tensors, folder)
    with pytest.raises(ModelError, match=r"'model.norm.weight' is missing"):
        folder_inventory(folder)


@pytest.mark.parametrize(
    ("changes", "drop"),
    [
        ({"general.architecture": "rwkv"}, None),
        ({"llama.block_count": "three"}, None),
        ({"llama.block_count": 3}, None),
        ({"llama.embedding_length": 32}, None),
        ({}, "llama.block_count"),
        ({}, "general.architecture"),
    ],
)
def test_a_damaged_gguf_gives_the_error_of_loading_it(
    changes: dict[str, Any], drop: str | None, tiny_model: DecoderLM, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.gguf"
    checkpoint.save_gguf(tiny_model, path, type_name="F16", tokenizer_metadata={}, name="tiny")
    with open_gguf(path) as file:
        metadata = {key: value for key, value in file.metadata.items() if key != drop}
        damaged = replace(file, metadata={**metadata, **changes})
        with pytest.raises(ModelError) as loaded:
            checkpoint.load_gguf(damaged, torch.float32)
        with pytest.raises(ModelError) as found:
            gguf_inventory(damaged)
    assert str(found.value) == str(loaded.value)


@pytest.mark.weights
def test_gemma_is_counted_as_its_name_says() -> None:
    with open_gguf(weights.gemma3_270m()) as file:
        found = gguf_inventory(file)
        assert found.size_bytes == sum(tensor.n_bytes for tensor in file.tensors.values())
    # Google's own count: 170 million embedding parameters, 100 million in the blocks.
    assert found.n_params == 268_098_176
    assert found.parts[0].n_params == 262_144 * 640
