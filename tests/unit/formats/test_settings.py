"""Every value of a stranger's file is read here: what is let through must have its type."""

import pytest

from lmwright.core.errors import ModelError
from lmwright.formats.settings import Settings, shown

RIGHT = {
    "text": "a", "flag": False, "number": 0.5, "whole": -3, "texts": ["a"], "numbers": [1, 2.5],
    "items": [1, "a"], "token": 0, "tokens": [1, 2],
}  # fmt: skip
HOSTILE = [3, -1, 2.5, True, "x", [], [[]], ["x", 1], [True], {}, float("nan"), float("inf")]


def is_right(kind, value) -> bool:
    numbers = (int, float)
    is_token = type(value) is int and value >= 0
    return {
        "text": type(value) is str,
        "flag": type(value) is bool,
        "number": type(value) in numbers and abs(value) < 1e308,
        "whole": type(value) is int,
        "texts": type(value) is list and all(type(v) is str for v in value),
        "numbers": type(value) is list and all(type(v) in numbers for v in value),
        "items": type(value) is list,
        "token": is_token,
        "tokens": is_token or value == [],
    }[kind]


@pytest.mark.parametrize("kind", RIGHT)
def test_what_has_its_type_comes_back_and_null_is_the_default(kind):
    found = getattr(Settings({"a": RIGHT[kind], "b": None}), kind)
    assert found("a") == (tuple(RIGHT[kind]) if kind == "tokens" else RIGHT[kind])
    assert found("b") == found("c")


@pytest.mark.parametrize("kind", RIGHT)
@pytest.mark.parametrize("value", HOSTILE, ids=str)
def test_what_has_another_type_is_an_error_that_names_file_and_key(kind, value):
    read = getattr(Settings({"a": value}, "x.json", "deep."), kind)
    if is_right(kind, value):
        read("a")
        return
    with pytest.raises(ModelError, match=r"^x\.json: deep\.a = .*: expected "):
        read("a")


def test_bounds_and_tables():
    settings = Settings({"n": 9, "t": {"n": 1, "u": {"v": "x"}}}, "f")
    assert settings.whole("n", bounds=range(10)) == 9
    with pytest.raises(ModelError, match="expected a whole number 0 to 8"):
        settings.whole("n", bounds=range(9))
    assert settings.table("t").whole("n") == 1
    assert settings.table("none").values == {}
    with pytest.raises(ModelError, match=r"f: t\.u\.v = 'x': expected a number"):
        settings.table("t").table("u").number("v")


def test_a_message_shows_the_beginning_of_a_long_value():
    assert shown("x" * 10**6) == "'" + "x" * 59 + "..."
