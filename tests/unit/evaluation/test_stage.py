"""Tasks that cannot be measured must be refused before the models are trained."""

from pathlib import Path

import pytest

from lmwright.core.errors import RecipeError
from lmwright.recipe.plan import plan
from lmwright.recipe.read import parse

RECIPE = """
name = "x"
[data.d]
source = "words.jsonl"
[evaluate.e]
models = ["starter"]
tasks = ["qa_accuracy", "speed"]
"""
PAIR = '{"prompt": "a", "completion": "b"}\n'
FACT = '{"questions": ["a"], "answers": ["b"], "heldout": ["c"], "accept": ["b"]}\n'


def test_a_task_that_asks_questions_needs_data(tmp_path: Path) -> None:
    alone = RECIPE.replace('[data.d]\nsource = "words.jsonl"\n', "")
    with pytest.raises(RecipeError, match=r"evaluate\.e\.tasks: 'qa_accuracy' needs held-out"):
        parse(alone)
    path = tmp_path / "words.jsonl"
    text = RECIPE.replace("words.jsonl", path.as_posix())
    path.write_text(PAIR, encoding="utf-8")
    with pytest.raises(RecipeError, match=r"evaluate\.e\.tasks: 'qa_accuracy' needs held-out"):
        plan(parse(text))
    plan(parse(text, overrides=['evaluate.e.tasks=["speed"]']))
    path.write_text(PAIR + FACT, encoding="utf-8")
    plan(parse(text))


def test_no_tasks_at_all_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"evaluate\.e\.tasks = \[\]: expected at least 1"):
        parse(RECIPE, overrides=["evaluate.e.tasks=[]"])
