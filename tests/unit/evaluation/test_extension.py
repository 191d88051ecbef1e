"""A metric from outside of lmwright: one record, and every page, card and gate knows it."""

import json
from pathlib import Path

import numpy as np
import pytest

from lmwright import lm
from lmwright.core.artifact import write_json
from lmwright.core.results import Asked, MetricSpec, Row, Scores
from lmwright.core.stage import StepContext
from lmwright.engine.request import Sampling
from lmwright.evaluation.config import Evaluate
from lmwright.evaluation.measurement import Measurement
from lmwright.evaluation.run import run as run_evaluation
from lmwright.evaluation.selection import Selection
from lmwright.gate.config import Gate
from lmwright.gate.run import run as run_gate
from lmwright.reporting.config import Report
from lmwright.reporting.run import run as run_report

REVIEWS = {f"Review {i}": i % 3 == 0 for i in range(90)}


def rows(model: lm.LanguageModel, selection: Selection) -> list[Row]:
    """One of (true positive, false positive, false negative, true negative) is 1."""
    chosen = list(REVIEWS.items())[: selection.n]
    replies = model.generate(
        [[{"role": "user", "content": text}] for text, _ in chosen], Sampling(max_tokens=4)
    )
    return [
        Row(text, cell(reply.text == "good", is_good), detail=reply.text)
        for (text, is_good), reply in zip(chosen, replies, strict=True)
    ]


def cell(said: bool, is_good: bool) -> tuple[float, ...]:
    cells = (said and is_good, said and not is_good, not said and is_good, not (said or is_good))
    return tuple(map(float, cells))


def macro_f1(sums: np.ndarray) -> np.ndarray:
    """The mean of the F1 of both classes, which is 0 for one that nobody names and nothing is."""
    tp, fp, fn, tn = np.moveaxis(sums, -1, 0)
    errors = fp + fn
    return sum(2 * hits / np.maximum(2 * hits + errors, 1e-9) for hits in (tp, tn)) / 2


def asked(selection: Selection) -> dict[str, Asked]:
    return {
        text: Asked(text, "good" if is_good else "bad")
        for text, is_good in list(REVIEWS.items())[: selection.n]
    }


MACRO_F1 = Measurement(
    MetricSpec(
        name="review_f1",
        title="Reviews, macro F1",
        unit="share",
        higher_is_better=True,
        kind="continuous",
        margin=0.05,
        heading="Fairness and safety",
        caveat="Reviews that nobody wrote.",
        hub_type="f1",
        role="safety",
    ),
    task="reviews",
    n_items={"quick": 60, "full": None},
    rows=rows,
    statistic=macro_f1,
    asked=asked,
)


def says(n_wrong: int) -> dict[str, str]:
    return {
        text: "good" if is_good != (i < n_wrong) else "bad"
        for i, (text, is_good) in enumerate(REVIEWS.items())
    }


@pytest.fixture
def run_folder(tmp_path: Path, make_model, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two models measured by the step, and the gate's decision."""
    replies = {"base": says(4), "small": says(30)}

    def load(source, *, precision, name):
        return make_model(name, replies=replies[name])

    monkeypatch.setattr(lm, "load", load)
    context = StepContext({}, {"small": ("base",)}, tmp_path, seed=0)
    config, measurements = Evaluate(models=["base", "small"]), {"review_f1": MACRO_F1}
    result = run_evaluation(config, tmp_path / "card", context, measurements=measurements)
    write_json(tmp_path / "card" / "result.json", result)
    gate = Gate(evaluation="card", model="small", require=["review_f1 >= 80%", "review_f1 better"])
    context = StepContext({"card": tmp_path / "card"}, {}, tmp_path, seed=0)
    write_json(tmp_path / "gate" / "result.json", run_gate(gate, tmp_path / "gate", context))
    return tmp_path


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def test_it_is_measured_with_interval_and_paired_verdict(run_folder):
    scores = Scores.from_json(read(run_folder / "card" / "result.json"))
    base, small = (scores.metric("review_f1", model) for model in ("base", "small"))
    assert base.value > 0.9 > 0.6 > small.value
    assert base.low < base.value < base.high
    assert base.n == 60
    change = scores.comparison("review_f1", "small", baseline="base")
    assert (change.verdict, change.p < 0.001) == ("worse", True)
    assert change.low < change.delta < change.high < 0
    assert 0.02 < scores.detectable["review_f1"] < 0.5
    assert "Reviews, macro F1" in str(scores)
    assert f"{100 * base.value:.1f} %" in str(scores)


def test_a_gate_decides_rules_on_it(run_folder):
    decision = read(run_folder / "gate" / "result.json")
    assert [rule["outcome"] for rule in decision["rules"]] == ["failed", "failed"]
    assert "Reviews, macro F1 of small" in decision["rules"][0]["evidence"]


def test_report_and_card_show_it_where_its_spec_says(run_folder):
    inputs = {name: run_folder / name for name in ("card", "gate")}
    config = Report(evaluation="card", gates=["gate"])
    run_report(config, run_folder / "report", StepContext(inputs, {}, run_folder, seed=0))
    page = (run_folder / "report" / "report.html").read_text(encoding="utf-8")
    table = page.split('<tr class="group">')
    assert "Fairness and safety" in table[1]
    assert "Reviews, macro F1" in table[1]
    assert '>worse</b> <span class="against">vs base</span>' in table[1]
    # One row of four counts is neither right nor wrong, so the reply is shown without a mark.
    assert '<div class="question">Review 0</div>' in page
    assert "the models disagree on " not in page
    assert "The gate said no to small" in page
    card = (run_folder / "report" / "README.md").read_text(encoding="utf-8")
    assert "- type: f1" in card
    safety = card.split("## Safety")[1].split("## Limits")[0]
    assert "Reviews, macro F1" in safety
    assert "Reviews that nobody wrote." in safety
