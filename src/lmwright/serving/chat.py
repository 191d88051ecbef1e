"""POST /v1/chat/completions: the next turn of a dialogue."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, FailFast, Field, model_validator

from lmwright.engine.request import Chunk, Completion, Message, TokenLogprob
from lmwright.serving import limits
from lmwright.serving.errors import echo, invalid
from lmwright.serving.generation import GenerationReply, GenerationRequest, answers, finite
from lmwright.serving.route import Json, Route, Served, Submission
from lmwright.serving.schema import Body, Off


def _texts(value: Any) -> str:
    # Parts are joined by line breaks, as vLLM and llama.cpp do.
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise ValueError("expected a string or a list of text parts")
    if not 1 <= len(value) <= limits.MAX_PARTS:
        raise ValueError(f"{len(value):,} parts; expected 1 to {limits.MAX_PARTS}")
    for i, part in enumerate(value):
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(kind, str) and kind != "text":
            raise ValueError(f"part {i} has type {echo(kind)!r}; this server reads text only")
        if kind is None or set(part) != {"type", "text"} or not isinstance(part["text"], str):
            raise ValueError(f'part {i}: expected {{"type": "text", "text": "..."}}')
    return "\n".join(part["text"] for part in value)


class ChatMessage(Body):
    """One turn; a developer's message is a system message under its newer name."""

    # An assistant's message that a client sends back brings these along.
    OFF: ClassVar[Off] = {
        "annotations": ([],), "audio": (), "function_call": (), "name": (), "refusal": (),
        "tool_calls": ([],),
    }  # fmt: skip

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_texts)]

    @property
    def turn(self) -> Message:
        """The turn as a model's prompt has it."""
        role = "system" if self.role == "developer" else self.role
        return {"role": role, "content": self.content}


class ChatRequest(GenerationRequest):
    """The body of the request."""

    OFF: ClassVar[Off] = {
        **GenerationRequest.OFF, "audio": (), "function_call": ("none",), "functions": ([],),
        "modalities": (["text"],), "prediction": (), "reasoning_effort": ("none",),
        "response_format": ({"type": "text"},), "tool_choice": ("none", "auto"), "tools": ([],),
        "verbosity": ("medium",), "web_search_options": (),
    }  # fmt: skip
    PROMPT: ClassVar[str | None] = "messages"

    messages: Annotated[
        list[ChatMessage],
        Field(min_length=1, max_length=limits.MAX_MESSAGES),
        FailFast(),
    ]
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=limits.MAX_LOGPROBS)

    @property
    def n_tokens(self) -> int | None:
        """How many tokens an answer may have, if the client said it."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def n_logprobs(self) -> int | None:
        """How many alternatives to report for each token; None: no log-probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise invalid("top_logprobs", "only allowed with logprobs = true")
        if None not in (self.max_tokens, self.max_completion_tokens):
            reason = "an older name of max_completion_tokens; give only one of them"
            raise invalid("max_tokens", reason)
        return self


class ChatChoices:
    """Answers as messages; in a stream each one opens with its role."""

    ID: ClassVar[str] = "chatcmpl"
    OBJECTS: ClassVar[tuple[str, str]] = ("chat.completion", "chat.completion.chunk")

    def __init__(self) -> None:
        self._opened: set[int] = set()

    def whole(self, number: int, done: Completion) -> Json:
        """Return a finished answer."""
        return {
            "index": number,
            "message": {"role": "assistant", "content": done.text, "refusal": None},
            "logprobs": _logprobs(done.logprobs),
            "finish_reason": done.finish_reason,
        }

    def streamed(self, number: int, piece: object) -> list[Json]:
        """Return what a stream carries of a piece."""
        assert isinstance(piece, Chunk)
        deltas: list[tuple[Json, Json | None, str | None]] = []
        if number not in self._opened:
            self._opened.add(number)
            deltas.append(({"role": "assistant", "content": ""}, None, None))
        if piece.text or piece.logprobs:
            deltas.append(({"content": piece.text}, _logprobs(piece.logprobs), None))
        if piece.completion is not None:
            deltas.append(({}, None, piece.completion.finish_reason))
        return [
            {"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
            for delta, logprobs, reason in deltas
        ]


def _plan(request: ChatRequest, served: Served) -> Submission:
    turns = [message.turn for message in request.messages]
    sampling = request.sampling(request.n_tokens, n_logprobs=request.n_logprobs)
    generation = answers(served, turns, sampling, n=request.n)
    reply = GenerationReply(ChatChoices(), request, [generation.prompt_ids])
    events = reply.events if request.stream else None
    return Submission(reply.whole, generations=[generation], events=events)


def _logprobs(tokens: Sequence[TokenLogprob]) -> Json | None:
    if not tokens:
        return None
    content = [
        {
            **_token(token.text, token.logprob),
            "top_logprobs": [_token(text, logprob) for _, text, logprob in token.top],
        }
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def _token(text: str, logprob: float) -> Json:
    # A token that is a part of a character has no text of its own, so its bytes are unknown here.
    known = None if "\ufffd" in text else list(text.encode("utf-8"))
    return {"token": text, "logprob": finite(logprob), "bytes": known}


CHAT = Route("POST", "/v1/chat/completions", ChatRequest, _plan)
