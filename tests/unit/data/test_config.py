"""An empty source is the folder that a command happens to run in."""

import pytest

from lmwright.core.errors import RecipeError
from lmwright.data.config import Data


@pytest.mark.parametrize("source", ["", "  ", [], ["a.jsonl", ""], 5, None])
def test_a_source_must_be_named(source: object) -> None:
    with pytest.raises(RecipeError, match=r"^source = .*: expected the name of a source"):
        Data(source=source)


@pytest.mark.parametrize("table", [{"validation": 1}, {"limit": 0}, {"seed": 2**64}])
def test_no_number_is_without_bounds(table: dict) -> None:
    with pytest.raises(RecipeError, match="expected a"):
        Data(source="a.jsonl", **table)
