"""Settings of requests that cost money: a slip must not pass."""

from typing import Any

import pytest

from lmwright.core.errors import RecipeError
from lmwright.evaluation.config import Evaluate
from lmwright.hosted.config import Hosted


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"n_paralel": 2}, r"evaluate\.card\.hosted\.n_paralel: unknown key; did you mean"),
        ({"n_parallel": 0}, r"evaluate\.card\.hosted\.n_parallel = 0"),
        ({"timeout_s": 0}, r"hosted\.timeout_s = 0"),
        ({"requests_per_minute": 0}, r"hosted\.requests_per_minute = 0"),
        ({"requests_per_minute": float("inf")}, r"hosted\.requests_per_minute = inf: expected a n"),
        (
            {"timeout_s": 1e9},
            r"timeout_s = 1000000000\.0: expected a number above 0 and at most 86",
        ),
        ({"prices": {"openai:gpt": [1.0, 1e12]}}, r"gpt\.1 = 1000000000000\.0: expected a number"),
        ({"prices": {"openai:gpt": [1.0]}}, r"hosted\.prices\.openai:gpt"),
        ({"prices": {"openai:gpt": [1.0, -1.0]}}, r"hosted\.prices\.openai:gpt\.1 = -1"),
        ({"prices": {"openai:gpt-4": [1, 1]}}, "'openai:gpt-4' is not among the hosted models"),
    ],
)
def test_what_is_wrong_is_named(table: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Evaluate.read({"models": ["starter", "openai:gpt"], "hosted": table}, "evaluate.card")


def test_settings_that_no_model_would_use_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"^evaluate\.card\.hosted: none of the models is hosted"):
        Evaluate.read({"models": ["starter"], "hosted": {}}, "evaluate.card")


def test_prices_are_by_model() -> None:
    assert Hosted(prices={"openai:gpt": (1, 2.5)}).prices == {"openai:gpt": (1.0, 2.5)}
