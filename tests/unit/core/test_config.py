"""A misspelt key that is ignored runs hours with the wrong setting."""

import pytest
from pydantic import Field

from lmwright.core.config import Config
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
