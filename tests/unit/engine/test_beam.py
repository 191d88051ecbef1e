"""Beam search promises the likeliest of what it looked at: with enough beams, of everything.

That it is transformers' search is shown in tests/parity/test_generation.py.
"""

import itertools

import numpy as np
import pytest

from fakes import FREE, FakeBackend
from lmwright.core.errors import LmwrightError
from lmwright.engine.backend import LogitConstraints
from lmwright.engine.beam import beam_search
from lmwright.engine.request import MAX_BEAMS, Admitted, Sampling

A, B, END = 0, 1, 2
PROMPTS = [[1, 0, 1], [0], [1, 1], [0, 0, 0, 0]]


class TableBackend(FakeBackend):
    """Three tokens, the last of which ends an answer; random logits for each sequence."""

    def __init__(self, constraints=FREE):
        super().__init__(logits=self.logits, context_length=100, constraints=constraints)

    @property
    def n_rows(self):
        """How many rows were read in each step that read prompts."""
        return [len(rows) for rows in self.steps if rows[0].start == 0]

    def logits(self, prompt, said):
        seed = hash((prompt, said)) % 2**32
        return np.random.default_rng(seed).normal(0, 1.5, 3).astype(np.float32)

    def logprobs(self, prompt, said):
        logits = self.logits(tuple(prompt), tuple(said)).astype(np.float64)
        return self.constraints.allow(logits - np.log(np.exp(logits).sum()), len(said))


@pytest.fixture
def tokenizer(tiny_tokenizer, monkeypatch):
    monkeypatch.setattr(tiny_tokenizer, "eos_ids", (END,))
    return tiny_tokenizer


def search(backend, tokenizer, prompts=PROMPTS, **settings):
    requests = [Admitted(tuple(prompt), Sampling(**settings)) for prompt in prompts]
    found = dict(beam_search(backend, tokenizer, requests))
    assert sorted(found) == list(range(len(prompts)))
    return [found[i] for i in range(len(prompts))]


def best_of_all(backend, prompt, n_tokens, penalty):
    """The best answer of all there are: each ends by END, or is `n_tokens` long."""
    scores = {}
    for length in range(1, n_tokens + 1):
        for said in itertools.product((A, B, END), repeat=length):
            is_ended = said[-1] == END
            if END in said[:-1] or not (is_ended or length == n_tokens):
                continue
            steps = [backend.logprobs(prompt, said[:i])[said[i]] for i in range(length)]
            scores[said] = sum(steps) / length**penalty
    said = max(scores, key=scores.__getitem__)
    return said[:-1] if said[-1] == END else said


@pytest.mark.parametrize("penalty", [-1.0, 0.0, 0.6, 1.0, 2.0])
@pytest.mark.parametrize(
    "constraints",
    [LogitConstraints(), LogitConstraints(first_id=B), LogitConstraints(suppressed_ids=(A,))],
    ids=str,
)
def test_with_enough_beams_the_best_answer_of_all_is_found(tokenizer, penalty, constraints):
    backend = TableBackend(constraints)
    completions = search(backend, tokenizer, n_beams=32, max_tokens=4, length_penalty=penalty)
    for prompt, completion in zip(PROMPTS, completions, strict=True):
        assert completion.token_ids == best_of_all(backend, prompt, 4, penalty)
        is_whole = len(completion.token_ids) == 4
        assert completion.finish_reason == ("length" if is_whole else "stop")
        assert completion.text == tokenizer.decode(completion.token_ids)
        assert completion.n_prompt_tokens == len(prompt)


@pytest.mark.parametrize("early", [False, True])
def test_an_answer_does_not_depend_on_the_others_of_its_batch(tokenizer, early):
    for n_beams in (2, 3, 8):
        settings = {"n_beams": n_beams, "max_tokens": 7, "early_stopping": early}
        together = search(TableBackend(), tokenizer, **settings)
        for prompt, completion in zip(PROMPTS, together, strict=True):
            assert search(TableBackend(), tokenizer, [prompt], **settings) == [completion]


def test_all_beams_of_a_batch_fit_into_its_rows(tokenizer):
    backend = TableBackend()
    search(backend, tokenizer, n_beams=16, max_tokens=2)
    assert backend.n_rows == [2, 2]
    assert MAX_BEAMS == 16 * 2


def test_without_an_end_all_answers_are_of_full_length(tokenizer):
    for completion in search(TableBackend(), tokenizer, n_beams=3, max_tokens=5, ignore_eos=True):
        assert len(completion.token_ids) == 5
        assert completion.finish_reason == "length"


def test_seen_tokens_are_penalised_those_of_the_prompt_too(tokenizer):
    backend, prompts = TableBackend(), [[A], [B], [A, A], [B, A]]
    settings = {"n_beams": 2, "max_tokens": 1, "ignore_eos": True}
    plain = search(backend, tokenizer, prompts, **settings)
    penalised = search(backend, tokenizer, prompts, repetition_penalty=100.0, **settings)
    assert plain != penalised
    for prompt, completion in zip(prompts, penalised, strict=True):
        scores = backend.logprobs(prompt, ())
        scores[list(set(prompt))] *= 100
        assert completion.token_ids == (int(scores.argmax()),)


def test_damaged_weights_are_an_error_and_no_text(tokenizer):
    broken = np.array([0, np.nan, 1], dtype=np.float32)
    backend = FakeBackend(logits=lambda *_: broken)
    with pytest.raises(LmwrightError, match="not finite"):
        search(backend, tokenizer, n_beams=2)
