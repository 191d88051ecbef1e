"""The summary is what most people read: it may say nothing that no verdict says."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lmwright.core.decision import GateResult, RuleResult
from lmwright.reporting.collect import RunReport, collect
from lmwright.reporting.summary import summarise


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
        ([True, True], "The gate let int8 through: all 2 rules hold."),
        ([True, False], 'The gate said no to int8: 1 of 2 rules failed, "rule 1".'),
    ],
)
def test_the_gate_has_the_last_word(report: RunReport, passed: list[bool], text: str) -> None:
    rules = tuple(
        RuleResult(f"rule {i}", one, "", "m", 0.0, 0.0, 0.0, None, "passed")
        for i, one in enumerate(passed)
    )
    gate = GateResult(all(passed), "int8", "starter", rules)
    assert summarise(replace(report, gates=(gate,)))[-1].text == text
