"""The gate: rules on intervals, not on points. What cannot be told does not pass.

A rule looks at one number and its 95 % interval, and the whole interval must fulfil it.
"""

import math
from dataclasses import asdict, dataclass
from typing import Literal

from lmwright.core import figures
from lmwright.core.decision import GateResult, Outcome, RuleResult, Side
from lmwright.core.errors import RecipeError, suggestion
from lmwright.core.results import Comparison, MetricSpec, Scores
from lmwright.gate.config import Gate
from lmwright.gate.rules import GateRule, check_unit, parse


def decide(gate: Gate, scores: Scores) -> GateResult:
    """Hold a model of an evaluation against the rules of the gate."""
    baseline = gate.baseline or scores.models[0]
    for key, name in (("model", gate.model), ("baseline", baseline)):
        if name not in scores.models:
            raise RecipeError(
                f"{key} = {name!r}: not in evaluation {gate.evaluation!r}"
                f"{suggestion(name, scores.models)}"
            )
    known = [*(spec.name for spec in scores.specs), *scores.not_measured]
    rules = tuple(
        _decide(parse(text, known), scores, model=gate.model, baseline=baseline)
        for text in gate.require
    )
    return GateResult(all(rule.passed for rule in rules), gate.model, baseline, rules)


@dataclass(frozen=True)
class _Looked:
    """The number that a rule looks at, and which side of which limit it must be on."""

    value: float
    low: float
    high: float
    n: int | None
    limit: float
    side: Side
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


def _decide(rule: GateRule, scores: Scores, *, model: str, baseline: str) -> RuleResult:
    if reason := scores.not_measured.get(rule.metric):
        return _absent(rule, f"{rule.metric} was not measured: {reason}.")
    for name in (model,) if rule.kind == "value" else (model, baseline):
        if reason := scores.gaps.get(name, {}).get(rule.metric):
            return _absent(rule, f"{rule.metric} was not measured on {name}: {reason}.")
    spec = scores.spec(rule.metric)
    assert spec is not None, "parse knows all names"
    check_unit(rule, spec.unit)
    looked = _look(rule, spec, scores, model=model, baseline=baseline)
    if looked is None:
        return _absent(rule, f"{rule.metric} was not measured on {model}.")
    numbers = {key: value for key, value in asdict(looked).items() if key != "is_strict"}
    return RuleResult(
        rule=rule.text,
        passed=looked.outcome == "passed",
        evidence=_evidence(looked, spec, model=model, baseline=baseline),
        metric=rule.metric,
        needed=looked.needed,
        outcome=looked.outcome,
        **numbers,
    )


def _absent(rule: GateRule, evidence: str) -> RuleResult:
    return RuleResult(
        rule.text, False, evidence, rule.metric, None, None, None, None, "not measured"
    )


def _look(
    rule: GateRule, spec: MetricSpec, scores: Scores, *, model: str, baseline: str
) -> _Looked | None:
    """Look at a value or a change, where there is one; exact figures have no width and no n."""
    found, value = scores.metric(rule.metric, model), scores.value(rule.metric, model)
    base = scores.exact(rule.metric, baseline)
    if value is None:
        return None
    if rule.kind == "value":
        low, high, n = (found.low, found.high, found.n) if found else (value, value, None)
        return _Looked(value, low, high, n, rule.limit, rule.side, "value")
    if spec.kind != "exact":
        pair = _pair(rule, scores, model=model, baseline=baseline)
        delta, n = (pair.delta, pair.low, pair.high), pair.n
        relative = (pair.relative, pair.relative_low, pair.relative_high)
        margin = pair.margin
    elif base is not None:
        change, ratio, margin, n = value - base, value / base - 1, 0.0, None
        delta, relative = (change, change, change), (ratio, ratio, ratio)
    else:
        return None
    if rule.kind == "change":
        return _Looked(*relative, n, rule.limit, rule.side, "relative")
    # "better" has its limit at 0, "not worse" at the margin on the metric's bad side.
    is_better = rule.kind == "better"
    loss = 0.0 if is_better else margin if rule.amount is None else rule.amount
    side, limit = (">=", -loss) if spec.higher_is_better else ("<=", loss)
    return _Looked(*delta, n, limit, side, "delta", is_strict=is_better)


def _pair(rule: GateRule, scores: Scores, *, model: str, baseline: str) -> Comparison:
    if model == baseline:
        raise RecipeError(
            f"require {rule.text!r}: model and baseline are both {model!r}; name another baseline"
        )
    found = scores.comparison(rule.metric, model, baseline=baseline)
    if found is None:
        others = sorted({each.baseline for each in scores.comparisons if each.model == model})
        raise RecipeError(
            f"baseline = {baseline!r}: {model} was not compared with it on {rule.metric}; "
            f"it was compared with: {', '.join(others) or 'nothing'}"
        )
    return found


def _evidence(looked: _Looked, spec: MetricSpec, *, model: str, baseline: str) -> str:
    """Say in one sentence what was seen, how surely, and what it means for the rule."""
    value, low, high, limit = looked.value, looked.low, looked.high, looked.limit
    if looked.measure == "value":
        seen, bound = figures.figure(value, spec.unit), figures.figure(limit, spec.unit)
        ends = figures.span(low, high, spec.unit)
    else:
        how = figures.RELATIVE
        if looked.measure == "delta":
            how = figures.difference(spec.unit, max(map(abs, (value, low, high, limit))))
        seen, bound, ends = how.figure(value), how.figure(limit), how.span(low, high)
    subject = f"{spec.title} of {model}"
    if looked.measure != "value":
        subject += f" against {baseline}"
    if looked.n is None:
        sure = "exact"
    else:
        sure = f"95 % interval {ends}, n = {figures.count(looked.n)} {spec.items}"
    return f"{subject}: {seen} ({sure}); {_meaning(looked, bound, items=spec.items)}."


def _meaning(looked: _Looked, limit: str, *, items: str) -> str:
    side = "at least" if looked.side == ">=" else "at most"
    if looked.is_strict:
        side, limit = ("above", "0") if looked.side == ">=" else ("below", "0")
    whole = "it" if looked.n is None else "the whole interval"
    if looked.outcome == "passed":
        return f"{whole} is {side} {limit}"
    if looked.outcome == "failed":
        return f"{whole} misses the limit, {side} {limit}"
    if looked.needed is None:
        return f"cannot tell whether it is {side} {limit}: the value sits on the limit"
    return (
        f"cannot tell whether it is {side} {limit}: that needs about "
        f"{figures.about(looked.needed)} {items}"
    )
