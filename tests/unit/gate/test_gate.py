"""A gate that lets a worse model through, or one on too few items, is worse than no gate."""

import json
from typing import Any

import pytest

from lmwright.core.errors import RecipeError
from lmwright.core.results import Comparison, Metric
from lmwright.gate.config import Gate
from lmwright.gate.gate import GateResult, RuleResult, check, parse


def evaluation(
    *,
    value: tuple[float, float, float] = (0.85, 0.8, 0.9),
    delta: tuple[float, float, float] = (0.0, -0.01, 0.01),
    relative: tuple[float, float, float] = (0.0, -0.01, 0.01),
    higher_is_better: bool = True,
    unit: str = "share",
    margin: float = 0.05,
    n: int = 100,
) -> dict[str, Any]:
    """Two models and one metric; each triple is (number, low, high)."""
    pair = Comparison(
        metric="m",
        model="small",
        baseline="base",
        delta=delta[0],
        low=delta[1],
        high=delta[2],
        relative=relative[0],
        relative_low=relative[1],
        relative_high=relative[2],
        n=n,
        p=0.5,
        p_holm=1.0,
        margin=margin,
        verdict="cannot tell",
    )
    metric = Metric("m", *value, n, higher_is_better, unit)
    sizes = {"base": 200.0, "small": 120.0}
    return {
        "models": ["base", "small"],
        "tasks": {
            "m": {
                "title": "Metric",
                "unit": unit,
                "higher_is_better": higher_is_better,
                "margin": margin,
                "kind": "binary",
                "caveat": "",
            }
        },
        "metrics": {"base": {"m": metric.to_json()}, "small": {"m": metric.to_json()}},
        "comparisons": [pair.to_json()],
        "facts_of_models": {name: {"size_bytes": size} for name, size in sizes.items()},
        "not_measured": {"toxicity": "not in the quick suite"},
    }


def decide(rule: str, *, model: str = "small", **numbers: Any) -> RuleResult:
    gate = Gate(evaluation="card", model=model, require=[rule])
    return check(gate, evaluation(**numbers)).rules[0]


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
    result = decide("m >= 80%", value=value)
    assert result.outcome == outcome
    assert result.passed == (outcome == "passed")


@pytest.mark.parametrize(
    ("value", "outcome"),
    [((1.1, 1.0, 1.2), "passed"), ((1.1, 1.0, 1.21), "cannot tell"), ((1.4, 1.3, 1.5), "failed")],
)
def test_the_whole_interval_must_be_below_an_upper_limit(
    value: tuple[float, float, float], outcome: str
) -> None:
    assert decide("m <= 1.2", value=value, unit="bits/byte").outcome == outcome


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
    result = decide(rule, relative=relative, unit="bits/byte")
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
    result = decide("m not worse", delta=delta, higher_is_better=higher_is_better)
    assert result.outcome == outcome


def test_not_worse_takes_its_own_margin() -> None:
    delta = (-0.02, -0.03, -0.01)
    assert decide("m not worse by 0.03", delta=delta).passed
    assert decide("m not worse by 3 points", delta=delta).passed
    assert not decide("m not worse by 2.9 points", delta=delta).passed


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
    assert decide("m better", delta=delta, higher_is_better=higher_is_better).outcome == outcome


def test_cannot_tell_says_how_many_items_would_tell() -> None:
    # Half of 0.05 fits between value and limit when the interval is twice as narrow: 4 x n.
    result = decide("m >= 80%", value=(0.825, 0.775, 0.875), n=100)
    assert result.needed == pytest.approx(400, abs=1)
    assert "cannot tell" in result.evidence
    assert "about 400 items" in result.evidence or "about 410 items" in result.evidence


def test_a_value_on_the_limit_is_never_settled() -> None:
    result = decide("m >= 80%", value=(0.8, 0.75, 0.85))
    assert (result.outcome, result.needed) == ("cannot tell", None)


def test_the_evidence_has_the_numbers_the_interval_and_n() -> None:
    assert decide("m >= 90%").evidence == (
        "Metric of small: 85.0 % (95 % interval 80.0 to 90.0 %, n = 100 items); cannot tell "
        "whether it is at least 90.0 %: that needs about 110 items."
    )
    assert decide("m not worse", delta=(-0.2, -0.3, -0.1)).evidence == (
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
    result = decide(rule)
    assert result.passed == passed
    assert result.outcome in ("passed", "failed")
    assert result.n is None


def test_what_was_not_measured_fails_with_the_reason() -> None:
    result = decide("toxicity not worse")
    assert (result.passed, result.outcome) == (False, "not measured")
    assert result.evidence == "toxicity was not measured: not in the quick suite."


@pytest.mark.parametrize(
    "rule",
    ["", "facts", "facts > 80%", "facts >= ", "facts >= 80 percent", "facts not worse by",
     "facts not worse by 5%", "facts is better", "facts >= 1.2.3", ">= 80%"],
)  # fmt: skip
def test_a_wrong_rule_shows_the_grammar(rule: str) -> None:
    with pytest.raises(RecipeError, match="not a rule; a rule is one of"):
        parse(rule)


def test_a_signed_number_without_percent_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"bits_per_byte <= \+2%"):
        parse("bits_per_byte <= +2")


def test_an_unknown_metric_is_suggested() -> None:
    with pytest.raises(RecipeError, match="did you mean 'bits_per_byte'"):
        parse("bit_per_byte <= +2%", ["facts", "bits_per_byte"])
    with pytest.raises(RecipeError, match="did you mean 'size_bytes'"):
        decide("size_byte <= -40%")


@pytest.mark.parametrize("rule", ["m <= 60%", "m not worse by 3 points", "size_bytes <= 60%"])
def test_percent_of_what_is_no_share_is_refused(rule: str) -> None:
    with pytest.raises(RecipeError, match="is no share but in"):
        decide(rule, unit="bits/byte")


def test_models_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(RecipeError, match="both 'base'"):
        decide("m better", model="base")
    with pytest.raises(RecipeError, match=r"gate\.model = 'smal'.*did you mean 'small'"):
        decide("m better", model="smal")
    gate = Gate(evaluation="card", model="base", baseline="small", require=["m better"])
    with pytest.raises(RecipeError, match="base was not compared with it on m"):
        check(gate, evaluation())


def test_one_failed_rule_closes_the_gate_and_json_keeps_it() -> None:
    gate = Gate(evaluation="card", model="small", require=["m >= 80%", "m >= 95%"])
    result = check(gate, evaluation())
    assert [rule.passed for rule in result.rules] == [True, False]
    assert not result.passed
    assert GateResult.from_json(json.loads(json.dumps(result.to_json()))) == result


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
    data = evaluation()
    data["gaps"] = {name: {"m": "is elsewhere", "size_bytes": "is elsewhere"}}
    del data["metrics"][name]["m"], data["facts_of_models"][name]["size_bytes"]
    gate = Gate(evaluation="card", model="small", require=[rule])
    (decided,) = check(gate, data).rules
    assert decided.passed == passes
    if not passes:
        assert decided.evidence.endswith(f"was not measured on {name}: is elsewhere.")
