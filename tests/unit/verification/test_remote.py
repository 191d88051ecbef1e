"""Programs that only continue must still be led along given tokens, and nothing read into them."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from lmwright.core.errors import RequestError, UnsupportedError
from lmwright.engine.request import UNKNOWN, Completion, Prompt, Sampling, TokenLogprob
from lmwright.tokenizer.encode import Tokenizer
from lmwright.verification.local import LocalWitness
from lmwright.verification.remote import (
    LlamaWitness,
    ServerWitness,
    Step,
    go_on,
    lead,
)
from lmwright.verification.verify import verify
from lmwright.verification.witness import END, Next

SAID = Next.likeliest([(1, -0.1)])


class Counting:
    """Continues 1, 2, 3 by 4, 5, ... and writes down what it was asked."""

    def __init__(self, *, end_before: int | None = None, unknown: Sequence[int] = ()) -> None:
        self.asked: list[tuple[int, int]] = []
        self.end_before, self.unknown = end_before, unknown

    def __call__(self, ids: Sequence[int], n_tokens: int) -> list[Step]:
        self.asked.append((len(ids), n_tokens))
        steps = []
        for token in range(ids[-1] + 1, ids[-1] + 1 + n_tokens):
            if token == self.end_before:
                return [*steps, Step(END, None)]
            steps.append(Step(None if token in self.unknown else token, SAID))
        return steps


def test_who_agrees_is_asked_once() -> None:
    ask = Counting()
    trace = lead(ask, (1, 2, 3), (4, 5, 6))
    assert (trace.token_ids, trace.choices, len(trace.nexts)) == ((4, 5, 6), (4, 5, 6), 3)
    assert ask.asked == [(3, 3)]


def test_who_takes_another_token_is_asked_again_behind_the_given_one() -> None:
    ask = Counting()
    trace = lead(ask, (1, 2, 3), (4, 9, 10, 2))
    assert trace.choices == (4, 5, 10, 11)
    assert ask.asked == [(3, 4), (5, 2)]


def test_a_token_that_cannot_be_told_is_asked_behind_as_well() -> None:
    ask = Counting(unknown=[5])
    assert lead(ask, (1, 2, 3), (4, 5, 6)).choices == (4, None, 6)
    assert ask.asked == [(3, 3), (5, 1)]


def test_an_end_does_not_end_the_comparison() -> None:
    trace = lead(Counting(end_before=5), (1, 2, 3), (4, 7, 8))
    assert trace.choices == (4, END, 8)
    assert trace.nexts == (SAID, None, SAID)


def test_a_continuation_goes_as_far_as_its_tokens_are_known() -> None:
    assert go_on(Counting(), (3,), 3).token_ids == (4, 5, 6)
    assert go_on(Counting(unknown=[6]), (3,), 3).token_ids == (4, 5)
    assert go_on(Counting(end_before=5), (3,), 3).token_ids == (4,)


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


def witness(answer: Any, tokenizer: Tokenizer) -> tuple[ServerWitness, Endpoint]:
    endpoint = Endpoint(answer)
    return ServerWitness(endpoint, tokenizer), endpoint  # type: ignore[arg-type]


def test_texts_become_ids_where_they_name_one_token(tiny_tokenizer: Tokenizer) -> None:
    a, b = (tiny_tokenizer.encode(text)[0] for text in "ab")
    half = "\ufffd"
    first = TokenLogprob(UNKNOWN, "a", -0.5, ((UNKNOWN, "b", -1.0), (UNKNOWN, half, -2.0)))
    second = TokenLogprob(UNKNOWN, half, -0.7, ())
    server, endpoint = witness(lambda *_: completion(first, second), tiny_tokenizer)
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
    server, _ = witness(lambda *_: completion(token), tiny_tokenizer)
    [trace] = server.trace([(5, 6)], 1)
    assert trace.token_ids == (77,)
    assert trace.nexts[0] is not None
    # One text, two tokens: only one of them stays.
    assert np.isin(trace.nexts[0].ids, [77, 78]).all()


def test_an_end_is_told_by_its_reason(tiny_tokenizer: Tokenizer) -> None:
    token = TokenLogprob(UNKNOWN, "a", -0.5, ())
    server, _ = witness(lambda *_: completion(token, reason="stop"), tiny_tokenizer)
    a = tiny_tokenizer.encode("a")[0]
    assert server.trace([(5,)], 4, along=[(a, 7)])[0].choices == (a, END)


def test_fewer_log_probabilities_are_asked_where_twenty_are_refused(
    tiny_tokenizer: Tokenizer,
) -> None:
    def answer(_: Prompt, sampling: Sampling) -> Completion:
        if sampling.logprobs == 20:
            raise RequestError("logprobs: at most 5")
        return completion(TokenLogprob(UNKNOWN, "a", -0.5, ()))

    server, endpoint = witness(answer, tiny_tokenizer)
    server.trace([(5,)], 1)
    server.trace([(5,)], 1)
    assert [sampling.logprobs for _, sampling in endpoint.asked] == [20, 5, 5]


def test_a_server_without_log_probabilities_is_refused(tiny_tokenizer: Tokenizer) -> None:
    silent = Completion("ab", (UNKNOWN, UNKNOWN), "length", 3)
    server, _ = witness(lambda *_: silent, tiny_tokenizer)
    with pytest.raises(RequestError, match="tells no log-probabilities"):
        server.trace([(5,)], 2)


def test_a_server_counts_the_tokens_of_texts(tiny_tokenizer: Tokenizer) -> None:
    server, _ = witness(lambda *_: completion(n_prompt=9), tiny_tokenizer)
    found = server.encode("x")
    assert found is not None
    assert (found.n_tokens, found.ids) == (9, None)
    unknown, _ = witness(lambda *_: completion(n_prompt=UNKNOWN), tiny_tokenizer)
    assert unknown.encode("x") is None

    def refuse(*_: object) -> Completion:
        raise UnsupportedError("no chat", reason="no chat")

    assert witness(refuse, tiny_tokenizer)[0].encode([{"role": "user", "content": "x"}]) is None


needs_llama_cpp = pytest.mark.skipif(
    find_spec("xllamacpp") is None, reason="xllamacpp, a part of lmwright[dev], is not installed"
)


@needs_llama_cpp
def test_a_file_in_llama_cpp_is_the_model_that_was_written(
    original: LocalWitness, written, break_rope
) -> None:
    # A GGUF ends a reply with <|endoftext|>, too.
    original.tokenizer.eos_ids = (2, 0)
    there = LlamaWitness(written("F16"), n_threads=1)
    try:
        verdict = verify(original, there, n_prompts=4, n_tokens=4)
        assert verdict.is_passed, verdict
        assert 0 < verdict.numbers["largest_difference"] < 0.05
        assert [check.name for check in verdict.checks][:2] == ["tokens of texts", "vocabulary"]
        # The other way round, llama.cpp chooses and we follow.
        assert verify(there, original, n_prompts=4, n_tokens=4).is_passed
    finally:
        there.close()
    broken = LlamaWitness(written("F16", break_rope), n_threads=1)
    try:
        assert not verify(original, broken, n_prompts=4, n_tokens=4).is_passed
    finally:
        broken.close()


@needs_llama_cpp
def test_a_longer_prompt_gets_more_room(original: LocalWitness, written) -> None:
    there = LlamaWitness(written("F16"), n_threads=1)
    try:
        assert there.encode("Hello").ids == original.encode("Hello").ids
        assert there._llama is not None
        assert there._llama.n_context == 1024
        assert there._opened(1100).n_context == 1280
    finally:
        there.close()
