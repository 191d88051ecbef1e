"""The exit code and the hint are all that a script, or a newcomer, has to go by."""

import pickle

import pytest

from lmwright.core import errors
from lmwright.core.errors import ModelError, RecipeError, UnsupportedError, located, suggestion


@pytest.mark.parametrize(
    ("name", "code"),
    [("LmwrightError", 1), ("BusyError", 1), ("RequestError", 2), ("RecipeError", 2),
     ("DataError", 2), ("ModelError", 2)],
)  # fmt: skip
def test_wrong_requests_exit_with_2_and_failures_with_1(name, code):
    kind = getattr(errors, name)
    assert kind.exit_code == code
    assert issubclass(kind, ValueError) == (code == 2)


def test_the_closest_name_is_suggested_or_all_are_listed():
    assert suggestion("bank-suport", ["bank-support", "news"]) == "; did you mean 'bank-support'?"
    assert suggestion("zzz", ["b", "a"]) == "; known: a, b"
    assert suggestion("zzz", ["a", "b", "a"]) == "; known: a, b"
    assert suggestion("zzz", []) == ""


def test_a_place_is_put_before_each_fault_but_not_inside_one():
    with pytest.raises(RecipeError) as caught, located("q.toml: "):
        raise RecipeError("rank: too large\nrequire: a rule is one of\n  METRIC better")
    told = "q.toml: rank: too large\nq.toml: require: a rule is one of\n  METRIC better"
    assert str(caught.value) == told


def test_what_a_model_cannot_do_is_told_from_another_process():
    error = pickle.loads(pickle.dumps(UnsupportedError("m: no", reason="cannot")))
    assert (type(error), str(error), error.reason) == (UnsupportedError, "m: no", "cannot")


def test_a_message_that_quotes_a_long_value_keeps_its_beginning_and_end():
    text = str(ModelError("config.json: " + "x" * 10**6 + ": expected a number"))
    assert len(text) < 2100
    assert text.startswith("config.json: xxx")
    assert text.endswith("xxx: expected a number")
    assert str(pickle.loads(pickle.dumps(ModelError("short")))) == "short"
