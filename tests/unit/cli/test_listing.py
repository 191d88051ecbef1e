"""What a terminal shows is all that most people ever see of a run."""

import os

import pytest

from lmwright.cli import listing
from lmwright.core.decision import GateResult, RuleResult


def test_each_rule_of_a_gate_is_shown_with_its_evidence() -> None:
    nothing = (None, None, None, None)
    good = RuleResult("facts >= 80%", True, "90 %, n = 100.", "facts", *nothing, "passed")
    bad = RuleResult("gap better", False, "cannot tell.", "gap", *nothing, "cannot tell")
    assert listing.decision(GateResult(False, "int8", "starter", (good, bad))) == (
        "gate for int8 against starter: NO\n"
        "  pass  facts >= 80%: 90 %, n = 100.\n"
        "  FAIL  gap better: cannot tell."
    )


def test_a_terminal_breaks_lines_but_no_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((40, 24)))
    text = "Answer accuracy against tuned: -2.0 points (-5.3 to +1.4 points, n = 100 items)"
    broken = listing.wrapped(text, first="  pass  ", rest=" " * 8)
    assert max(map(len, broken.splitlines())) <= 40
    assert "-5.3 to +1.4 points" in broken
    assert "n = 100 items" in broken
    assert " ".join(broken.split()) == f"pass {text}"


def test_nested_values_are_indented_below_their_name() -> None:
    shown = listing.fields({"a": 1, "b": {"c": [1, 2]}, "d": [{"e": None}]})
    assert [line.split() for line in shown.splitlines()] == [
        ["a", "1"], ["b"], ["c", "1,", "2"], ["d"], ["e", "None"]
    ]  # fmt: skip
    assert shown.splitlines()[2].startswith("  c")
