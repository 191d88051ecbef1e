"""The hub refuses a card that it cannot read, and a reader trusts only what was measured."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from lmwright.reporting.card import card
from lmwright.reporting.collect import Story, collect
from lmwright.reporting.config import Report
from lmwright.reporting.run import run


@pytest.fixture
def story(finished_run: Path) -> Story:
    return collect(finished_run / "card", finished_run)


def metadata(text: str) -> dict[str, Any]:
    assert text.startswith("---\n")
    return yaml.safe_load(text.split("---\n")[1])


def test_the_metadata_are_those_of_the_hub(story: Story) -> None:
    found = metadata(card(story, "int8"))
    assert found["license"] == "apache-2.0"
    assert found["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert found["base_model_relation"] == "finetune"
    assert found["library_name"] == "transformers"
    assert found["pipeline_tag"] == "text-generation"
    assert found["language"] == "en"
    assert found["tags"] == ["lmwright", "lora", "int8", "compressed-tensors"]


def test_the_model_index_holds_every_metric_with_n_and_interval(story: Story) -> None:
    results = metadata(card(story, "int8"))["model-index"][0]["results"]
    measured = story.evaluation["metrics"]["int8"]
    shown = {result["metrics"][0]["name"]: result["metrics"][0] for result in results}
    assert shown.keys() == measured.keys()
    for name, metric in measured.items():
        assert shown[name]["value"] == round(metric["value"], 6)
        assert shown[name]["args"]["n"] == metric["n"]
        assert shown[name]["args"]["low_95"] == round(metric["low"], 6)
    assert shown["facts"]["type"] == "accuracy"


def test_the_hub_library_reads_it(story: Story, tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(card(story, "tuned"), encoding="utf-8")
    loaded = ModelCard.load(path).data.to_dict()
    [index] = loaded["model-index"]
    assert index["name"] == "support-tuned"
    assert len(index["results"]) == len(story.evaluation["tasks"])


def test_the_table_has_a_value_an_interval_and_n_a_line(story: Story) -> None:
    text = card(story, "int8")
    facts = story.evaluation["metrics"]["int8"]["facts"]
    line = next(line for line in text.splitlines() if line.startswith("| Fact accuracy |"))
    assert f"{100 * facts['value']:.1f} %" in line
    assert f"{100 * facts['low']:.1f} to {100 * facts['high']:.1f} %" in line
    assert "136 items" in line
    assert line.count("|") == 8


def test_what_was_not_measured_is_said(finished_run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished_run, tmp_path / "support"))
    path = folder / "card" / "result.json"
    evaluation = json.loads(path.read_text(encoding="utf-8"))
    for metric in ("gender_gap", "refusal_rate", "over_refusal_rate"):
        del evaluation["tasks"][metric]
        evaluation["not_measured"][metric] = "not asked for"
        for metrics in evaluation["metrics"].values():
            del metrics[metric]
    path.write_text(json.dumps(evaluation), encoding="utf-8")
    text = card(collect(folder / "card", folder), "int8")
    assert "## Bias\n\nNot measured." in text
    assert "## Safety\n\nNot measured." in text
    assert "| gender_gap | | not measured | | | | not asked for |" in text


def test_the_licence_of_an_unknown_base_is_not_guessed(story: Story) -> None:
    for step in story.steps:
        if step.name == "tuned":
            step.config["model"] = "hub:acme/base@main"
    found = metadata(card(story, "int8"))
    assert (found["license"], found["base_model"]) == ("other", "acme/base")
    assert "language" not in found


def test_each_model_of_the_run_gets_its_card(finished_run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished_run, tmp_path / "support"))
    config = Report(evaluation="card")
    result = run(config, folder / "report", {"card": folder / "card"}, run_folder=folder)
    assert result["cards"] == [f"{name}/model/README.md" for name in ("tuned", "int8", "int4")]
    for name in ("tuned", "int8", "int4"):
        text = (folder / name / "model" / "README.md").read_text(encoding="utf-8")
        assert f"# support-{name}\n" in text
        assert ("## Gate" in text) == (name == "int8")
    beside_page = (folder / "report" / "README.md").read_text(encoding="utf-8")
    assert beside_page == (folder / "int8" / "model" / "README.md").read_text(encoding="utf-8")
