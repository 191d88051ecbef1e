"""The rules of a gate as they are written, and what they mean."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from lmwright.core import figures
from lmwright.core.decision import Side
from lmwright.core.errors import RecipeError, suggestion
from lmwright.core.results import EXACT, RENAMED

GRAMMAR = """a rule is one of
  METRIC >= 80%                the whole 95 % interval of the value is at or above 80 %
  METRIC <= 1.2                the same from above, in the metric's own unit
  METRIC <= +2%                signed percent: the paired change against the baseline
  METRIC not worse             the paired change stays within the metric's margin
  METRIC not worse by 0.05     ... within this margin (metric's unit), or: by 3 points
  METRIC better                the paired change lies wholly on the good side"""

# No metric is larger: bytes of a model, tokens a second.
MAX_NUMBER = 1e15
_NUMBER = r"\d[\d_,]*(?:\.\d+)?|\.\d+"
_LIMIT = re.compile(rf"(\w+)\s*(>=|<=)\s*([+-]?)({_NUMBER})\s*(%?)")
_WORDS = re.compile(rf"(\w+)\s+(?:(better)|not\s+worse(?:\s+by\s+({_NUMBER})(\s*points?)?)?)")

RuleKind = Literal["value", "change", "not worse", "better"]


@dataclass(frozen=True)
class GateRule:
    """A rule as it was understood."""

    text: str
    metric: str
    kind: RuleKind
    # Which side of a limit is allowed; of a rule without one the metric's good side.
    side: Side = ">="
    # The limit, or the margin of "not worse"; None: the metric's own margin.
    amount: float | None = None
    # Whether the amount was written in percent or points, and is a fraction now.
    is_percent: bool = False

    @property
    def limit(self) -> float:
        """The limit of a rule that has one."""
        assert self.amount is not None
        return self.amount


def parse(text: str, metrics: Iterable[str] = ()) -> GateRule:
    """Understand a rule, or raise a `RecipeError` that shows the grammar.

    Where `metrics` are given, the rule must name one of them (or an exact figure).
    """
    rule = _parse(" ".join(text.split()))
    known = [*metrics, *EXACT]
    if rule.metric in RENAMED and rule.metric not in known:
        raise RecipeError(
            f"require {text!r}: {rule.metric!r} is called {RENAMED[rule.metric]!r} now"
        )
    if metrics and rule.metric not in known:
        raise RecipeError(
            f"require {text!r}: no metric {rule.metric!r}{suggestion(rule.metric, known)}"
        )
    return rule


def check_unit(rule: GateRule, unit: str) -> None:
    """Refuse `80%` or `3 points` for what is no share: it could only be meant as a change."""
    if rule.kind not in ("value", "not worse"):
        return
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
        f"require {rule.text!r}: {rule.metric} is no share but in {unit or 'plain numbers'}; "
        f"{remedy}"
    )


def _parse(text: str) -> GateRule:
    if found := _LIMIT.fullmatch(text):
        metric, side, sign, digits, percent = found.groups()
        if sign and not percent:
            raise RecipeError(
                f"require {text!r}: a signed number is a change and needs a %, "
                f"for example {metric} {side} {sign}{digits}%"
            )
        amount = _number(digits) * (-1 if sign == "-" else 1) / (100 if percent else 1)
        return GateRule(
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
            return GateRule(text, metric, "better")
        margin = None if digits is None else _number(digits) / (100 if points else 1)
        return GateRule(text, metric, "not worse", amount=margin, is_percent=bool(points))
    raise RecipeError(f"require {text!r}: not a rule; {GRAMMAR}")


def _number(digits: str) -> float:
    number = float(digits.replace(",", "").replace("_", ""))
    if number > MAX_NUMBER:
        raise RecipeError(f"require: {digits[:20]}: expected at most {MAX_NUMBER:g}")
    return number
