"""Connections below the requests: how many there may be, and how long each may keep us waiting.

uvicorn bounds neither the time that a client takes for its headers, nor connections that send
nothing, nor clients that do not read what they asked for.
"""

import asyncio
import contextlib
import http
import json
import logging
import math
import sys
import time
from types import FrameType
from typing import Any, Literal

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from lmwright.serving import limits
from lmwright.serving.errors import ApiError

log = logging.getLogger(__name__)

# What a connection waits for: a request's head, our answer, a client that does not read it, the
# rest of a body that was answered already, or its end.
Phase = Literal["head", "answer", "unread", "rest", "end"]
DEADLINES: dict[Phase, float] = {
    "head": limits.HEAD_TIMEOUT_S,
    "unread": limits.WRITE_TIMEOUT_S,
    "rest": limits.REST_TIMEOUT_S,
    "end": limits.LINGER_S,
}
# What may be closed when there are too many connections, the first of these first.
EVICTABLE: tuple[Phase, ...] = ("end", "head", "rest")


class Connection(H11Protocol):
    """One client's connection; no phase of it lasts longer than its deadline."""

    def __init__(self, *, max_connections: int, **options: Any) -> None:
        super().__init__(**options)
        self._max_connections = max_connections
        self._timer: asyncio.TimerHandle | None = None
        self._watched: tuple[Phase, object] | None = None
        self._since_s = self._n_unsent = 0.0
        self._n_discarded = 0
        # Answered, and only kept until the client has read that.
        self._is_deaf = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; with too many connections, close one that has asked nothing, or this one."""
        super().connection_made(transport)
        self._watch()
        others = [each for each in self.connections if each is not self]
        open_ = [each for each in others if isinstance(each, Connection) and not each.is_closing]
        if len(open_) < self._max_connections:
            return
        idle = [each for each in open_ if each.phase in EVICTABLE]
        if idle:
            first = min(idle, key=lambda each: (EVICTABLE.index(each.phase), each._since_s))
            first.transport.abort()
        else:
            reason = f"{self._max_connections} clients are being answered; try again later"
            self._refuse(ApiError(reason, 503, code="overloaded", headers=limits.retry_later()))

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in what was sent; of what nobody reads any more, only so much."""
        if self.phase in ("rest", "end"):
            self._n_discarded += len(data)
            if self._n_discarded > limits.MAX_DISCARDED_BYTES:
                self.transport.abort()
                return
        if not self._is_deaf:
            super().data_received(data)
            self._watch()

    def on_response_complete(self) -> None:
        """Wait for the rest of the body, or for the next request."""
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        """Begin to wait for a client that does not read."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """Go on: the client has read."""
        super().resume_writing()
        self._watch()

    def shutdown(self) -> None:
        """Close if nothing is being answered, else behind the answer."""
        if self._is_deaf:
            self.transport.abort()
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP in the shape of all other errors."""
        # uvicorn calls this where it caught what h11 said, with the status that fits.
        status = getattr(sys.exc_info()[1], "error_status_hint", 400)
        reason = "the request's headers are too large" if status == 431 else msg
        self._refuse(ApiError(reason, status, code="invalid_http"))

    @property
    def is_closing(self) -> bool:
        """Whether the connection is at its end already."""
        return self.transport.is_closing()

    @property
    def phase(self) -> Phase:
        """What the connection waits for."""
        if self._is_deaf or self.is_closing:
            return "end"
        if self.cycle is None:
            return "head"
        if not self.cycle.response_complete:
            return "unread" if self.flow.write_paused else "answer"
        return "rest" if self.conn.their_state is h11.SEND_BODY else "head"

    def _watch(self) -> None:
        """Start the deadline of a phase when it begins; what arrives within it does not move it."""
        phase = self.phase
        if self._watched == (phase, self.cycle):
            return
        self._watched = (phase, self.cycle)
        self._since_s, self._n_discarded, self._n_unsent = time.monotonic(), 0, math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if phase in DEADLINES:
            self._timer = self.loop.call_later(DEADLINES[phase], self._expire)

    def _expire(self) -> None:
        n_unsent = self.transport.get_write_buffer_size()
        is_read = n_unsent and n_unsent <= self._n_unsent - limits.MIN_READ_BYTES
        if is_read:  # slowly, but it goes on
            self._n_unsent = n_unsent
            self._timer = self.loop.call_later(limits.WRITE_TIMEOUT_S, self._expire)
        elif self.phase == "head" and self.conn.trailing_data[0]:
            reason = f"the request's headers did not arrive within {limits.HEAD_TIMEOUT_S:.0f} s"
            self._refuse(ApiError(reason, 408, code="request_timeout"))
        else:
            self.transport.abort()

    def _refuse(self, error: ApiError) -> None:
        """Answer in place of the application, and hang up when that has been read."""
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.write(_written(error))
        self._is_deaf = True
        # Closed now, what is unread here would reset the connection, and the answer be lost.
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self._watch()


class Listener(uvicorn.Server):
    """A server that lets answers finish after the first signal, for a while, but not after more."""

    is_hurried = False

    async def startup(self, sockets: Any = None) -> None:
        """Accept connections."""
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(_Errors())
        await super().startup(sockets)
        # uvicorn's backlog is also how many asyncio accepts at once, each of which takes a file.
        for listening in sockets or ():
            listening.listen(limits.MAX_UNACCEPTED)

    async def shutdown(self, sockets: Any = None) -> None:
        """Accept none any more, and wait for the answers."""
        timer = self._loop.call_later(limits.DRAIN_S, self._hang_up)
        await super().shutdown(sockets)
        timer.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Remember the first signal; after another one hang up."""
        if self.should_exit:
            self.is_hurried = True
            self._loop.call_soon_threadsafe(self._hang_up)
        else:
            super().handle_exit(sig, frame)

    def _hang_up(self) -> None:
        """End all connections: their requests are given up as if the clients had left."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()


class _Errors:
    """Says in one line, and not for each, that there are no more files to be had."""

    def __init__(self) -> None:
        self._said_s = -math.inf

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not isinstance(context.get("exception"), OSError):
            loop.default_exception_handler(context)
        elif time.monotonic() - self._said_s > limits.RETRY_AFTER_S:
            self._said_s = time.monotonic()
            log.warning("%s: %s", context["message"], context["exception"])


def n_connections() -> int:
    """Return how many connections may be open; where files are short, more are asked for."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows has no such limit
        return limits.MAX_CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Besides those that are open, some wait to be accepted, and some to be closed.
    n_wanted = limits.N_SPARE_FILES + 3 * limits.MAX_CONNECTIONS
    if soft != resource.RLIM_INFINITY and soft < n_wanted:
        more = n_wanted if hard == resource.RLIM_INFINITY else min(n_wanted, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))
            soft = more
        return max(1, min(limits.MAX_CONNECTIONS, (soft - limits.N_SPARE_FILES) // 3))
    return limits.MAX_CONNECTIONS


def _written(error: ApiError) -> bytes:
    body = json.dumps(error.to_json()).encode()
    status = http.HTTPStatus(error.status)
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        **error.headers,
    }
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", *map(": ".join, headers.items()), "", ""]
    return "\r\n".join(lines).encode() + body
