"""The gate: rules on intervals, not on points. What cannot be told does not pass.

A rule looks at one number and its 95 % interval, and the whole interval must fulfil it.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lmwright.core import figures
from lmwright.core.errors import RecipeError, suggestion
from lmwright.core.results import Comparison, Metric
from lmwright.gate.config import Gate

GRAMMAR = """a rule is one of
  METRIC >= 80%                the whole 95 % interval of the value is at or above 80 %
  METRIC <= 1.2                the same from above, in the metric's own unit
  METRIC <= +2%                signed percent: the paired change against the baseline
  METRIC not worse             the paired change stays within the task's margin
  METRIC not worse by 0.05     ... within this margin (metric's unit), or: by 3 points
  METRIC better                the paired change lies wholly on the good side"""

# Exact facts of a model: no interval, smaller is better.
EXACT = {
    "size_bytes": "bytes",
    "peak_memory_bytes": "bytes",
    "bits_per_weight": "bits",
    "n_params": "",
}

_NUMBER = r"\d[\d_,]*(?:\.\d+)?|\.\d+"
_LIMIT = re.compile(rf"(\w+)\s*(>=|<=)\s*([+-]?)({_NUMBER})\s*(%?)")
_WORDS = re.compile(rf"(\w+)\s+(?:(better)|not\s+worse(?:\s+by\s+({_NUMBER})(\s*points?)?)?)")

Kind = Literal["value", "change", "not worse", "better"]
Outcome = Literal["passed", "failed", "cannot tell", "not measured"]


@dataclass(frozen=True)
class Rule:
    """A rule as it was understood."""

    text: str
    metric: str
    kind: Kind
    # Which side is allowed; None where that depends on the metric's good side.
    side: Literal["<=", ">="] | None = None
    # The limit, or the margin of "not worse"; None: the task's own margin.
    amount: float | None = None
    # Whether the amount was written in percent or points, and is a fraction now.
    is_percent: bool = False

    @property
    def bound(self) -> tuple[Literal["<=", ">="], float]:
        """The allowed side and the limit of a rule with a number."""
        assert self.side is not None
        assert self.amount is not None
        return self.side, self.amount


@dataclass(frozen=True)
class RuleResult:
    """What a rule decided and on which numbers."""

    rule: str
    passed: bool
    # One sentence with the numbers, the interval and n.
    evidence: str
    metric: str
    # The number the rule looked at (the value or the change), None where nothing was measured.
    value: float | None
    low: float | None
    high: float | None
    # For "cannot tell": about how many items would settle it.
    needed: int | None
    outcome: Outcome
    n: int | None = None
    limit: float | None = None
    side: Literal["<=", ">="] | None = None
    # "value" in the metric's unit, "delta" in the same, "relative" as a fraction.
    measure: Literal["value", "delta", "relative"] = "value"


@dataclass(frozen=True)
class GateResult:
    """The decision: a gate passes when every rule does."""

    passed: bool
    model: str
    baseline: str
    rules: tuple[RuleResult, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain data; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "GateResult":
        """Read what `to_json` wrote."""
        rules = tuple(RuleResult(**rule) for rule in data["rules"])
        return cls(data["passed"], data["model"], data["baseline"], rules)


def parse(text: str, metrics: Iterable[str] = ()) -> Rule:
    """Understand a rule, or raise a `RecipeError` that shows the grammar.

    Where `metrics` are given, the rule must name one of them (or an exact figure).
    """
    rule = _parse(" ".join(text.split()))
    known = [*metrics, *EXACT]
    if metrics and rule.metric not in known:
        raise RecipeError(
            f"gate.require {text!r}: no metric {rule.metric!r}{suggestion(rule.metric, known)}"
        )
    return rule


def _parse(text: str) -> Rule:
    if found := _LIMIT.fullmatch(text):
        metric, side, sign, digits, percent = found.groups()
        if sign and not percent:
            raise RecipeError(
                f"gate.require {text!r}: a signed number is a change and needs a %, "
                f"for example {metric} {side} {sign}{digits}%"
            )
        amount = _number(digits) * (-1 if sign == "-" else 1) / (100 if percent else 1)
        return Rule(
            text=text,
            metric=metric,
            kind="change" if sign else "value",
            side="<=" if side == "<=" else ">=",
            amount=amount,
            is_percent=bool(percent),
        )
    if found := _WORDS.fullmatch(text):
        metric, better, digits, points = found.groups()
        if better:
            return Rule(text, metric, "better")
        margin = None if digits is None else _number(digits) / (100 if points else 1)
        return Rule(text, metric, "not worse", None, margin, bool(points))
    raise RecipeError(f"gate.require {text!r}: not a rule; {GRAMMAR}")


def _number(digits: str) -> float:
    return float(digits.replace(",", "").replace("_", ""))


def check(gate: Gate, evaluation: dict[str, Any]) -> GateResult:
    """Hold a model of an evaluation's result against the rules of the gate."""
    models = evaluation["models"]
    baseline = gate.baseline or models[0]
    for key, name in (("model", gate.model), ("baseline", baseline)):
        if name not in models:
            raise RecipeError(
                f"gate.{key} = {name!r}: not in evaluation {gate.evaluation!r}"
                f"{suggestion(name, models)}"
            )
    known = [*evaluation["tasks"], *evaluation.get("not_measured", {})]
    rules = tuple(
        _decide(parse(text, known), evaluation, model=gate.model, baseline=baseline)
        for text in gate.require
    )
    return GateResult(all(rule.passed for rule in rules), gate.model, baseline, rules)


@dataclass(frozen=True)
class _Measured:
    """The number that a rule looks at, and which side of which limit it must be on."""

    value: float
    low: float
    high: float
    n: int | None
    limit: float
    side: Literal["<=", ">="]
    measure: Literal["value", "delta", "relative"]
    # Reaching the limit is enough, except for "better".
    is_strict: bool = False

    @property
    def slack(self) -> tuple[float, float, float]:
        """How far the value, its worse end and its better end lie on the allowed side."""
        sign = 1 if self.side == ">=" else -1
        ends = sorted((sign * (self.low - self.limit), sign * (self.high - self.limit)))
        return sign * (self.value - self.limit), ends[0], ends[1]

    @property
    def outcome(self) -> Outcome:
        """Pass or fail where the whole interval agrees, else "cannot tell"."""
        _, worst, best = self.slack
        if worst > 0 or (worst == 0 and not self.is_strict):
            return "passed"
        return "failed" if best < 0 or (best == 0 and self.is_strict) else "cannot tell"

    @property
    def needed(self) -> int | None:
        """About how many items would move the limit out of the interval.

        Half-widths shrink with the root of n. None where the value sits on the limit itself.
        """
        middle, worst, best = self.slack
        if self.outcome != "cannot tell" or self.n is None or middle == 0:
            return None
        half = middle - worst if middle > 0 else best - middle
        return max(self.n + 1, math.ceil(self.n * (half / middle) ** 2))


def _decide(rule: Rule, evaluation: dict[str, Any], *, model: str, baseline: str) -> RuleResult:
    if reason := evaluation.get("not_measured", {}).get(rule.metric):
        evidence = f"{rule.metric} was not measured: {reason}."
        return _absent(rule, evidence)
    for name in (model,) if rule.kind == "value" else (model, baseline):
        if reason := evaluation.get("gaps", {}).get(name, {}).get(rule.metric):
            return _absent(rule, f"{rule.metric} was not measured on {name}: {reason}.")
    if rule.metric in EXACT and rule.metric not in evaluation["tasks"]:
        measured = _exact(rule, evaluation["facts_of_models"], model=model, baseline=baseline)
        title = rule.metric.removesuffix("_bytes").replace("_", " ")
        task: dict[str, Any] = {"title": title.capitalize(), "unit": EXACT[rule.metric]}
    else:
        task = evaluation["tasks"][rule.metric]
        if rule.metric not in evaluation["metrics"].get(model, {}):
            return _absent(rule, f"{rule.metric} was not measured on {model}.")
        if rule.kind == "value":
            measured = _absolute(rule, evaluation, model)
        else:
            measured = _paired(rule, evaluation, model=model, baseline=baseline)
    return RuleResult(
        rule=rule.text,
        passed=measured.outcome == "passed",
        evidence=_evidence(measured, task, model=model, baseline=baseline),
        metric=rule.metric,
        value=measured.value,
        low=measured.low,
        high=measured.high,
        needed=measured.needed,
        outcome=measured.outcome,
        n=measured.n,
        limit=measured.limit,
        side=measured.side,
        measure=measured.measure,
    )


def _absent(rule: Rule, evidence: str) -> RuleResult:
    return RuleResult(
        rule.text, False, evidence, rule.metric, None, None, None, None, "not measured"
    )


def _absolute(rule: Rule, evaluation: dict[str, Any], model: str) -> _Measured:
    side, limit = rule.bound
    unit = figures.unit_of(evaluation["tasks"][rule.metric])
    _check_percent(rule, unit)
    metric = Metric.from_json(evaluation["metrics"][model][rule.metric])
    return _Measured(metric.value, metric.low, metric.high, metric.n, limit, side, "value")


def _check_percent(rule: Rule, unit: str) -> None:
    """Refuse `80%` or `3 points` for what is no share: it could only be meant as a change."""
    if not rule.is_percent or unit in figures.SHARES:
        return
    amount = f"{100 * (rule.amount or 0):g}"
    remedy = (
        f"give the margin in that unit, or write {rule.metric} <= +{amount}%"
        if rule.kind == "not worse"
        else f"write {rule.metric} {rule.side} +{amount}% or -{amount}% for a change against the "
        "baseline, or give the limit without %"
    )
    raise RecipeError(
        f"gate.require {rule.text!r}: {rule.metric} is no share but in {unit or 'plain numbers'}; "
        f"{remedy}"
    )


def _paired(rule: Rule, evaluation: dict[str, Any], *, model: str, baseline: str) -> _Measured:
    if model == baseline:
        raise RecipeError(
            f"gate.require {rule.text!r}: gate.model and the baseline are both {model!r}; "
            "name another gate.baseline"
        )
    comparison = _comparison(evaluation, rule.metric, model=model, baseline=baseline)
    if rule.kind == "change":
        side, limit = rule.bound
        return _Measured(
            comparison.relative,
            comparison.relative_low,
            comparison.relative_high,
            comparison.n,
            limit,
            side,
            "relative",
        )
    task = evaluation["tasks"][rule.metric]
    if rule.kind == "not worse":
        _check_percent(rule, figures.unit_of(task))
    return _toward_good(
        rule,
        (comparison.delta, comparison.low, comparison.high),
        margin=comparison.margin if rule.amount is None else rule.amount,
        higher_is_better=task["higher_is_better"],
        n=comparison.n,
    )


def _toward_good(
    rule: Rule,
    delta: tuple[float, float, float],
    *,
    margin: float,
    higher_is_better: bool,
    n: int | None,
) -> _Measured:
    """Put the limit of "better" (0) or "not worse" (the margin) on the metric's bad side."""
    is_better = rule.kind == "better"
    loss = 0.0 if is_better else margin
    limit = -loss if higher_is_better else loss
    side: Literal["<=", ">="] = ">=" if higher_is_better else "<="
    return _Measured(*delta, n, limit, side, "delta", is_strict=is_better)


def _comparison(
    evaluation: dict[str, Any], metric: str, *, model: str, baseline: str
) -> Comparison:
    pairs = [data for data in evaluation["comparisons"] if data["model"] == model]
    for data in pairs:
        if data["metric"] == metric and data["baseline"] == baseline:
            return Comparison.from_json(data)
    others = sorted({data["baseline"] for data in pairs})
    raise RecipeError(
        f"gate.baseline = {baseline!r}: {model} was not compared with it on {metric}; "
        f"it was compared with: {', '.join(others) or 'nothing'}"
    )


def _exact(rule: Rule, facts: dict[str, dict[str, Any]], *, model: str, baseline: str) -> _Measured:
    value, base = float(facts[model][rule.metric]), float(facts[baseline][rule.metric])
    if rule.kind == "value":
        side, limit = rule.bound
        _check_percent(rule, EXACT[rule.metric])
        return _Measured(value, value, value, None, limit, side, "value")
    if rule.kind == "change":
        side, limit = rule.bound
        ratio = value / base - 1
        return _Measured(ratio, ratio, ratio, None, limit, side, "relative")
    if rule.kind == "not worse":
        _check_percent(rule, EXACT[rule.metric])
    delta = value - base
    return _toward_good(
        rule, (delta, delta, delta), margin=rule.amount or 0.0, higher_is_better=False, n=None
    )


def _evidence(measured: _Measured, task: dict[str, Any], *, model: str, baseline: str) -> str:
    """Say in one sentence what was seen, how surely, and what it means for the rule."""
    title, unit = task["title"], figures.unit_of(task)
    if measured.measure == "relative":
        seen = figures.percent(measured.value)
        ends = figures.percent_span(measured.low, measured.high)
        limit = figures.percent(measured.limit)
    elif measured.measure == "delta":
        size = max(map(abs, (measured.value, measured.low, measured.high, measured.limit)))
        seen = figures.change(measured.value, unit, like=size)
        ends = figures.change_span(measured.low, measured.high, unit, like=size)
        limit = figures.change(measured.limit, unit, like=size)
    else:
        seen = figures.figure(measured.value, unit)
        ends = figures.span(measured.low, measured.high, unit)
        limit = figures.figure(measured.limit, unit)
    subject = f"{title} of {model}"
    if measured.measure != "value":
        subject += f" against {baseline}"
    if measured.n is None:
        sure = "exact"
    else:
        n = f"{figures.count(measured.n)} {figures.items_of(task)}"
        sure = f"95 % interval {ends}, n = {n}"
    meaning = _meaning(measured, limit, items=figures.items_of(task))
    return f"{subject}: {seen} ({sure}); {meaning}."


def _meaning(measured: _Measured, limit: str, *, items: str) -> str:
    side = "at least" if measured.side == ">=" else "at most"
    if measured.is_strict:
        side, limit = ("above", "0") if measured.side == ">=" else ("below", "0")
    whole = "it" if measured.n is None else "the whole interval"
    if measured.outcome == "passed":
        return f"{whole} is {side} {limit}"
    if measured.outcome == "failed":
        return f"{whole} misses the limit, {side} {limit}"
    if measured.needed is None:
        return f"cannot tell whether it is {side} {limit}: the value sits on the limit"
    return (
        f"cannot tell whether it is {side} {limit}: that needs about "
        f"{figures.about(measured.needed)} {items}"
    )
