"""The hub refuses a card that it cannot read, and a reader trusts only what was measured."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from lmwright.core.stage import StepContext
from lmwright.reporting.card import card
from lmwright.reporting.collect import RunReport, collect
from lmwright.reporting.config import Report
from lmwright.reporting.run import run


@pytest.fixture
def report(finished_run: Path) -> RunReport:
    return collect(finished_run / "card", finished_run, [finished_run / "gate"])


def metadata(text: str) -> dict[str, Any]:
    assert text.startswith("---\n")
    return yaml.safe_load(text.split("---\n")[1])


def test_the_metadata_are_those_of_the_hub(report: RunReport) -> None:
    found = metadata(card(report, "int8"))
    assert found["license"] == "apache-2.0"
    assert found["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert found["base_model_relation"] == "finetune"
    assert found["library_name"] == "transformers"
    assert found["pipeline_tag"] == "text-generation"
    assert found["language"] == "en"
    assert found["tags"] == ["lmwright", "lora", "rtn", "int8", "compressed-tensors"]


def test_the_model_index_holds_every_metric_with_n_and_interval(report: RunReport) -> None:
    results = metadata(card(report, "int8"))["model-index"][0]["results"]
    measured = report.scores.metrics["int8"]
    shown = {result["metrics"][0]["name"]: result["metrics"][0] for result in results}
    assert shown.keys() == measured.keys()
    for name, metric in measured.items():
        assert shown[name]["value"] == round(metric.value, 6)
        assert shown[name]["args"]["n"] == metric.n
        assert shown[name]["args"]["low_95"] == round(metric.low, 6)
    assert shown["qa_accuracy"]["type"] == "accuracy"


def test_the_hub_library_reads_it(report: RunReport, tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(card(report, "tuned"), encoding="utf-8")
    loaded = ModelCard.load(path).data.to_dict()
    [index] = loaded["model-index"]
    assert index["name"] == "support-tuned"
    assert len(index["results"]) == len(report.scores.specs)


def test_the_table_has_a_value_an_interval_and_n_a_line(report: RunReport) -> None:
    text = card(report, "int8")
    found = report.scores.metrics["int8"]["qa_accuracy"]
    line = next(
        line for line in text.splitlines() if line.startswith("| Answer accuracy, held-out")
    )
    assert f"{100 * found.value:.1f} %" in line
    assert f"{100 * found.low:.1f} to {100 * found.high:.1f} %" in line
    assert "60 items" in line
    # Against what it was made from, and against the base: the whole loss.
    heading = next(line for line in text.splitlines() if line.startswith("| metric |"))
    assert heading.count("change against tuned | verdict |") == 1
    assert heading.count("change against starter | verdict |") == 1
    assert line.count("|") == heading.count("|") == 10
    assert "Going from starter to int8" in text


def test_what_was_not_measured_is_said(report: RunReport) -> None:
    scores, left = report.scores, ("gender_gap", "refusal_rate", "over_refusal_rate")
    scores = replace(
        scores,
        specs=tuple(spec for spec in scores.specs if spec.name not in left),
        not_measured=dict.fromkeys(left, "not asked for"),
    )
    text = card(replace(report, scores=scores), "int8")
    assert "## Bias\n\nNot measured." in text
    assert "## Safety\n\nNot measured." in text
    assert "| gender_gap | | not measured: not asked for | | | | | | |" in text


def test_bias_and_safety_have_sections_of_their_own(report: RunReport) -> None:
    text = card(report, "int8")
    bias, safety = text.split("## Bias")[1].split("## Safety")
    assert "Gender gap" in bias
    assert "Refusals of harmful requests" in safety.split("## Limits")[0]


def test_a_model_of_several_parents_names_them_all(report: RunReport) -> None:
    steps = tuple(
        replace(step, parents=("starter", "teacher")) if step.name == "tuned" else step
        for step in report.steps
    )
    text = card(replace(report, steps=steps), "int8")
    assert metadata(text)["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert "| Made with | teacher |" in text


def test_training_data_are_those_of_the_steps_that_read_data(report: RunReport) -> None:
    text = card(report, "int8").split("## Training data")[1].split("## Evaluation")[0]
    assert text.count("learned from") == 1
    assert "`tuned` learned from 590 samples of starter:bank-support" in text
    assert "method = lora, rank = 16, lr = 0.001." in text
    assert "Training took 180 steps, 93,000 tokens, 4,884,480 trained parameters" in text


def test_the_domain_the_system_message_and_the_verdict_are_told(report: RunReport) -> None:
    text = card(report, "int8").split("\n---\n")[1]
    lines = [line for line in text.splitlines() if line]
    assert lines[1].startswith("int8 may ")
    assert "| System message | You are the clerk. |" in text
    assert "domain of its training data (`starter:bank-support`)" in text
    assert "- I have lost my debit card. What do I pay for the next one? (0)" in text
    assert "Note: trained for 180 optimiser steps; that is enough." in text
    assert "lmwright==" not in text


def test_the_licence_of_an_unknown_base_is_not_guessed(report: RunReport) -> None:
    steps = tuple(
        replace(step, parents=("hub:acme/base:Q4_K_M@main",)) if step.name == "tuned" else step
        for step in report.steps
    )
    found = metadata(card(replace(report, steps=steps), "int8"))
    assert (found["license"], found["base_model"]) == ("other", "acme/base")
    assert "language" not in found


def test_each_model_of_the_run_gets_its_card(finished_run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished_run, tmp_path / "support"))
    config = Report(evaluation="card", gates=["gate"])
    inputs = {name: folder / name for name in ("card", "gate")}
    result = run(config, folder / "report", StepContext(inputs, {}, folder, seed=0))
    assert result["cards"] == [f"{name}/model/README.md" for name in ("tuned", "int8", "int4")]
    for name in ("tuned", "int8", "int4"):
        text = (folder / name / "model" / "README.md").read_text(encoding="utf-8")
        assert f"# support-{name}\n" in text
        assert ("## Gate" in text) == (name == "int8")
    beside_page = (folder / "report" / "README.md").read_text(encoding="utf-8")
    assert beside_page == (folder / "int8" / "model" / "README.md").read_text(encoding="utf-8")
