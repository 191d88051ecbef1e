"""Fixtures: a tiny model that takes most of the built-in prompts, and copies of it with a fault.

A conftest.py imports those that its tests ask for.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lmwright import lm
from lmwright.compression.config import Compress
from lmwright.compression.folder import compress_folder
from lmwright.lm import LocalModel
from lmwright.model.checkpoint import save, save_gguf
from lmwright.model.config import ModelConfig
from lmwright.model.transformer import DecoderLM, Model
from lmwright.tokenizer.encode import Tokenizer
from lmwright.tokenizer.gguf.writer import gguf_metadata
from lmwright.verification.subject import LocalSubject

# Large weights, so that what the model says depends on what it reads.
SPREAD = 3.0


def local_model(model: Model, tokenizer: Tokenizer, *, name: str = "x") -> LocalModel:
    """Return a model made here as a model that was opened."""
    return lm.local_model(model, tokenizer, name=name)


def subject(model: Model, tokenizer: Tokenizer, *, name: str = "x") -> LocalSubject:
    """Return a model made here as a subject."""
    return LocalSubject(local_model(model, tokenizer, name=name))


@pytest.fixture(scope="session")
def config(tiny_config: ModelConfig) -> ModelConfig:
    return replace(tiny_config, max_positions=512, ties_embeddings=True)


@pytest.fixture(scope="session")
def model(config: ModelConfig) -> DecoderLM:
    """Nobody may change it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = DecoderLM(config).eval().requires_grad_(False)
    for name, weight in made.named_parameters():
        if name.endswith(("attention.q.weight", "attention.k.weight", "mlp.up.weight")):
            weight.mul_(SPREAD)
    # Small, so that the model does not just repeat the last token.
    made.decoder.embedding.weight.mul_(0.05)
    return made


@pytest.fixture
def original(model: DecoderLM, tiny_tokenizer: Tokenizer) -> LocalSubject:
    return subject(model, tiny_tokenizer, name="original")


@pytest.fixture
def changed(model: DecoderLM, tiny_tokenizer: Tokenizer) -> Callable[..., LocalSubject]:
    """Return a copy after a change of its modules, or with another tokenizer."""

    def make(
        change: Callable[[DecoderLM], object] | None = None, tokenizer: Tokenizer | None = None
    ) -> LocalSubject:
        made = copy.deepcopy(model)
        if change is not None:
            change(made)
        return subject(made, tokenizer or tiny_tokenizer, name="copy")

    return make


@pytest.fixture
def written(model: DecoderLM, tiny_tokenizer: Tokenizer, tmp_path: Path) -> Callable[..., Path]:
    """Write the model, or a changed one, as fp32, bf16, int8, int4, F16, Q8_0, ..."""

    def write(form: str, change: Callable[[DecoderLM], object] | None = None) -> Path:
        made = copy.deepcopy(model)
        if change is not None:
            change(made)
        path = tmp_path / form
        if form in ("F16", "BF16", "Q8_0", "Q4_0"):
            path = tmp_path / f"{form}.gguf"
            metadata = gguf_metadata(tiny_tokenizer)
            save_gguf(made, path, type_name=form, tokenizer_metadata=metadata, name="tiny")
        elif form in ("int8", "int4"):
            plain = tmp_path / f"{form}-source"
            save(made, plain, torch.float32)
            tiny_tokenizer.save(plain)
            compress_folder(plain, Compress(model="x", method=form), path)  # type: ignore[arg-type]
        else:
            dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
            save(made, path, dtypes[form])
            tiny_tokenizer.save(path)
        return path

    return write


def wrong_rope(model: DecoderLM) -> None:
    """Lay queries and keys out in interleaved pairs, as llama.cpp does and we do not."""
    for block in model.decoder.blocks:
        for part, n_heads in (("q", model.config.n_heads), ("k", model.config.n_kv_heads)):
            weight = getattr(block.attention, part).weight
            pairs = weight.view(n_heads, 2, -1, weight.shape[1])
            weight.copy_(pairs.transpose(1, 2).reshape(weight.shape).clone())


@pytest.fixture(scope="session")
def break_rope() -> Callable[[DecoderLM], None]:
    return wrong_rope
