"""A gate that cannot be decided must be refused before anything runs, not after all of it."""

from pathlib import Path

import pytest

from lmwright.core.errors import RecipeError
from lmwright.recipe.plan import plan
from lmwright.recipe.read import parse

RECIPE = """
name = "x"
[data.d]
source = "starter:bank-support"
[finetune.t]
data = "d"
[compress.a]
model = "t"
method = "int8"
[compress.b]
model = "a"
method = "int4"
[evaluate.e]
models = ["starter", "t", "a", "b"]
[gate]
evaluation = "e"
model = "a"
baseline = "t"
require = ["RULE"]
"""


def refused(rule: str, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        parse(RECIPE.replace("RULE", rule), overrides=overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("rule", "overrides", "message"),
    [
        ("wat >= 1", (), "gate.require 'wat >= 1': no metric 'wat'"),
        ("qa_acuracy better", (), "did you mean 'qa_accuracy'?"),
        ("facts >= 80%", (), "'facts' is called 'qa_accuracy' now"),
        ("bits_per_byte <= 2%", (), "bits_per_byte is no share but in bits/byte"),
        ("size_bytes <= 80%", (), "size_bytes is no share but in bytes"),
        ("gender_gap not worse by 3 points", (), "gender_gap is no share but in nats"),
        ("qa_accuracy >= " + "9" * 400, (), "expected at most 1e+15"),
        ("qa_accuracy better", ("gate.baseline=a",), "model and baseline are both 'a'"),
        ("qa_accuracy better", ("gate.baseline=b",), "compares a with starter and t alone"),
        ("refusal_rate >= 50%", ('evaluate.e.tasks=["speed"]',),
         "evaluate.e does not measure refusal_rate: the task 'refusals' was not asked for"),
    ],
)  # fmt: skip
def test_a_rule_that_no_evaluation_can_answer_is_refused(
    rule: str, overrides: tuple[str, ...], message: str
) -> None:
    assert message in refused(rule, *overrides)


def test_a_rule_about_questions_needs_data_that_hold_some(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n' * 2, encoding="utf-8")
    recipe = parse(RECIPE.replace("RULE", "qa_accuracy >= 80%"))
    plan(recipe)
    recipe = parse(recipe.to_toml(), overrides=[f"data.d.source={path}"])
    with pytest.raises(RecipeError, match=r"gate\.require 'qa_accuracy >= 80%': .* held-out"):
        plan(recipe)


def test_exact_figures_of_any_two_models_can_be_compared() -> None:
    plan(parse(RECIPE.replace("RULE", "size_bytes <= -10%"), overrides=["gate.baseline=b"]))
