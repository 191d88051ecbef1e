"""Endpoints differ in their shapes: all of them must end in the same values."""

import logging
from typing import Any

import pytest

from lmwright.engine.request import UNKNOWN, TokenLogprob
from lmwright.hosted.errors import HostedError
from lmwright.hosted.replies import chunks, completion


def read(**choice: Any) -> Any:
    return completion({"choices": [{"finish_reason": "stop", **choice}]}, name="m")


def test_logprobs_of_a_chat() -> None:
    entry = {
        "token": "a",
        "logprob": -0.5,
        "top_logprobs": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -9999.0}],
    }
    answer = read(message={"content": "a"}, logprobs={"content": [entry], "refusal": None})
    top = ((UNKNOWN, "a", -0.5), (UNKNOWN, "b", -9999.0))
    assert answer.logprobs == (TokenLogprob(UNKNOWN, "a", -0.5, top),)
    assert answer.token_ids == (UNKNOWN,)
    assert answer.n_prompt_tokens == UNKNOWN


def test_an_id_that_is_told_is_taken() -> None:
    entry = {"id": 57, "token": "I", "logprob": -2.0, "top_logprobs": []}
    assert read(text="I", logprobs={"content": [entry]}).token_ids == (57,)


def test_logprobs_of_a_text() -> None:
    table = {"tokens": ["a", "b"], "token_logprobs": [-0.5, -1], "top_logprobs": [{"a": -0.5}, {}]}
    answer = read(text="ab", logprobs=table)
    top = ((UNKNOWN, "a", -0.5),)
    assert answer.logprobs == (
        TokenLogprob(UNKNOWN, "a", -0.5, top), TokenLogprob(UNKNOWN, "b", -1.0),
    )  # fmt: skip
    assert len(read(text="ab", logprobs={**table, "top_logprobs": None}).logprobs) == 2


@pytest.mark.parametrize(
    "table",
    [
        {"tokens": ["a"]},
        {"tokens": ["a"], "token_logprobs": []},
        {"tokens": ["a"], "token_logprobs": ["x"]},
        {"tokens": ["a"], "token_logprobs": [float("nan")]},
        {"content": [{"token": "a"}]},
        {"content": [{"token": "a", "logprob": None}]},
        {"content": 5},
    ],
)
def test_logprobs_of_an_unknown_shape_are_an_error(table: Any) -> None:
    with pytest.raises(HostedError, match="logprobs of an unknown shape"):
        read(text="a", logprobs=table)


def test_a_refusal_is_what_was_said() -> None:
    assert read(message={"content": None, "refusal": "I won't."}).text == "I won't."
    assert read(message={"content": None}).text == ""


def test_the_tokens_of_a_refusal_and_of_nothing_are_read() -> None:
    entry = {"token": "No", "logprob": -0.5}
    refused = read(message={"refusal": "No"}, logprobs={"content": None, "refusal": [entry]})
    assert [token.text for token in refused.logprobs] == ["No"]
    assert read(message={"content": ""}, logprobs={"content": []}).logprobs == ()


def test_tokens_may_be_more_than_the_text_and_parts_of_characters() -> None:
    tokens = [
        "<think>",
        "Hm",
        "</think>",
        "caf",
        "bytes:\\xc3",
        "bytes:\\xa9",
        " ",
        "ok",
        "<|end|>",
    ]
    entries = [{"token": token, "logprob": -1} for token in tokens]
    assert len(read(text="caf\u00e9ok", logprobs={"content": entries}).logprobs) == len(tokens)


def test_an_end_for_another_reason_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert read(text="ab", finish_reason="content_filter").finish_reason == "stop"
    assert "content_filter" in caplog.text


def test_tokens_are_counted_where_their_ids_are_not_told() -> None:
    answer = {"choices": [{"text": "ab", "finish_reason": "length"}]}
    answer["usage"] = {"prompt_tokens": 3, "completion_tokens": 2}  # pyright: ignore[reportArgumentType]
    found = completion(answer, name="m")
    assert (found.token_ids, found.n_prompt_tokens) == ((UNKNOWN, UNKNOWN), 3)
    assert found.finish_reason == "length"


def test_a_stream_of_texts_puts_its_logprobs_together() -> None:
    pieces = [
        {"text": t, "logprobs": {"tokens": [t], "token_logprobs": [-1.0]}, "finish_reason": None}
        for t in "ab"
    ]
    events = [{"choices": [piece]} for piece in [*pieces, {"text": "", "finish_reason": "stop"}]]
    *first, last = chunks(iter(events), name="m")
    assert [chunk.text for chunk in first] == ["a", "b"]
    assert last.completion is not None
    assert last.completion.text == "ab"
    assert [token.text for token in last.completion.logprobs] == ["a", "b"]
