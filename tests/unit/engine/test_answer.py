"""What a model says may depend on its prompt and its seed, and on nothing else."""

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from lmwright.core.errors import LmwrightError
from lmwright.engine.answer import StopText
from lmwright.engine.request import Sampling
from lmwright.engine.scheduler import Engine, EngineLimits
from lmwright.engine.torch.decoder import TorchDecoder

PROMPTS = [[5, 9, 20, 31, 7], [5], [5, 9, 20, 40], [80, 81, 82, 83, 84, 85, 86, 87]]
SAMPLED = Sampling(max_tokens=12, temperature=1.0, top_p=0.95, ignore_eos=True, logprobs=2, seed=3)


@pytest.fixture
def backend(tiny_model) -> TorchDecoder:
    return TorchDecoder(tiny_model)


def generate(backend, tokenizer, prompts, sampling, **limits):
    """Pieces of the answers to all prompts, each with the number of its prompt."""
    engine = Engine(backend, tokenizer, EngineLimits(**limits))
    for prompt in prompts:
        engine.add(prompt, [sampling])
    n_blocks = engine._blocks.n_blocks
    while not engine.is_idle:
        yield from engine.step()
    assert engine._blocks.n_free == n_blocks


@pytest.fixture
def say(backend, tiny_tokenizer):
    """Completions in the order of the prompts."""

    def complete(prompts, sampling=None, n_rows=32, **settings):
        sampling = sampling or Sampling(**{"max_tokens": 12, "ignore_eos": True, **settings})
        found = {}
        for number, chunk in generate(backend, tiny_tokenizer, prompts, sampling, n_rows=n_rows):
            if chunk.completion is not None:
                assert number not in found
                found[number] = chunk.completion
        return [found[i] for i in range(len(prompts))]

    return complete


@torch.inference_mode()
def next_logits(model, ids) -> torch.Tensor:
    return model(torch.tensor([ids]))[0, -1]


def naive(model, prompt, n_tokens, penalty=1.0) -> tuple[list[int], list[torch.Tensor]]:
    """Greedy decoding by its definition: the whole sequence anew for each token."""
    ids, steps = list(prompt), []
    for _ in range(n_tokens):
        logits = next_logits(model, ids).clone()
        for seen in set(ids) if penalty != 1.0 else ():
            logits[seen] = logits[seen] / penalty if logits[seen] > 0 else logits[seen] * penalty
        steps.append(logits.double().log_softmax(dim=0))
        ids.append(int(logits.argmax()))
    return ids[len(prompt) :], steps


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_equals_computing_everything_anew(say, tiny_model, penalty):
    completions = say(PROMPTS, repetition_penalty=penalty, logprobs=3)
    for prompt, completion in zip(PROMPTS, completions, strict=True):
        ids, steps = naive(tiny_model, prompt, 12, penalty)
        assert list(completion.token_ids) == ids
        for told, logprobs in zip(completion.logprobs, steps, strict=True):
            assert abs(told.logprob - float(logprobs[told.token_id])) < 1e-5
            best = logprobs.topk(3)
            assert [id_ for id_, _, _ in told.top] == best.indices.tolist()
            np.testing.assert_allclose([p for _, _, p in told.top], best.values, atol=1e-5)


@pytest.mark.parametrize("max_rows", [1, 2, 32])
def test_neither_greedy_nor_sampled_text_depends_on_the_batch(say, max_rows):
    for sampling in (Sampling(max_tokens=12, ignore_eos=True), SAMPLED):
        alone = [say([prompt], sampling)[0] for prompt in PROMPTS]
        together = say(PROMPTS, sampling, n_rows=max_rows)
        assert [c.token_ids for c in together] == [c.token_ids for c in alone]
        assert [c.text for c in together] == [c.text for c in alone]


def test_the_seed_decides(say):
    def said(seed):
        return say(PROMPTS[:1], temperature=1.0, seed=seed)[0].token_ids

    assert said(1) == said(1)
    assert said(1) != said(2)


def test_max_tokens_is_exact(say, tiny_tokenizer):
    for n in (1, 5):
        for completion, prompt in zip(say(PROMPTS, max_tokens=n), PROMPTS, strict=True):
            assert len(completion.token_ids) == n
            assert completion.finish_reason == "length"
            assert completion.n_prompt_tokens == len(prompt)
            assert completion.text == tiny_tokenizer.decode(completion.token_ids)


def test_rows_of_one_batch_end_at_different_times(say, tiny_tokenizer, monkeypatch):
    told = say(PROMPTS)
    # The tokenizer's end is where each row first says the third token of the first row.
    end = told[0].token_ids[2]
    ends = [c.token_ids.index(end) if end in c.token_ids else 12 for c in told]
    assert len(set(ends)) > 1
    monkeypatch.setattr(tiny_tokenizer, "eos_ids", (end,))
    for completion, before, n in zip(say(PROMPTS, ignore_eos=False), told, ends, strict=True):
        # The end itself is not part of the answer.
        assert completion.token_ids == before.token_ids[:n]
        assert completion.finish_reason == ("stop" if n < 12 else "length")
        assert completion.text == tiny_tokenizer.decode(completion.token_ids)
    assert [c.token_ids for c in say(PROMPTS, ignore_eos=True)] == [c.token_ids for c in told]


def test_text_ends_before_a_stop_string_that_spans_tokens(say):
    (whole,) = say([[84]], max_tokens=40)
    text = whole.text
    for start, end in ((0, 1), (3, 6), (len(text) - 2, len(text)), (10, 17)):
        stop = text[start:end]
        (completion,) = say([[84]], max_tokens=40, stop=(stop, "never said"))
        assert completion.text == text[: text.index(stop)]
        assert completion.finish_reason == "stop"
        assert len(completion.token_ids) <= 40


def test_pieces_of_a_stream_are_the_text_and_the_logprobs(backend, tiny_tokenizer):
    chunks = [c for _, c in generate(backend, tiny_tokenizer, PROMPTS[:1], SAMPLED)]
    completion = chunks[-1].completion
    assert completion is not None
    assert all(chunk.completion is None for chunk in chunks[:-1])
    assert "".join(chunk.text for chunk in chunks) == completion.text
    assert sum((chunk.logprobs for chunk in chunks), ()) == completion.logprobs
    assert tuple(each.token_id for each in completion.logprobs) == completion.token_ids


def test_damaged_weights_are_an_error_and_no_text(say, tiny_model):
    with torch.no_grad():
        tiny_model.decoder.norm.weight[0] = float("nan")
    with pytest.raises(LmwrightError, match="not finite"):
        say(PROMPTS)


def cut(text: str, stops: tuple[str, ...]) -> str:
    """The oracle: letter by letter, until the text ends with a stop string."""
    for end in range(1, len(text) + 1):
        found = [len(stop) for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - max(found)]
    return text


LETTERS = st.text("ab", max_size=4)


@given(
    pieces=st.lists(LETTERS, max_size=8),
    stops=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3).map(tuple),
)
@example(pieces=["abb"], stops=("abb", "b"))
@example(pieces=["a", "ba"], stops=("aba", "ba"))
def test_stop_strings_do_not_depend_on_how_the_text_is_cut(pieces, stops):
    stopper = StopText(stops)
    told = [stopper.push(piece) for piece in pieces]
    expected = cut("".join(pieces), stops)
    assert expected.startswith("".join(told))
    assert "".join(told) + stopper.finish() == stopper.told == expected
    assert stopper.is_stopped == any(stop in "".join(pieces) for stop in stops)


def test_only_what_may_become_a_stop_string_is_held_back():
    stopper = StopText(("</end>",))
    assert stopper.push("a <b") == "a <b"
    assert stopper.push(" </") == " "
    assert stopper.push("e") == ""
    assert stopper.push("x") == "</ex"
