"""A misspelt key that is ignored runs hours with the wrong setting."""

from typing import Annotated, Literal

import pytest
from pydantic import Field

from lmwright.core.config import Config, SeedNumber
from lmwright.core.errors import RecipeError


class Table(Config):
    """A recipe table as it occurs."""

    rank: int = Field(default=8, ge=1)
    data: str


def test_all_faults_are_told_at_once_each_with_its_place():
    with pytest.raises(RecipeError) as caught:
        Table.read({"rnak": 4, "rank": 0}, "finetune.tuned")
    assert str(caught.value).split("\n") == [
        "finetune.tuned.rank = 0: expected a whole number of at least 1",
        "finetune.tuned.data: missing; add data = ...",
        "finetune.tuned.rnak: unknown key; did you mean 'rank'?",
    ]


def test_python_callers_get_the_same_error_without_the_place():
    with pytest.raises(RecipeError, match=r"^rank = 'many': expected a whole number of at least 1"):
        Table(data="x", rank="many")


def test_a_config_cannot_be_changed_by_accident():
    table = Table(data="x")
    with pytest.raises(ValueError, match="frozen"):
        table.rank = 3


class Numbers(Config):
    """A table with every kind of bound that a recipe has."""

    seed: SeedNumber = 0
    rate: float | None = Field(default=None, gt=0, le=1)
    share: float = Field(default=0.5, ge=0, lt=1)
    prices: dict[str, tuple[Annotated[float, Field(ge=0, le=1_000_000)], float]] = Field(default={})
    names: list[str] = Field(default=["a"], min_length=1)
    keep: Literal["best", "last"] = "best"
    label: str = ""


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"seed": 2**64}, f"seed = {2**64}: expected a whole number from 0 to {2**63 - 1:,}"),
        ({"seed": 1.5}, f"seed = 1.5: expected a whole number from 0 to {2**63 - 1:,}"),
        ({"seed": True}, "seed = true: expected a whole number from 0 to "),
        ({"rate": float("inf")}, "rate = inf: expected a number above 0 and at most 1"),
        ({"rate": float("nan")}, "rate = nan: expected a number above 0 and at most 1"),
        ({"share": 1}, "share = 1: expected a number of at least 0 and below 1"),
        ({"prices": {"m": [-1, 0]}}, "prices.m.0 = -1: expected a number from 0 to 1,000,000"),
        ({"names": []}, "names = []: expected at least 1"),
        ({"keep": "first"}, "keep = 'first': expected 'best' or 'last'"),
        ({"label": 3}, "label = 3: expected a text"),
        ({"label": ["x" * 500]}, "label = ['" + "x" * 75 + "...: expected a text"),
        ({"share": 10**5000}, "share = a number of thousands of digits: expected a number"),
    ],
)
def test_a_fault_names_the_key_the_value_and_what_fits(table: dict, message: str):
    with pytest.raises(RecipeError) as caught:
        Numbers(**table)
    assert str(caught.value).startswith(message)
