"""A home that does not exist must be a file that does not exist, not a traceback."""

from pathlib import Path

from lmwright.core.paths import expanded


def test_a_home_is_filled_in_and_nobodys_home_is_a_name_like_any_other():
    assert expanded("~/data.jsonl") == Path.home() / "data.jsonl"
    assert expanded("~nosuchuser/data.jsonl") == Path("~nosuchuser/data.jsonl")
    assert expanded("data.jsonl") == Path("data.jsonl")
