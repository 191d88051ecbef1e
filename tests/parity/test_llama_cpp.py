"""What we export runs elsewhere: llama.cpp must see the same tokens and the same weights."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import weights
from lmwright.core.errors import LmwrightError, ModelError, RequestError
from lmwright.formats.gguf import GgufFile, open_gguf
from lmwright.formats.gguf_writer import TensorSource, file_metadata, write_gguf
from lmwright.tokenizer.encode import Tokenizer
from lmwright.tokenizer.gguf.reader import PRE_TOKENIZERS, gguf_tokenizer
from lmwright.tokenizer.gguf.writer import gguf_metadata
from lmwright.verification.llama_cpp import Continuation, LlamaCpp
from vocabularies import CAPITALS, MARKS, TEXTS, byte_level, sentencepiece

pytest.importorskip("xllamacpp", reason="llama.cpp is not installed: pip install xllamacpp")

# Where llama.cpp follows simpler rules: what is the same all the same.
DIFFERENT: dict[str, list[str]] = {"qwen2": CAPITALS, "tekken": [], "gpt-4o": []}
PROMPTS = [
    "The capital of France is",
    "Once upon a time there was",
    "def add(a, b):\n    return",
    "Water boils at",
    "My favourite food is",
    "1, 2, 3, 4,",
    "The president said that",
    "Dear Sir or Madam,",
]


def write_tiny(path: Path, metadata: Mapping[str, Any], **changes: Any) -> Path:
    """A random llama of one layer with this tokenizer; `changes` give tensors other shapes."""
    n_tokens = len(metadata["tokenizer.ggml.tokens"])
    sizes = {
        "block_count": 1,
        "context_length": 64,
        "embedding_length": 32,
        "feed_forward_length": 32,
        "attention.head_count": 1,
        "attention.layer_norm_rms_epsilon": 1e-5,
    }
    matrices = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd": (n_tokens, 32),
        "output_norm": (32,),
        "blk.0.attn_norm": (32,),
        "blk.0.ffn_norm": (32,),
        **{f"blk.0.{name}": (32, 32) for name in matrices},
        **changes,
    }
    rng = np.random.default_rng(0)

    def draw(shape: tuple[int, ...]) -> Callable[[], np.ndarray]:
        return lambda: rng.normal(0, 0.3, shape).astype(np.float32)

    llama = {f"llama.{name}": value for name, value in sizes.items()}
    write_gguf(
        path,
        {"general.architecture": "llama", **llama, **metadata},
        {
            f"{name}.weight": TensorSource(shape, "F16", draw(shape))
            for name, shape in shapes.items()
            if shape
        },
    )
    return path


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_llama_cpp_splits_text_as_we_do_by_each_pre_tokenizer(tmp_path, caplog, name):
    tokenizer = byte_level(PRE_TOKENIZERS[name])
    # More rows than tokens, as in many models.
    metadata = gguf_metadata(tokenizer, vocab_size=tokenizer.vocab_size + 5)
    assert metadata["tokenizer.ggml.pre"] == name
    # Where llama.cpp differs, we have said so.
    assert [record.levelname for record in caplog.records] == ["WARNING"] * (name in DIFFERENT)
    others = DIFFERENT.get(name, [*MARKS, *CAPITALS])
    with LlamaCpp(write_tiny(tmp_path / "tiny.gguf", metadata), n_threads=1) as model:
        for text in [*TEXTS, *others, "a<think>b <think>", "[PAD705]"]:
            assert model.tokenize(text) == tokenizer.encode(text, add_bos=False), repr(text)


@pytest.mark.parametrize("has_prefix", [True, False])
def test_llama_cpp_splits_text_as_we_do_by_scores(tmp_path, has_prefix):
    tokenizer = sentencepiece(has_prefix=has_prefix)
    metadata = gguf_metadata(tokenizer)
    assert metadata["tokenizer.ggml.add_space_prefix"] == has_prefix
    with LlamaCpp(write_tiny(tmp_path / "tiny.gguf", metadata), n_threads=1) as model:
        for text in [
            *TEXTS,
            *MARKS,
            *CAPITALS,
            "a\n\n\nb",
            "a    b  ",
            "x<b> y<b>",
            "\u2581\u2581",
        ]:
            assert model.tokenize(text, add_special=True) == tokenizer.encode(text), repr(text)


@pytest.fixture(scope="module")
def chat_tokenizer() -> Tokenizer:
    return byte_level(PRE_TOKENIZERS["smollm"])


@pytest.fixture(scope="module")
def tiny_path(tmp_path_factory: pytest.TempPathFactory, chat_tokenizer: Tokenizer) -> Path:
    path = tmp_path_factory.mktemp("llama") / "tiny.gguf"
    return write_tiny(path, gguf_metadata(chat_tokenizer))


def test_llama_cpp_reads_a_dialogue_as_we_do(tiny_path, chat_tokenizer):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Two  spaces,\n\na line and 42?"},
    ]
    with LlamaCpp(tiny_path, n_threads=1) as model:
        text = model.render(messages)
        assert model.tokenize(text, parse_special=True) == chat_tokenizer.chat(messages)
        with pytest.raises(RequestError, match=r"tiny\.gguf: llama\.cpp: .*content"):
            model.render([{"role": "user"}])


def test_a_continuation_depends_on_its_prompt_alone(tiny_path, chat_tokenizer):
    prompts = [chat_tokenizer.encode(text)[:20] for text in PROMPTS]
    with LlamaCpp(tiny_path, n_threads=1) as model:
        first = [model.greedy(prompt, 8, n_top=3) for prompt in prompts]
        # Each after a prompt that begins alike, and in another order.
        for prompt, expected in reversed(list(zip(prompts, first, strict=True))):
            model.greedy(prompt[:-1], 2)
            assert model.greedy(prompt, 8, n_top=3) == expected
    with LlamaCpp(tiny_path, n_threads=1) as model:
        assert model.greedy(prompts[3], 8, n_top=3) == first[3]


def test_probabilities_are_of_the_whole_vocabulary_before_sampling(tiny_path, chat_tokenizer):
    n_tokens = chat_tokenizer.vocab_size
    with LlamaCpp(tiny_path, n_threads=1) as model:
        answer = model.greedy([5, 6, 7], 3, n_top=n_tokens)
    for chosen, top in zip(answer.token_ids, answer.top, strict=True):
        assert sorted(id_ for id_, _ in top) == list(range(n_tokens))
        assert math.isclose(sum(math.exp(logprob) for _, logprob in top), 1, rel_tol=1e-4)
        assert top[0] == (chosen, max(logprob for _, logprob in top))


def test_bad_requests_say_what_to_do_and_the_model_lives_on(tiny_path):
    with LlamaCpp(tiny_path, n_context=32, n_threads=1) as model:
        with pytest.raises(RequestError, match=r"30 \+ 3 tokens do not fit n_context = 32"):
            model.greedy([5] * 30, 3)
        with pytest.raises(RequestError, match="a prompt of 0 tokens"):
            model.greedy([], 3)
        for bad in (-1, 10**9):
            with pytest.raises(RequestError, match="Prompt contains invalid tokens"):
                model.greedy([bad], 3)
        assert len(model.greedy([5] * 29, 3).token_ids) == 3
    model.close()


FAULTS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "missing": ({}, {"blk.0.attn_q": ()}, r"tensor 'blk\.0\.attn_q\.weight' not found"),
    "shape": ({}, {"blk.0.attn_q": (16, 32)}, r"'blk\.0\.attn_q\.weight' has wrong shape"),
    "type": ({"llama.rope.freq_base": 10000}, {}, "wrong type u32 but expected type f32"),
    "pre": ({"tokenizer.ggml.pre": "zz"}, {}, "unknown pre-tokenizer type: 'zz'"),
    # llama.cpp ends its process here.
    "twice": ({"tokenizer.ggml.tokens": ["a", "a"]}, {}, r"twice\.gguf: llama\.cpp cannot use"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_file_that_llama_cpp_refuses_is_an_error_with_its_words(tmp_path, chat_tokenizer, name):
    changes, shapes, message = FAULTS[name]
    metadata = {**gguf_metadata(chat_tokenizer), **changes}
    path = write_tiny(tmp_path / f"{name}.gguf", metadata, **shapes)
    with pytest.raises(ModelError, match=message):
        LlamaCpp(path, n_threads=1)


def test_no_file_and_no_wheel_are_errors_with_a_remedy(tmp_path, tiny_path, monkeypatch):
    with pytest.raises(ModelError, match=r"none\.gguf: no such file"):
        LlamaCpp(tmp_path / "none.gguf")
    (tmp_path / "xllamacpp.py").write_text("raise ImportError('No module named xllamacpp')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(
        LmwrightError, match=r"not installed .*; pip install 'lmwright\[llama-cpp\]"
    ):
        LlamaCpp(tiny_path)


@pytest.mark.weights
def test_the_starter_s_tokens_are_those_of_llama_cpp():
    with open_gguf(weights.smollm2()) as file:
        tokenizer = gguf_tokenizer(file.metadata)
    with LlamaCpp(weights.smollm2(), n_threads=1) as model:
        for text in [*TEXTS, *MARKS, *CAPITALS, *PROMPTS]:
            assert model.tokenize(text) == tokenizer.encode(text), repr(text)
        ended = model.greedy(tokenizer.chat([{"role": "user", "content": "Say hi."}]), 40)
        assert ended.has_ended
        assert ended.token_ids[-1] in tokenizer.eos_ids


@pytest.mark.weights
def test_gemma_s_tokens_are_those_of_llama_cpp_and_come_back():
    with open_gguf(weights.gemma3_270m()) as file:
        metadata = file.metadata
    tokenizer = gguf_tokenizer(metadata)
    assert [tokenizer.token(id_) for id_ in tokenizer.eos_ids] == ["<eos>", "<end_of_turn>"]
    turns = "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n"
    with LlamaCpp(weights.gemma3_270m(), n_threads=1) as model:
        for text in [*TEXTS, *MARKS, *CAPITALS, "  hello", "a    b\n\n\n\tc", "<table><td>x"]:
            assert model.tokenize(text, add_special=True) == tokenizer.encode(text), repr(text)
        ids = model.tokenize(turns, parse_special=True)
        assert tokenizer.decode(ids, skip_special=False) == turns
        assert tokenizer.eos_ids[1] in ids
    again = gguf_metadata(tokenizer)
    for name in ("model", "tokens", "token_type", "bos_token_id", "eos_token_id", "add_bos_token"):
        assert again[f"tokenizer.ggml.{name}"] == metadata[f"tokenizer.ggml.{name}"]
    # The scores are others, but put what text can become into the same order.
    tokens, types = again["tokenizer.ggml.tokens"], again["tokenizer.ggml.token_type"]
    scored = zip(tokens, types, metadata["tokenizer.ggml.scores"], strict=True)
    theirs = {token: score for token, type_, score in scored if type_ == 1}
    ours = dict(zip(tokens, again["tokenizer.ggml.scores"], strict=True))
    lowest = min(ours.values())
    joined = [token for token in theirs if ours[token] > lowest]
    assert len(joined) > 200_000
    assert sorted(joined, key=theirs.__getitem__) == sorted(joined, key=ours.__getitem__)


def write_again(file: GgufFile, path: Path, type_name: str) -> Path:
    """The same model in another format, its tokenizer through ours."""
    plain = {k: v for k, v in file.metadata.items() if not k.startswith("tokenizer.")}
    tokenizer = gguf_metadata(gguf_tokenizer(file.metadata))

    def reader(name: str) -> Callable[[], np.ndarray]:
        return lambda: file.read(name)

    tensors = {
        name: TensorSource(tensor.shape, type_name, reader(name))
        for name, tensor in file.tensors.items()
    }
    write_gguf(path, {**plain, **tokenizer, **file_metadata(type_name)}, tensors)
    return path


@pytest.mark.weights
def test_the_starter_written_by_us_continues_as_before(tmp_path):
    answers = {}
    with open_gguf(weights.smollm2()) as file:
        tokenizer = gguf_tokenizer(file.metadata)
        for type_name in ("F32", "F16", "Q8_0"):
            path = write_again(file, tmp_path / f"{type_name}.gguf", type_name)
            with LlamaCpp(path, n_threads=1) as model:
                prompts = [tokenizer.encode(text) for text in PROMPTS[:2]]
                answers[type_name] = [model.greedy(prompt, 6) for prompt in prompts]
    # llama.cpp rounds what it multiplies such weights with, too, to 16 or 8 bits. The original file
    # (Q4_1) is as far from its own weights in F32 as ours in Q8_0: 0.09 on average.
    for type_name, typical, tie in (("F16", 0.005, 0.05), ("Q8_0", 0.15, 0.5)):
        differences = []
        for mine, expected in zip(answers[type_name], answers["F32"], strict=True):
            differences += same_words(mine, expected, tie=tie)
        assert np.mean(differences) < typical


def same_words(mine: Continuation, expected: Continuation, *, tie: float) -> list[float]:
    """Demand equal tokens up to the first near-tie; return how far log-probabilities are apart."""
    differences: list[float] = []
    for token, wanted, top, wanted_top in zip(
        mine.token_ids, expected.token_ids, mine.top, expected.top, strict=True
    ):
        logprobs = dict(wanted_top)
        differences += [abs(logprobs[id_] - value) for id_, value in top[:5] if id_ in logprobs]
        if token != wanted:
            assert wanted_top[0][1] - wanted_top[1][1] < tie
            break
    return differences


def test_tokens_that_end_within_a_character_are_told_like_others(tiny_path, chat_tokenizer):
    # This model writes random bytes.
    n_within = 0
    with LlamaCpp(tiny_path, n_threads=1) as model:
        for text in PROMPTS:
            prompt = chat_tokenizer.encode(text)[:20]
            answer = model.greedy(prompt, 8, n_top=4)
            assert len(answer.top) == len(answer.token_ids) == 8
            for i, token in enumerate(answer.token_ids):
                assert answer.top[i][0][0] == token
                n_within += chat_tokenizer.token(token).endswith("\ufffd")
                (again,) = model.greedy([*prompt, *answer.token_ids[:i]], 1, n_top=4).top
                assert dict(again) == pytest.approx(dict(answer.top[i]), abs=1e-4)
    assert n_within > 5
