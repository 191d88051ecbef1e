"""The summary is what most people read: it may say nothing that no verdict says."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lmwright.reporting.collect import Story, collect
from lmwright.reporting.summary import summarise


@pytest.fixture
def story(finished_run: Path) -> Story:
    return collect(finished_run / "card", finished_run)


def with_verdicts(story: Story, verdicts: dict[str, str]) -> Story:
    """Give int8 against tuned these verdicts, and leave all other comparisons out."""
    pairs = [
        {**pair, "verdict": verdicts[pair["metric"]]}
        for pair in story.evaluation["comparisons"]
        if (pair["model"], pair["baseline"]) == ("int8", "tuned") and pair["metric"] in verdicts
    ]
    return replace(story, evaluation={**story.evaluation, "comparisons": pairs}, gate=None)


def test_gains_and_costs_are_told_from_value_to_value(story: Story) -> None:
    [saying] = summarise(with_verdicts(story, {"facts": "worse", "decode_tokens_per_s": "better"}))
    metrics = story.evaluation["metrics"]
    before, after = (100 * metrics[model]["facts"]["value"] for model in ("tuned", "int8"))
    assert saying.text.startswith("Compressing tuned to int8 (269 MB to 142 MB) improved decode")
    assert f"but worsened fact accuracy ({before:.1f} to {after:.1f} %)." in saying.text
    assert saying.rest == ""


def test_what_cannot_be_told_is_no_success(story: Story) -> None:
    verdicts = {"facts": "cannot tell", "gender_gap": "equivalent"}
    [saying] = summarise(with_verdicts(story, verdicts))
    assert saying.text.endswith("made nothing measurably better or worse.")
    assert saying.rest == (
        "Gender gap stayed the same within its margin; "
        "for fact accuracy the items were too few to tell."
    )


@pytest.mark.parametrize(
    ("passed", "text"),
    [
        ([True, True], "The gate let int8 through: all 2 rules hold."),
        ([True, False], 'The gate said no to int8: 1 of 2 rules failed, "rule 1".'),
    ],
)
def test_the_gate_has_the_last_word(story: Story, passed: list[bool], text: str) -> None:
    rules: list[dict[str, Any]] = [
        {"rule": f"rule {number}", "passed": one} for number, one in enumerate(passed)
    ]
    gate = {"passed": all(passed), "model": "int8", "baseline": "starter", "rules": rules}
    assert summarise(replace(story, gate=gate))[-1].text == text
