"""What a terminal shows is all that most people ever see of a run."""

from lmwright.cli import listing
from lmwright.core.decision import GateResult, RuleResult


def test_columns_are_aligned() -> None:
    assert listing.table([("a", "long"), ("longer", "b")]) == (
        "a       long\n------------\nlonger  b"
    )


def test_each_rule_of_a_gate_is_shown_with_its_evidence() -> None:
    good = RuleResult(
        "facts >= 80%", True, "90 %, n = 100.", "facts", 0.9, 0.85, 0.95, None, "passed"
    )
    bad = RuleResult("gap better", False, "cannot tell.", "gap", 0.0, -1.0, 1.0, 400, "cannot tell")
    assert listing.gate(GateResult(False, "int8", "starter", (good, bad))) == (
        "gate for int8 against starter: NO\n"
        "  pass  facts >= 80%\n"
        "        90 %, n = 100.\n"
        "  FAIL  gap better\n"
        "        cannot tell."
    )


def test_nested_values_are_indented_below_their_name() -> None:
    shown = listing.fields({"a": 1, "b": {"c": [1, 2]}, "d": [{"e": None}]})
    assert [line.split() for line in shown.splitlines()] == [
        ["a", "1"], ["b"], ["c", "1,", "2"], ["d"], ["e", "None"]
    ]  # fmt: skip
    assert shown.splitlines()[2].startswith("  c")
