"""What each URL does: read the request, plan the answers, run them, write them down."""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from lmwright.core.errors import RequestError
from lmwright.engine.request import Chunk, Completion
from lmwright.lm import LanguageModel
from lmwright.serving import limits
from lmwright.serving.errors import ApiError, echo
from lmwright.serving.openai_api import (
    ChatRequest,
    CompletionRequest,
    GenerationRequest,
    read_request,
)
from lmwright.serving.replies import ChatReply, TextReply, usage
from lmwright.serving.worker import Job, Ticket, Worker

STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


@dataclass(frozen=True)
class Plan:
    """A valid request with the answers that it takes."""

    request: ChatRequest | CompletionRequest
    jobs: Sequence[Job]
    n_prompt_tokens: int


class Endpoints:
    """The handlers, around one model."""

    def __init__(self, model: LanguageModel, *, max_waiting: int) -> None:
        self._model = model
        self._worker = Worker(model, max_waiting=max_waiting)
        # Bodies are parsed and tokenized here: neither the event loop nor the model waits for
        # a large one, and the tokenizer encodes for one request at a time.
        self._reader = ThreadPoolExecutor(1, "lmwright-reader")
        self._created = int(time.time())

    def close(self) -> None:
        """End the threads; what still runs stops at its next token."""
        self._worker.close()
        self._reader.shutdown(wait=True, cancel_futures=True)

    async def health(self) -> dict[str, str]:
        """GET /health: say that the server answers."""
        return {"status": "ok"}

    async def models(self) -> dict[str, Any]:
        """GET /v1/models: list the one model."""
        return {"object": "list", "data": [self._describe()]}

    async def model(self, model_id: str) -> dict[str, Any]:
        """GET /v1/models/{model_id}: describe the model."""
        self._check_model(model_id)
        return self._describe()

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions: continue a dialogue."""
        return await self._answer(request, ChatRequest)

    async def complete(self, request: Request) -> Response:
        """POST /v1/completions: continue texts."""
        return await self._answer(request, CompletionRequest)

    async def _answer(
        self, request: Request, kind: type[ChatRequest] | type[CompletionRequest]
    ) -> Response:
        _check_content_type(request)
        self._worker.check_room()
        try:
            body = await limits.read_body(request.stream())
        except ClientDisconnect:
            raise ApiError("the client left while it sent its request", 408) from None
        loop = asyncio.get_running_loop()
        plan = await loop.run_in_executor(self._reader, self._plan, body, kind)
        reply = (ChatReply if kind is ChatRequest else TextReply)(
            secrets.token_hex(12),
            int(time.time()),
            self._model.name,
            has_usage=plan.request.wants_usage,
        )
        ticket = self._worker.submit(plan.jobs)
        watcher = asyncio.create_task(_cancel_when_gone(request, ticket))
        is_streaming = False
        try:
            pieces = ticket.pieces()
            if not plan.request.stream:
                return await _whole(pieces, plan, reply)
            # An error before the first word still gets a status of its own.
            first = await anext(pieces, None)
            events = _events(_with_first(first, pieces), plan, reply, ticket, watcher)
            is_streaming = True
            return StreamingResponse(events, headers=STREAM_HEADERS, media_type="text/event-stream")
        finally:
            if not is_streaming:
                ticket.cancel()
                watcher.cancel()

    def _plan(self, body: bytes, kind: type[ChatRequest] | type[CompletionRequest]) -> Plan:
        request = read_request(kind, limits.parse_json(body))
        self._check_model(request.model)
        try:
            prompts = self._prompts(request)
        except RequestError as error:
            # The chat template may refuse an order of roles, for example.
            raise ApiError(str(error), param=kind.PROMPT, code="invalid_value") from None
        seed = secrets.randbits(63) if request.seed is None else request.seed
        jobs = []
        for prompt_ids in prompts:
            max_tokens = self._max_tokens(request, len(prompt_ids))
            # The first answer is the one that n = 1 would give.
            jobs += [
                Job(prompt_ids, request.sampling(max_tokens, (seed + i) % 2**64))
                for i in range(request.n)
            ]
        return Plan(request, jobs, sum(map(len, prompts)))

    def _prompts(self, request: ChatRequest | CompletionRequest) -> list[list[int]]:
        tokenizer = self._model.tokenizer
        if isinstance(request, ChatRequest):
            return [tokenizer.chat([message.turn for message in request.messages])]
        vocab_size = tokenizer.vocab_size
        prompts = []
        for prompt in request.prompt:
            ids = tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
            if not all(0 <= token_id < vocab_size for token_id in ids):
                raise RequestError(f"prompt: token ids must be from 0 to {vocab_size - 1}")
            prompts.append(ids)
        return prompts

    def _max_tokens(self, request: GenerationRequest, n_prompt_tokens: int) -> int:
        context = self._model.facts.context_length
        room = context - n_prompt_tokens
        asked = request.n_tokens
        if room < (asked or 1):
            raise ApiError(
                f"this model's context is {context} tokens; the prompt has {n_prompt_tokens}"
                + (f" and {echo(str(asked))} more are asked for" if asked else ", no room is left"),
                param=request.PROMPT,
                code="context_length_exceeded",
            )
        return min(room, limits.DEFAULT_MAX_TOKENS) if asked is None else asked

    def _check_model(self, name: str) -> None:
        # The name is only compared: it opens no file.
        if name != self._model.name:
            raise ApiError(
                f"model {echo(name)!r} does not exist; this server has {self._model.name!r}",
                404,
                param="model",
                code="model_not_found",
            )

    def _describe(self) -> dict[str, Any]:
        return {
            "id": self._model.name,
            "object": "model",
            "created": self._created,
            "owned_by": "lmwright",
        }


def _check_content_type(request: Request) -> None:
    # Also a guard: a foreign web page can send any other type without asking first (CORS).
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != (
        "application/json"
    ):
        raise ApiError(
            "expected Content-Type: application/json", 415, code="unsupported_media_type"
        )
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ApiError(
            "compressed bodies are not read; send it plain", 415, code="unsupported_media_type"
        )


async def _cancel_when_gone(request: Request, ticket: Ticket) -> None:
    # The body is read, so all that can still arrive is the end of the connection.
    while (await request.receive())["type"] != "http.disconnect":
        pass
    ticket.cancel()


async def _whole(
    pieces: AsyncIterator[tuple[int, Chunk]], plan: Plan, reply: ChatReply | TextReply
) -> Response:
    completions: list[Completion] = []
    async for _, chunk in pieces:
        if chunk.completion is not None:
            completions.append(chunk.completion)
    if len(completions) < len(plan.jobs):
        # Cancelled: the client has gone or the server stops, so hardly anybody reads this.
        raise ApiError("the answer was given up", 503, code="cancelled")
    n_tokens = sum(len(completion.token_ids) for completion in completions)
    return JSONResponse(reply.whole(completions, usage(plan.n_prompt_tokens, n_tokens)))


async def _with_first(
    first: tuple[int, Chunk] | None, pieces: AsyncIterator[tuple[int, Chunk]]
) -> AsyncIterator[tuple[int, Chunk]]:
    if first is not None:
        yield first
    async for piece in pieces:
        yield piece


async def _events(
    pieces: AsyncIterator[tuple[int, Chunk]],
    plan: Plan,
    reply: ChatReply | TextReply,
    ticket: Ticket,
    watcher: asyncio.Task[None],
) -> AsyncIterator[str]:
    n_tokens = n_done = 0
    try:
        async for index, chunk in pieces:
            for event in reply.events(index, chunk):
                yield _event(event)
            if chunk.completion is not None:
                n_tokens += len(chunk.completion.token_ids)
                n_done += 1
        if n_done < len(plan.jobs):
            raise ApiError("the answer was given up", 503, code="cancelled")
        if plan.request.wants_usage:
            yield _event(reply.last_event(usage(plan.n_prompt_tokens, n_tokens)))
        yield "data: [DONE]\n\n"
    except ApiError as error:
        # The status has gone out as 200; clients look for an event with this key.
        yield _event(error.to_json())
    finally:
        ticket.cancel()
        watcher.cancel()


def _event(data: dict[str, Any]) -> str:
    # Pure ASCII: some clients break lines at U+2028 and U+0085 too.
    return f"data: {json.dumps(data, separators=(',', ':'), allow_nan=False)}\n\n"
