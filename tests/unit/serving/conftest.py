"""What the tests of the server share: the fake model, and a client without a socket."""

import asyncio
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from lmwright.serving.app import create_app

FAKE = runpy.run_path(str(Path(__file__).with_name("fake_model.py")))


@pytest.fixture
def model() -> Any:
    return FAKE["FakeModel"]()


@pytest.fixture
def small_model() -> Any:
    return FAKE["SmallModel"]()


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
