"""A rule that is read wrongly lets a worse model through without a word."""

import pytest

from lmwright.core.errors import RecipeError
from lmwright.gate.rules import parse


@pytest.mark.parametrize(
    "rule",
    ["", "facts", "facts > 80%", "facts >= ", "facts >= 80 percent", "facts not worse by",
     "facts not worse by 5%", "facts is better", "facts >= 1.2.3", ">= 80%"],
)  # fmt: skip
def test_a_wrong_rule_shows_the_grammar(rule: str) -> None:
    with pytest.raises(RecipeError, match="not a rule; a rule is one of"):
        parse(rule)


def test_a_signed_number_without_percent_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"bits_per_byte <= \+2%"):
        parse("bits_per_byte <= +2")


def test_an_unknown_metric_is_suggested() -> None:
    with pytest.raises(RecipeError, match="did you mean 'bits_per_byte'"):
        parse("bit_per_byte <= +2%", ["qa_accuracy", "bits_per_byte"])


def test_an_old_name_is_answered_with_the_new_one() -> None:
    with pytest.raises(RecipeError, match="'facts' is called 'qa_accuracy' now"):
        parse("facts >= 80%")
