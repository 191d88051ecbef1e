"""The chosen answer must not depend on how long the answers are."""

import json

import pytest

from lmwright.evaluation.selection import Selection
from lmwright.evaluation.tasks.multiple_choice import _row, requests, rows

ITEM = {
    "id": "q",
    "topic": "geography",
    "question": "What is the capital of France?",
    "choices": ["Paris", "The city of London", "Rome", "Oslo"],
    "answer": 0,
}


def test_requests_join_into_the_prompt_that_the_module_names():
    first, *_ = requests(ITEM)
    assert first.context + first.continuation == (
        "Question: What is the capital of France?\nAnswer: Paris"
    )


def test_log_probability_is_taken_per_byte():
    # As a whole London is less likely than Paris; per byte it is more likely.
    row = _row(ITEM, [-6.0, -9.0, -8.0, -9.0])
    detail = json.loads(row.detail)
    assert (row.sums, row.item, row.cluster, row.group) == ((0.0, 1.0), "q", "q", "geography")
    assert (detail["chosen"], detail["answer"], detail["right_without_normalising"]) == (1, 0, True)
    assert detail["logprobs"] == [-6.0, -9.0, -8.0, -9.0]
    assert detail["margin_per_byte"] == pytest.approx(-6 / 5 + 9 / 18)


def test_bytes_are_counted_not_characters():
    item = {**ITEM, "choices": ["\u00e9\u00e9", "abc", "abc.", "abc,"]}
    # 4 bytes against 3: -1.0 and -1.1 a byte.
    assert _row(item, [-4.0, -3.3, -9.0, -9.0]).sums == (1.0, 1.0)


def test_model_that_likes_the_answers_is_right(make_model):
    plain = rows(make_model(), Selection(100))
    assert len(plain) == 100
    # Right or wrong by chance alone: the fake model knows nothing.
    assert 0.05 < sum(row.sums[0] for row in plain) / 100 < 0.6
    assert len({row.group for row in plain}) == 10
    assert len(rows(make_model(), Selection())) == 200
