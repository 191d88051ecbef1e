"""Networks fail in many ways; each must end in a retry that works or in words that help."""

import json
import logging
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lmwright.core.errors import LmwrightError, ModelError, RequestError, UnsupportedError
from lmwright.engine.request import Sampling
from lmwright.hosted.config import Hosted
from lmwright.hosted.errors import HostedError, PassingError
from lmwright.hosted.model import HostedModel

CHAT = [{"role": "user", "content": "Hi"}]
KEY = "sk-very-secret"


def ask(model: HostedModel, **sampling: Any) -> str:
    (completion,) = model.generate([CHAT], Sampling(**sampling))  # pyright: ignore[reportArgumentType]
    return completion.text


# ---- what is tried again


def test_a_429_waits_as_long_as_it_is_asked_to(endpoint: Any, say: Any, make_answer: Any) -> None:
    slow = make_answer({"error": {"message": "slow down"}}, 429, {"Retry-After": "0.3"})
    endpoint.say(slow, say("Hello"))
    assert ask(endpoint.model(n_retries=1)) == "Hello"
    first, second = (request["time_s"] for request in endpoint.requests)
    assert 0.3 <= second - first < 5


def test_a_500_is_tried_again(endpoint: Any, say: Any, make_answer: Any) -> None:
    endpoint.say(make_answer(b"oops", 500), say("Hello"))
    model = endpoint.model(n_retries=1)
    assert ask(model) == "Hello"
    assert model.usage.n_requests == 1


def test_what_is_not_there_is_not_asked_for_again(endpoint: Any, make_answer: Any) -> None:
    endpoint.say(make_answer({"error": {"message": "not supported"}}, 501))
    with pytest.raises(UnsupportedError, match="has no /chat/completions"):
        ask(endpoint.model(n_retries=5))
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (429, {"error": {"message": "slow down"}}, PassingError, "slow down .*requests_per_minute"),
        (500, b"<html>oops</html>", PassingError, "<html>oops</html> .*failed, try later"),
        (503, b"", PassingError, "no reason given .status 503"),
        (401, {"error": {"message": "bad key"}}, ModelError, "bad key .*OPENAI_API_KEY is not set"),
        (403, {"error": "no"}, ModelError, "OPENAI_API_KEY is not set"),
        (404, {"error": {"message": "gone", "code": "model_not_found"}}, ModelError, "gone"),
        (404, {"message": "The model `gpt` does not exist."}, ModelError, "/v1/models lists"),
        (404, {"error": {"message": 'model "gpt" not found'}}, ModelError, "/v1/models lists"),
        (404, {"detail": "Not Found"}, UnsupportedError, "has no /chat/completions"),
        (405, b"", UnsupportedError, "has no /chat/completions"),
        (400, {"error": {"message": "max_tokens is too large"}}, RequestError, "is too large"),
        (422, {"detail": [{"msg": "bad"}]}, RequestError, "bad"),
    ],
)
def test_a_refusal_is_told_in_words(
    endpoint: Any, make_answer: Any, status: int, body: Any, kind: type[Exception], message: str
) -> None:
    endpoint.say(make_answer(body, status))
    with pytest.raises(kind, match=message) as caught:
        ask(endpoint.model())
    assert type(caught.value) is kind
    assert str(caught.value).startswith(f"openai:gpt@{endpoint.url}: ")
    assert len(endpoint.requests) == 1


def test_no_answer_in_time(endpoint: Any, make_answer: Any) -> None:
    endpoint.say(make_answer({}, wait_s=0.5))
    with pytest.raises(HostedError, match=r"no answer .* in time; raise timeout_s"):
        ask(endpoint.model(timeout_s=0.1))


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    model = HostedModel(f"openai:m@http://127.0.0.1:{port}/v1", Hosted(n_retries=0))
    with pytest.raises(HostedError, match=r"cannot be reached .*is the server running"):
        ask(model)


@pytest.mark.parametrize(
    ("body", "headers", "message"),
    [
        (b'{"choices": [', {}, "broken JSON"),
        (b'{"choices": "\xff"}', {}, "broken JSON"),
        (b"<html>Welcome</html>", {"Content-Type": "text/html"}, "not a JSON object"),
        (b"[]", {}, "not a JSON object"),
        (b"{}", {}, "no choices"),
        (b'{"choices": []}', {}, "no choices"),
        (b'{"choices": [1]}', {}, "no choices"),
        (b'{"choices": [{}]}', {}, "without text"),
        (b'{"choices": [{"message": 1}]}', {}, "without text"),
        (b'{"choices": [{"text": "x", "logprobs": {"content": [1]}}]}', {}, "unknown shape"),
    ],
)
def test_a_malformed_answer_is_an_error_and_not_kept(
    endpoint: Any, say: Any, make_answer: Any, body: bytes, headers: dict[str, str], message: str
) -> None:
    endpoint.say(make_answer(body, headers=headers), say("Hello"))
    model = endpoint.model()
    with pytest.raises(HostedError, match=message):
        ask(model)
    assert ask(model) == "Hello"


def test_the_first_failure_ends_all(endpoint: Any, say: Any, make_answer: Any) -> None:
    endpoint.say(say(), make_answer({"error": {"message": "enough"}}, 400))
    model = endpoint.model(n_parallel=2, cache=False)
    with pytest.raises(RequestError, match="enough"):
        model.generate([CHAT] * 50, Sampling())
    assert len(endpoint.requests) < 10


# ---- the key


def test_the_key_goes_into_the_header_and_nowhere_else(
    endpoint: Any,
    say: Any,
    make_answer: Any,
    monkeypatch: pytest.MonkeyPatch,
    home: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-mine")
    caplog.set_level(logging.DEBUG)
    endpoint.say(say("Hello"))
    model = endpoint.model()
    assert ask(model) == "Hello"
    (request,) = endpoint.requests
    assert request["headers"]["authorization"] == f"Bearer {KEY}"
    assert "openai-organization" not in request["headers"]
    assert KEY not in json.dumps(request["body"])
    files = list((home / "hosted").iterdir())
    assert len(files) == 1
    assert not any(KEY in file.read_text() for file in files)
    endpoint.say(make_answer({"error": {"message": f"Incorrect key: {KEY}"}}, 401))
    with pytest.raises(ModelError, match=r"Incorrect key: [*]{3}.*was refused"):
        ask(model, max_tokens=3)
    assert KEY not in caplog.text


def test_a_key_is_not_sent_in_the_open(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "openai:m@http://192.0.2.1/v1"
    HostedModel(name, Hosted())
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(ModelError, match="plain_http = true") as caught:
        HostedModel(name, Hosted())
    assert KEY not in str(caught.value)
    HostedModel(name, Hosted(plain_http=True))


def test_openai_itself_needs_a_key() -> None:
    with pytest.raises(ModelError, match="put it into OPENAI_API_KEY"):
        HostedModel("openai:gpt-4o", Hosted())


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(RequestError, match=r"pip install 'lmwright\[hosted\]'"):
        HostedModel("openai:m@http://127.0.0.1:1/v1", Hosted())


def test_connections_end_with_the_model(endpoint: Any, say: Any) -> None:
    endpoint.say(say())
    model = endpoint.model()
    ask(model)
    library = model._client._openai
    assert not library.is_closed()
    del model
    assert library.is_closed()


# ---- pace, cache


def test_requests_run_together_up_to_a_bound(endpoint: Any, say: Any) -> None:
    answer = say()
    answer.wait_s = 0.05
    endpoint.say(answer)
    endpoint.model(n_parallel=3, cache=False).generate([CHAT] * 9, Sampling())
    assert endpoint.n_open_at_most == 3


def test_a_pace_is_kept(endpoint: Any, say: Any) -> None:
    endpoint.say(say())
    started_s = time.monotonic()
    endpoint.model(requests_per_minute=1200, cache=False).generate([CHAT] * 5, Sampling())
    assert time.monotonic() - started_s >= 4 * 0.05


def test_what_cannot_change_is_asked_once(endpoint: Any, say: Any) -> None:
    endpoint.say(say("one"), say("two"), say("three"))
    price = {f"openai:gpt@{endpoint.url}": (1.0, 2.0)}
    model = endpoint.model(prices=price)
    assert [ask(model), ask(model)] == ["one", "one"]
    assert (model.usage.n_requests, model.usage.n_cached) == (1, 1)
    assert model.usage.cost == pytest.approx((10 * 1 + 4 * 2) / 1e6)
    # Another process finds it, too.
    again = endpoint.model(prices=price)
    assert ask(again) == "one"
    assert (again.usage.n_requests, again.usage.cost) == (0, 0.0)
    # What is drawn is drawn anew, unless it has a seed.
    assert [ask(again, temperature=1.0), ask(again, temperature=1.0)] == ["two", "three"]
    assert len(endpoint.requests) == 3
    ask(again, temperature=1.0, seed=5)
    ask(again, temperature=1.0, seed=5)
    assert len(endpoint.requests) == 4


def test_the_cache_can_be_left_out(endpoint: Any, say: Any, home: Path) -> None:
    endpoint.say(say("one"), say("two"))
    model = endpoint.model(cache=False)
    assert [ask(model), ask(model)] == ["one", "two"]
    assert not home.exists()


def test_a_kept_answer_that_makes_no_sense_is_asked_for_again(
    endpoint: Any, say: Any, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint.say(say("one"), say("two"))
    model = endpoint.model()
    assert ask(model) == "one"
    (file,) = (home / "hosted").iterdir()
    entry = json.loads(file.read_text())
    for damaged in ({**entry, "answer": {"choices": []}}, "half"):
        file.write_text(json.dumps(damaged)[:-3])
        if damaged != "half":
            file.write_text(json.dumps(damaged))
        caplog.clear()
        assert ask(model) == "two"
        assert "asking again" in caplog.text


def test_half_a_character_is_refused_before_it_is_sent(endpoint: Any) -> None:
    with pytest.raises(RequestError, match="half a surrogate pair"):
        endpoint.model().generate(["\ud800"], Sampling())
    assert endpoint.requests == []


# ---- streams


def events(*events: Any, end: str = "data: [DONE]\n\n") -> bytes:
    return ("".join(f"data: {json.dumps(event)}\n\n" for event in events) + end).encode()


STREAM = {"Content-Type": "text/event-stream"}


def delta(text: str, reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": reason}]}


def test_a_stream_is_counted_but_not_kept(endpoint: Any, make_answer: Any, home: Path) -> None:
    usage = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}
    endpoint.say(make_answer(events(delta("He"), delta("y", "length"), usage), headers=STREAM))
    model = endpoint.model()
    *chunks, last = model.stream(CHAT, Sampling())  # pyright: ignore[reportArgumentType]
    assert [chunk.text for chunk in chunks] == ["He", "y"]
    assert last.completion is not None
    assert (last.completion.text, last.completion.finish_reason) == ("Hey", "length")
    assert (last.completion.n_prompt_tokens, len(last.completion.token_ids)) == (5, 2)
    assert (model.usage.n_requests, model.usage.n_completion_tokens) == (1, 2)
    assert not home.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (events(delta("He"), end=""), "broke off"),
        (events(delta("He"), end="data: {\n\n"), "broken JSON"),
        (events(delta("He"), {"error": {"message": "out of memory"}}), "out of memory"),
        (events(delta("He"), [1]), "not a JSON object"),
    ],
)
def test_a_stream_that_breaks_is_an_error(
    endpoint: Any, make_answer: Any, content: bytes, message: str
) -> None:
    endpoint.say(make_answer(content, headers=STREAM))
    with pytest.raises(LmwrightError, match=message):
        list(endpoint.model().stream(CHAT, Sampling()))
