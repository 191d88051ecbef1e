"""What a stranger can do without asking anything: connect, wait, send garbage, and not read."""

import asyncio
import contextlib
import json
import logging
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any

import pytest
import uvicorn

from lmwright.serving import limits, transport
from lmwright.serving.transport import Connection, Listener, n_connections

HEAD = b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /early HTTP/1.1\r\nHost: localhost\r\n"


class App:
    """Says hello, waits on /wait, writes without end on /flood, reads no body on /early."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.ended: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        while path == "/wait" and not self.may_end.is_set():
            await asyncio.sleep(0.01)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        leaving = asyncio.create_task(self._leaving(receive))
        while path == "/flood" and not leaving.done():
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b"hello"})
        leaving.cancel()
        self.ended.append(path)

    async def _leaving(self, receive: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass


class Running:
    """A listener with room for three connections, in a thread."""

    def __init__(self) -> None:
        self.app = App()
        protocol: Any = partial(Connection, max_connections=3)
        config = uvicorn.Config(self.app, http=protocol, log_config=None, lifespan="off", backlog=8)
        self._server = Listener(config)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._clients: list[socket.socket] = []
        self._thread = threading.Thread(target=self._server.run, args=[[self._socket]])
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def connect(self, sent: bytes = b"") -> socket.socket:
        client = socket.create_connection(self._socket.getsockname(), timeout=10)
        self._clients.append(client)
        client.sendall(sent)
        return client

    def stop(self, *, is_hurried: bool = False) -> None:
        for _ in range(1 + is_hurried):
            self._server.handle_exit(15, None)
        self._thread.join(timeout=10)
        for client in self._clients:
            client.close()
        assert not self._thread.is_alive()


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    for phase in transport.DEADLINES:
        monkeypatch.setitem(transport.DEADLINES, phase, 0.3)
    monkeypatch.setattr(limits, "WRITE_TIMEOUT_S", 0.3)
    running = Running()
    yield running
    running.app.may_end.set()
    running.stop()


def read(client: socket.socket) -> bytes:
    """Return all until the server hangs up."""
    with closing(client):
        return b"".join(iter(lambda: client.recv(65536), b""))


def assert_answered(client: socket.socket) -> None:
    answer = b""
    while not answer.endswith(b"hello\r\n0\r\n\r\n"):
        answer += client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 200")


def error_of(answer: bytes) -> tuple[int, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head.lower()
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return int(head.split()[1]), error["code"]


def test_half_a_head_is_408_however_it_trickles(running: Running) -> None:
    client = running.connect(HEAD[:20])
    for i in range(20, 24):
        time.sleep(0.05)
        client.sendall(HEAD[i : i + 1])
    started_s = time.monotonic()
    assert error_of(read(client)) == (408, "request_timeout")
    assert time.monotonic() - started_s < 5


def test_who_says_nothing_is_closed_without_a_word(running: Running) -> None:
    assert read(running.connect()) == b""
    client = running.connect(HEAD)
    assert_answered(client)
    # Also behind an answer, and when only a part of the next head comes.
    client.sendall(b"GET /h")
    assert b"408" in read(client)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01 TLS\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 200_000, 431),
        (POST + b"Transfer-Encoding: rot13\r\n\r\n", 501),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ],
)
def test_what_is_no_http_gets_an_error_as_all_others(
    running: Running, sent: bytes, status: int
) -> None:
    assert error_of(read(running.connect(sent))) == (status, "invalid_http")


def test_a_newcomer_takes_the_place_of_who_waited_longest(running: Running) -> None:
    waiting = [running.connect() for _ in range(3)]
    waiting[0].sendall(HEAD.replace(b"hello", b"wait"))
    time.sleep(0.05)
    answer = running.connect(HEAD)
    assert_answered(answer)
    assert read(waiting[1]) == b""
    running.app.may_end.set()
    assert_answered(waiting[0])


def test_when_all_are_being_answered_the_next_is_503(running: Running) -> None:
    busy = [running.connect(HEAD.replace(b"hello", b"wait")) for _ in range(3)]
    time.sleep(0.05)
    for _ in range(20):
        answer = read(running.connect())
        assert error_of(answer) == (503, "overloaded")
        assert b"Retry-After: " in answer
    running.app.may_end.set()
    for client in busy:
        assert_answered(client)


def test_the_rest_of_an_answered_body_is_waited_for_only_so_long(running: Running) -> None:
    client = running.connect(POST + b"Content-Length: 1000\r\n\r\n")
    assert_answered(client)
    n_sent = 0
    with contextlib.suppress(OSError):  # a reset, or a broken pipe
        while n_sent < 100:
            client.sendall(b"x")
            n_sent += 1
            time.sleep(0.05)
    assert n_sent < 100


def test_an_answered_body_may_still_come_and_the_connection_goes_on(running: Running) -> None:
    client = running.connect(POST + b"Content-Length: 5\r\n\r\n")
    assert_answered(client)
    client.sendall(b"12345" + HEAD)
    assert_answered(client)


def test_garbage_behind_an_answer_is_no_crash(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    client = running.connect(POST + b"Transfer-Encoding: chunked\r\n\r\n")
    assert_answered(client)
    client.sendall(b"zz\r\n")
    read(client)
    assert not [record for record in caplog.records if record.exc_info]


def test_who_does_not_read_is_dropped(running: Running) -> None:
    running.connect(HEAD.replace(b"hello", b"flood"))
    started_s = time.monotonic()
    while not running.app.ended and time.monotonic() - started_s < 10:
        time.sleep(0.05)
    assert running.app.ended == ["/flood"]


def test_who_reads_slowly_is_not(running: Running) -> None:
    client = running.connect(HEAD.replace(b"hello", b"flood"))
    for _ in range(20):
        time.sleep(0.05)
        for _ in range(8):
            assert client.recv(1 << 20)
    assert not running.app.ended


def test_a_second_signal_does_not_wait_for_answers() -> None:
    running = Running()
    client = running.connect(HEAD.replace(b"hello", b"flood"))
    client.recv(10)
    started_s = time.monotonic()
    running.stop(is_hurried=True)
    assert time.monotonic() - started_s < 5
    assert running.app.ended == ["/flood"]


@pytest.mark.parametrize(
    ("soft", "hard", "expected"),
    [(1024, 4096, 256), (256, 4096, 256), (256, 256, 64), (10, 10, 1), (10, -1, 256)],
)
def test_connections_leave_files_to_spare(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, expected: int
) -> None:
    wanted: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: wanted.append(both))
    assert n_connections() == expected
    assert all(more > soft or more == hard for more, _ in wanted)


def test_no_more_files_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="lmwright")
    errors = transport._Errors()
    context = {"message": "accept() failed", "exception": OSError(24, "Too many open files")}
    for _ in range(100):
        errors(asyncio.new_event_loop, context)  # type: ignore[arg-type]
    assert [record.getMessage() for record in caplog.records] == [
        "accept() failed: [Errno 24] Too many open files"
    ]
