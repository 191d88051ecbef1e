"""A low number without a next step leaves people alone with it."""

import json
from pathlib import Path
from typing import Any

import pytest

from lmwright.core.results import Metric, Scores
from lmwright.core.stage import StepContext
from lmwright.evaluation.remarks import remarks
from lmwright.evaluation.tasks.qa_accuracy import QA_ACCURACY


def said(tmp_path: Path, value: float, **training: Any) -> list[str]:
    (tmp_path / "tuned").mkdir()
    (tmp_path / "int8").mkdir()
    (tmp_path / "tuned" / "result.json").write_text(json.dumps(training), encoding="utf-8")
    (tmp_path / "int8" / "result.json").write_text('{"bits": 8}', encoding="utf-8")
    models = ("starter", "tuned", "int8")
    metric = Metric("qa_accuracy", value, value, value, 30, higher_is_better=True, unit="share")
    scores = Scores(
        suite="quick",
        models=models,
        parents={},
        specs=(QA_ACCURACY.spec,),
        metrics={model: {"qa_accuracy": metric} for model in models},
        comparisons=(),
        detectable={},
        facts_of_models={},
        not_measured={},
    )
    inputs = {model: tmp_path / model / "model" for model in ("tuned", "int8")}
    parents = {"tuned": ("starter",), "int8": ("tuned",)}
    return remarks(scores, StepContext(inputs, parents, run_folder=tmp_path, seed=0))


@pytest.mark.parametrize(
    ("training", "advice"),
    [
        ({"n_steps": 24, "epochs": 3, "keep": "last"}, "leave epochs out"),
        ({"n_steps": 300, "epochs": 3, "keep": "best"}, 'keep = "last"'),
        ({"n_steps": 300, "epochs": 3, "keep": "last"}, "more ways to ask"),
    ],
)
def test_of_a_trained_model_that_knows_little_is_said_what_to_try(
    tmp_path: Path, training: dict[str, Any], advice: str
) -> None:
    (note,) = said(tmp_path, 0.31, **training)
    assert note.startswith("tuned answers 31 % of the held-out questions; it was trained for ")
    assert f"{training['n_steps']} steps" in note
    assert advice in note


def test_of_a_model_that_knows_its_facts_nothing_is_said(tmp_path: Path) -> None:
    assert said(tmp_path, 0.8, n_steps=24, epochs=3, keep="last") == []
