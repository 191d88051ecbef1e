"""Bits per byte must not depend on the tokenizer, or two models cannot be compared."""

from math import log

import numpy as np
import pytest

from lmwright.engine.request import Score
from lmwright.evaluation.selection import Selection, starter_lines
from lmwright.evaluation.tasks.bits_per_byte import rows


class Halving:
    """A model for which every byte is a coin toss, whatever a token is."""

    def __init__(self, token_size):
        self.token_size = token_size

    def score(self, requests):
        scores = []
        for request in requests:
            n_bytes = len(request.continuation.encode())
            sizes = [min(self.token_size, n_bytes - i) for i in range(0, n_bytes, self.token_size)]
            logprobs = np.array([size * log(0.5) for size in sizes])
            scores.append(Score(tuple(range(len(sizes))), logprobs, False))
        return scores


@pytest.mark.parametrize("token_size", [1, 4])
def test_coin_toss_a_byte_is_one_bit_a_byte(token_size):
    found = rows(Halving(token_size), Selection(24))
    assert len(found) == 24
    assert [row.sums[0] for row in found] == pytest.approx([row.sums[1] for row in found])


def test_every_byte_of_the_texts_counts(make_model):
    found = rows(make_model(), Selection())
    texts = {item["id"]: item["text"] for item in starter_lines("neutral-text.jsonl")}
    assert {row.item: row.sums[1] for row in found} == {
        name: len(text.encode()) for name, text in texts.items()
    }
    assert all(row.detail == f"{int(row.sums[1])} tokens" for row in found)
