"""A new endpoint is one record: if it needed a change in `src/`, the next one would, too."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar

import pytest
from pydantic import Field

from lmwright.engine.request import ScoreRequest
from lmwright.lm import LocalModel
from lmwright.serving.app import ROUTES
from lmwright.serving.route import Document, Json, Piece, Route, Served, Submission
from lmwright.serving.schema import ApiRequest, Body, Off


class TokenizeRequest(ApiRequest):
    OFF: ClassVar[Off] = {"add_special_tokens": (False,)}

    text: Annotated[str, Field(max_length=1000)]


def tokenize(request: TokenizeRequest, served: Served) -> Json:
    tokenizer = served.model.tokenizer
    ids = tokenizer.encode(request.text)
    return {"ids": ids, "tokens": [tokenizer.token(id_) for id_ in ids]}


TOKENIZE = Route("POST", "/v1/tokenize", TokenizeRequest, tokenize, max_body_bytes=2000)


class ChooseRequest(ApiRequest):
    PROMPT: ClassVar[str | None] = "context"

    context: str
    options: Annotated[list[str], Field(min_length=2, max_length=4)]


def chosen(pieces: Sequence[Piece]) -> Json:
    logprobs: dict[str, Any] = {str(number): logprob for number, logprob in pieces}
    return {"choice": max(logprobs, key=logprobs.__getitem__), "logprobs": logprobs}


def choose(request: ChooseRequest, served: Served) -> Submission:
    """Say which option the model thinks the likeliest: computed in the model's thread."""
    served.encode(request.context)
    calls = [partial(score, served.model, request.context, option) for option in request.options]
    return Submission(chosen, calls)


def score(model: LocalModel, context: str, option: str) -> Iterable[float]:
    return [score.logprob for score in model.score([ScoreRequest(context, option)])]


CHOOSE = Route("POST", "/v1/choose", ChooseRequest, choose)


PAGE = Route(
    "GET",
    "/page",
    Body,
    lambda _, served: Document(
        f"<h1>{served.model.name}</h1>".encode(),
        "text/html; charset=utf-8",
        {"Content-Security-Policy": "default-src 'self'"},
    ),
    needs_key=False,
)


@pytest.fixture
def post(ask: Any, tiny_lm: LocalModel) -> Any:
    def send(path: str, **fields: Any) -> Any:
        app = {"routes": [*ROUTES, TOKENIZE, CHOOSE]}
        return ask("POST", path, app=app, served=tiny_lm, json={"model": "tiny", **fields})

    return send


def test_an_endpoint_that_only_reads_its_request(post: Any, tiny_lm: LocalModel) -> None:
    answer = post("/v1/tokenize", text="The bank opens")
    assert answer.status_code == 200
    assert answer.json()["ids"] == tiny_lm.tokenizer.encode("The bank opens")
    assert "".join(answer.json()["tokens"]) == "The bank opens"


def test_an_endpoint_that_asks_the_model(post: Any, tiny_lm: LocalModel) -> None:
    options = [" at nine", " at five"]
    answer = post("/v1/choose", context="The bank opens", options=options).json()
    scores = tiny_lm.score([ScoreRequest("The bank opens", option) for option in options])
    assert list(answer["logprobs"].values()) == [score.logprob for score in scores]
    assert answer["choice"] == str(max((0, 1), key=lambda i: scores[i].logprob))


@pytest.mark.parametrize(
    ("path", "fields", "status", "param", "code"),
    [
        ("tokenize", {}, 400, "text", "missing_required_parameter"),
        ("tokenize", {"text": 1}, 400, "text", "invalid_type"),
        ("tokenize", {"text": "x" * 1001}, 400, "text", "invalid_value"),
        ("tokenize", {"text": "x" * 2001}, 413, None, "request_too_large"),
        ("tokenize", {"text": "x", "txet": 1}, 400, "txet", "unknown_parameter"),
        ("tokenize", {"text": "x", "add_special_tokens": True}, 400, "add_special_tokens",
         "unsupported_parameter"),
        ("tokenize", {"text": "x", "model": "other"}, 404, "model", "model_not_found"),
        ("choose", {"context": "x", "options": ["a"]}, 400, "options", "invalid_value"),
        ("choose", {"context": "x" * 300, "options": ["a", "b"]}, 400, "context",
         "context_length_exceeded"),
        # Refused by the model itself, in its thread.
        ("choose", {"context": "x", "options": ["a", "b" * 300]}, 400, None, None),
    ],
)  # fmt: skip
def test_its_requests_are_validated_and_bounded(
    post: Any, path: str, fields: dict[str, Any], status: int, param: str | None, code: str | None
) -> None:
    answer = post(f"/v1/{path}", **fields)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["param"] == param
    assert code is None or error["code"] == code


def test_it_is_guarded_as_the_others_are(ask: Any, tiny_lm: LocalModel) -> None:
    app = {"routes": [*ROUTES, TOKENIZE], "api_key": "sk-secret"}
    body = {"model": "tiny", "text": "x"}
    assert ask("POST", "/v1/tokenize", app=app, served=tiny_lm, json=body).status_code == 401
    headers = {"Authorization": "Bearer sk-secret"}
    for method, status in (("POST", 200), ("GET", 405)):
        answer = ask(method, "/v1/tokenize", app=app, served=tiny_lm, json=body, headers=headers)
        assert answer.status_code == status


def test_a_page_goes_out_as_it_is(ask: Any, tiny_lm: LocalModel) -> None:
    app = {"routes": [*ROUTES, PAGE], "api_key": "sk-secret"}
    answer = ask("GET", "/page", app=app, served=tiny_lm)
    assert (answer.status_code, answer.text) == (200, "<h1>tiny</h1>")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"] == "default-src 'self'"
    assert ask("POST", "/page", app=app, served=tiny_lm, json={}).status_code == 405
