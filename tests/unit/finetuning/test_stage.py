"""What a recipe leaves open must be in its lock: a default that changes is another result."""

from pathlib import Path

import pytest

from lmwright.core.errors import RecipeError
from lmwright.finetuning import config as finetune_config
from lmwright.recipe.plan import Plan, plan
from lmwright.recipe.read import parse

RECIPE = """
name = "x"
[data.d]
source = "words.jsonl"
[finetune.t]
model = "starter"
data = "d"
"""


@pytest.fixture(autouse=True)
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [f'{{"prompt": "What is {i}?", "completion": "It is {i}."}}\n' for i in range(58)]
    Path("words.jsonl").write_text("".join(lines), encoding="utf-8")


def planned(*overrides: str) -> Plan:
    return plan(parse(RECIPE, overrides=overrides))


def test_the_plan_holds_every_value_and_its_hash_follows_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = planned().steps[1]
    told = step.to_json()["config"]
    assert {key: told[key] for key in ("lr", "alpha", "epochs", "batch_size", "keep")} == {
        "lr": 1e-3, "alpha": 32.0, "epochs": 11, "batch_size": 4, "keep": "last"
    }  # fmt: skip
    assert step.remarks == ("11 epochs of 14 steps, the last weights are kept",)
    monkeypatch.setitem(finetune_config.LEARNING_RATES, "lora", 2e-3)
    assert planned().steps[1].artifact.hash != step.artifact.hash


def test_values_written_out_are_the_same_step_as_those_left_open() -> None:
    given = planned("finetune.t.epochs=11", "finetune.t.batch_size=4", "finetune.t.keep=last")
    assert given.steps[1].artifact.hash == planned().steps[1].artifact.hash
    other = planned("finetune.t.method=full").steps[1].to_json()["config"]
    assert (other["lr"], other["alpha"]) == (1e-4, None)


def test_too_few_steps_are_said_before_they_are_made() -> None:
    told, short = planned("finetune.t.epochs=3").steps[1].remarks
    assert told == "3 epochs of 14 steps, the last weights are kept"
    assert short.startswith("42 optimiser steps are few")


def test_data_that_are_not_here_leave_the_epochs_open() -> None:
    step = planned("data.d.source=hub:org/data").steps[1]
    assert step.to_json()["config"]["epochs"] is None
    assert step.remarks == ("how many epochs suit the data is known once they are here",)


@pytest.mark.parametrize("model", ["starter", "tiny"])
def test_a_rank_above_the_models_width_is_refused(model: str, tiny_folder: Path) -> None:
    name = str(tiny_folder) if model == "tiny" else model
    with pytest.raises(RecipeError, match=r"^finetune\.t\.rank = 600: the model is \d+ wide"):
        planned("finetune.t.rank=600", f"finetune.t.model={name}")
