"""An endpoint that answers what a test has written down, over a real socket."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lmwright.hosted.config import Hosted
from lmwright.hosted.model import HostedModel


@dataclass
class Answer:
    """What is sent back, and how long that takes."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    wait_s: float = 0.0

    @property
    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


class Endpoint:
    """Gives its answers one after another, the last one again and again."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[dict[str, Any]] = []
        self.n_open = self.n_open_at_most = 0
        self._lock = threading.Lock()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                endpoint.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def say(self, *answers: Answer) -> None:
        self.answers = list(answers)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [request["body"] for request in self.requests]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        content = handler.rfile.read(int(handler.headers["Content-Length"]))
        with self._lock:
            self.requests.append(
                {
                    "path": handler.path,
                    "headers": {name.lower(): text for name, text in handler.headers.items()},
                    "body": json.loads(content),
                    "time_s": time.monotonic(),
                }
            )
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            self.n_open += 1
            self.n_open_at_most = max(self.n_open, self.n_open_at_most)
        time.sleep(answer.wait_s)
        with self._lock:
            self.n_open -= 1
        handler.send_response(answer.status)
        for name, value in ({"Content-Type": "application/json"} | answer.headers).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(answer.content)))
        handler.end_headers()
        # A client that gave up does not listen any more.
        with contextlib.suppress(OSError):
            handler.wfile.write(answer.content)

    def model(self, **options: Any) -> HostedModel:
        return HostedModel(f"openai:gpt@{self.url}", Hosted(**{"n_retries": 0, **options}))


def said(text: str = "Hello", **fields: Any) -> Answer:
    """A chat answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}}
    usage = {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}
    return Answer({"choices": [{**choice, "finish_reason": "stop"}], "usage": usage, **fields})


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for each test, and no key from outside."""
    monkeypatch.setenv("LMWRIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    return tmp_path / "home"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    thread = threading.Thread(target=endpoint.server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield endpoint
    finally:
        endpoint.server.shutdown()
        thread.join()
        endpoint.server.server_close()


@pytest.fixture
def make_answer() -> Any:
    return Answer


@pytest.fixture
def say() -> Any:
    return said
