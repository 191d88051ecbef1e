"""An endpoint is a stranger: whatever it sends costs bounded time and memory, and spoils nothing.

Each row is a raw socket that misbehaves once. The error must be clear, soon, and without the key;
nothing may be kept; and the next request to the same endpoint must work.
"""

import contextlib
import gzip
import json
import logging
import re
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lmwright.core.errors import LmwrightError, ModelError, RequestError, UnsupportedError
from lmwright.engine.request import Sampling, ScoreRequest
from lmwright.evaluation.runner import evaluate
from lmwright.evaluation.tasks import MEASUREMENTS
from lmwright.hosted.config import Hosted
from lmwright.hosted.errors import HostedError, NoLogprobsError, PassingError
from lmwright.hosted.model import HostedModel
from lmwright.hosted.transport import MAX_BYTES

KEY = "sk-very-secret-0123456789"
CHAT: Any = [{"role": "user", "content": "Hi"}]
# Short where a row is about time; elsewhere a busy machine must not change what is found.
TIMEOUT_S, DEADLINE_S = 0.5, 1.5
# Of time: a try and its end. Of bytes: what the system's socket buffers hold is not read.
LIMIT_S, LIMIT_BYTES = 30.0, MAX_BYTES + (16 << 20)

Behave = Callable[["Peer"], None]


@dataclass
class Peer:
    """One connection, seen from the endpoint; its request was read."""

    connection: socket.socket
    endpoint: "Hostile"
    body: dict[str, Any]

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)
        self.endpoint.n_sent += len(data)

    def wait(self, seconds: float = LIMIT_S) -> None:
        """Say nothing until the client goes."""
        self.connection.settimeout(seconds)
        with contextlib.suppress(OSError):
            self.connection.recv(1)


class Hostile:
    """Listens on a raw socket; misbehaves at the first request, and is good from then on."""

    def __init__(self, behave: Behave, tls: ssl.SSLContext | None = None) -> None:
        self.tls = tls
        self.behave, self.n_sent, self.n_requests, self.n_bad = behave, 0, 0, 1
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        self._threads = [threading.Thread(target=self._listen)]
        self._threads[0].start()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        if self.tls is not None:
            connection = self.tls.wrap_socket(connection, server_side=True)
        with connection, contextlib.suppress(OSError):
            head, data = b"", b""
            while b"\r\n\r\n" not in head:
                if not (piece := connection.recv(65536)):
                    return
                head += piece
            head, _, data = head.partition(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            while length and len(data) < int(length[1]):
                data += connection.recv(65536)
            self.n_requests += 1
            body = json.loads(data or b"{}")
            behave = self.behave if self.n_requests <= self.n_bad else good
            behave(Peer(connection, self, body))

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()


# ---- what is sent


def http(
    body: bytes,
    *headers: str,
    status: str = "200 OK",
    length: int | None = None,
    kind: str = "application/json",
) -> bytes:
    size = len(body) if length is None else length
    head = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {size}", *headers]
    return "\r\n".join([*head, "", ""]).encode() + body


def once(data: bytes) -> Behave:
    return lambda peer: peer.send(data)


def answered(data: Any, *headers: str, **options: Any) -> Behave:
    body = data if isinstance(data, bytes) else json.dumps(data).encode()
    return once(http(body, *headers, **options))


def chat(**fields: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop", **fields}
    return {"choices": [choice]}


def echoed(text: str, **columns: Any) -> dict[str, Any]:
    """A well-formed echo of a prompt, one token a character."""
    n = len(text)
    table = {
        "tokens": list(text),
        "token_logprobs": [None, *[-1.0] * (n - 1)],
        "top_logprobs": [None, *[{"x": -0.5}] * (n - 1)],
        "text_offset": list(range(n)),
        **columns,
    }
    choice = {"index": 0, "text": text, "logprobs": table, "finish_reason": "length"}
    return {"choices": [choice], "usage": {"prompt_tokens": n, "completion_tokens": 1}}


def good(peer: Peer) -> None:
    if peer.body.get("stream"):
        event = json.dumps({"choices": [{"delta": {"content": "Hello"}, "finish_reason": "stop"}]})
        body = f"data: {event}\n\ndata: [DONE]\n\n".encode()
        return peer.send(http(body, kind="text/event-stream"))
    if "input" in peer.body:
        answer = {"data": [{"index": 0, "embedding": [1.0, 2.0]}]}
    elif peer.body.get("echo"):
        answer = echoed(peer.body["prompt"])
    else:
        answer = chat()
    return peer.send(http(json.dumps(answer).encode()))


def endless(head: bytes, piece: bytes, wait_s: float = 0.0) -> Behave:
    def behave(peer: Peer) -> None:
        peer.send(head)
        # Ends when the client has gone.
        while True:
            peer.send(piece)
            if wait_s:
                time.sleep(wait_s)

    return behave


def stalled(data: bytes) -> Behave:
    def behave(peer: Peer) -> None:
        peer.send(data)
        peer.wait()

    return behave


def reset(peer: Peer) -> None:
    peer.send(http(b'{"choices": [', length=1000))
    time.sleep(0.1)
    peer.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def redirect(status: str, place: str) -> Behave:
    def behave(peer: Peer) -> None:
        where = place or f"{peer.endpoint.url}/chat/completions"
        peer.send(http(b"", f"Location: {where}", status=status))

    return behave


OPEN = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b'data: {"choices": [{"delta": {"content": "' + b"x" * 20_000 + b'"}}]}\n\n'
BOMB = gzip.compress(bytes(200 << 20), 1)
GZIP = "Content-Encoding: gzip"
ELSEWHERE = "http://127.0.0.1:{port}/v1/chat/completions"
ENTRY = {"token": "Hello", "logprob": -0.5, "top_logprobs": []}
DEEP = b'{"choices": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"
PLAIN = b'{"choices": [{"index": 0, "message": {"content": "Hello"}, "logprobs": %s}]}'
USED = b'{"choices": [{"message": {"content": "Hello"}}], "usage": {"completion_tokens": %s}}'


def logprob(text: str) -> Behave:
    entry = b'{"content": [{"token": "Hello", "logprob": %s}]}' % text.encode()
    return answered(PLAIN % entry)


def echo_of(change: Callable[[int], dict[str, Any]]) -> Behave:
    """An echo of what was asked, of n characters, with other columns."""

    def behave(peer: Peer) -> None:
        prompt = peer.body["prompt"]
        answered(echoed(prompt, **change(len(prompt))))(peer)

    return behave


LATE = r"did not finish its answer within 1\.5 s.*raise deadline_s"
SILENT = "no answer from .* in time; raise timeout_s"
LARGE = r"a body of over 33,554,432 bytes"
BROKEN = "broken JSON"
NOT_HTTP = "broke off, or answered with something that is not HTTP"
UNCLEAR = "answer cannot be understood: "
Row = tuple[str, Behave, type[LmwrightError], str]
GENERATE: dict[str, Row] = {
    name: ("generate", *row)
    for name, row in {
        # Time and size.
        "endless body": (endless(OPEN, b"x" * 65536), HostedError, LARGE),
        "endless chunks": (
            endless(CHUNKED, b"10000\r\n" + b" " * 65536 + b"\r\n"), HostedError, LARGE
        ),
        "two bytes a second": (endless(OPEN, b"x", 0.2), HostedError, LATE),
        "two bytes a second of headers": (endless(b"HTTP/1.1 200 OK\r\n", b"x", 0.2),
                                          HostedError, LATE),
        "stalled after the headers": (
            stalled(OPEN.replace(b"\r\n\r\n", b"\r\nContent-Length: 10\r\n\r\n")),
            PassingError, SILENT,
        ),
        "stalled before the headers": (stalled(b""), PassingError, SILENT),
        "headers that never end": (
            endless(b"HTTP/1.1 200 OK\r\n", b"X-More: abc\r\n" * 100), HostedError,
            "headers of over 65,536 bytes",
        ),
        "a huge header": (
            answered(chat(), "X-Long: " + "x" * 1_000_000), HostedError, "headers of over 65,536",
        ),
        "interim answers without end": (
            endless(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100), HostedError,
            "headers of over 65,536 bytes",
        ),
        # Places.
        "307 to another host": (
            redirect("307 Temporary Redirect", ELSEWHERE), HostedError,
            r"status 307.*redirects to http://127.*not followed",
        ),
        "302 to another host": (redirect("302 Found", ELSEWHERE), HostedError, "status 302"),
        "308 to another host": (redirect("308 Gone", ELSEWHERE), HostedError, "status 308"),
        "301 to itself": (redirect("301 Moved", ""), HostedError, "status 301.*not followed"),
        "a redirect to nowhere": (answered(b"", status="307 X"), HostedError, "to nowhere"),
        # Bodies that are none.
        "HTML": (answered(b"<html>Welcome</html>", kind="text/html"), HostedError,
                 "not a JSON object: '<html>Welcome</html>'.*OpenAI-compatible endpoint"),
        "JSON as plain text": (answered(chat(), kind="text/plain"), HostedError, "not a JSON"),
        "nothing": (answered(b""), HostedError, BROKEN),
        "204": (once(b"HTTP/1.1 204 No Content\r\n\r\n"), HostedError, "not a JSON object"),
        "half of the JSON": (answered(json.dumps(chat()).encode()[:-9]), HostedError, BROKEN),
        "not UTF-8": (answered(b'{"choices": "\xff"}'), HostedError, BROKEN),
        "a gzip bomb": (answered(BOMB, GZIP), HostedError, "encoding 'gzip'.*none was asked for"),
        "half a gzip": (answered(gzip.compress(b"{}")[:9], GZIP), HostedError, "encoding 'gzip'"),
        "50,000 levels": (answered(DEEP), HostedError, BROKEN),
        "500 levels": (answered(PLAIN % (b"[" * 500 + b"]" * 500)), HostedError, UNCLEAR),
        "5,000 digits": (answered(USED % (b"9" * 5000)), HostedError, BROKEN),
        # Connections.
        "not HTTP": (once(b"hello there\r\n\r\n"), PassingError, NOT_HTTP),
        "HTTP/0.9": (once(b'{"choices": []}'), PassingError, NOT_HTTP),
        "SSH": (once(b"SSH-2.0-OpenSSH_9.2\r\n"), PassingError, NOT_HTTP),
        "closed at once": (once(b""), PassingError, NOT_HTTP),
        "reset in the middle": (reset, PassingError, r"connection to .* was lost"),
        "a chunk of no size": (once(CHUNKED + b"zz\r\nabc\r\n"), PassingError, NOT_HTTP),
        "a chunk longer than it says": (
            once(CHUNKED + b"2\r\n{}{}{}\r\n0\r\n\r\n"), PassingError, NOT_HTTP,
        ),
        "the last chunk missing": (once(CHUNKED + b"2\r\n{}\r\n"), PassingError, NOT_HTTP),
        "a length of more than there is": (answered(b"{}", length=500), PassingError, NOT_HTTP),
        "a negative length": (answered(b"{}", length=-5), PassingError, NOT_HTTP),
        "two lengths": (answered(b"{}", "Content-Length: 900"), PassingError, NOT_HTTP),
        # Statuses.
        "401": (answered({"error": {"message": "no"}}, status="401 X"), ModelError, "was refused"),
        "403": (answered({"error": "no"}, status="403 X"), ModelError, "was refused"),
        "404": (answered({"detail": "no"}, status="404 X"), UnsupportedError, "no /chat"),
        "404 of a strange shape": (
            answered({"error": {"code": ["model_not_found"], "message": {"a": [1]}}},
                     status="404 X"), UnsupportedError, "no /chat",
        ),
        "429 for a year": (
            answered(b"", "Retry-After: 31536000", status="429 X"), HostedError,
            "requests_per_minute.*asks to wait 31,536,000 s",
        ),
        "429 until nonsense": (
            answered(b"", "Retry-After: -inf, soon", status="429 X"), PassingError, "status 429",
        ),
        "500": (answered(b"", status="500 X"), PassingError, "status 500.*try later"),
        "502 in HTML": (answered(b"<html>bad gateway</html>", kind="text/html",
                                 status="502 Bad Gateway"), PassingError, "bad gateway"),
        "600": (answered(b"", status="600 X"), PassingError, "status 600"),
        "an error 50,000 levels deep": (answered(DEEP, status="400 X"), RequestError, "status 400"),
        "an error of half a character": (
            answered(b'{"error": {"message": "\\ud800"}}', status="400 X"), RequestError, "ud800",
        ),
        "an endless error": (
            endless(OPEN.replace(b"200 OK", b"500 X"), b"x" * 65536), HostedError, LARGE,
        ),
        # Shapes.
        "an array": (answered(b"[]"), HostedError, "not a JSON object"),
        "no choices": (answered({}), HostedError, "no choices"),
        "empty choices": (answered({"choices": []}), HostedError, "no choices"),
        "choices that are no list": (answered({"choices": {"0": {}}}), HostedError, "no choices"),
        "another index": (answered(chat(index=7)), HostedError, "other choices than"),
        "two choices": (answered({"choices": chat()["choices"] * 2}), HostedError, "other choices"),
        "content that is no text": (
            answered(chat(message={"content": ["Hello"]})), HostedError, "without text",
        ),
        "a reason that is a list": (
            answered(chat(finish_reason=["stop"])), HostedError, "reason is no text but list",
        ),
        "a reason that is a number": (answered(chat(finish_reason=5)), HostedError, "but int"),
        "half a character": (answered(chat(message={"content": "\ud800"})), HostedError,
                             "half a surrogate pair"),
        "half a character in a key": (answered({**chat(), "\udfff": 1}), HostedError, "surrogate"),
        "a billion tokens": (answered(USED % b"1000000000"), HostedError,
                             "completion_tokens = 1000000000: expected a count from 0 to"),
        "minus one token": (answered(USED % b"-1"), HostedError, "completion_tokens = -1"),
        "tokens in words": (answered(USED % b'"four"'), HostedError, "tokens = 'four'"),
        "usage that is a list": (answered({**chat(), "usage": [1]}), HostedError, "usage ="),
        # Log-probabilities.
        "NaN": (logprob("NaN"), HostedError, "not finite"),
        "Infinity": (logprob("Infinity"), HostedError, "not finite"),
        "minus Infinity": (logprob("-Infinity"), HostedError, "not finite"),
        "1e999": (logprob("-1e999"), HostedError, "not finite"),
        "an integer of 400 digits": (logprob("-" + "9" * 400), HostedError, "log-probabilities"),
        "above 0": (logprob("0.5"), HostedError, "no log-probabilities"),
        "a word": (logprob('"-1"'), HostedError, "no log-probabilities"),
        "true": (logprob("true"), HostedError, "no log-probabilities"),
        "an id beyond any": (
            answered(chat(logprobs={"content": [{**ENTRY, "id": 10**30}]})), HostedError, UNCLEAR,
        ),
        "tokens of another text": (
            answered(chat(logprobs={"content": [{**ENTRY, "token": "Goodbye"}]})), HostedError,
            "tokens of logprobs are not those of the text",
        ),
        "columns of two lengths": (
            answered(chat(logprobs={"tokens": ["Hello", "x"], "token_logprobs": [-1]})),
            HostedError, UNCLEAR,
        ),
        # The key.
        "the key in an error": (
            answered({"error": {"message": f"bad key {KEY}"}}, status="401 X"), ModelError,
            r"bad key \*\*\* .*was refused",
        ),
        "the key in an error of HTML": (
            answered(f"<b>{KEY}</b>".encode(), kind="text/html", status="500 X"), PassingError,
            r"\*\*\*",
        ),
        "the key in a header": (
            answered(b"{}", f"X-Request-Id: {KEY}", f"X-Key: {KEY}"), HostedError, "no choices",
        ),
        "the key behind an interim answer": (
            once(b"HTTP/1.1 103 X\r\n\r\n" + http(b"{}", f"X-Request-Id: {KEY}")), HostedError,
            "no choices",
        ),
        "the key in the status": (answered(b"{}", status=f"500 {KEY}"), PassingError, "500"),
        "the key in a place": (
            redirect("307 X", f"http://127.0.0.1:1/?key={KEY}"), HostedError, r"key=\*+,",
        ),
        "the key as a reason": (answered(chat(finish_reason=KEY)), HostedError, "repeats the key"),
        "the key as the model": (answered({**chat(), "model": KEY}), HostedError, "repeats"),
        "the key in the text": (
            answered(chat(message={"content": f"It is {KEY}."})), HostedError, "repeats the key",
        ),
        "the key as the content type": (answered(b"x", kind=KEY), HostedError, "not a JSON"),
        "the key in broken HTTP": (once(f"HTTP/{KEY}\r\n\r\n".encode()), PassingError, NOT_HTTP),
    }.items()
}  # fmt: skip
OTHERS: dict[str, Row] = {
    "stream: an endless line": (
        "stream", endless(EVENTS, b"data: " + b"x" * 65536), HostedError, LARGE,
    ),
    "stream: endless events": ("stream", endless(EVENTS, EVENT), HostedError, LARGE + "|" + LATE),
    "stream: endless small events": (
        "stream", endless(EVENTS, b"data: {}\n\n" * 10), HostedError, LARGE + "|" + LATE,
    ),
    "stream: endless comments": ("stream", endless(EVENTS, b": x\n\n", 0.1), HostedError, LATE),
    "stream: stalls": ("stream", stalled(EVENTS + EVENT), PassingError, SILENT),
    "stream: no end": ("stream", once(EVENTS + EVENT), HostedError, "broke off before its end"),
    "stream: reset": ("stream", reset, LmwrightError, "connection .* was lost|does not stream"),
    "stream: none at all": ("stream", answered(chat()), HostedError, "not stream.*--json"),
    "stream: NaN": (
        "stream", once(EVENTS + b'data: {"choices": [], "x": NaN}\n\n'), HostedError, "not finite",
    ),
    "stream: 50,000 levels": ("stream", once(EVENTS + b"data: " + DEEP + b"\n\n"), HostedError,
                              BROKEN),
    "stream: a reason that is a list": (
        "stream", once(EVENTS + b'data: {"choices": [{"finish_reason": []}]}\n\n'), HostedError,
        "finish_reason is no text",
    ),
    "stream: the key in an error": (
        "stream", once(EVENTS + f'data: {{"error": {{"message": "{KEY}"}}}}\n\n'.encode()),
        HostedError, r"\*\*\*",
    ),
    "stream: choices that are no list": (
        "stream", once(EVENTS + b'data: {"choices": "abc"}\n\n'), HostedError, "no choices",
    ),
    "score: no echo": ("score", answered(echoed("!")), NoLogprobsError, "does not echo"),
    "score: no logprobs": (
        "score", answered({"choices": [{"text": "The cat!"}]}), NoLogprobsError, "gives no log-",
    ),
    "score: minus Infinity": (
        "score", echo_of(lambda n: {"token_logprobs": [None, *[-float("inf")] * (n - 1)]}),
        HostedError, "not finite",
    ),
    "score: above 0": (
        "score", echo_of(lambda n: {"token_logprobs": [None, *[0.7] * (n - 1)]}), HostedError,
        "log-probability above 0",
    ),
    "score: alternatives above 0": (
        "score", echo_of(lambda n: {"top_logprobs": [None, *[{"x": 3.0}] * (n - 1)]}),
        HostedError, "above 0",
    ),
    "score: columns of two lengths": (
        "score", echo_of(lambda n: {"text_offset": [0, 1]}), HostedError, "of one length",
    ),
    "score: tokens of another text": (
        "score", echo_of(lambda n: {"tokens": list("The dog!")}), HostedError,
        "not those of the text",
    ),
    "score: half a character": (
        "score", echo_of(lambda n: {"tokens": [*"The cat", "\ud83d"]}), HostedError, "surrogate",
    ),
    "embed: no numbers": (
        "embed", answered({"data": [{"embedding": ["a"]}]}), HostedError, "no embedding",
    ),
    "embed: beyond float32": (
        "embed", answered({"data": [{"embedding": [1e300]}]}), HostedError, "beyond float32",
    ),
    "embed: two vectors": ("embed", answered({"data": [{"embedding": [1.0]}] * 2}), HostedError,
                           "no embedding"),
}  # fmt: skip
ROWS = {**GENERATE, **OTHERS}


def patience(message: str, n_retries: int = 0) -> Hosted:
    timeout_s = TIMEOUT_S if message == SILENT else LIMIT_S / 3
    deadline_s = DEADLINE_S if LATE in message else LIMIT_S / 2
    return Hosted(n_retries=n_retries, timeout_s=timeout_s, deadline_s=deadline_s)


def do(model: HostedModel, what: str) -> Any:
    if what == "stream":
        return list(model.stream(CHAT, Sampling()))
    if what == "score":
        return model.score([ScoreRequest("The cat", "!")])
    if what == "embed":
        return model.embed(["x"])
    return model.generate([CHAT], Sampling(logprobs=0))


@pytest.fixture
def elsewhere() -> Iterator[socket.socket]:
    """A host that nobody should talk to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


@pytest.fixture
def start(elsewhere: socket.socket) -> Iterator[Callable[[Behave], Hostile]]:
    started: list[Hostile] = []

    def start(behave: Behave) -> Hostile:
        started.append(Hostile(behave))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.fixture
def outputs(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    home: Path,
) -> Callable[[], str]:
    """All that was printed, logged (by libraries, too) and written to files since the start."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)

    def outputs() -> str:
        files = [path.read_text() for path in home.rglob("*") if path.is_file()]
        return "\n".join([*capfd.readouterr(), caplog.text, *files])

    return outputs


@pytest.mark.parametrize("name", ROWS)
def test_a_misbehaving_endpoint_is_a_clear_error_and_nothing_else(
    name: str,
    start: Callable[[Behave], Hostile],
    elsewhere: socket.socket,
    outputs: Callable[[], str],
    home: Path,
) -> None:
    what, behave, kind, message = ROWS[name]
    port = elsewhere.getsockname()[1]

    def aimed(peer: Peer) -> None:
        """Send what holds ELSEWHERE to the host that must hear nothing."""
        send = peer.send
        peer.send = lambda data: send(data.replace(b"{port}", str(port).encode()))  # type: ignore[method-assign]
        behave(peer)

    endpoint = start(aimed)
    config = patience(message)
    model = HostedModel(f"openai:gpt@{endpoint.url}", config)
    started_s = time.monotonic()
    with pytest.raises(kind, match=message) as caught:
        do(model, what)
    assert time.monotonic() - started_s < LIMIT_S
    assert type(caught.value) is kind or kind is LmwrightError
    assert str(caught.value).startswith(f"openai:gpt@{endpoint.url}: ")
    assert len(str(caught.value)) < 1000
    assert endpoint.n_sent < LIMIT_BYTES
    # Nothing was kept, nobody else was asked, and it was asked once.
    assert not (home / "hosted").exists()
    assert endpoint.n_requests == 1
    with pytest.raises(BlockingIOError):
        elsewhere.accept()
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert KEY not in told + outputs()
    # The same endpoint, now well-behaved: another process finds nothing bad, either.
    for again in (model, HostedModel(f"openai:gpt@{endpoint.url}", config)):
        if kind is not NoLogprobsError or again is not model:
            assert len(do(again, what)) > 0
    assert KEY not in outputs()


def test_there_are_enough_ways_to_misbehave() -> None:
    assert len(ROWS) > 100


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate of this machine, with its key in the same file."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed, and makes the certificate")
    path = tmp_path / "certificate.pem"
    words = [
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    words += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(path), "-out", "-"]
    made = subprocess.run(["openssl", *words], capture_output=True, check=True)
    path.write_bytes(path.read_bytes() + made.stdout)
    return path


@pytest.mark.parametrize("name", ["endless body", "two bytes a second", "a huge header"])
def test_the_same_bounds_hold_over_tls(
    name: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    _, behave, kind, message = ROWS[name]
    endpoint = Hostile(behave, context)
    try:
        url = endpoint.url.replace("http://127.0.0.1", "https://localhost")
        model = HostedModel(f"openai:gpt@{url}", patience(message))
        started_s = time.monotonic()
        with pytest.raises(kind, match=message):
            do(model, "generate")
        assert time.monotonic() - started_s < LIMIT_S
        assert endpoint.n_sent < LIMIT_BYTES
        assert len(do(model, "generate")) == 1
    finally:
        endpoint.close()


def test_what_is_sent_too_much_is_not_the_next_answer(start: Callable[[Behave], Hostile]) -> None:
    forged = http(json.dumps(chat(message={"content": "forged"})).encode())
    endpoint = start(once(http(json.dumps(chat()).encode()) + forged))
    model = HostedModel(f"openai:gpt@{endpoint.url}", patience(""))
    prompts: Any = [[{"role": "user", "content": text}] for text in "ab"]
    assert [answer.text for answer in model.generate(prompts, Sampling())] == ["Hello", "Hello"]


def test_a_placeholder_for_a_key_may_occur_in_an_answer(
    start: Callable[[Behave], Hostile], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "Hello")
    endpoint = start(good)
    (answer,) = do(HostedModel(f"openai:gpt@{endpoint.url}", Hosted(n_retries=0)), "generate")
    assert answer.text == "Hello"


def test_what_may_pass_is_asked_again_and_what_may_not_is_not(
    start: Callable[[Behave], Hostile],
) -> None:
    config = patience("", n_retries=2)
    for name, n_requests in [("reset in the middle", 2), ("endless body", 1), ("NaN", 1)]:
        endpoint = start(ROWS[name][1])
        model = HostedModel(f"openai:gpt@{endpoint.url}", config)
        with contextlib.suppress(HostedError):
            do(model, "generate")
        assert endpoint.n_requests == n_requests, name


@pytest.mark.parametrize("name", ["score: minus Infinity", "score: above 0", "score: no echo"])
def test_an_evaluation_goes_on_after_bad_answers(
    name: str, start: Callable[[Behave], Hostile], monkeypatch: pytest.MonkeyPatch
) -> None:
    for metric in ("bits_per_byte", "refusal_rate", "over_refusal_rate"):
        monkeypatch.setitem(MEASUREMENTS[metric].n_items, "quick", 2)
    _, behave, kind, _ = ROWS[name]

    def only_echoes(peer: Peer) -> None:
        (behave if peer.body.get("echo") else good)(peer)

    endpoint = start(only_echoes)
    endpoint.n_bad = 100
    config = patience("")
    tasks = ["bits_per_byte", "refusals"]
    model = HostedModel(f"openai:gpt@{endpoint.url}", config)
    if kind is NoLogprobsError:
        found = evaluate([model], tasks=tasks)
        assert found.gaps[model.name]["bits_per_byte"].startswith("the endpoint gives no log-prob")
        assert set(found.metrics[model.name]) == {"refusal_rate", "over_refusal_rate"}
    else:
        with pytest.raises(HostedError, match="cannot be understood"):
            evaluate([model], tasks=tasks)
    # Mended: what was asked before is not in the way.
    endpoint.n_bad = 0
    found = evaluate([HostedModel(model.name, config)], tasks=tasks)
    assert set(found.metrics[model.name]) == {"bits_per_byte", "refusal_rate", "over_refusal_rate"}
