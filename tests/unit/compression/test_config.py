"""A recipe's hash is made of its tables: two spellings of one method must be one table."""

import pytest

from lmwright.compression.config import Compress
from lmwright.core.errors import RecipeError


@pytest.mark.parametrize("bits", [4, 8])
def test_a_short_form_is_the_same_table(bits: int) -> None:
    short = Compress(model="tuned", method=f"int{bits}", group_size=32)
    long = Compress(model="tuned", method="rtn", bits=bits, group_size=32)
    assert short == long == Compress(model="tuned", method=f"int{bits}", bits=bits, group_size=32)
    assert short.model_dump() == {
        "model": "tuned", "method": "rtn", "bits": bits, "group_size": 32,
    }  # fmt: skip
    assert short.number_format == f"int{bits}"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"method": "int8", "bits": 4}, "bits = 4: method = 'int8' has 8 bits"),
        ({"method": "rtn"}, "bits: missing"),
        ({"method": "rtn", "bits": 3}, "bits = 3"),
        ({"method": "int5"}, "method = 'int5'.*did you mean 'int[48]'"),
        ({"method": ["int8"]}, "method = "),
        ({"method": "int8", "seed": 1}, "seed: unknown key"),
        ({"method": "int8", "group_size": 4}, "group_size = 4"),
    ],
)
def test_what_cannot_be_meant_is_refused(table: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Compress(model="tuned", **table)
