"""A prompt that is given back must fit its text to the character: clients cut it there."""

import math

import pytest
import torch

from lmwright.lm import LocalModel, modules
from lmwright.serving.completions import echo

TEXT = "The bank \u00e9 \U0001f600 opens"


@pytest.mark.parametrize("n_logprobs", [0, 3])
def test_an_echo_is_what_plain_scoring_says(tiny_lm: LocalModel, n_logprobs: int) -> None:
    ids = tiny_lm.tokenizer.encode(TEXT)
    found = echo(tiny_lm, ids, n_logprobs=n_logprobs)
    assert found.text == TEXT
    assert [token.token_id for token in found.logprobs] == ids
    assert math.isnan(found.logprobs[0].logprob)
    logprobs = modules(tiny_lm)(torch.tensor([ids])).detach().log_softmax(dim=-1)[0]
    for place, token in enumerate(found.logprobs[1:]):
        assert token.logprob == pytest.approx(float(logprobs[place, ids[place + 1]]), abs=1e-4)
        best = logprobs[place].topk(3)
        assert [i for i, _, _ in token.top] == best.indices.tolist()[:n_logprobs]
        assert [p for _, _, p in token.top] == pytest.approx(
            best.values.tolist()[:n_logprobs], abs=1e-4
        )


def test_offsets_are_where_each_token_begins_in_the_text(tiny_lm: LocalModel) -> None:
    ids = tiny_lm.tokenizer.encode(TEXT)
    found = echo(tiny_lm, ids, n_logprobs=0)
    for i, offset in enumerate(found.offsets):
        # What stands before it, without a character that is not complete yet.
        before = tiny_lm.tokenizer.decode(ids[:i]).rstrip("\ufffd")
        assert offset == len(before)
