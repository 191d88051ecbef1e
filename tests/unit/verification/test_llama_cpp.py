"""llama.cpp tells nothing of tokens that end within a character: the rest must keep its places."""

import math

import pytest

from lmwright.verification.llama_cpp import _pairs, _placed


def steps(*ids: int) -> list[dict]:
    return [{"id": id_, "top_logprobs": []} for id_ in ids]


def ids(found: list) -> list[int | None]:
    return [None if step is None else step["id"] for step in found]


@pytest.mark.parametrize(
    ("told", "tokens", "expected"),
    [
        ((1, 2, 3), (1, 2, 3), [1, 2, 3]),
        ((5, 5, 5), (5, 5, 5), [5, 5, 5]),
        ((1, 4), (1, 2, 3, 4), [1, None, None, 4]),
        ((), (1, 2), [None, None]),
        # Which of the two was told?
        ((1, 7), (1, 7, 7), [None, None, None]),
        # Not of these tokens at all.
        ((9,), (1, 2), [None, None]),
    ],
)
def test_what_was_told_keeps_its_place_or_has_none(told, tokens, expected) -> None:
    assert ids(_placed(steps(*told), tokens)) == expected


def test_null_is_no_number() -> None:
    step = {"top_logprobs": [{"id": 3, "logprob": None}, {"id": 4, "logprob": -1.5}]}
    (first, nothing), second = _pairs(step)
    assert first == 3
    assert math.isnan(nothing)
    assert second == (4, -1.5)
