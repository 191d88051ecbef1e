"""Every number of a report is read back from here; a number without n is no result."""

import json

import pytest

from lmwright.core.results import Comparison, Metric, Row, read_rows, write_rows


def metric(**values) -> Metric:
    given = {"name": "accuracy", "value": 0.5, "low": 0.4, "high": 0.6, "n": 10}
    return Metric(**{**given, "higher_is_better": True, **values})


def test_rows_come_back_as_they_were_in_order(tmp_path):
    rows = [
        Row("b", 1.0, 2.5, cluster="c", group="g", detail='said "\u00e4"\n'),
        Row("a", -0.25),
        Row("b", 1e-300),
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
    assert Metric.from_json(json.loads(json.dumps(whole.to_json()))) == whole
    for flips, n_needed in (((3, 1), 200), (None, None)):
        compared = Comparison(
            "accuracy", "int8", "tuned", -0.1, -0.2, 0.1, -0.2, -0.4, 0.2, 10, 0.3, 0.6, 0.02,
            "cannot tell", n_needed, flips,
        )  # fmt: skip
        assert Comparison.from_json(json.loads(json.dumps(compared.to_json()))) == compared
