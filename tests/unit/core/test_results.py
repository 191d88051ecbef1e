"""Every number of a report is read back from here; a number without n is no result."""

import json
import re

import pytest

from lmwright.core import figures
from lmwright.core.decision import GateResult, RuleResult
from lmwright.core.errors import DataError
from lmwright.core.results import (
    Asked,
    Comparison,
    Metric,
    Row,
    Scores,
    from_plain,
    plain,
    read_rows,
    write_rows,
)
from lmwright.evaluation.runner import Measured, choose, conclude
from lmwright.hosted.usage import Usage


def metric(**values) -> Metric:
    given = {"name": "accuracy", "value": 0.5, "low": 0.4, "high": 0.6, "n": 10}
    return Metric(**{**given, "higher_is_better": True, **values})


def test_rows_come_back_as_they_were_in_order(tmp_path):
    rows = [
        Row("b", (1.0, 2.5), cluster="c", group="g", detail='said "\u00e4"\n'),
        Row("a", (-0.25, 1.0)),
        Row("c", (1e-300, 1.0, 3.0)),
    ]
    write_rows(tmp_path / "deep" / "rows.parquet", rows)
    assert read_rows(tmp_path / "deep" / "rows.parquet") == rows
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["rows.parquet"]


def test_no_rows_are_no_rows(tmp_path):
    write_rows(tmp_path / "rows.parquet", [])
    assert read_rows(tmp_path / "rows.parquet") == []


@pytest.mark.parametrize(
    "values", [{"n": 0}, {"low": 0.51}, {"high": 0.49}, {"value": float("nan")}]
)
def test_a_number_without_n_or_outside_its_interval_is_refused(values):
    with pytest.raises(ValueError, match="metric accuracy: "):
        metric(**values)


def test_metrics_and_comparisons_survive_json():
    whole = metric(unit="%", slices={"short": metric(name="short", slices={"x": metric()})})
    assert from_plain(Metric, json.loads(json.dumps(plain(whole)))) == whole
    for flips, n_needed in (((3, 1), 200), (None, None)):
        compared = Comparison(
            "accuracy", "int8", "tuned", -0.1, -0.2, 0.1, -0.2, -0.4, 0.2, 10, 0.3, 0.6, 0.02,
            "cannot tell", n_needed, flips,
        )  # fmt: skip
        assert from_plain(Comparison, json.loads(json.dumps(plain(compared)))) == compared


def test_decisions_survive_json():
    rule = RuleResult("m better", False, "no.", "m", 0.1, -0.1, 0.2, 400, "cannot tell", 10)
    decision = GateResult(False, "int8", "tuned", (rule,))
    written = json.loads(json.dumps(plain(decision))) | {"hash": "of a step"}
    assert from_plain(GateResult, written) == decision


# ---- scores


def measured(shift: float, **more) -> Measured:
    """One model: bits per byte of 24 texts, and refusals of 30 requests and look-alikes."""
    rows = {"bits_per_byte": [Row(f"t{i}", (100 + i + shift, 50)) for i in range(24)]}
    for metric in ("refusal_rate", "over_refusal_rate"):
        rows[metric] = [Row(f"r{i}", (0.0, 1.0), detail="Here.") for i in range(30)]
    return Measured(rows, **more)


@pytest.fixture
def scores() -> Scores:
    choice = choose(["bits_per_byte", "refusals"], ())
    models = {"base": measured(0.0), "small": measured(0.5)}
    return conclude(models, choice, parents={"small": ("base", "teacher")}, seed=0)


def test_json_holds_everything_but_the_rows(scores):
    text = json.dumps(scores.to_json(), allow_nan=False)
    again = Scores.from_json(json.loads(text))
    assert again == scores
    assert again.rows == {}
    assert str(again) == str(scores)
    spec = again.spec("refusal_rate")
    assert (spec.unit, spec.role, spec.heading) == ("share", "safety", "Fairness and safety")
    assert again.spec("size_bytes").kind == "exact"
    assert again.spec("refusal") is None
    assert isinstance(next(iter(again.asked["refusal_rate"].values())), Asked)


def test_scores_of_another_version_are_refused_with_the_key(scores):
    data = scores.to_json()
    with pytest.raises(DataError, match=r"comparisons\.0\.delta.*run the step again"):
        Scores.from_json(data | {"comparisons": [{**data["comparisons"][0], "delta": "much"}]})
    del data["specs"]
    with pytest.raises(DataError, match=r"not the Scores of this version of lmwright \(specs"):
        Scores.from_json(data)


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("models", [], "models: none"),
        ("metrics", {}, "metrics: none of bits_per_byte"),
        ("detectable", {}, "detectable: none of bits_per_byte"),
        ("facts_of_models", {"base": {"size_bytes": "5"}}, "size_bytes: no number"),
    ],
)
def test_scores_whose_parts_do_not_fit_are_refused(scores, key, value, fault):
    with pytest.raises(DataError, match=fault):
        Scores.from_json(scores.to_json() | {key: value})


def test_table_shows_intervals_verdicts_n_and_what_can_be_found(scores):
    text = str(scores)
    metric = scores.metric("bits_per_byte", "small")
    how = figures.scale(metric.unit, metric.value)
    value, low, high = map(how.number, (metric.value, metric.low, metric.high))
    assert f"{value} [{low}, {high}]" in text
    assert "0.0 % [0.0, 11.4]" in text
    assert "Bits per byte, neutral text: n = 24 items, finds changes from" in text
    assert "qa_accuracy: not measured" in text
    assert "[low, high] is a 95 % interval; verdicts against base" in text
    assert "same" in text


@pytest.mark.parametrize("width", [30, 50, 80, 120])
def test_no_width_parts_an_interval(scores, width):
    text = scores.table().text(width)
    intervals = re.findall(r"\[[\d.]+, [\d.]+\]", str(scores))
    assert len(intervals) == 6
    for interval in intervals:
        assert text.count(interval) == intervals.count(interval)
    assert max(map(len, text.splitlines())) <= width


def test_table_says_how_many_items_would_settle_it(scores):
    data = scores.to_json()
    [change] = [c for c in data["comparisons"] if c["metric"] == "refusal_rate"]
    change |= {"verdict": "cannot tell", "n_needed": 1234}
    assert "cannot tell: needs about 1,300" in str(Scores.from_json(data))


def test_gaps_and_what_was_asked_are_kept_and_shown():
    usage = Usage(5, 2, 1000, 100, 0, 0.25)
    there = measured(0.0, gaps={"bits_per_byte": "tells none", "size_bytes": "is elsewhere"})
    there.facts["usage"] = usage.to_json()
    del there.rows["bits_per_byte"]
    models = {"base": measured(0.0, facts={"size_bytes": 98_000_000}), "there": there}
    choice = choose(["bits_per_byte", "refusals"], ())
    scores = conclude(models, choice, parents={}, seed=0)
    again = Scores.from_json(json.loads(json.dumps(scores.to_json())))
    assert again == scores
    assert again.why_absent("size_bytes", "there") == "is elsewhere"
    assert again.why_absent("qa_accuracy", "base") == "the task 'qa_accuracy' was not asked for"
    text = " ".join(str(again).split())
    assert "not measured: tells none" in text
    assert "98 MB" in text
    assert "not measured: is elsewhere" in text
    assert f"there: {usage}" in text


def test_results_without_optional_parts_are_read(scores):
    data = scores.to_json()
    del data["gaps"], data["usage"]
    assert Scores.from_json(data) == scores
