"""The summary is what most people read: it may say nothing that no verdict says."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lmwright.core.decision import GateResult, RuleResult
from lmwright.reporting.collect import RunReport, collect
from lmwright.reporting.summary import compare, summarise, verdicts


@pytest.fixture
def report(finished_run: Path) -> RunReport:
    return collect(finished_run / "card", finished_run, [finished_run / "gate"])


def with_verdicts(report: RunReport, verdicts: dict[str, Any]) -> RunReport:
    """Give int8 against tuned these verdicts, and leave all other comparisons out."""
    pairs = tuple(
        replace(pair, verdict=verdicts[pair.metric])
        for pair in report.scores.comparisons
        if (pair.model, pair.baseline) == ("int8", "tuned") and pair.metric in verdicts
    )
    return replace(report, scores=replace(report.scores, comparisons=pairs), gates=())


def test_gains_and_costs_are_told_from_value_to_value(report: RunReport) -> None:
    verdicts = {"qa_accuracy": "worse", "decode_tokens_per_s": "better"}
    [finding] = summarise(with_verdicts(report, verdicts))
    metrics = report.scores.metrics
    before, after = (100 * metrics[model]["qa_accuracy"].value for model in ("tuned", "int8"))
    assert finding.text.startswith("Compressing tuned to int8 (269 MB to 142 MB) improved decode")
    assert f"but worsened answer accuracy ({before:.1f} to {after:.1f} %)." in finding.text
    assert finding.rest == ""


def test_what_cannot_be_told_is_no_success(report: RunReport) -> None:
    verdicts = {"qa_accuracy": "cannot tell", "gender_gap": "equivalent"}
    [finding] = summarise(with_verdicts(report, verdicts))
    assert finding.text.endswith("made nothing measurably better or worse.")
    assert finding.rest == (
        "Gender gap stayed the same within its margin; for answer accuracy the items were "
        "too few to tell."
    )


@pytest.mark.parametrize(
    ("passed", "text"),
    [
        ([True, True], "int8 may ship: all 2 rules hold."),
        ([True], "int8 may ship: its only rule holds."),
        ([True, False], 'int8 may not ship: 1 of 2 rules does not hold, "rule 1" (cannot tell).'),
    ],
)
def test_a_gate_is_one_line(report: RunReport, passed: list[bool], text: str) -> None:
    rules = tuple(
        RuleResult(
            f"rule {i}", one, "", "m", 0.0, 0.0, 0.0, None, "passed" if one else "cannot tell"
        )
        for i, one in enumerate(passed)
    )
    gate = GateResult(all(passed), "int8", "starter", rules)
    assert [each.text for each in verdicts(replace(report, gates=(gate,)))] == [text]


def test_a_model_is_told_against_the_first_one_too(report: RunReport) -> None:
    whole = compare(report, "int8", "starter")
    assert whole is not None
    assert whole.text.startswith("Going from starter to int8 (98 MB to 142 MB) improved answer")
    assert "but worsened" in whole.text
    assert compare(report, "int8", "int8") is None
