"""The promise of every export, on real weights and over a real socket: a wrong copy is caught."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import uvicorn

import weights
from copies import local_model
from lmwright import lm
from lmwright.lm import LocalModel
from lmwright.model import checkpoint
from lmwright.model.config import ModelConfig
from lmwright.model.transformer import DecoderLM
from lmwright.serving.app import create_app, listen
from lmwright.tokenizer.encode import Tokenizer
from lmwright.tokenizer.gguf.writer import gguf_metadata
from lmwright.verification.remote import LlamaSubject, open_pair
from lmwright.verification.result import VerificationResult
from lmwright.verification.subject import open_path
from lmwright.verification.verify import verify


def said(result: VerificationResult) -> set[str]:
    return {check.name for check in result.failures}


# ---- a server


@pytest.fixture
def model(tiny_config: ModelConfig, tiny_tokenizer: Tokenizer) -> LocalModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = DecoderLM(replace(tiny_config, max_positions=512)).eval().requires_grad_(False)
    return local_model(made, tiny_tokenizer, name="tiny")


@pytest.fixture
def address(model: LocalModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server = uvicorn.Server(uvicorn.Config(create_app(model), ws="none", log_config=None))
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"openai:tiny@http://127.0.0.1:{listener.getsockname()[1]}/v1"
        finally:
            server.should_exit = True
            thread.join()


def test_a_served_model_is_the_one_that_lies_in_its_folder(
    address: str, model: LocalModel, tmp_path: Path
) -> None:
    model.save(tmp_path / "model")
    result = verify(*open_pair(str(tmp_path / "model"), address), n_prompts=6, n_tokens=6)
    assert result.is_passed, result
    assert 0 < result.numbers["largest_difference"] < 1e-4
    assert any("the weights themselves" in told for told in result.not_compared)
    [found] = [check.found for check in result.checks if check.name == "tokens of texts"]
    assert found == "21 texts and dialogues are the same tokens"


def test_a_server_with_other_weights_or_another_template_is_found(
    address: str, model: LocalModel, tmp_path: Path
) -> None:
    model.save(tmp_path / "model")
    # The server's model changes under it.
    lm.modules(model).decoder.blocks[0].mlp.up.weight.mul_(3.0)
    template = model.tokenizer.chat_template
    assert template is not None
    template.source = "unused"
    model.tokenizer.set_default_system("You are a bank.")
    pair = open_pair(str(tmp_path / "model"), address, server_weights="fp32")
    result = verify(*pair, n_prompts=6, n_tokens=6)
    assert said(result) >= {"tokens of texts", "largest difference of log-probabilities"}


# ---- the starter


@pytest.mark.weights
def test_the_starter_as_gguf_is_the_same_and_a_wrong_rotation_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("xllamacpp", reason="xllamacpp, a part of lmwright[dev], is missing")
    starter = open_path(weights.smollm2())
    metadata = gguf_metadata(starter.tokenizer)
    options = {"type_name": "F16", "tokenizer_metadata": metadata, "name": "starter"}
    checkpoint.save_gguf(starter.model, tmp_path / "right.gguf", **options)
    monkeypatch.setattr(checkpoint, "permute", lambda weight, n_heads: weight)
    checkpoint.save_gguf(starter.model, tmp_path / "wrong.gguf", **options)

    here = open_path(tmp_path / "right.gguf")
    result = verify(starter, here, n_prompts=3, n_tokens=5)
    assert result.is_passed, result
    assert result.numbers["n_same_prompts"] == 3
    there = LlamaSubject(tmp_path / "right.gguf", n_threads=1)
    wrong = LlamaSubject(tmp_path / "wrong.gguf", n_threads=1)
    try:
        result = verify(here, there, n_prompts=3, n_tokens=5)
        assert result.is_passed, result
        assert result.numbers["n_same_prompts"] == 3
        result = verify(starter, wrong, n_prompts=3, n_tokens=5)
        assert said(result) == {
            "relative error of log-probabilities",
            "mean divergence, nats a token",
            "weights",
            "rows of weights",
        }
        assert result.numbers["mean_kl"] > 0.5
    finally:
        there.close()
        wrong.close()
