"""A right file must be written on every machine: llama.cpp differs from itself, and more so there.

The same noise must not hide a wrong one.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from copies import local_model
from lmwright.conversion import convert as conversion
from lmwright.conversion.check import VerificationError
from lmwright.conversion.convert import convert
from lmwright.lm import load_local, modules
from lmwright.model import checkpoint
from lmwright.model.config import ModelConfig
from lmwright.model.transformer import DecoderLM
from lmwright.tokenizer.encode import Tokenizer
from lmwright.tokenizer.gguf import writer
from noise import LARGEST, MACHINES, NoisyLlama

pytest.importorskip("xllamacpp", reason="xllamacpp, a part of lmwright[dev], is missing")


@pytest.fixture
def folder(config: ModelConfig, tiny_tokenizer: Tokenizer, tmp_path: Path) -> Path:
    """A model as sure of itself as a trained one, that writes halves of characters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = DecoderLM(replace(config, ties_embeddings=False)).requires_grad_(False)
        torch.nn.init.normal_(model.head.weight)
    local_model(model, tiny_tokenizer).save(tmp_path / "model")
    return tmp_path / "model"


def on_machine(monkeypatch: pytest.MonkeyPatch, machine: int, form: str) -> list[NoisyLlama]:
    made: list[NoisyLlama] = []

    def open_noisy(*args: object, **options: Any) -> NoisyLlama:
        settings = {"machine": machine, "largest": LARGEST[form.upper()], "n_threads": 1}
        made.append(NoisyLlama(*args, **settings, **options))
        return made[0]

    monkeypatch.setattr(conversion, "LlamaSubject", open_noisy)
    return made


@pytest.mark.parametrize(
    "machine", [pytest.param(m, marks=[pytest.mark.slow] * (m > 1)) for m in MACHINES]
)
@pytest.mark.parametrize("form", ["f16", "bf16", "q8_0", "q4_0"])
def test_noise_of_llama_cpp_refuses_no_right_file(
    form: str, machine: int, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = on_machine(monkeypatch, machine, form)
    done = convert(str(folder), tmp_path / "x.gguf", to="gguf", number_format=form)
    assert all(result.is_passed for result in done.results)
    # There a choice and what is told of it are of two computations.
    assert made[0].n_asked_again > 20


def scaled(name: str, by: float) -> Callable[[DecoderLM], None]:
    return lambda model: model.get_parameter(name).mul_(by)


def without_rows(model: DecoderLM) -> None:
    model.decoder.embedding.weight[40:60] = 0.0


WRONG = {
    "a norm": scaled("decoder.blocks.1.mlp_residual.norm_in.weight", 1.2),
    "the last norm": scaled("decoder.norm.weight", 1.2),
    "rows": without_rows,
}


@pytest.mark.parametrize("fault", WRONG)
def test_noise_hides_no_wrong_weights_in_four_bits(
    fault: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_machine(monkeypatch, 1, "q4_0")
    save = checkpoint.save_gguf

    def wrong(model: DecoderLM, *args: Any, **options: Any) -> object:
        spoilt = modules(load_local(folder, precision="fp32"))
        WRONG[fault](spoilt)  # type: ignore[arg-type]
        return save(spoilt, *args, **options)

    monkeypatch.setattr(checkpoint, "save_gguf", wrong)
    with pytest.raises(VerificationError, match="rows of weights: relative error up to"):
        convert(str(folder), tmp_path / "x.gguf", to="gguf", number_format="q4_0")


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("merges", lambda merges: [merges[1], merges[0], *merges[2:]], "vocabulary: merge 1 is"),
        ("eot_token_id", lambda _: 40, "vocabulary: a reply ends with"),
        ("padding_token_id", lambda _: 0, "vocabulary: the pad_token is None, against"),
    ],
)
def test_noise_hides_no_wrong_tokenizer_in_four_bits(
    key: str, change: Callable[[Any], Any], message: str, folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    on_machine(monkeypatch, 1, "q4_0")
    metadata = writer.gguf_metadata

    def wrong(*args: Any, **options: Any) -> dict[str, Any]:
        right = metadata(*args, **options)
        name = f"tokenizer.ggml.{key}"
        return {**right, name: change(right.get(name))}

    monkeypatch.setattr(writer, "gguf_metadata", wrong)
    with pytest.raises(VerificationError, match=message):
        convert(str(folder), tmp_path / "x.gguf", to="gguf", number_format="q4_0")
