"""A real server on a real socket: what it must survive cannot be shown without one."""

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

FAKE = Path(__file__).with_name("serve_fake.py")
CHAT = {"model": "fake", "messages": [{"role": "user", "content": "Hi"}]}
TEXT = {"model": "fake", "prompt": "Hi"}
CHAT_URL, TEXT_URL = "/v1/chat/completions", "/v1/completions"


@contextmanager
def served(
    *arguments: str, n_files: int | None = None
) -> Iterator[tuple[str, subprocess.Popen[str], list[str]]]:
    """Serve the fake model in a process; give its address, the process, and its log so far."""
    command = [sys.executable, str(FAKE), *arguments]
    if n_files is not None:
        command = ["bash", "-c", f'ulimit -n {n_files}; exec "$@"', "bash", *command]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    log: list[str] = []
    try:
        while not (found := re.search(r"http://[\d.:]+", log[-1] if log else "")):
            line = process.stderr.readline()
            assert line, "".join(log)
            log.append(line)
        reader = threading.Thread(target=log.extend, args=[process.stderr])
        reader.start()
        yield found[0], process, log
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stderr.close()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served() as (url, _, _):
        yield url


@pytest.fixture(scope="module")
def narrow_url() -> Iterator[str]:
    # One answer at a time: one that nobody waits for, but that goes on, holds up all others.
    with served("--rows", "1") as (url, _, _):
        yield url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=20) as client:
        yield client


def assert_works(client: httpx.Client) -> None:
    answer = client.post(CHAT_URL, json={**CHAT, "temperature": 0, "max_tokens": 3})
    assert answer.json()["choices"][0]["message"]["content"] == "abc"


def test_openais_client_chats(url: str) -> None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        assert [model.id for model in client.models.list()] == ["fake"]
        stream = client.chat.completions.create(
            model="fake",
            messages=[{"role": "user", "content": "Hi"}],
            temperature=0,
            max_tokens=4,
            logprobs=True,
            top_logprobs=1,
            stream=True,
            stream_options={"include_usage": True},
        )
        *chunks, last = stream
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "abcd"
        assert chunks[1].choices[0].logprobs.content[0].top_logprobs[0].token == "a"
        assert chunks[-1].choices[0].finish_reason == "length"
        assert last.usage.completion_tokens == 4
        whole = client.chat.completions.create(
            model="fake", messages=[{"role": "user", "content": "Hi"}], seed=2, n=2, max_tokens=2
        )
        assert [choice.message.content for choice in whole.choices] == ["ab", "ab"]


def test_openais_client_completes(url: str) -> None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        text = client.completions.create(
            model="fake", prompt=["x", "y"], temperature=0, max_tokens=2, logprobs=1
        )
        assert [choice.text for choice in text.choices] == ["ab", "ab"]
        assert text.choices[0].logprobs.tokens == ["a", "b"]
        stream = client.completions.create(
            model="fake", prompt="x", temperature=0, stop="c", stream=True
        )
        assert "".join(chunk.choices[0].text for chunk in stream) == "ab"


def test_openais_client_sees_its_own_errors(url: str) -> None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(openai.NotFoundError) as missing:
            client.completions.create(model="gpt-9", prompt="x")
        assert missing.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError) as wrong:
            client.completions.create(model="fake", prompt="x", temperature=9)
        assert wrong.value.param == "temperature"
        with pytest.raises(openai.APIError, match="failed to answer"):
            list(client.completions.create(model="fake", prompt="explode", stream=True))


def chat(**fields: Any) -> tuple[str, bytes]:
    return CHAT_URL, json.dumps({**CHAT, **fields}).encode()


def text(**fields: Any) -> tuple[str, bytes]:
    return TEXT_URL, json.dumps({**TEXT, **fields}).encode()


def says(content: Any, **fields: Any) -> tuple[str, bytes]:
    return chat(messages=[{"role": "user", "content": content, **fields}])


def raw(body: bytes) -> tuple[str, bytes]:
    return CHAT_URL, body


IMAGES = ["http://169.254.169.254/", "file:///etc/passwd", "data:image/png;base64,AAAA"]
MALFORMED: list[tuple[tuple[str, bytes], int, str | None]] = [
    (raw(b""), 400, None),
    (raw(b"{"), 400, None),
    (raw(b"null"), 400, None),
    (raw(b"[]"), 400, None),
    (raw(b"\xef\xbb\xbf{}"), 400, None),
    (raw(b'{"model": "\xff"}'), 400, None),
    (raw(rb'{"model": "fake", "messages": [{"role": "user", "content": "\ud800"}]}'), 400, None),
    (raw(b'{"model": "fake", "model": "fake"}'), 400, None),
    (raw(b'{"temperature": NaN}'), 400, None),
    (raw(b'{"temperature": -Infinity}'), 400, None),
    (raw(b'{"a":' * 3_000 + b"1" + b"}" * 3_000), 400, None),
    (raw(b"[" * 100_000), 400, None),
    (raw(b'{"n": ' + b"9" * 5_000 + b"}"), 400, None),
    (raw(b"{" + b",".join(b'"%d":0' % i for i in range(300_000)) + b"}"), 400, None),
    (raw(b'{"messages": "' + b"x" * 4 * 1024 * 1024 + b'"}'), 413, None),
    (raw(b"{}"), 400, "model"),
    (raw(b'{"model": "fake"}'), 400, "messages"),
    (chat(model="../../etc/passwd"), 404, "model"),
    (chat(model="x" * 1_000_000), 404, "model"),
    (chat(model=None), 400, "model"),
    (chat(messages=[]), 400, "messages"),
    (chat(messages="Hi"), 400, "messages"),
    (chat(messages=[{"role": "robot", "content": "Hi"}]), 400, "messages[0].role"),
    (chat(messages=[{"role": "tool", "content": "Hi"}]), 400, "messages[0].role"),
    (chat(messages=[{"role": "assistant", "content": "Hi"}]), 400, "messages"),
    (chat(messages=[0] * 100_000), 400, "messages[0]"),
    (says(None), 400, "messages[0].content"),
    (says([{"type": "sound"}]), 400, "messages[0].content"),
    (says("Hi", prefix=True), 400, "messages[0].prefix"),
    *((says([{"type": "image_url", "image_url": {"url": url}}]), 400, "messages[0].content")
      for url in IMAGES),
    (says("x" * 3_000), 400, "messages"),
    (chat(max_tokens=0), 400, "max_tokens"),
    (chat(max_tokens=-1), 400, "max_tokens"),
    (chat(max_tokens=2**31), 400, "messages"),
    (chat(max_tokens=10**400), 400, "messages"),
    (chat(max_tokens="5"), 400, "max_tokens"),
    (chat(max_tokens=1.5), 400, "max_tokens"),
    (chat(n=0), 400, "n"),
    (chat(n=10**6), 400, "n"),
    (chat(temperature=-1), 400, "temperature"),
    (chat(temperature=1e-300), 400, "temperature"),
    (chat(temperature=10**400), 400, "temperature"),
    (raw(b'{"model": "fake", "messages": [], "temperature": 1e999}'), 400, "temperature"),
    (chat(top_p=0), 400, "top_p"),
    (chat(top_p=2), 400, "top_p"),
    (chat(top_k=-5), 400, "top_k"),
    (chat(top_k=10**9), 400, "top_k"),
    (chat(min_p=7), 400, "min_p"),
    (chat(repetition_penalty=1e9), 400, "repetition_penalty"),
    (chat(frequency_penalty=1e9), 400, "frequency_penalty"),
    (chat(logit_bias={str(i): 1 for i in range(1000)}), 400, "logit_bias"),
    (chat(logprobs=True, top_logprobs=10**6), 400, "top_logprobs"),
    (chat(stop=["x"] * 100_000), 400, "stop"),
    (chat(stop=""), 400, "stop"),
    (chat(stop="x" * 1_000_000), 400, "stop"),
    (chat(seed=-1), 400, "seed"),
    (chat(seed=2**64), 400, "seed"),
    (chat(seed="1"), 400, "seed"),
    (chat(response_format={"type": "json_object"}), 400, "response_format"),
    (chat(tools=[{"type": "function", "function": {"name": "f"}}]), 400, "tools"),
    (chat(chat_template="{{ 1 }}"), 400, "chat_template"),
    (chat(stream="yes"), 400, "stream"),
    (chat(stream_options={"include_usage": True}), 400, "stream_options"),
    (chat(stream=True, stream_options={"colour": 1}), 400, "stream_options.colour"),
    (text(prompt=""), 400, "prompt"),
    (text(prompt=[]), 400, "prompt"),
    (text(prompt=[[]]), 400, "prompt"),
    (text(prompt=[-1]), 400, "prompt"),
    (text(prompt=[257]), 400, "prompt"),
    (text(prompt=[True]), 400, "prompt"),
    (text(prompt=[2**63]), 400, "prompt"),
    (text(prompt=["a", 1]), 400, "prompt"),
    (text(prompt=["a"] * 100_000), 400, "prompt"),
    (text(prompt="x" * 1_000_000), 400, "prompt"),
    (text(prompt="refuse"), 400, "prompt"),
    (text(prompt_embeds="AAAA"), 400, "prompt_embeds"),
    (text(best_of=5), 400, "best_of"),
    (text(logprobs=-1), 400, "logprobs"),
]  # fmt: skip


@pytest.mark.parametrize(("request_", "status", "param"), MALFORMED)
def test_a_malformed_request_is_answered_and_forgotten(
    client: httpx.Client, request_: tuple[str, bytes], status: int, param: str | None
) -> None:
    path, body = request_
    answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert len(answer.content) < 3000
    assert_works(client)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
def test_a_body_of_another_type_is_415(client: httpx.Client, headers: dict[str, str]) -> None:
    answer = client.post(CHAT_URL, content=b"{}", headers=headers)
    assert answer.status_code == 415
    assert answer.json()["error"]["code"] == "unsupported_media_type"
    assert_works(client)


def test_a_chunked_body_without_end_is_413(url: str, client: httpx.Client) -> None:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        n_sent = 0
        # The server hangs up: a reset, or a broken pipe.
        with contextlib.suppress(OSError):
            while n_sent < 10**9:
                connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
                n_sent += 0x10000
    assert n_sent < 100 * 1024 * 1024
    assert_works(client)


@pytest.mark.parametrize(
    "head",
    [
        b"\x16\x03\x01 TLS to a plain port\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 100_000 + b"\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(url: str, client: httpx.Client, head: bytes) -> None:
    host, port = url.removeprefix("http://").split(":")
    answer = b""
    # The server may hang up before it has read all of this.
    with (
        socket.create_connection((host, int(port)), timeout=20) as connection,
        contextlib.suppress(OSError),
    ):
        connection.sendall(head)
        answer = connection.recv(100)
    assert not answer or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))
    assert b"text/plain" not in answer
    assert_works(client)


# 1000 tokens at 20 ms: a model that did not stop would keep the next request waiting for 20 s.
SLOW = {"model": "fake", "prompt": "slow", "max_tokens": 1000}


def test_the_model_stops_when_its_client_leaves(narrow_url: str) -> None:
    started_s = time.monotonic()
    with httpx.Client(base_url=narrow_url, timeout=0.3) as leaver, pytest.raises(httpx.ReadTimeout):
        leaver.post(TEXT_URL, json=SLOW)
    with httpx.Client(base_url=narrow_url, timeout=20) as client:
        assert_works(client)
    assert time.monotonic() - started_s < 5


def test_the_model_stops_when_a_reader_leaves(narrow_url: str) -> None:
    started_s = time.monotonic()
    with httpx.stream("POST", narrow_url + TEXT_URL, json={**SLOW, "stream": True}) as answer:
        assert next(answer.iter_lines()).startswith("data: ")
    with httpx.Client(base_url=narrow_url, timeout=20) as client:
        assert_works(client)
    assert time.monotonic() - started_s < 5


def test_a_burst_beyond_the_queue_is_429_and_the_rest_is_answered(narrow_url: str) -> None:
    def ask(_: int) -> httpx.Response:
        return httpx.post(narrow_url + TEXT_URL, json={**TEXT, "max_tokens": 1}, timeout=20)

    with ThreadPoolExecutor(40) as pool:
        with httpx.stream("POST", narrow_url + TEXT_URL, json={**SLOW, "stream": True}) as answer:
            lines = answer.iter_lines()  # dropping the iterator would close the connection
            next(lines)
            asked = [pool.submit(ask, i) for i in range(40)]
            # The only row is taken and 32 places are there to wait, so just these come back.
            refused = [future.result() for future in islice(as_completed(asked), 8)]
        assert [answer.status_code for answer in refused] == [429] * 8
        assert all(int(answer.headers["Retry-After"]) > 0 for answer in refused)
    statuses = sorted(future.result().status_code for future in asked)
    assert statuses == [200] * 32 + [429] * 8


def test_a_short_request_ends_while_a_long_one_streams(url: str) -> None:
    with httpx.stream("POST", url + TEXT_URL, json={**SLOW, "stream": True}) as answer:
        lines = answer.iter_lines()
        next(lines)
        started_s = time.monotonic()
        short = httpx.post(url + TEXT_URL, json={**TEXT, "temperature": 0, "max_tokens": 3})
        assert short.json()["choices"][0]["text"] == "abc"
        assert time.monotonic() - started_s < 5
        assert next(line for line in lines if line).startswith("data: {")


def test_health_answers_while_the_model_works(url: str, client: httpx.Client) -> None:
    with client.stream("POST", TEXT_URL, json={**SLOW, "stream": True}) as answer:
        lines = answer.iter_lines()
        next(lines)
        with httpx.Client(base_url=url, timeout=5) as other:
            assert other.get("/health").json() == {"status": "ok"}
            assert other.post(TEXT_URL, json={**TEXT, "n": 0}).status_code == 400
        assert next(line for line in lines if line).startswith("data: {")


def timed(client: httpx.Client, n: int = 10) -> float:
    """Ask for a short answer and for the health, so many times; return the longest wait."""
    longest_s = 0.0
    for _ in range(n):
        for ask in (lambda: assert_works(client), lambda: client.get("/health").json()["status"]):
            started_s = time.monotonic()
            ask()
            longest_s = max(longest_s, time.monotonic() - started_s)
    return longest_s


def test_large_bodies_get_429_or_their_answer_and_hold_up_nobody(
    url: str, client: httpx.Client
) -> None:
    body = json.dumps({**TEXT, "prompt": "a b " * 975_000})  # 3.9 MB

    def ask(i: int) -> int:
        if i % 3:
            headers = {"Content-Type": "application/json"}
            return httpx.post(url + TEXT_URL, content=body, headers=headers, timeout=60).status_code
        # One that leaves as soon as all is sent.
        host, port = url.removeprefix("http://").split(":")
        head = (
            f"POST {TEXT_URL} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall((head + body).encode())
        return 0

    with ThreadPoolExecutor(45) as pool:
        asked = [pool.submit(ask, i) for i in range(45)]
        longest_s = timed(client)
        statuses = {future.result() for future in asked}
    assert statuses <= {0, 400, 429}
    assert 400 in statuses
    assert longest_s < 5
    assert_works(client)


@pytest.mark.parametrize("sent", [b"", b"GET /health HTTP/1.1\r\nHost: loc"])
def test_connections_that_ask_nothing_shut_nobody_out(sent: bytes) -> None:
    with served(n_files=256) as (url, process, log):
        host, port = url.removeprefix("http://").split(":")
        with contextlib.ExitStack() as stack, httpx.Client(base_url=url, timeout=20) as client:
            for _ in range(400):
                connection = socket.create_connection((host, int(port)), timeout=20)
                stack.enter_context(connection)
                with contextlib.suppress(OSError):  # it may be closed already
                    connection.sendall(sent)
            assert timed(client) < 5
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)
    written = "".join(log)
    assert "Traceback" not in written
    assert len(written) < 10_000


def test_a_request_before_a_full_queue_of_half_sent_bodies_is_429_at_once(url: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    head = (
        f"POST {TEXT_URL} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        "Content-Length: 100\r\n\r\n{"
    ).encode()
    with contextlib.ExitStack() as stack, httpx.Client(base_url=url, timeout=20) as client:
        for _ in range(32):
            connection = socket.create_connection((host, int(port)), timeout=20)
            stack.enter_context(connection).sendall(head)
        while (answer := client.post(TEXT_URL, json={**TEXT, "max_tokens": 1})).status_code == 200:
            pass
        assert answer.status_code == 429
        assert int(answer.headers["Retry-After"]) > 0
        assert client.get("/health").status_code == 200
    with httpx.Client(base_url=url, timeout=20) as client:
        while (answer := client.post(TEXT_URL, json={**TEXT, "max_tokens": 1})).status_code == 429:
            time.sleep(0.05)
        assert answer.status_code == 200


@pytest.mark.parametrize(
    ("signal_", "status"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130)]
)
def test_a_second_signal_ends_the_server_at_once(signal_: signal.Signals, status: int) -> None:
    with served() as (url, process, log):
        body = {**SLOW, "stream": True}
        with (
            httpx.Client(base_url=url, timeout=20) as client,
            client.stream("POST", TEXT_URL, json=body) as answer,
        ):
            lines = answer.iter_lines()
            next(lines)
            process.send_signal(signal_)
            time.sleep(0.5)
            assert process.poll() is None
            process.send_signal(signal_)
            assert process.wait(timeout=10) == status
            with pytest.raises(httpx.TransportError):
                list(lines)
    assert "Traceback" not in "".join(log)


@pytest.mark.parametrize(
    ("signal_", "status"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 0)]
)
def test_a_signal_lets_answers_finish(signal_: signal.Signals, status: int) -> None:
    with served("--key", "sk-secret") as (url, process, log):
        headers = {"Authorization": "Bearer sk-secret"}
        body = {"model": "fake", "prompt": "slow PROMPT", "max_tokens": 50, "stream": True}
        with (
            httpx.Client(base_url=url, timeout=20, headers=headers) as client,
            client.stream("POST", TEXT_URL, json=body) as answer,
        ):
            lines = answer.iter_lines()
            next(lines)
            process.send_signal(signal_)
            assert [line for line in lines if line][-1] == "data: [DONE]"
        assert process.wait(timeout=20) == status
    written = "".join(log)
    assert "POST /v1/completions -> 200" in written
    assert "Traceback" not in written
    assert "sk-secret" not in written
    assert "PROMPT" not in written
