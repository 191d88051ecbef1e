"""What each URL does: read the request, plan the answers, run them, write them down."""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from lmwright.core.errors import RequestError
from lmwright.engine.request import Chunk, Completion
from lmwright.lm import LanguageModel
from lmwright.serving import limits
from lmwright.serving.errors import ApiError, echo
from lmwright.serving.jobs import Echo, EmbeddingJob, Job, Piece
from lmwright.serving.openai_api import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    GenerationRequest,
    read_request,
)
from lmwright.serving.replies import ChatReply, TextReply, embeddings, usage
from lmwright.serving.worker import Ticket, Worker

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
        self._tokenizer = model.tokenizer
        context_length = model.info.context_length
        if context_length is None:
            raise RequestError(f"{model.name}: does not tell its context length; it is needed here")
        self._context_length = context_length
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

    async def embed(self, request: Request) -> Response:
        """POST /v1/embeddings: turn texts into vectors."""
        body = await self._body(request)
        loop = asyncio.get_running_loop()
        jobs, n_tokens, is_base64 = await loop.run_in_executor(self._reader, self._plan_embed, body)
        ticket = self._worker.submit(jobs)
        watcher = asyncio.create_task(_cancel_when_gone(request, ticket))
        try:
            vectors = [v async for _, v in ticket.pieces() if isinstance(v, np.ndarray)]
            _check_complete(len(vectors), jobs)
            name = self._model.name
            return JSONResponse(embeddings(name, vectors, is_base64=is_base64, n_tokens=n_tokens))
        finally:
            ticket.cancel()
            watcher.cancel()

    async def _body(self, request: Request) -> bytes:
        _check_content_type(request)
        self._worker.check_room()
        try:
            return await limits.read_body(request.stream())
        except ClientDisconnect:
            raise ApiError("the client left while it sent its request", 408) from None

    async def _answer(
        self, request: Request, kind: type[ChatRequest] | type[CompletionRequest]
    ) -> Response:
        body = await self._body(request)
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
        n_prompt_tokens = sum(map(len, prompts))
        is_echoed = isinstance(request, CompletionRequest) and request.echo
        if is_echoed and request.n_logprobs is not None:
            self._check_scored(n_prompt_tokens)
        jobs = []
        for prompt_ids in prompts:
            max_tokens = self._max_tokens(request, len(prompt_ids))
            # The first answer is the one that n = 1 would give.
            for i in range(request.n):
                sampling = request.sampling(max_tokens, (seed + i) % 2**64) if max_tokens else None
                jobs.append(Job(prompt_ids, sampling, is_echoed, request.n_logprobs))
        return Plan(request, jobs, n_prompt_tokens)

    def _check_scored(self, n_tokens: int) -> None:
        if self._model.info.kind == "encoder-decoder":
            raise ApiError(
                "echo with logprobs: this model reads its prompt with an encoder, which gives its "
                "tokens no probabilities",
                param="echo",
                code="invalid_value",
            )
        if n_tokens > limits.MAX_SCORED_TOKENS:
            raise ApiError(
                f"echo with logprobs: {n_tokens:,} prompt tokens; at most "
                f"{limits.MAX_SCORED_TOKENS:,} in a request",
                param="prompt",
                code="invalid_value",
            )

    def _plan_embed(self, body: bytes) -> tuple[list[EmbeddingJob], int, bool]:
        """Return the jobs, how many tokens they have, and whether vectors go out as base64."""
        request = read_request(EmbeddingRequest, limits.parse_json(body))
        self._check_model(request.model)
        try:
            counts = [len(self._model.encode(text)) for text in request.input]
        except RequestError as error:
            raise ApiError(str(error), param="input", code="invalid_value") from None
        if max(counts) > self._context_length:
            raise ApiError(
                f"a text has {max(counts)} tokens; this model reads {self._context_length}",
                param="input",
                code="context_length_exceeded",
            )
        jobs = [EmbeddingJob(text) for text in request.input]
        return jobs, sum(counts), request.encoding_format == "base64"

    def _prompts(self, request: ChatRequest | CompletionRequest) -> list[list[int]]:
        tokenizer = self._tokenizer
        if isinstance(request, ChatRequest):
            return [tokenizer.chat([message.turn for message in request.messages])]
        vocab_size = tokenizer.vocab_size
        prompts = []
        for prompt in request.prompt:
            ids = self._model.encode(prompt) if isinstance(prompt, str) else prompt
            if not all(0 <= token_id < vocab_size for token_id in ids):
                raise RequestError(f"prompt: token ids must be from 0 to {vocab_size - 1}")
            prompts.append(ids)
        return prompts

    def _max_tokens(self, request: GenerationRequest, n_prompt_tokens: int) -> int:
        context = self._context_length
        room = context - n_prompt_tokens
        asked = request.n_tokens
        if room < (1 if asked is None else asked):
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


def _check_complete(n_done: int, jobs: Sequence[Job] | Sequence[EmbeddingJob]) -> None:
    if n_done < len(jobs):
        # Cancelled: the client has gone or the server stops, so hardly anybody reads this.
        raise ApiError("the answer was given up", 503, code="cancelled")


async def _whole(
    pieces: AsyncIterator[tuple[int, Piece]], plan: Plan, reply: ChatReply | TextReply
) -> Response:
    completions: list[Completion] = []
    async for index, piece in pieces:
        if isinstance(piece, Echo) and isinstance(reply, TextReply):
            reply.open(index, piece)
        if isinstance(piece, Chunk) and piece.completion is not None:
            completions.append(piece.completion)
    _check_complete(len(completions), plan.jobs)
    n_tokens = sum(len(completion.token_ids) for completion in completions)
    return JSONResponse(reply.whole(completions, usage(plan.n_prompt_tokens, n_tokens)))


async def _with_first(
    first: tuple[int, Piece] | None, pieces: AsyncIterator[tuple[int, Piece]]
) -> AsyncIterator[tuple[int, Piece]]:
    if first is not None:
        yield first
    async for piece in pieces:
        yield piece


async def _events(
    pieces: AsyncIterator[tuple[int, Piece]],
    plan: Plan,
    reply: ChatReply | TextReply,
    ticket: Ticket,
    watcher: asyncio.Task[None],
) -> AsyncIterator[str]:
    n_tokens = n_done = 0
    try:
        async for index, piece in pieces:
            for event in _pieces_events(reply, index, piece):
                yield _event(event)
            if isinstance(piece, Chunk) and piece.completion is not None:
                n_tokens += len(piece.completion.token_ids)
                n_done += 1
        _check_complete(n_done, plan.jobs)
        if plan.request.wants_usage:
            yield _event(reply.last_event(usage(plan.n_prompt_tokens, n_tokens)))
        yield "data: [DONE]\n\n"
    except ApiError as error:
        # The status has gone out as 200; clients look for an event with this key.
        yield _event(error.to_json())
    finally:
        ticket.cancel()
        watcher.cancel()


def _pieces_events(reply: ChatReply | TextReply, index: int, piece: Piece) -> list[dict[str, Any]]:
    if isinstance(piece, Echo):
        return reply.open(index, piece) if isinstance(reply, TextReply) else []
    return reply.events(index, piece) if isinstance(piece, Chunk) else []


def _event(data: dict[str, Any]) -> str:
    # Pure ASCII: some clients break lines at U+2028 and U+0085 too.
    return f"data: {json.dumps(data, separators=(',', ':'), allow_nan=False)}\n\n"
