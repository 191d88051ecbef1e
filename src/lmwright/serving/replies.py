"""OpenAI's response shapes, made from completions and from the pieces of a stream."""

import base64
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lmwright.engine.request import Chunk, Completion, TokenLogprob
from lmwright.serving.jobs import Echo

# JSON has no minus infinity; OpenAI writes this for a token that cannot come.
IMPOSSIBLE = -9999.0


def usage(n_prompt_tokens: int, n_completion_tokens: int) -> dict[str, int]:
    """Return the count of tokens; a prompt counts once, however many answers it gets."""
    return {
        "prompt_tokens": n_prompt_tokens,
        "completion_tokens": n_completion_tokens,
        "total_tokens": n_prompt_tokens + n_completion_tokens,
    }


class ChatReply:
    """Answers to a chat request; one object a request, as a stream has to remember its choices."""

    def __init__(self, reply_id: str, created: int, model: str, *, has_usage: bool) -> None:
        self._head = {"id": f"chatcmpl-{reply_id}", "created": created, "model": model}
        # A stream that ends with the usage carries null for it until then.
        self._tail = {"usage": None} if has_usage else {}
        self._opened: set[int] = set()

    def whole(self, completions: Sequence[Completion], usage: dict[str, int]) -> dict[str, Any]:
        """Return the response without streaming."""
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": done.text, "refusal": None},
                "logprobs": _chat_logprobs(done.logprobs),
                "finish_reason": done.finish_reason,
            }
            for index, done in enumerate(completions)
        ]
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": usage}

    def events(self, index: int, chunk: Chunk) -> list[dict[str, Any]]:
        """Return what to stream for a piece of answer `index`."""
        events = []
        if index not in self._opened:
            self._opened.add(index)
            events.append(self._event(index, {"role": "assistant", "content": ""}))
        if chunk.text or chunk.logprobs:
            logprobs = _chat_logprobs(chunk.logprobs)
            events.append(self._event(index, {"content": chunk.text}, logprobs=logprobs))
        if chunk.completion is not None:
            reason = chunk.completion.finish_reason
            events.append(self._event(index, {}, finish_reason=reason))
        return events

    def last_event(self, usage: dict[str, int]) -> dict[str, Any]:
        """Return the event that carries the usage."""
        return {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": usage}

    def _event(
        self,
        index: int,
        delta: dict[str, str],
        *,
        logprobs: dict[str, Any] | None = None,
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        }
        return {
            **self._head,
            "object": "chat.completion.chunk",
            "choices": [choice],
            **self._tail,
        }


class TextReply:
    """Answers to a completion request; one object a request."""

    def __init__(self, reply_id: str, created: int, model: str, *, has_usage: bool) -> None:
        self._head = {
            "id": f"cmpl-{reply_id}",
            "object": "text_completion",
            "created": created,
            "model": model,
        }
        self._tail = {"usage": None} if has_usage else {}
        # The prompts that are given back, by answer.
        self._echoes: dict[int, Echo] = {}
        # Characters of each answer that were already streamed.
        self._offsets: dict[int, int] = {}

    def open(self, index: int, echo: Echo) -> list[dict[str, Any]]:
        """Begin answer `index` with its prompt; return what to stream of it."""
        self._echoes[index] = echo
        self._offsets[index] = len(echo.text)
        return [self._event(index, echo.text, logprobs=_text_logprobs((), echo=echo), reason=None)]

    def whole(self, completions: Sequence[Completion], usage: dict[str, int]) -> dict[str, Any]:
        """Return the response without streaming."""
        choices = [
            {
                "index": index,
                "text": self._echo(index).text + done.text,
                "logprobs": _text_logprobs(done.logprobs, echo=self._echo(index)),
                "finish_reason": done.finish_reason,
            }
            for index, done in enumerate(completions)
        ]
        return {**self._head, "choices": choices, "usage": usage}

    def events(self, index: int, chunk: Chunk) -> list[dict[str, Any]]:
        """Return what to stream for a piece of answer `index`."""
        if not (chunk.text or chunk.logprobs or chunk.completion):
            return []
        offset = self._offsets.get(index, 0)
        self._offsets[index] = offset + sum(len(token.text) for token in chunk.logprobs)
        logprobs = _text_logprobs(chunk.logprobs, offset=offset)
        reason = chunk.completion.finish_reason if chunk.completion else None
        return [self._event(index, chunk.text, logprobs=logprobs, reason=reason)]

    def last_event(self, usage: dict[str, int]) -> dict[str, Any]:
        """Return the event that carries the usage."""
        return {**self._head, "choices": [], "usage": usage}

    def _echo(self, index: int) -> Echo:
        return self._echoes.get(index, Echo(""))

    def _event(
        self, index: int, text: str, *, logprobs: dict[str, Any] | None, reason: str | None
    ) -> dict[str, Any]:
        choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}
        return {**self._head, "choices": [choice], **self._tail}


def embeddings(
    model: str, vectors: Sequence[np.ndarray], *, is_base64: bool, n_tokens: int
) -> dict[str, Any]:
    """Return the answer to a request for embeddings; base64 holds little-endian float32."""
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64.b64encode(vector.astype("<f4").tobytes()).decode()
            if is_base64
            else vector.astype(float).tolist(),
        }
        for index, vector in enumerate(vectors)
    ]
    counts = {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
    return {"object": "list", "model": model, "data": data, "usage": counts}


def _chat_logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any] | None:
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


def _token(text: str, logprob: float) -> dict[str, Any]:
    # A token that is a part of a character has no text of its own, so its bytes are unknown here.
    known = None if "\ufffd" in text else list(text.encode("utf-8"))
    return {"token": text, "logprob": _finite(logprob), "bytes": known}


def _text_logprobs(
    tokens: Sequence[TokenLogprob], *, echo: Echo | None = None, offset: int = 0
) -> dict[str, Any] | None:
    """Write tokens, those of a prompt that is given back before them, as OpenAI's older format."""
    offsets = []
    if echo is not None:
        offset, offsets = len(echo.text), [*echo.offsets]
    for token in tokens:
        offsets.append(offset)
        offset += len(token.text)
    tokens = [*(echo.logprobs if echo is not None else ()), *tokens]
    if not tokens:
        return None
    has_top = any(token.top for token in tokens)
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [_finite(token.logprob) for token in tokens],
        "top_logprobs": [_top(token) for token in tokens] if has_top else None,
        "text_offset": offsets,
    }


def _top(token: TokenLogprob) -> dict[str, float | None] | None:
    """Write the likeliest tokens; the chosen one is always there, even if it was unlikely."""
    if math.isnan(token.logprob):
        return None
    table = {token.text: token.logprob}
    for _, text, logprob in token.top:
        # Tokens may look alike (parts of characters do): the likeliest one counts.
        table[text] = max(logprob, table.get(text, -math.inf))
    return {text: _finite(logprob) for text, logprob in table.items()}


def _finite(logprob: float) -> float | None:
    # The first token of a prompt has no log-probability.
    if math.isnan(logprob):
        return None
    return logprob if math.isfinite(logprob) else IMPOSSIBLE
