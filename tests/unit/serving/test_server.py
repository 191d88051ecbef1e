"""Requests run together, and none may notice it: not in its answer, not when another one leaves."""

import asyncio
import json
import random
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import numpy as np
import pytest

from lmwright.engine.request import Sampling
from lmwright.engine.scheduler import Engine
from lmwright.lm import LocalModel
from lmwright.serving import limits
from lmwright.serving.app import create_app

TEXT_URL, CHAT_URL = "/v1/completions", "/v1/chat/completions"


class Watch:
    """The engines that a model opened, and how many answers ran together at most."""

    def __init__(self, model: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engines: list[Engine] = []
        self.n_most = 0
        make = model.engine

        def engine(*limits: Any) -> Engine:
            made = make(*limits)
            step = made.step

            def watched() -> Any:
                pieces = step()
                self.n_most = max(self.n_most, made.n_running)
                return pieces

            monkeypatch.setattr(made, "step", watched)
            self.engines.append(made)
            return made

        monkeypatch.setattr(model, "engine", engine)


@pytest.fixture
def watch(tiny_lm: LocalModel, monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(tiny_lm, monkeypatch)


def running(model: LocalModel, scenario: Callable[[Any], Awaitable[Any]]) -> Any:
    """Run a scenario with an application that starts and ends around it."""

    async def run() -> Any:
        app = create_app(model, max_waiting=1000)
        async with app.router.lifespan_context(app):
            return await asyncio.wait_for(scenario(app), timeout=120)

    return asyncio.run(run())


async def post(app: Any, url: str, **fields: Any) -> Any:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.post(url, json={"model": "tiny", **fields}, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"]


REQUESTS: list[tuple[str, dict[str, Any]]] = [
    (TEXT_URL, {"prompt": "The bank opens", "temperature": 0, "max_tokens": 40}),
    (TEXT_URL, {"prompt": "The bank", "temperature": 0, "max_tokens": 25, "logprobs": 3}),
    (TEXT_URL, {"prompt": ["A new card", "x" * 90], "seed": 5, "n": 3, "max_tokens": 20}),
    (TEXT_URL, {"prompt": "The user", "seed": 6, "max_tokens": 60, "echo": True, "logprobs": 1}),
    (TEXT_URL, {"prompt": [7, 8, 9], "seed": 7, "temperature": 0.7, "top_k": 20}),
    (CHAT_URL, {"messages": [{"role": "user", "content": "Hi"}], "seed": 8, "max_tokens": 50}),
    (CHAT_URL, {"messages": [{"role": "user", "content": "Hi"}], "seed": 9, "n": 8}),
    (CHAT_URL, {"messages": [{"role": "user", "content": "What?"}], "temperature": 0,
                "max_tokens": 30, "repetition_penalty": 1.3, "logprobs": True}),
]  # fmt: skip


def test_eight_clients_at_once_get_what_each_would_get_alone(
    tiny_lm: LocalModel, watch: Watch
) -> None:
    async def one_by_one(app: Any) -> list[Any]:
        return [await post(app, url, **fields) for url, fields in REQUESTS]

    async def together(app: Any) -> list[Any]:
        return await asyncio.gather(*(post(app, url, **fields) for url, fields in REQUESTS))

    alone = running(tiny_lm, one_by_one)
    n_alone, watch.n_most = watch.n_most, 0
    for found, expected in zip(running(tiny_lm, together), alone, strict=True):
        for choice, same in zip(found, expected, strict=True):
            # The words are the same; a probability may differ in its last bits.
            logprobs, others = flat(choice.pop("logprobs")), flat(same.pop("logprobs"))
            assert choice == same
            assert logprobs == pytest.approx(others, abs=1e-5)
    assert watch.n_most > n_alone


def flat(value: Any) -> list[Any]:
    """Return the leaves of JSON, so that numbers can be compared nearly."""
    if isinstance(value, dict):
        return [leaf for each in sorted(value) for leaf in (each, *flat(value[each]))]
    if isinstance(value, list):
        return [leaf for each in value for leaf in flat(each)]
    return [value]


def test_a_prompt_that_is_given_back_is_continued_as_without(tiny_lm: LocalModel) -> None:
    fields = {"prompt": "The bank", "temperature": 0, "max_tokens": 5}

    async def both(app: Any) -> list[Any]:
        return [await post(app, TEXT_URL, **fields, echo=echo) for echo in (False, True)]

    (plain,), (echoed,) = running(tiny_lm, both)
    assert echoed["text"] == "The bank" + plain["text"]


def test_an_embedding_is_the_models(tiny_lm: LocalModel) -> None:
    async def embed(app: Any) -> Any:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            body = {"model": "tiny", "input": ["The bank", "A card"]}
            return (await client.post("/v1/embeddings", json=body)).json()

    found = [row["embedding"] for row in running(tiny_lm, embed)["data"]]
    np.testing.assert_array_equal(np.float32(found), tiny_lm.embed(["The bank", "A card"]))


async def leave(app: Any, fields: dict[str, Any], *, after: int, within_s: float) -> int:
    """Stream a request and leave after so many events, or so many seconds; return its status."""
    body = json.dumps({"model": "tiny", "stream": True, **fields}).encode()
    gone = asyncio.Event()
    to_come: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]
    n_sent = status = 0

    async def receive() -> dict[str, Any]:
        if to_come:
            return to_come.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        nonlocal n_sent, status
        status = message.get("status", status)
        n_sent += message["type"] == "http.response.body"
        if n_sent >= after:
            gone.set()

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json"),
               (b"content-length", str(len(body)).encode())]  # fmt: skip
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
             "scheme": "http", "path": TEXT_URL, "raw_path": TEXT_URL.encode(), "root_path": "",
             "query_string": b"", "headers": headers}  # fmt: skip
    asyncio.get_running_loop().call_later(within_s, gone.set)
    await app(scope, receive, send)
    return status


def test_clients_that_leave_at_any_time_leave_nothing_behind(
    tiny_lm: LocalModel, watch: Watch
) -> None:
    random_ = random.Random(3)

    async def scenario(app: Any) -> None:
        def client(i: int) -> Awaitable[int]:
            fields = {
                "prompt": ["The bank opens " * random_.randint(1, 4)] * random_.randint(1, 3),
                "max_tokens": random_.randint(1, 100),
                "n": random_.randint(1, 4),
                "seed": i,
            }
            if i % 7 == 0:
                fields |= {"n": 1, "echo": True, "logprobs": 2}
            after = random_.choice([1, 2, 5, 20, 1000])
            return leave(app, fields, after=after, within_s=random_.choice([0, 0.01, 0.1, 0.5]))

        for start in range(0, 200, 25):
            statuses = await asyncio.gather(*(client(start + i) for i in range(25)))
            assert set(statuses) <= {200, 503}
        # And the next one is answered as if nothing had been.
        (choice,) = await post(app, TEXT_URL, prompt="The bank opens", temperature=0, max_tokens=5)
        [engine] = watch.engines
        (alone,) = tiny_lm.generate(["The bank opens"], Sampling(max_tokens=5))
        assert choice["text"] == alone.text
        assert engine.is_idle
        assert (engine.n_running, len(engine._waiting)) == (0, 0)
        assert engine._blocks.n_free == tiny_lm.engine()._blocks.n_free

    running(tiny_lm, scenario)


def test_between_large_bodies_the_model_gets_its_turn(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REST_OF_LARGE", 1000)
    waits: list[float] = []
    sleep = time.sleep

    def slept(seconds: float) -> None:
        if threading.current_thread().name.startswith("lmwright-reader-1"):
            waits.append(seconds)
        else:
            sleep(seconds)

    monkeypatch.setattr("lmwright.serving.server.time.sleep", slept)
    sent = {"model": "fake", "max_tokens": 1, "temperature": 0}

    async def exchange() -> list[int]:
        application = create_app(model)
        transport = httpx.ASGITransport(application)
        async with (
            application.router.lifespan_context(application),
            httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client,
        ):
            return [
                (await client.post(TEXT_URL, json={**sent, "prompt": "x" * n})).status_code
                for n in (100_000, 1, 100_000, 1)
            ]

    assert asyncio.run(exchange()) == [400, 200, 400, 200]
    first, second = waits
    assert first == 0
    assert second > 0
