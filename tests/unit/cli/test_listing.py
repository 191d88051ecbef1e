"""What a terminal shows is all that most people ever see of a run."""

from lmwright.cli import listing


def test_each_rule_of_a_gate_is_shown_with_its_evidence() -> None:
    good = {"rule": "facts >= 80%", "passed": True, "evidence": "90 %, n = 100."}
    bad = {"rule": "gap better", "passed": False, "evidence": "cannot tell."}
    result = {"passed": False, "model": "int8", "baseline": "starter", "rules": [good, bad]}
    assert listing.decision(result) == (
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
