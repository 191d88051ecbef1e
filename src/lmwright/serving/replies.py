"""OpenAI's response shapes, made from completions and from the pieces of a stream."""

import math
from collections.abc import Sequence
from typing import Any

from lmwright.engine.request import Chunk, Completion, TokenLogprob

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
        # Characters of each answer that were already streamed.
        self._offsets: dict[int, int] = {}

    def whole(self, completions: Sequence[Completion], usage: dict[str, int]) -> dict[str, Any]:
        """Return the response without streaming."""
        choices = [
            {
                "index": index,
                "text": done.text,
                "logprobs": _text_logprobs(done.logprobs, offset=0),
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
        choice = {
            "index": index,
            "text": chunk.text,
            "logprobs": _text_logprobs(chunk.logprobs, offset=offset),
            "finish_reason": chunk.completion.finish_reason if chunk.completion else None,
        }
        return [{**self._head, "choices": [choice], **self._tail}]

    def last_event(self, usage: dict[str, int]) -> dict[str, Any]:
        """Return the event that carries the usage."""
        return {**self._head, "choices": [], "usage": usage}


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


def _text_logprobs(tokens: Sequence[TokenLogprob], *, offset: int) -> dict[str, Any] | None:
    if not tokens:
        return None
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.text)
    has_top = any(token.top for token in tokens)
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [_finite(token.logprob) for token in tokens],
        # The chosen token is always in its own table, even when it was an unlikely one.
        "top_logprobs": [
            {token.text: _finite(token.logprob)}
            | {text: _finite(logprob) for _, text, logprob in token.top}
            for token in tokens
        ]
        if has_top
        else None,
        "text_offset": offsets,
    }


def _finite(logprob: float) -> float:
    return logprob if math.isfinite(logprob) else IMPOSSIBLE
