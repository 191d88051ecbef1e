"""What a gate decided: written by the gate, read by the command line, reports and cards."""

from dataclasses import dataclass
from typing import Literal

Side = Literal["<=", ">="]
Outcome = Literal["passed", "failed", "cannot tell", "not measured"]


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
    side: Side | None = None
    # "value" in the metric's unit, "delta" in the same, "relative" as a fraction.
    measure: Literal["value", "delta", "relative"] = "value"


@dataclass(frozen=True)
class GateResult:
    """The decision: a gate passes when every rule does."""

    passed: bool
    model: str
    baseline: str
    rules: tuple[RuleResult, ...]
