"""Real checkpoints have more rows than tokens: each family must still become a GGUF that runs."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from differences import copied
from families import DECODERS
from lmwright.conversion import convert as conversion
from lmwright.conversion.convert import convert
from lmwright.formats.gguf import open_gguf
from lmwright.tokenizer.encode import Tokenizer
from lmwright.tokenizer.gguf.reader import PRE_TOKENIZERS
from lmwright.verification.remote import LlamaSubject
from vocabularies import byte_level, sentencepiece

pytest.importorskip("xllamacpp", reason="llama.cpp is not installed: pip install xllamacpp")

# Qwen2.5-0.5B has 271, Phi-3 has 53, OLMo 2 has 74.
N_SPARE = 9
RULES = {
    "gpt2": "gpt-2", "llama": "llama-bpe", "mistral": "tekken", "qwen2": "qwen2",
    "qwen3": "qwen2", "olmo2": "dbrx",
}  # fmt: skip
NAMES = ("gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "olmo2")


def tokenizer_of(family: str) -> Tokenizer:
    if family in RULES:
        return byte_level(PRE_TOKENIZERS[RULES[family]])
    return sentencepiece(has_prefix=family == "phi3", is_phi3=family == "phi3")


def saved(name: str, folder: Path) -> Tokenizer:
    """Save transformers' model of a family with a tokenizer, and rows that no token has."""
    variant = DECODERS[name]
    tokenizer = tokenizer_of(variant.family)
    settings: dict[str, Any] = {
        **copied(variant.settings),
        "vocab_size": tokenizer.vocab_size + N_SPARE,
        "bos_token_id": tokenizer.role_id("bos"),
        "eos_token_id": tokenizer.eos_ids[0],
    }
    transformers.utils.logging.disable_progress_bar()
    config = getattr(transformers, f"{variant.kind}Config")(**settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = getattr(transformers, f"{variant.kind.removesuffix('Text')}{variant.head}")(config)
        for key, parameter in model.named_parameters():
            if parameter.ndim == 1:
                low, high = (-0.5, 0.5) if key.endswith("bias") else (0.5, 1.5)
                parameter.data.uniform_(low, high)
    model.eval().save_pretrained(folder)
    tokenizer.save(folder)
    return tokenizer


@pytest.mark.parametrize("name", NAMES)
def test_a_model_with_spare_rows_becomes_a_gguf_that_llama_cpp_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Threads of llama.cpp that wait for each other take seconds on a busy machine.
    monkeypatch.setattr(conversion, "LlamaSubject", partial(LlamaSubject, n_threads=1))
    tokenizer = saved(name, tmp_path / "model")
    for form in ("f16", "q8_0", "q4_0"):
        out = tmp_path / f"{form}.gguf"
        done = convert(str(tmp_path / "model"), out, to="gguf", number_format=form)
        assert done.results[-1].b == f"llama.cpp:{out}"
        assert done.notes == ()
        with open_gguf(out) as file:
            tokens = file.metadata["tokenizer.ggml.tokens"]
        assert len(tokens) == tokenizer.vocab_size + N_SPARE
        assert tokens[-1] == f"[PAD{len(tokens) - 1}]"


def test_every_family_of_decoders_is_here() -> None:
    assert {DECODERS[name].family for name in NAMES} == {v.family for v in DECODERS.values()}
