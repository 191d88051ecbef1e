"""What people read and what files keep must be the numbers that were measured."""

import json

import pytest

from lmwright.evaluation.runner import evaluate
from lmwright.evaluation.scores import Scores, difference_text, rounded, value_text
from lmwright.hosted.usage import Usage


@pytest.fixture
def scores(make_model):
    return evaluate(
        [make_model("base"), make_model("small", likes={"the": -0.02})],
        tasks=["bits_per_byte", "refusals"],
    )


def test_json_holds_everything_but_the_rows(scores):
    text = json.dumps(scores.to_json(), allow_nan=False)
    again = Scores.from_json(json.loads(text))
    assert again == scores
    assert again.rows == {}
    assert again.table().row_count == scores.table().row_count
    task = scores.to_json()["tasks"]["refusal_rate"]
    assert {"title", "unit", "higher_is_better", "margin", "kind", "caveat"} <= task.keys()


def test_table_shows_intervals_verdicts_n_and_what_can_be_found(scores):
    text = str(scores)
    metric = scores.metrics["small"]["bits_per_byte"]
    low, high = value_text(metric.low, metric.unit), value_text(metric.high, metric.unit)
    assert f"{value_text(metric.value, metric.unit)} [{low}, {high}]" in text
    assert "0.0 % [0.0 %, 11.4 %]" in text
    assert "Bits per byte, neutral text: n = 24 items, finds changes from" in text
    assert "facts: not measured" in text
    assert "[low, high] is a 95 % interval; verdicts against base" in text
    assert "same" in text
    assert len({len(line) for line in text.splitlines() if line[:1] in "\u2502\u2503"}) == 1


def test_table_says_how_many_items_would_settle_it(scores):
    data = scores.to_json()
    [change] = [c for c in data["comparisons"] if c["metric"] == "refusal_rate"]
    change |= {"verdict": "cannot tell", "n_needed": 1234}
    assert "cannot tell: needs about 1,300" in str(Scores.from_json(data))


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.8534, "share", "85.3 %"),
        (1.07345, "bits/byte", "1.07"),
        (12.0, "tokens/s", "12.0"),
        (234.5, "tokens/s", "234"),
        (12345.6, "tokens/s", "12,346"),
    ],
)
def test_numbers_keep_the_digits_that_count(value, unit, text):
    assert value_text(value, unit) == text


def test_differences_and_counts_for_people():
    assert difference_text(0.0523, "share") == "5.2 points"
    assert difference_text(0.0523, "nats") == "0.0523 nats"
    assert [rounded(n) for n in (7, 99, 101, 1234, 120_000)] == [7, 99, 110, 1300, 120_000]


def test_gaps_and_what_was_asked_are_kept_and_shown(scores):
    data = scores.to_json()
    del data["metrics"]["small"]["bits_per_byte"]
    data["facts_of_models"]["base"]["size_bytes"] = 98e6
    data["facts_of_models"]["small"] = {"usage": Usage(5, 2, 1000, 100, 0, 0.25).to_json()}
    data["gaps"] = {"small": {"bits_per_byte": "tells none", "size_bytes": "is elsewhere"}}
    again = Scores.from_json(json.loads(json.dumps(data)))
    assert again.to_json() == data
    text = " ".join(str(again).split())
    assert "not measured: tells none" in text
    assert "98 MB" in text
    assert "not measured: is elsewhere" in text
    assert "small: 5 requests sent and 2 answered from the cache, 1,000 tokens in" in text
    assert "cost 0.2500" in text


def test_results_from_before_there_were_gaps_are_read(scores):
    data = scores.to_json()
    del data["gaps"]
    assert Scores.from_json(data) == scores
