"""What `show` says must be what loading and running the model would find."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import weights
from lmwright.core.errors import ModelError, RequestError
from lmwright.lm import load_local
from lmwright.model.config import ModelConfig
from lmwright.summary.page import page
from lmwright.summary.summary import HostedSummary, ModelSummary, contexts, mismatches, summarise
from lmwright.tokenizer.summary import SpecialToken, TokenizerSummary


def local(model: str | Path, **options: Any) -> ModelSummary:
    found = summarise(str(model), **options)
    assert isinstance(found, ModelSummary)
    return found


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may change."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def test_the_facts_are_those_of_the_loaded_model(tiny_folder: Path) -> None:
    found, facts = local(tiny_folder), load_local(tiny_folder).info
    assert found.inventory.n_params == facts.n_params
    assert found.file_bytes == facts.size_bytes
    assert found.inventory.config.family == facts.architecture
    assert found.context_length == facts.context_length
    assert (found.dtype, found.device) == (facts.dtype, facts.device)


def test_as_json_it_holds_everything(tiny_folder: Path) -> None:
    found = json.loads(json.dumps(local(tiny_folder, context=100, batch=2).to_json()))
    assert (found["kind"], found["architecture"], found["vocabulary"]) == ("decoder", "llama", 300)
    assert [(need["context"], need["batch"]) for need in found["memory"]] == [(100, 2)]
    assert sum(part["n_params"] for part in found["parts"]) == found["n_params"]
    assert sum(part["share"] for part in found["parts"]) == pytest.approx(1)
    assert found["bits_per_weight"] == 32
    assert found["config"]["d_ff"] == 128
    assert found["origin"]["licence"] is None
    assert found["dialogue"]["system"] == "accepted"
    assert found["tokenizer"]["n_tokens"] == 300


def test_a_shorter_length_of_an_embedding_model_counts(folder: Path) -> None:
    modules = [{"path": "", "type": "sentence_transformers.models.Transformer"}]
    modules += [{"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (folder / "1_Pooling").mkdir()
    settings = json.dumps({"pooling_mode_cls_token": True})
    (folder / "1_Pooling" / "config.json").write_text(settings, encoding="utf-8")
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 64}', encoding="utf-8")
    found = local(folder)
    assert found.context_length == 64
    assert found.pooling == "a text as one vector: cls of its tokens"
    with pytest.raises(RequestError, match="reads 1 to 64 tokens"):
        local(folder, context=65)


def test_a_damaged_tokenizer_is_the_error_of_loading_it(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match="cannot be read as a tokenizer"):
        summarise(str(folder))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none", "no such model"),
        ("empty", "holds no config.json"),
        ("damaged.gguf", "begins with"),
    ],
)
def test_what_is_no_model_is_an_error(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("damaged.gguf").write_bytes(b"PK" * 100)
    with pytest.raises(ModelError, match=message):
        summarise(name)


def test_of_a_hosted_model_only_its_address_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hidden")
    found = summarise("openai:small@http://example.org/v1")
    assert found == HostedSummary(
        "openai:small@http://example.org/v1", "small", "http://example.org/v1", False, True
    )
    assert "sk-hidden" not in json.dumps(found.to_json()) + page(found, is_terminal=False)
    assert "architecture" in found.to_json()["not_told"]
    for options in ({"context": 5}, {"batch": 2}):
        with pytest.raises(RequestError, match="hosted"):
            summarise("openai:small", **options)


CONFIG = ModelConfig(
    family="llama", vocab_size=100, d_model=8, n_layers=1, n_heads=1, n_kv_heads=1, d_head=8,
    d_ff=8, max_positions=8, bos_id=1, eos_ids=(2,), pad_id=0,
)  # fmt: skip
TOKENS = (SpecialToken("bos", "<s>", 1), SpecialToken("eos", "</s>", 2), SpecialToken("end", "", 7))
FACTS = TokenizerSummary("BPE", 100, TOKENS, ((), ()), False, {})


def test_a_tokenizer_that_fits_raises_no_warning() -> None:
    assert list(mismatches(CONFIG, FACTS)) == []
    assert list(mismatches(replace(CONFIG, eos_ids=(2, 7)), FACTS)) == []


@pytest.mark.parametrize(
    ("changes", "facts", "expected"),
    [
        ({}, {"n_tokens": 101}, "the tokenizer has 101 tokens, the embedding only 100 rows"),
        ({}, {"n_tokens": 99}, "1 row is of no token: the embedding has 100"),
        ({}, {"n_tokens": 90}, "10 rows are of no token"),
        ({"bos_id": 3}, {}, "bos is 1 in the tokenizer, 3 in the model's configuration"),
        ({"eos_ids": (2, 5)}, {}, "token 5 ends a reply in the model's configuration only"),
        (
            {},
            {"special_tokens": (*TOKENS, SpecialToken("unk", "<unk>", None))},
            "unk '<unk>' is not in the vocabulary",
        ),
    ],
)
def test_what_contradicts_itself_is_pointed_out(
    changes: dict[str, Any], facts: dict[str, Any], expected: str
) -> None:
    (found,) = mismatches(replace(CONFIG, **changes), replace(FACTS, **facts))
    assert expected in found


@pytest.mark.weights
def test_the_starter_is_what_its_makers_say() -> None:
    weights.smollm2()
    found = local("starter")
    assert found.inventory.n_params == 134_515_008
    assert (found.origin.licence, found.origin.languages) == ("apache-2.0", ("en",))
    assert found.origin.sha256 is not None
    assert found.choices == (
        "rotary base 100,000",
        "3 key/value heads for 9 query heads",
        "the head is the embedding once more",
    )
    assert found.tokenizer.kind == "byte-level BPE"
    assert found.dialogue is not None
    assert found.dialogue.default_system == (
        "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    )
    assert found.mismatches == ()


@pytest.mark.weights
def test_minilm_is_an_encoder_with_pooling() -> None:
    found = local(weights.minilm())
    assert (found.inventory.assembly, found.context_length) == ("encoder", 256)
    assert found.pooling == "a text as one vector: mean of its tokens, scaled to length 1"
    assert found.inventory.n_params == 22_713_216  # sentence-transformers' 22.7M
    assert found.tokenizer.around == (("[CLS]",), ("[SEP]",))
    assert (found.origin.licence, found.dialogue) == ("apache-2.0", None)


@pytest.mark.weights
def test_gemma_differs_by_its_windows() -> None:
    found = local(weights.gemma3_270m())
    assert "a window of 512 tokens in 15 of 18 layers (not in 6, 12, 18)" in found.choices
    assert found.tokenizer.kind == "SentencePiece BPE"
    assert found.tokenizer.around == (("<bos>",), ())
    # 18 layers, 1 head of 256, keys and values; the cache keeps windows whole.
    n_bytes = {"bfloat16": 2, "float32": 4}[found.dtype]
    assert found.memory[0].cache_bytes == 512 * 18 * 256 * 2 * n_bytes
    text = " ".join(page(found, is_terminal=False).split())
    assert "all 18 layers keep all tokens, the 15 with a window, too" in text


def test_lengths_are_a_few_up_to_the_longest() -> None:
    assert contexts(8192, None) == [512, 2048, 8192]
    assert contexts(2048, None) == [512, 2048]
    assert contexts(256, None) == [256]
    assert contexts(8192, 1000) == [1000]


@pytest.mark.parametrize("asked", [0, -1, 8193])
def test_a_length_that_the_model_does_not_read_is_refused(asked: int) -> None:
    with pytest.raises(RequestError, match=f"--context {asked}: this model reads 1 to 8,192"):
        contexts(8192, asked)


def test_a_batch_of_none_is_refused(tiny_folder: Path) -> None:
    with pytest.raises(RequestError, match="--batch 0"):
        summarise(str(tiny_folder), batch=0)
