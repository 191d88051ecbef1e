"""What the tests of the server share: the fake model, and a client without a socket."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import pytest

from fakes import fake_model
from lmwright.engine.request import Sampling
from lmwright.engine.scheduler import Engine
from lmwright.serving.app import create_app


@pytest.fixture
def model() -> Any:
    return fake_model()


@pytest.fixture
def small_model() -> Any:
    return fake_model(context_length=40)


@pytest.fixture
def samplings(monkeypatch: pytest.MonkeyPatch) -> list[Sampling]:
    """How the answers were sampled that engines were asked for."""
    asked: list[Sampling] = []
    add = Engine.add

    def recorded(engine: Engine, ids: Sequence[int], samplings: Sequence[Sampling]) -> list[int]:
        asked.extend(samplings)
        return add(engine, ids, samplings)

    monkeypatch.setattr(Engine, "add", recorded)
    return asked


@pytest.fixture
def ask(model: Any) -> Callable[..., httpx.Response]:
    """Send one request to an application of its own; keywords in `app` go to create_app."""

    def send(
        method: str,
        path: str,
        *,
        app: dict[str, Any] | None = None,
        served: Any = None,
        **options: Any,
    ) -> httpx.Response:
        async def exchange() -> httpx.Response:
            application = create_app(served or model, **(app or {}))
            transport = httpx.ASGITransport(application)
            async with (
                application.router.lifespan_context(application),
                httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client,
            ):
                return await client.request(method, path, **options)

        return asyncio.run(exchange())

    return send
