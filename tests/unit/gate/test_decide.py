"""A gate that lets a worse model through, or one on too few items, is worse than no gate."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lmwright.core.decision import GateResult, RuleResult
from lmwright.core.errors import RecipeError, StateError
from lmwright.core.results import Comparison, Metric, MetricSpec, Scores, from_plain, plain
from lmwright.core.stage import StepContext
from lmwright.gate.config import Gate
from lmwright.gate.decide import decide
from lmwright.gate.run import run


def evaluation(
    *,
    value: tuple[float, float, float] = (0.85, 0.8, 0.9),
    delta: tuple[float, float, float] = (0.0, -0.01, 0.01),
    relative: tuple[float, float, float] = (0.0, -0.01, 0.01),
    higher_is_better: bool = True,
    unit: str = "share",
    margin: float = 0.05,
    n: int = 100,
) -> Scores:
    """Two models and one metric; each triple is (number, low, high)."""
    pair = Comparison(
        "m", "small", "base", *delta, *relative, n, 0.5, 1.0, margin, verdict="cannot tell"
    )
    metric = Metric("m", *value, n, higher_is_better, unit)
    return Scores(
        suite="quick",
        models=("base", "small"),
        parents={},
        specs=(MetricSpec("m", "Metric", unit, higher_is_better, "binary", margin),),
        metrics={"base": {"m": metric}, "small": {"m": metric}},
        comparisons=(pair,),
        facts_of_models={"base": {"size_bytes": 200}, "small": {"size_bytes": 120}},
        not_measured={"toxicity": "not in the quick suite"},
        detectable={"m": 0.1},
    )


def decision(rule: str, *, model: str = "small", **numbers: Any) -> RuleResult:
    gate = Gate(evaluation="card", model=model, require=[rule])
    return decide(gate, evaluation(**numbers)).rules[0]


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        ((0.85, 0.8, 0.9), "passed"),  # the low end on the limit is enough
        ((0.85, 0.79999, 0.9), "cannot tell"),
        ((0.75, 0.7, 0.8), "cannot tell"),  # the high end on the limit could still hold
        ((0.75, 0.7, 0.79999), "failed"),
    ],
)
def test_the_whole_interval_must_be_above_a_lower_limit(
    value: tuple[float, float, float], outcome: str
) -> None:
    result = decision("m >= 80%", value=value)
    assert result.outcome == outcome
    assert result.passed == (outcome == "passed")


@pytest.mark.parametrize(
    ("value", "outcome"),
    [((1.1, 1.0, 1.2), "passed"), ((1.1, 1.0, 1.21), "cannot tell"), ((1.4, 1.3, 1.5), "failed")],
)
def test_the_whole_interval_must_be_below_an_upper_limit(
    value: tuple[float, float, float], outcome: str
) -> None:
    assert decision("m <= 1.2", value=value, unit="bits/byte").outcome == outcome


@pytest.mark.parametrize(
    ("rule", "relative", "outcome"),
    [
        ("m <= +2%", (0.01, 0.0, 0.02), "passed"),
        ("m <= +2%", (0.01, -0.01, 0.021), "cannot tell"),
        ("m <= +2%", (0.04, 0.03, 0.05), "failed"),
        ("m >= -3%", (-0.01, -0.03, 0.01), "passed"),
        ("m >= +50%", (0.8, 0.6, 1.0), "passed"),
        ("m >= +50%", (0.6, 0.4, 0.8), "cannot tell"),
    ],
)
def test_a_signed_percent_is_the_paired_relative_change(
    rule: str, relative: tuple[float, float, float], outcome: str
) -> None:
    result = decision(rule, relative=relative, unit="bits/byte")
    assert result.outcome == outcome
    assert (result.value, result.low, result.high) == relative


@pytest.mark.parametrize(
    ("higher_is_better", "delta", "outcome"),
    [
        (True, (-0.02, -0.05, 0.01), "passed"),  # the bad end on the margin is not worse
        (True, (-0.02, -0.051, 0.01), "cannot tell"),
        (True, (-0.2, -0.3, -0.1), "failed"),
        (True, (0.2, 0.1, 0.3), "passed"),
        (False, (0.02, -0.01, 0.05), "passed"),
        (False, (0.02, -0.01, 0.051), "cannot tell"),
        (False, (0.2, 0.1, 0.3), "failed"),
        (False, (-0.2, -0.3, -0.1), "passed"),
    ],
)
def test_not_worse_looks_at_the_bad_end(
    higher_is_better: bool, delta: tuple[float, float, float], outcome: str
) -> None:
    result = decision("m not worse", delta=delta, higher_is_better=higher_is_better)
    assert result.outcome == outcome


def test_not_worse_takes_its_own_margin() -> None:
    delta = (-0.02, -0.03, -0.01)
    assert decision("m not worse by 0.03", delta=delta).passed
    assert decision("m not worse by 3 points", delta=delta).passed
    assert not decision("m not worse by 2.9 points", delta=delta).passed


@pytest.mark.parametrize(
    ("higher_is_better", "delta", "outcome"),
    [
        (True, (0.02, 0.001, 0.04), "passed"),
        (True, (0.02, 0.0, 0.04), "cannot tell"),  # no change is not better
        (True, (0.0, 0.0, 0.0), "failed"),
        (False, (-0.02, -0.04, -0.001), "passed"),
        (False, (0.02, 0.001, 0.04), "failed"),
    ],
)
def test_better_needs_the_whole_interval_on_the_good_side(
    higher_is_better: bool, delta: tuple[float, float, float], outcome: str
) -> None:
    assert decision("m better", delta=delta, higher_is_better=higher_is_better).outcome == outcome


def test_cannot_tell_says_how_many_items_would_tell() -> None:
    # Half of 0.05 fits between value and limit when the interval is twice as narrow: 4 x n.
    result = decision("m >= 80%", value=(0.825, 0.775, 0.875), n=100)
    assert result.needed == pytest.approx(400, abs=1)
    assert "cannot tell" in result.evidence
    assert "about 400 items" in result.evidence or "about 410 items" in result.evidence


def test_a_value_on_the_limit_is_never_settled() -> None:
    result = decision("m >= 80%", value=(0.8, 0.75, 0.85))
    assert (result.outcome, result.needed) == ("cannot tell", None)


def test_the_evidence_has_the_numbers_the_interval_and_n() -> None:
    assert decision("m >= 90%").evidence == (
        "Metric of small: 85.0 % (95 % interval 80.0 to 90.0 %, n = 100 items); cannot tell "
        "whether it is at least 90.0 %: that needs about 110 items."
    )
    assert decision("m not worse", delta=(-0.2, -0.3, -0.1)).evidence == (
        "Metric of small against base: -20.0 points (95 % interval -30.0 to -10.0 points, "
        "n = 100 items); the whole interval misses the limit, at least -5.0 points."
    )


@pytest.mark.parametrize(
    ("rule", "passed"),
    [
        ("size_bytes <= -40%", True),
        ("size_bytes <= -41%", False),
        ("size_bytes <= 120", True),
        ("size_bytes better", True),
        ("size_bytes not worse", True),
    ],
)
def test_exact_figures_need_no_interval(rule: str, passed: bool) -> None:
    result = decision(rule)
    assert result.passed == passed
    assert result.outcome in ("passed", "failed")
    assert result.n is None


def test_what_was_not_measured_fails_with_the_reason() -> None:
    result = decision("toxicity not worse")
    assert (result.passed, result.outcome) == (False, "not measured")
    assert result.evidence == "toxicity was not measured: not in the quick suite."


def test_an_unknown_metric_is_suggested() -> None:
    with pytest.raises(RecipeError, match="did you mean 'size_bytes'"):
        decision("size_byte <= -40%")


@pytest.mark.parametrize("rule", ["m <= 60%", "m not worse by 3 points", "size_bytes <= 60%"])
def test_percent_of_what_is_no_share_is_refused(rule: str) -> None:
    with pytest.raises(RecipeError, match="is no share but in"):
        decision(rule, unit="bits/byte")


def test_models_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(RecipeError, match="both 'base'"):
        decision("m better", model="base")
    with pytest.raises(RecipeError, match=r"model = 'smal'.*did you mean 'small'"):
        decision("m better", model="smal")
    gate = Gate(evaluation="card", model="base", baseline="small", require=["m better"])
    with pytest.raises(RecipeError, match="base was not compared with it on m"):
        decide(gate, evaluation())


def test_one_failed_rule_closes_the_gate_and_json_keeps_it() -> None:
    gate = Gate(evaluation="card", model="small", require=["m >= 80%", "m >= 95%"])
    result = decide(gate, evaluation())
    assert [rule.passed for rule in result.rules] == [True, False]
    assert not result.passed
    assert from_plain(GateResult, json.loads(json.dumps(plain(result)))) == result


@pytest.mark.parametrize(
    ("name", "rule", "passes"),
    [
        ("small", "m >= 80%", False),
        ("small", "size_bytes <= 150", False),
        ("small", "size_bytes <= -10%", False),
        ("base", "size_bytes <= -10%", False),
        ("base", "m not worse", False),
        ("base", "m >= 80%", True),
    ],
)
def test_what_one_model_lacks_fails_with_the_reason(name: str, rule: str, passes: bool) -> None:
    scores = evaluation()
    scores = replace(
        scores,
        gaps={name: {"m": "is elsewhere", "size_bytes": "is elsewhere"}},
        metrics={**scores.metrics, name: {}},
        facts_of_models={**scores.facts_of_models, name: {}},
    )
    gate = Gate(evaluation="card", model="small", require=[rule])
    (decided,) = decide(gate, scores).rules
    assert decided.passed == passes
    if not passes:
        assert decided.evidence.endswith(f"was not measured on {name}: is elsewhere.")


def test_the_step_reads_an_evaluation_and_returns_the_decision(tmp_path: Path) -> None:
    path = tmp_path / "card" / "result.json"
    path.parent.mkdir()
    path.write_text(json.dumps(evaluation().to_json() | {"seconds": 1.0}), encoding="utf-8")
    config = Gate(evaluation="card", model="small", require=["m >= 80%", "size_bytes <= -50%"])
    context = StepContext({"card": tmp_path / "card"}, {}, run_folder=tmp_path, seed=0)
    found = run(config, tmp_path / "gate", context)
    assert (found["passed"], found["model"], found["baseline"]) == (False, "small", "base")
    assert [rule["outcome"] for rule in found["rules"]] == ["passed", "failed"]
    assert "Size on disk of small against base: -40.0 % (exact)" in found["rules"][1]["evidence"]


@pytest.mark.parametrize("raw", ["{", "{}", '{"suite": "quick"}'])
def test_a_damaged_evaluation_is_named_with_the_remedy(tmp_path: Path, raw: str) -> None:
    (tmp_path / "card").mkdir()
    (tmp_path / "card" / "result.json").write_text(raw, encoding="utf-8")
    config = Gate(evaluation="card", model="small", require=["m >= 80%"])
    context = StepContext({"card": tmp_path / "card"}, {}, run_folder=tmp_path, seed=0)
    with pytest.raises(StateError, match=r"card/result\.json: is damaged .*; redo .*--from card"):
        run(config, tmp_path / "gate", context)
