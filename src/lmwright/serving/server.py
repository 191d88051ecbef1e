"""How a request of any route is answered: read, validated, planned, run, written."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from lmwright.core.errors import RequestError
from lmwright.lm import LocalModel
from lmwright.serving import limits
from lmwright.serving.errors import ApiError, echo, refusal
from lmwright.serving.route import Document, Json, Piece, Route, Served, Submission
from lmwright.serving.schema import ApiRequest, read_request
from lmwright.serving.worker import Ticket, Worker

STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class Server:
    """What answers requests of any route with one model."""

    def __init__(self, model: LocalModel, *, max_waiting: int) -> None:
        self._served = Served(model, int(time.time()))
        self._worker = Worker(model, max_waiting=max_waiting)
        # Bodies are parsed and tokenized here, so that neither the event loop nor the model waits
        # for a large one, and large ones in a thread of their own: small ones do not, either.
        self._readers = [ThreadPoolExecutor(1, f"lmwright-reader-{i}") for i in range(2)]
        # Of the thread for large bodies: when it may read the next one.
        self._next_large_s = 0.0

    def close(self) -> None:
        """End the threads; what still runs is cancelled."""
        self._worker.close()
        for reader in self._readers:
            reader.shutdown(wait=True, cancel_futures=True)

    async def answer(self, route: Route[Any], request: Request) -> Response:
        """Answer one request of a route."""
        with contextlib.ExitStack() as stack:
            if route.method == "GET":
                planned = self._plan(route, request.path_params)
                if not isinstance(planned, Submission):
                    return _response(planned)
                ticket = self._worker.admit()
                stack.callback(ticket.cancel)
                _watch(request, ticket, stack)
            else:
                _check_content_type(request)
                is_large = limits.is_large(request.headers.get("content-length"))
                ticket = self._worker.admit(is_large=is_large)
                stack.callback(ticket.cancel)
                try:
                    body = await limits.read_body(request.stream(), route.max_body_bytes)
                except ClientDisconnect:
                    raise ApiError("the client left while it sent its request", 408) from None
                _watch(request, ticket, stack)
                loop, reader = asyncio.get_running_loop(), self._readers[is_large]
                planned = await loop.run_in_executor(reader, self._read, route, body, ticket)
                if not isinstance(planned, Submission):
                    return _response(planned)
            self._worker.start(ticket, planned)
            return await _answered(planned, ticket, stack)

    def _read(self, route: Route[Any], body: bytes, ticket: Ticket) -> Submission | Json | Document:
        """Plan a request that came as JSON, unless its client has left meanwhile."""
        if ticket.is_cancelled:
            raise ApiError("the client left before its request was read", 503, code="cancelled")
        if not ticket.is_large:
            return self._plan(route, limits.parse_json(body))
        time.sleep(max(0.0, self._next_large_s - time.monotonic()))
        started_s = time.monotonic()
        try:
            return self._plan(route, limits.parse_json(body))
        finally:
            ended_s = time.monotonic()
            self._next_large_s = ended_s + limits.REST_OF_LARGE * (ended_s - started_s)

    def _plan(self, route: Route[Any], fields: Json) -> Submission | Json | Document:
        asked = read_request(route.request, fields)
        name = self._served.model.name
        # The name is only compared: it opens no file.
        if isinstance(asked, ApiRequest) and asked.model != name:
            reason = f"model {echo(asked.model)!r} does not exist; this server has {name!r}"
            raise ApiError(reason, 404, param="model", code="model_not_found")
        try:
            return route.plan(asked, self._served)
        except RequestError as error:
            # Too long, or the chat template refuses an order of roles, for example.
            raise refusal(error, param=asked.PROMPT) from None


async def no_such_route(request: Request, error: Any) -> Response:
    """Answer starlette's HTTPException (404 and 405) in OpenAI's shape."""
    is_unknown = error.status_code == 404
    reason = "unknown URL" if is_unknown else "method not allowed"
    code = "unknown_url" if is_unknown else "method_not_allowed"
    where = f"{echo(request.method)} {echo(request.url.path)}"
    answer = ApiError(f"{reason}: {where}", error.status_code, code=code)
    return JSONResponse(answer.to_json(), error.status_code, headers=error.headers)


async def _answered(planned: Submission, ticket: Ticket, stack: contextlib.ExitStack) -> Response:
    """Return what the model gives, whole or as a stream that closes `stack` at its end."""
    pieces = ticket.pieces()
    if planned.events is None:
        whole = partial(planned.whole, [piece async for piece in pieces])
        # With many log-probabilities this takes a while.
        return await asyncio.to_thread(lambda: _response(whole()))
    # An error before the first word still gets a status of its own.
    first = await anext(pieces)
    lines = _lines(first, pieces, planned.events, stack.pop_all())
    return StreamingResponse(lines, headers=STREAM_HEADERS, media_type="text/event-stream")


def _response(planned: Json | Document) -> Response:
    if isinstance(planned, Document):
        headers = dict(planned.headers)
        return Response(planned.content, headers=headers, media_type=planned.media_type)
    return JSONResponse(planned)


async def _lines(
    first: Piece,
    pieces: AsyncIterator[Piece],
    events: Callable[[int, object], list[Json]],
    stack: contextlib.ExitStack,
) -> AsyncIterator[str]:
    with stack:
        try:
            piece: Piece | None = first
            while piece is not None:
                for event in events(*piece):
                    yield _line(event)
                piece = await anext(pieces, None)
            yield "data: [DONE]\n\n"
        except ApiError as error:
            # The status has gone out as 200; clients look for an event with this key.
            yield _line(error.to_json())


def _line(data: Json) -> str:
    # Pure ASCII: some clients break lines at U+2028 and U+0085 too.
    return f"data: {json.dumps(data, separators=(',', ':'), allow_nan=False)}\n\n"


def _check_content_type(request: Request) -> None:
    # Also a guard: a foreign web page can send any other type without asking first (CORS).
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    encoding = request.headers.get("content-encoding", "identity").lower()
    if kind != "application/json" or encoding != "identity":
        reason = "expected Content-Type: application/json, and no compression"
        raise ApiError(reason, 415, code="unsupported_media_type")


def _watch(request: Request, ticket: Ticket, stack: contextlib.ExitStack) -> None:
    """Let a ticket know when its client leaves, until the stack is closed."""
    watcher = asyncio.create_task(_leave_when_gone(request, ticket))
    stack.callback(watcher.cancel)


async def _leave_when_gone(request: Request, ticket: Ticket) -> None:
    # The body is read, so all that can still arrive is the end of the connection.
    while (await request.receive())["type"] != "http.disconnect":
        pass
    ticket.leave()
