"""What a verification found: each check with what was measured and what is allowed."""

import math
import sys
from dataclasses import asdict, dataclass
from typing import Any

from lmwright.core.text_table import Styled, TextTable


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    # None: it is shown, and nothing depends on it.
    is_passed: bool | None
    found: str
    allowed: str = ""

    @property
    def told(self) -> str:
        """What was found, and what is allowed."""
        return f"{self.found} (allowed: {self.allowed})" if self.allowed else self.found


def limited(name: str, value: float, allowed: float | None, *, is_share: bool = False) -> Check:
    """Judge a number that may be so large; `allowed` None: it is only shown."""
    factor, unit = (100, " %") if is_share else (1, "")
    found = f"{factor * value:.3g}{unit}"
    if allowed is None:
        return Check(name, None, found)
    limit = "any number" if allowed == sys.float_info.max else f"{factor * allowed:.3g}{unit}"
    return Check(name, value <= allowed, found, limit)


@dataclass(frozen=True)
class Place:
    """The largest difference and where it was."""

    value: float
    # Which prompt (from 0, of those compared), and how many tokens of its continuation came before.
    prompt: int
    position: int
    token_id: int
    # The token and the end of the prompt, as text.
    token: str
    text: str


@dataclass(frozen=True)
class VerificationResult:
    """Two models, and whether they are the same."""

    a: str
    b: str
    # By which of `tolerances.TOLERANCES` it was judged.
    tolerance: str
    checks: tuple[Check, ...]
    # What could not be compared, or was left out, in words.
    not_compared: tuple[str, ...]
    largest: Place | None
    # The same as in the checks, for programs: mean_kl, relative_error, agreement, ...
    numbers: dict[str, float]
    n_prompts: int
    n_positions: int
    seconds: float

    @property
    def is_passed(self) -> bool:
        """Whether no check failed."""
        return not self.failures

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.is_passed is False)

    @property
    def summary(self) -> str:
        """PASS, or FAIL with the checks that failed, and the largest difference with its place."""
        failed = "".join(f"{check.name}; " for check in self.failures)
        word = f"FAIL: {failed}" if failed else "PASS: "
        if self.largest is None:
            return f"{word}no log-probabilities were compared"
        where = self.largest
        return (
            f"{word}largest difference {where.value:.3g}, of token {where.token_id} "
            f"{where.token!r}, {where.position} tokens behind prompt {where.prompt + 1} "
            f"(... {where.text!r})"
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        data = {**asdict(self), "is_passed": self.is_passed}
        data["bound"] = data.pop("tolerance")
        # JSON has no infinity, which is the distance of what is no number.
        data["numbers"] = {k: v if math.isfinite(v) else None for k, v in self.numbers.items()}
        if self.largest is not None and not math.isfinite(self.largest.value):
            data["largest"]["value"] = None
        return data

    def table(self) -> TextTable:
        """Return the checks as a table for a terminal."""
        rows = []
        for check in self.checks:
            style = "bold red" if check.is_passed is False else ""
            cells = (MARKS[check.is_passed], check.name, check.found, check.allowed)
            rows.append([[Styled(cell, style)] for cell in cells])
        headings = ("", "check", "found", f"allowed ({self.tolerance})")
        footer = "\n".join(["", *self._untold(), self.summary])
        return TextTable(headings, rows, title=self.title, footer=footer)

    def __str__(self) -> str:
        width = max(len(check.name) for check in self.checks)
        checks = [f"{MARKS[c.is_passed]:<4}  {c.name:<{width}}  {c.told}" for c in self.checks]
        lines = [f"{self.title} ({self.tolerance})", *checks, *self._untold(), self.summary]
        return "\n".join(lines)

    @property
    def title(self) -> str:
        """What was compared with what."""
        return f"{self.a} against {self.b}"

    def _untold(self) -> list[str]:
        return [f"not compared: {each}" for each in self.not_compared]


MARKS = {True: "pass", False: "FAIL", None: ""}
