"""Whoever measures from Python must be able to ask the same held-out questions as a recipe."""

import json

import pytest

from lmwright.core.errors import RequestError
from lmwright.core.stage import StepContext
from lmwright.data.config import Data
from lmwright.data.run import run
from lmwright.evaluation.questions import heldout
from lmwright.evaluation.runner import evaluate


@pytest.fixture
def source(tmp_path):
    facts = [
        {"questions": [f"What costs {i}?"], "answers": [f"{i} euros."],
         "heldout": [f"The price of {i}?"], "accept": [f"{i} euros"]}
        for i in range(3)
    ]  # fmt: skip
    path = tmp_path / "facts.jsonl"
    path.write_text("".join(json.dumps(fact) + "\n" for fact in facts), encoding="utf-8")
    return path


def test_a_source_a_folder_a_table_and_the_questions_are_the_same(source, tmp_path):
    run(Data(source=str(source)), tmp_path / "step", StepContext({}, {}, tmp_path, seed=0))
    found = heldout(str(source))
    assert [question.accept for question in found] == [(f"{i} euros",) for i in range(3)]
    for same in (
        source,
        tmp_path / "step",
        str(tmp_path / "step"),
        Data(source=str(source)),
        found,
    ):
        assert heldout(same) == found
    assert heldout(None) == ()


def test_data_without_questions_are_refused(tmp_path):
    path = tmp_path / "pairs.jsonl"
    pairs = [{"prompt": str(i), "completion": "yes"} for i in range(2)]
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    with pytest.raises(RequestError, match=r"pairs\.jsonl: holds no held-out questions"):
        heldout(path)


def test_facts_are_measured_from_python(source, make_model):
    scores = evaluate([make_model("a")], tasks=["qa_accuracy"], data=str(source))
    assert scores.metrics["a"]["qa_accuracy"].n == 3
