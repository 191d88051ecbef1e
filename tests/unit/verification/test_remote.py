"""Programs that only continue must still be led along given tokens, and nothing read into them."""

import json
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from lmwright.core.errors import ModelError, RequestError, UnsupportedError
from lmwright.engine.request import UNKNOWN, Completion, Prompt, Sampling, TokenLogprob
from lmwright.formats.gguf import open_gguf
from lmwright.tokenizer.encode import Tokenizer
from lmwright.verification.remote import (
    LlamaSubject,
    ServerSubject,
    ToldToken,
    close,
    forced_trace,
    free_trace,
    open_pair,
    open_subject,
)
from lmwright.verification.subject import END, LocalSubject, NextToken
from lmwright.verification.verify import verify

SAID = NextToken.likeliest([(1, -0.1)])


class Counting:
    """Continues 1, 2, 3 by 4, 5, ... and writes down what it was asked."""

    def __init__(self, *, end_before: int | None = None, unknown: Sequence[int] = ()) -> None:
        self.asked: list[tuple[int, int]] = []
        self.end_before, self.unknown = end_before, unknown

    def __call__(self, ids: Sequence[int], n_tokens: int) -> list[ToldToken]:
        self.asked.append((len(ids), n_tokens))
        steps = []
        for token in range(ids[-1] + 1, ids[-1] + 1 + n_tokens):
            if token == self.end_before:
                return [*steps, ToldToken(END, None)]
            steps.append(ToldToken(None if token in self.unknown else token, SAID))
        return steps


def test_who_agrees_is_asked_once() -> None:
    ask = Counting()
    trace = forced_trace(ask, (1, 2, 3), (4, 5, 6))
    assert (trace.token_ids, trace.choices, len(trace.nexts)) == ((4, 5, 6), (4, 5, 6), 3)
    assert ask.asked == [(3, 3)]


def test_who_takes_another_token_is_asked_again_behind_the_given_one() -> None:
    ask = Counting()
    trace = forced_trace(ask, (1, 2, 3), (4, 9, 10, 2))
    assert trace.choices == (4, 5, 10, 11)
    assert ask.asked == [(3, 4), (5, 2)]


def test_a_token_that_cannot_be_told_is_asked_behind_as_well() -> None:
    ask = Counting(unknown=[5])
    assert forced_trace(ask, (1, 2, 3), (4, 5, 6)).choices == (4, None, 6)
    assert ask.asked == [(3, 3), (5, 1)]


def test_an_end_does_not_end_the_comparison() -> None:
    trace = forced_trace(Counting(end_before=5), (1, 2, 3), (4, 7, 8))
    assert trace.choices == (4, END, 8)
    assert trace.nexts == (SAID, None, SAID)


def test_a_continuation_goes_as_far_as_its_tokens_are_known() -> None:
    assert free_trace(Counting(), (3,), 3).token_ids == (4, 5, 6)
    assert free_trace(Counting(unknown=[6]), (3,), 3).token_ids == (4, 5)
    assert free_trace(Counting(end_before=5), (3,), 3).token_ids == (4,)


class Endpoint:
    """Answers as a hosted model does; `answer` makes the tokens."""

    name = "openai:x@http://127.0.0.1:1/v1"

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[tuple[Prompt, Sampling]] = []

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        [prompt] = prompts
        self.asked.append((prompt, sampling))
        return [self.answer(prompt, sampling)]


def completion(*tokens: TokenLogprob, reason: str = "length", n_prompt: int = 3) -> Completion:
    return Completion("", (UNKNOWN,) * len(tokens), reason, n_prompt, logprobs=tokens)  # type: ignore[arg-type]


def subject(answer: Any, tokenizer: Tokenizer) -> tuple[ServerSubject, Endpoint]:
    endpoint = Endpoint(answer)
    return ServerSubject(endpoint, tokenizer), endpoint  # type: ignore[arg-type]


def test_texts_become_ids_where_they_name_one_token(tiny_tokenizer: Tokenizer) -> None:
    a, b = (tiny_tokenizer.encode(text)[0] for text in "ab")
    half = "\ufffd"
    first = TokenLogprob(UNKNOWN, "a", -0.5, ((UNKNOWN, "b", -1.0), (UNKNOWN, half, -2.0)))
    second = TokenLogprob(UNKNOWN, half, -0.7, ())
    server, endpoint = subject(lambda *_: completion(first, second), tiny_tokenizer)
    [trace] = server.trace([(5, 6)], 2)
    assert trace.token_ids == (a,)
    said = trace.nexts[0]
    assert said is not None
    assert dict(zip(said.ids.tolist(), said.logprobs.tolist(), strict=True)) == {a: -0.5, b: -1.0}
    # Not all of the likeliest have an id: one that is not told may be likelier than the last.
    assert said.floor is None
    assert endpoint.asked[0][0] == (5, 6)
    assert endpoint.asked[0][1].logprobs == 20


def test_ids_are_taken_where_a_server_tells_them(tiny_tokenizer: Tokenizer) -> None:
    token = TokenLogprob(77, "\ufffd", -0.5, ((77, "\ufffd", -0.5), (78, "\ufffd", -1.5)))
    server, _ = subject(lambda *_: completion(token), tiny_tokenizer)
    [trace] = server.trace([(5, 6)], 1)
    assert trace.token_ids == (77,)
    assert trace.nexts[0] is not None
    # One text, two tokens: only one of them stays.
    assert np.isin(trace.nexts[0].ids, [77, 78]).all()


def test_an_end_is_told_by_its_reason(tiny_tokenizer: Tokenizer) -> None:
    token = TokenLogprob(UNKNOWN, "a", -0.5, ())
    server, _ = subject(lambda *_: completion(token, reason="stop"), tiny_tokenizer)
    a = tiny_tokenizer.encode("a")[0]
    assert server.trace([(5,)], 4, forced=[(a, 7)])[0].choices == (a, END)


def test_fewer_log_probabilities_are_asked_where_twenty_are_refused(
    tiny_tokenizer: Tokenizer,
) -> None:
    def answer(_: Prompt, sampling: Sampling) -> Completion:
        if sampling.logprobs == 20:
            raise RequestError("logprobs: at most 5")
        return completion(TokenLogprob(UNKNOWN, "a", -0.5, ()))

    server, endpoint = subject(answer, tiny_tokenizer)
    server.trace([(5,)], 1)
    server.trace([(5,)], 1)
    assert [sampling.logprobs for _, sampling in endpoint.asked] == [20, 5, 5]


def test_a_server_without_log_probabilities_is_refused(tiny_tokenizer: Tokenizer) -> None:
    silent = Completion("ab", (UNKNOWN, UNKNOWN), "length", 3)
    server, _ = subject(lambda *_: silent, tiny_tokenizer)
    with pytest.raises(RequestError, match="tells no log-probabilities"):
        server.trace([(5,)], 2)


def test_a_server_counts_the_tokens_of_texts(tiny_tokenizer: Tokenizer) -> None:
    server, _ = subject(lambda *_: completion(n_prompt=9), tiny_tokenizer)
    found = server.encode("x")
    assert found is not None
    assert (found.n_tokens, found.ids) == (9, None)
    unknown, _ = subject(lambda *_: completion(n_prompt=UNKNOWN), tiny_tokenizer)
    assert unknown.encode("x") is None

    def refuse(*_: object) -> Completion:
        raise UnsupportedError("no chat", reason="no chat")

    assert subject(refuse, tiny_tokenizer)[0].encode([{"role": "user", "content": "x"}]) is None


needs_llama_cpp = pytest.mark.skipif(
    find_spec("xllamacpp") is None, reason="xllamacpp, a part of lmwright[dev], is not installed"
)


@needs_llama_cpp
def test_a_file_in_llama_cpp_is_the_model_that_was_written(
    original: LocalSubject, written, break_rope
) -> None:
    # A GGUF ends a reply with <|endoftext|>, too.
    original.tokenizer.eos_ids = (2, 0)
    there = LlamaSubject(written("F16"), n_threads=1)
    try:
        result = verify(original, there, n_prompts=4, n_tokens=4)
        assert result.is_passed, result
        assert 0 < result.numbers["largest_difference"] < 0.05
        names = ["tokens of texts", "vocabulary", "chat template", "configuration", "weights"]
        assert [check.name for check in result.checks][: len(names)] == names
        # The other way round, llama.cpp chooses and we follow.
        assert verify(there, there.here, n_prompts=4, n_tokens=4).is_passed
    finally:
        there.close()
    broken = LlamaSubject(written("F16", break_rope), n_threads=1)
    try:
        assert not verify(original, broken, n_prompts=4, n_tokens=4).is_passed
    finally:
        broken.close()


@needs_llama_cpp
def test_a_longer_prompt_gets_more_room(original: LocalSubject, written) -> None:
    there = LlamaSubject(written("F16"), n_threads=1)
    try:
        assert there.encode("Hello").ids == original.encode("Hello").ids
        assert there._llama is not None
        assert there._llama.n_context == 1024
        assert there._opened(1100).n_context == 1280
    finally:
        there.close()


def test_folders_and_files_are_opened_here_or_in_llama_cpp(written) -> None:
    folder, file = written("int8"), written("Q8_0")
    first, second = open_pair(str(folder), str(file))
    assert isinstance(first, LocalSubject)
    assert (first.weights, second.weights) == ("int8", "Q8_0")
    there = open_subject(f"llama.cpp:{file}")
    assert isinstance(there, LlamaSubject)
    assert (there.name, there.weights, there.n_ids) == (f"llama.cpp:{file}", "Q8_0", 300)
    assert there.context_length == 512
    close(first, there)


def test_a_server_gets_the_tokens_of_the_other(written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    folder = str(written("fp32"))
    for names in (
        (folder, "openai:x@http://127.0.0.1:9/v1"),
        ("openai:x@http://127.0.0.1:9/v1", folder),
    ):
        pair = open_pair(*names)
        assert [isinstance(each, ServerSubject) for each in pair] == [
            name.startswith("openai:") for name in names
        ]
        assert [each.name for each in pair] == list(names)


def test_the_user_may_say_what_a_server_holds(written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    folder, address = str(written("fp32")), "openai:x@http://127.0.0.1:9/v1"
    assert open_pair(folder, address)[1].weights is None
    assert open_pair(folder, address, server_weights="fp16")[1].weights == "fp16"
    with pytest.raises(RequestError, match="'f16' is no number format"):
        open_pair(folder, address, server_weights="f16")
    with pytest.raises(RequestError, match=r"neither .* nor .* is a server"):
        open_pair(folder, folder, server_weights="fp16")


@needs_llama_cpp
@pytest.mark.parametrize("damage", ["nan", "zeros", "huge"])
@pytest.mark.parametrize("name", ["output_norm", "token_embd", "blk.0.attn_q"])
def test_damaged_weights_in_llama_cpp_fail(
    name: str, damage: str, original: LocalSubject, written
) -> None:
    path = written("Q8_0")
    with open_gguf(path) as file:
        place = file.tensors[f"{name}.weight"]
    kind, step = (np.float32, 4) if place.type_name == "F32" else (np.float16, 34)
    largest = 3e38 if step == 4 else 6e4
    value = kind({"nan": np.nan, "zeros": 0.0, "huge": largest}[damage]).tobytes()
    block = value if step == 4 else value + bytes([127] * 32)
    data = bytearray(path.read_bytes())
    data[place.offset : place.offset + place.n_bytes] = block * (place.n_bytes // step)
    path.write_bytes(data)
    there = LlamaSubject(path, n_threads=1)
    try:
        result = verify(original, there, n_prompts=2, n_tokens=2)
    finally:
        there.close()
    assert not result.is_passed
    assert json.loads(json.dumps(result.to_json(), allow_nan=False))["is_passed"] is False


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("openai:a@http://127.0.0.1:9/v1", "openai:b@http://127.0.0.1:9/v1", "two servers"),
        ("no/such", "starter", "no such model"),
    ],
)
def test_what_cannot_be_opened_is_refused(first: str, second: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        open_pair(first, second)


def test_llama_cpp_opens_gguf_files_only(written) -> None:
    with pytest.raises(ModelError, match=r"llama.cpp opens \.gguf files"):
        open_subject(f"llama.cpp:{written('fp32')}")
