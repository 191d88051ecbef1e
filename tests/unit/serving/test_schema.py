"""A field that is silently ignored gives an answer to another question than was asked."""

from typing import Any

import pytest

from lmwright.serving.chat import ChatRequest
from lmwright.serving.completions import CompletionRequest
from lmwright.serving.errors import ApiError
from lmwright.serving.schema import read_request

MESSAGES = [{"role": "user", "content": "Hi"}]
CHAT: dict[str, Any] = {"model": "fake", "messages": MESSAGES}
TEXT: dict[str, Any] = {"model": "fake", "prompt": "Hi"}


def refusal(kind: Any, body: dict[str, Any]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        read_request(kind, body)
    assert caught.value.status == 400
    return caught.value


def chat_fault(**fields: Any) -> tuple[str | None, str | None]:
    error = refusal(ChatRequest, {**CHAT, **fields})
    return error.param, error.code


def test_null_means_absent() -> None:
    names = [name for name in ChatRequest.model_fields if name not in CHAT]
    nothing = dict.fromkeys([*names, *ChatRequest.OFF])
    assert read_request(ChatRequest, {**CHAT, **nothing}) == read_request(ChatRequest, CHAT)


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "me", "metadata": {"a": "b"}, "store": True, "service_tier": "auto"},
        {"frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}},
        {"tools": [], "tool_choice": "none", "parallel_tool_calls": True},
        {"response_format": {"type": "text"}, "modalities": ["text"]},
        {"temperature": 1, "top_p": 1, "n": 1, "stop": [], "stream": False},
    ],
)
def test_what_changes_nothing_is_accepted(fields: dict[str, Any]) -> None:
    bare, same = ({**CHAT, "seed": 7}, {**CHAT, "seed": 7, **fields})
    found, expected = (
        read_request(ChatRequest, body).sampling(5, n_logprobs=None) for body in (same, bare)
    )
    assert found == expected


@pytest.mark.parametrize(
    "fields",
    [
        {"frequency_penalty": 0.5},
        {"presence_penalty": -2},
        {"frequency_penalty": False},
        {"logit_bias": {"1": 5}},
        {"tools": [{"type": "function"}]},
        {"tool_choice": "required"},
        {"response_format": {"type": "json_object"}},
        {"functions": [{}]},
        {"reasoning_effort": "high"},
    ],
)
def test_what_would_change_the_answer_is_refused(fields: dict[str, Any]) -> None:
    (name,) = fields
    assert chat_fault(**fields) == (name, "unsupported_parameter")


def test_text_completion_refuses_what_it_cannot() -> None:
    for name, value in {"best_of": 2, "suffix": "x", "max_tokens": 0}.items():
        assert refusal(CompletionRequest, {**TEXT, name: value}).param == name
    assert refusal(CompletionRequest, {**TEXT, "echo": True, "n": 2}).param == "echo"
    assert refusal(ChatRequest, {**CHAT, "max_tokens": 0}).param == "max_tokens"
    fine = {**TEXT, "echo": False, "best_of": 1, "suffix": ""}
    assert read_request(CompletionRequest, fine) == read_request(CompletionRequest, TEXT)


def test_an_unknown_field_gets_a_suggestion() -> None:
    error = refusal(ChatRequest, {**CHAT, "temprature": 1})
    assert (error.param, error.code) == ("temprature", "unknown_parameter")
    assert "did you mean 'temperature'?" in str(error)


@pytest.mark.parametrize(
    "name", ["chat_template", "chat_template_kwargs", "prompt_embeds", "ignore_eos", "x" * 10**6]
)
def test_unknown_fields_are_refused_briefly(name: str) -> None:
    error = refusal(ChatRequest, {**CHAT, name: None})
    assert error.code == "unknown_parameter"
    assert len(str(error)) < 2000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", -1),
        ("max_tokens", "5"),
        ("max_tokens", 1.5),
        ("max_tokens", True),
        ("max_completion_tokens", 0),
        ("n", 0),
        ("n", -1),
        ("n", 9),
        ("n", 10**6),
        ("temperature", -1),
        ("temperature", 2.1),
        ("temperature", 1e-300),
        ("temperature", float("inf")),
        ("temperature", 10**400),
        ("temperature", "hot"),
        ("temperature", True),
        ("top_p", 0),
        ("top_p", 2),
        ("top_k", -5),
        ("top_k", 10**9),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("repetition_penalty", 0),
        ("repetition_penalty", 1e9),
        ("seed", -1),
        ("seed", 2**64),
        ("seed", "1"),
        ("stream", 1),
        ("logprobs", 3),
        ("top_logprobs", 21),
        ("top_logprobs", -1),
        ("top_logprobs", 3),  # without logprobs
        ("stream_options", {}),  # without stream
        ("stop", ""),
        ("stop", ["a", ""]),
        ("stop", ["a"] * 17),
        ("stop", "x" * 257),
        ("stop", [1]),
        ("stop", 1),
        ("messages", []),
        ("messages", {}),
        ("messages", "Hi"),
        ("messages", MESSAGES * 3000),
        ("model", 1),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_name(name: str, value: Any) -> None:
    param, code = chat_fault(**{name: value})
    assert param == name
    assert code in ("invalid_value", "invalid_type")


@pytest.mark.parametrize(
    ("message", "param"),
    [
        (None, "messages[1]"),
        ("Hi", "messages[1]"),
        ({}, "messages[1].role"),
        ({"role": "user"}, "messages[1].content"),
        ({"role": "user", "content": None}, "messages[1].content"),
        ({"role": "user", "content": 1}, "messages[1].content"),
        ({"role": "user", "content": []}, "messages[1].content"),
        ({"role": "user", "content": ["Hi"]}, "messages[1].content"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[1].content"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///"}}]},
            "messages[1].content",
        ),
        ({"role": "robot", "content": "Hi"}, "messages[1].role"),
        ({"role": "tool", "content": "Hi"}, "messages[1].role"),
        ({"role": "user", "content": "Hi", "name": "me"}, "messages[1].name"),
        ({"role": "user", "content": "Hi", "user": "me"}, "messages[1].user"),
        ({"role": "assistant", "content": "", "tool_calls": [{}]}, "messages[1].tool_calls"),
    ],
)
def test_a_wrong_message_is_named(message: Any, param: str) -> None:
    assert chat_fault(messages=[*MESSAGES, message])[0] == param


def test_an_answer_can_be_sent_back() -> None:
    answer = {"role": "assistant", "content": "Ho", "refusal": None, "tool_calls": None}
    request = read_request(ChatRequest, {**CHAT, "messages": [*MESSAGES, answer]})
    assert request.messages[1].turn == {"role": "assistant", "content": "Ho"}


def test_text_parts_are_joined_and_developers_are_the_system() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    message = {"role": "developer", "content": parts}
    request = read_request(ChatRequest, {**CHAT, "messages": [message]})
    assert request.messages[0].turn == {"role": "system", "content": "a\nb"}


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("Hi", ["Hi"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [[1, 2]]),
        ([[1], [2, 3]], [[1], [2, 3]]),
    ],
)
def test_a_prompt_has_four_forms(prompt: Any, prompts: list[Any]) -> None:
    assert read_request(CompletionRequest, {**TEXT, "prompt": prompt}).prompt == prompts


@pytest.mark.parametrize(
    "prompt",
    ["", [], [[]], [""], ["a", ""], ["a", 1], [1, "a"], [[1], 2], [["a"]], [True], [[False]],
     [1.0], 5, {}, [None], ["a"] * 65, ["a"] * 100_000],
)  # fmt: skip
def test_any_other_prompt_is_refused(prompt: Any) -> None:
    assert refusal(CompletionRequest, {**TEXT, "prompt": prompt}).param == "prompt"


def test_answers_of_a_request_are_bounded_as_a_whole() -> None:
    body = {**TEXT, "prompt": ["a"] * 64}
    assert len(read_request(CompletionRequest, body).prompt) == 64
    assert refusal(CompletionRequest, {**body, "n": 2}).param == "n"


def test_both_names_of_max_tokens_at_once_are_refused() -> None:
    assert chat_fault(max_tokens=3, max_completion_tokens=3)[0] == "max_tokens"
    assert read_request(ChatRequest, {**CHAT, "max_completion_tokens": 3}).n_tokens == 3


def test_logprobs_are_asked_for_in_two_ways() -> None:
    assert read_request(ChatRequest, {**CHAT, "logprobs": False}).n_logprobs is None
    assert read_request(ChatRequest, {**CHAT, "logprobs": True}).n_logprobs == 0
    both = {**CHAT, "logprobs": True, "top_logprobs": 20}
    assert read_request(ChatRequest, both).n_logprobs == 20
    assert read_request(CompletionRequest, {**TEXT, "logprobs": 0}).logprobs == 0
    assert refusal(CompletionRequest, {**TEXT, "logprobs": 21}).param == "logprobs"
