"""Connections to an endpoint that nobody trusts: bounded in time and in bytes, below the library.

A connection serves one request. What an endpoint sends too much is therefore never taken for the
next answer, and its bounds are those of the request.
"""

import re
import time
from dataclasses import dataclass
from typing import Any

from lmwright.core.errors import RequestError
from lmwright.hosted.errors import HostedError

# An echoed prompt of 128k tokens with its log-probabilities has about half of it.
MAX_BYTES = 32 << 20
MAX_HEAD_BYTES = 64 << 10
# A piece of a request: between two of them the time is looked at.
N_WRITE = 64 << 10
EMPTY_LINE = re.compile(rb"\n\r?\n")
INTERIM = re.compile(rb"HTTP/1\.\d 1\d\d\b")


@dataclass(frozen=True)
class Bounds:
    """What one request may take; `name` is what errors begin with."""

    name: str
    url: str
    deadline_s: float
    # Blanked in the headers of an answer, which libraries log.
    secret: str | None
    max_bytes: int = MAX_BYTES

    def too_late(self) -> HostedError:
        """Return the error for an answer that takes too long, however busily it comes."""
        return HostedError(
            f"{self.name}: {self.url} did not finish its answer within {self.deadline_s:g} s; "
            "ask for less (max_tokens), or raise deadline_s (hosted table)"
        )

    def too_large(self, what: str, limit: int) -> HostedError:
        """Return the error for an answer that does not end."""
        return HostedError(
            f"{self.name}: {self.url} answered with {what} of over {limit:,} bytes, more than any "
            "answer needs; is it an OpenAI-compatible endpoint?"
        )


def open_client(openai: Any, bounds: Bounds) -> Any:
    """Return the library's HTTP client with every connection bounded, for `OpenAI(http_client=)`.

    Redirects are not followed: prompts and key are for the given URL only. Nothing compressed is
    accepted, so that no answer grows while it is read.
    """

    def check(response: Any) -> None:
        encoding = response.headers.get("content-encoding", "identity")
        if encoding.strip().lower() != "identity":
            raise HostedError(
                f"{bounds.name}: {bounds.url} answered in the encoding {encoding[:40]!r}, although "
                "none was asked for; turn compression off there"
            )

    http = openai.DefaultHttpxClient(
        follow_redirects=False,
        limits=_limits(openai),
        headers={"Accept-Encoding": "identity"},
        event_hooks={"response": [check]},
    )
    try:
        # Also those to a proxy (HTTPS_PROXY); none stands for a host without one.
        for transport in {http._transport, *http._mounts.values()} - {None}:
            pool = transport._pool
            pool._network_backend = _Backend(pool._network_backend, bounds)
    except AttributeError:
        raise RequestError(
            f"{bounds.name}: connections of openai {openai.__version__} cannot be bounded; "
            "install the version that lmwright was tested with (pip install 'openai>=2,<4')"
        ) from None
    return http


def _limits(openai: Any) -> Any:
    """Return the library's limits with connections that are not used a second time."""
    kind = type(openai.DEFAULT_CONNECTION_LIMITS)
    return kind(max_connections=None, max_keepalive_connections=0)


class _Backend:
    """Opens connections as another backend does, and bounds them."""

    def __init__(self, inner: Any, bounds: Bounds) -> None:
        self._inner, self._bounds = inner, bounds

    def connect_tcp(self, *arguments: Any, **options: Any) -> "_Connection":
        ends_s = time.monotonic() + self._bounds.deadline_s
        stream = self._inner.connect_tcp(*arguments, **options)
        return _Connection(stream, self._bounds, ends_s)

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(seconds)


class _Connection:
    """A connection that ends at a time, after so many bytes, and after headers of a size."""

    def __init__(self, inner: Any, bounds: Bounds, ends_s: float) -> None:
        self._inner, self._bounds, self._ends_s = inner, bounds, ends_s
        self._n_read = 0
        # What came of the headers; None once they are whole.
        self._head: bytes | None = b""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return the next bytes, b"" at the end; headers come whole."""
        while self._head is not None:
            data = self._receive(max_bytes, timeout)
            self._head += data
            end = _end_of_head(self._head) if data else len(self._head)
            if (end or len(self._head)) > MAX_HEAD_BYTES:
                raise self._bounds.too_large("headers", MAX_HEAD_BYTES)
            if end is not None:
                whole, self._head = self._head, None
                return self._blanked(whole[:end]) + whole[end:]
        return self._receive(max_bytes, timeout)

    def _receive(self, max_bytes: int, timeout: float | None) -> bytes:
        try:
            data = self._inner.read(max_bytes, self._left(timeout))
        except Exception:
            self._left(timeout)
            raise
        self._n_read += len(data)
        if self._n_read > self._bounds.max_bytes:
            raise self._bounds.too_large("a body", self._bounds.max_bytes)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), N_WRITE):
            self._inner.write(buffer[start : start + N_WRITE], self._left(timeout))

    def start_tls(self, *arguments: Any, **options: Any) -> "_Connection":
        return _Connection(self._inner.start_tls(*arguments, **options), self._bounds, self._ends_s)

    def close(self) -> None:
        self._inner.close()

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)

    def _left(self, timeout: float | None) -> float:
        """Return how long to wait now; no time left is an error."""
        left_s = self._ends_s - time.monotonic()
        if left_s <= 0:
            raise self._bounds.too_late()
        return left_s if timeout is None else min(timeout, left_s)

    def _blanked(self, head: bytes) -> bytes:
        secret = (self._bounds.secret or "").encode()
        return head.replace(secret, b"*" * len(secret)) if secret else head


def _end_of_head(data: bytes) -> int | None:
    """Return where the headers end, None if they go on."""
    start = 0
    for blank in EMPTY_LINE.finditer(data):
        # Behind an interim answer (103 Early Hints) come the headers of the real one.
        if not INTERIM.match(data, start):
            return blank.end()
        start = blank.end()
    return None
