"""The routes as a client sees them: what OpenAI's libraries expect is what they must get."""

import base64
import json
import logging
import socket
import struct
from typing import Any

import pytest

from lmwright.core.errors import RequestError
from lmwright.engine.request import Sampling
from lmwright.hosted.config import Hosted
from lmwright.hosted.model import HostedModel
from lmwright.serving import limits
from lmwright.serving.app import create_app, listen, serve

CHAT = {"model": "fake", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0}


def events(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def test_health_and_models(ask: Any) -> None:
    assert ask("GET", "/health").json() == {"status": "ok"}
    listed = ask("GET", "/v1/models").json()
    assert listed["object"] == "list"
    assert ask("GET", "/v1/models/fake").json() == listed["data"][0]
    assert listed["data"][0]["id"] == "fake"
    assert listed["data"][0]["capabilities"] == ["chat", "embed", "generate", "score"]
    assert listed["data"][0]["context_length"] == 2048
    missing = ask("GET", "/v1/models/../../etc/passwd")
    assert missing.status_code == 404


def test_a_chat_is_answered_and_counted(ask: Any) -> None:
    answer = ask("POST", "/v1/chat/completions", json={**CHAT, "max_tokens": 3}).json()
    assert answer["object"] == "chat.completion"
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "abc", "refusal": None},
            "logprobs": None,
            "finish_reason": "length",
        }
    ]
    n_prompt = len("user: Hi\nassistant: ")
    assert answer["usage"] == {
        "prompt_tokens": n_prompt,
        "completion_tokens": 3,
        "total_tokens": n_prompt + 3,
    }


def test_a_streamed_chat_says_the_same(ask: Any) -> None:
    body = {**CHAT, "max_tokens": 3, "stream": True, "stream_options": {"include_usage": True}}
    response = ask("POST", "/v1/chat/completions", json=body)
    assert response.headers["content-type"].startswith("text/event-stream")
    *chunks, last, done = events(response.text)
    assert done == "[DONE]"
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 3
    assert all(chunk["usage"] is None for chunk in chunks)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("content", "") for delta in deltas) == "abc"
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons == [None] * 4 + ["length"]


def test_every_prompt_gets_n_answers_in_order(ask: Any, samplings: list[Sampling]) -> None:
    body = {"model": "fake", "prompt": ["x", "y"], "n": 2, "seed": 2**64 - 1, "max_tokens": 1}
    answer = ask("POST", "/v1/completions", json=body).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    # The first answer is that of the seed itself; seeds wrap around.
    assert [sampling.seed for sampling in samplings] == [2**64 - 1, 0] * 2
    assert answer["usage"] == {"prompt_tokens": 2, "completion_tokens": 4, "total_tokens": 6}


def test_absent_fields_mean_what_they_mean_at_openai(ask: Any, samplings: list[Sampling]) -> None:
    body = {"model": "fake", "messages": CHAT["messages"]}
    ask("POST", "/v1/chat/completions", json=body)
    (sampling,) = samplings
    assert (sampling.temperature, sampling.top_p, sampling.max_tokens) == (1, 1, 1024)
    assert (sampling.top_k, sampling.min_p, sampling.repetition_penalty) == (0, 0, 1)
    assert sampling.stop == ()
    assert sampling.logprobs is None


def test_max_tokens_defaults_to_the_rest_of_the_context(ask: Any, small_model: Any) -> None:
    body = {"model": "fake", "prompt": "x" * 30}
    answer = ask("POST", "/v1/completions", served=small_model, json=body).json()
    assert answer["usage"]["completion_tokens"] == 10


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "is_fine"),
    [("x" * 30, 10, True), ("x" * 30, 11, False), ("x" * 40, None, False), ("x" * 99, 1, False)],
)
def test_nothing_is_cut_to_fit_the_context(
    ask: Any, small_model: Any, prompt: str, max_tokens: int | None, is_fine: bool
) -> None:
    body = {"model": "fake", "prompt": prompt, "max_tokens": max_tokens}
    response = ask("POST", "/v1/completions", served=small_model, json=body)
    if is_fine:
        assert response.status_code == 200
    else:
        assert response.status_code == 400
        assert response.json()["error"]["code"] == "context_length_exceeded"


def test_stop_ends_an_answer(ask: Any) -> None:
    answer = ask("POST", "/v1/chat/completions", json={**CHAT, "stop": ["d"]}).json()
    assert answer["choices"][0]["message"]["content"] == "abc"
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_token_ids_are_a_prompt(ask: Any) -> None:
    body = {"model": "fake", "prompt": [[1, 2], [3]], "max_tokens": 1}
    answer = ask("POST", "/v1/completions", json=body).json()
    assert answer["usage"]["prompt_tokens"] == 3


@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_of_the_model_is_the_clients_error(ask: Any, stream: bool) -> None:
    body = {"model": "fake", "prompt": "refuse", "stream": stream}
    response = ask("POST", "/v1/completions", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["message"] == "this prompt cannot be continued"


def test_a_crash_of_the_model_fails_one_request_and_tells_no_prompt(
    ask: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="lmwright")
    body = {"model": "fake", "prompt": "explode SECRET"}
    response = ask("POST", "/v1/completions", json=body)
    assert response.status_code == 500
    assert response.json()["error"]["type"] == "server_error"
    assert "RuntimeError" in caplog.text
    assert "fakes.py" in caplog.text
    assert "SECRET" not in caplog.text + response.text


def test_a_crash_in_a_stream_is_its_last_event(ask: Any) -> None:
    body = {"model": "fake", "prompt": "explode", "stream": True}
    response = ask("POST", "/v1/completions", json=body)
    assert response.status_code == 200
    assert events(response.text)[-1]["error"]["code"] == "internal_error"


def test_a_refusing_chat_template_is_the_clients_error(ask: Any) -> None:
    body = {"model": "fake", "messages": [{"role": "assistant", "content": "Hi"}]}
    error = ask("POST", "/v1/chat/completions", json=body).json()["error"]
    assert (error["param"], error["type"]) == ("messages", "invalid_request_error")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/index.html", 404),
        ("POST", "/", 405),
        ("GET", "/docs", 404),
        ("GET", "/openapi.json", 404),
        ("POST", "/v1/rerank", 404),
        ("GET", "/v1/embeddings", 405),
        ("GET", "/v1/models/", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models/fake", 405),
        ("OPTIONS", "/v1/chat/completions", 405),
    ],
)
def test_other_routes_are_refused_in_openais_shape(
    ask: Any, method: str, path: str, status: int
) -> None:
    response = ask(method, path, headers={"Origin": "http://evil.example"})
    assert response.status_code == status
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert "access-control-allow-origin" not in response.headers


def test_a_public_address_needs_a_key(model: Any) -> None:
    with pytest.raises(RequestError, match="without an API key"):
        serve(model, host="0.0.0.0", port=0)


@pytest.mark.parametrize("key", ["", "two words", "schl\u00fcssel", "a\nb"])
def test_a_key_that_no_header_can_carry_is_refused(model: Any, key: str) -> None:
    with pytest.raises(RequestError, match="printable ASCII"):
        create_app(model, api_key=key)


def test_a_taken_port_is_named() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(RequestError, match="try another port"),
    ):
        listen("127.0.0.1", taken.getsockname()[1])


def test_a_port_out_of_range_is_named() -> None:
    with pytest.raises(RequestError, match="65535"):
        listen("127.0.0.1", 65536)


# ---- echo and embeddings


def complete(ask: Any, served: Any = None, **fields: Any) -> Any:
    body = {"model": "fake", "temperature": 0, **fields}
    return ask("POST", "/v1/completions", json=body, served=served)


def test_a_prompt_is_given_back_with_its_logprobs(ask: Any, model: Any) -> None:
    answer = complete(ask, prompt=["Hi\u00e9", "B"], echo=True, logprobs=2, max_tokens=0).json()
    first, second = answer["choices"]
    assert first == {
        "index": 0,
        "text": "Hi\u00e9",
        "logprobs": {
            # Two bytes of one character, both of which begin where it begins.
            "tokens": ["H", "i", "\ufffd", "\ufffd"],
            "token_logprobs": [None, -1.0, -1.6, -1.1],
            "top_logprobs": [
                None, {"i": -1.0, "A": -6.5, "B": -7.5},
                {"\ufffd": -1.6, "A": -6.5, "B": -7.5},
                {"\ufffd": -1.1, "A": -6.5, "B": -7.5},
            ],
            "text_offset": [0, 1, 2, 2],
        },
        "finish_reason": "length",
    }  # fmt: skip
    # A single token has nothing before it: there is nothing to compute.
    assert second["logprobs"]["token_logprobs"] == [None]
    assert answer["usage"] == {"prompt_tokens": 5, "completion_tokens": 0, "total_tokens": 5}
    assert (model.backend.steps, model.backend.n_scored) == ([], 3)


def test_a_prompt_of_token_ids_is_given_back_as_text(ask: Any) -> None:
    answer = complete(ask, prompt=[72, 105], echo=True, max_tokens=2, logprobs=0).json()
    (choice,) = answer["choices"]
    assert choice["text"] == "Hiab"
    assert choice["logprobs"]["tokens"] == ["H", "i", "a", "b"]
    assert choice["logprobs"]["token_logprobs"] == [None, -1.0, *[pytest.approx(0, abs=1e-6)] * 2]
    assert choice["logprobs"]["text_offset"] == [0, 1, 2, 3]
    assert choice["logprobs"]["top_logprobs"] is None


def test_an_echo_without_logprobs_costs_nothing(ask: Any, model: Any) -> None:
    (choice,) = complete(ask, prompt="Hi", echo=True, max_tokens=1).json()["choices"]
    assert (choice["text"], choice["logprobs"]) == ("Hia", None)
    assert model.backend.n_scored == 0


def test_a_streamed_answer_begins_with_its_prompt(ask: Any) -> None:
    response = complete(ask, prompt="Hi", echo=True, max_tokens=2, logprobs=1, stream=True)
    choices = [event["choices"][0] for event in events(response.text)[:-1]]
    assert "".join(choice["text"] for choice in choices) == "Hiab"
    offsets = [choice["logprobs"]["text_offset"] for choice in choices if choice["logprobs"]]
    assert offsets == [[0, 1], [2], [3]]
    assert choices[-1]["finish_reason"] == "length"


def test_how_much_is_scored_at_once_is_bounded(
    ask: Any, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_SCORED_TOKENS", 7)
    fields = {"echo": True, "logprobs": 1, "max_tokens": 0}
    response = complete(ask, prompt=["1234", "1234"], **fields)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "prompt"
    assert model.backend.n_scored == 0
    assert complete(ask, prompt=["1234", "123"], **fields).status_code == 200
    assert complete(ask, prompt="12345678", echo=True, max_tokens=1).status_code == 200


def test_a_prompt_that_fills_the_context_may_be_echoed(ask: Any, small_model: Any) -> None:
    fields = {"prompt": "x" * 40, "echo": True, "logprobs": 1}
    assert complete(ask, served=small_model, max_tokens=0, **fields).status_code == 200
    assert complete(ask, served=small_model, max_tokens=1, **fields).status_code == 400


def embed(ask: Any, **fields: Any) -> Any:
    return ask("POST", "/v1/embeddings", json={"model": "fake", **fields})


def test_embeddings_come_as_numbers_or_as_base64(ask: Any) -> None:
    answer = embed(ask, input=["Hi", "Hello"]).json()
    assert answer == {
        "object": "list",
        "model": "fake",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [2.0, 0.5]},
            {"object": "embedding", "index": 1, "embedding": [5.0, 0.5]},
        ],
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    }
    (packed,) = embed(ask, input="Hi", encoding_format="base64").json()["data"]
    assert base64.b64decode(packed["embedding"]) == struct.pack("<ff", 2.0, 0.5)


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({}, 400, "input"),
        ({"input": ""}, 400, "input"),
        ({"input": []}, 400, "input"),
        ({"input": ["x"] * 65}, 400, "input"),
        ({"input": [1, 2]}, 400, "input"),
        ({"input": "x" * 2049}, 400, "input"),
        ({"input": "x", "dimensions": 5}, 400, "dimensions"),
        ({"input": "x", "encoding_format": "int8"}, 400, "encoding_format"),
        ({"input": "x", "temperature": 1}, 400, "temperature"),
        ({"input": "x", "model": "other"}, 404, "model"),
        ({"input": ["x", "explode"]}, 500, None),
    ],
)
def test_a_wrong_request_for_embeddings(
    ask: Any, fields: dict[str, Any], status: int, param: str | None
) -> None:
    response = embed(ask, **fields)
    assert response.status_code == status
    assert response.json()["error"]["param"] == param
    assert "cannot embed this" not in response.text


def test_what_is_hosted_elsewhere_is_not_served() -> None:
    with pytest.raises(RequestError, match="runs elsewhere"):
        create_app(HostedModel("openai:m@http://127.0.0.1:9/v1", Hosted()))
