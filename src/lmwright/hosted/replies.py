"""What an endpoint answers, as our own values; nothing in it is believed before it is checked."""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmwright.core.errors import RequestError
from lmwright.engine.request import UNKNOWN, Chunk, Completion, FinishReason, Score, TokenLogprob
from lmwright.hosted.errors import HostedError, NoLogprobsError
from lmwright.hosted.usage import tokens

log = logging.getLogger(__name__)

# Why a text ended, in our words. What else there is (a filter, a call of a tool) is logged.
REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}


def completion(answer: dict[str, Any], *, name: str) -> Completion:
    """Read the answer to a chat or a text completion."""
    choice = _choice(answer, name)
    text = _text(choice, "message")
    if not isinstance(text, str):
        raise broken(name, "a choice without text")
    made = Chunk(text, _logprobs(choice, name))
    return _finished(name, [made], choice.get("finish_reason"), answer.get("usage"))


def chunks(events: Iterator[dict[str, Any]], *, name: str) -> Iterator[Chunk]:
    """Read a stream's events; the last chunk carries the completion."""
    made: list[Chunk] = []
    reason = usage = None
    for event in events:
        usage = event.get("usage") or usage
        if not event.get("choices"):
            continue
        choice = _choice(event, name)
        text = _text(choice, "delta")
        chunk = Chunk(text if isinstance(text, str) else "", _logprobs(choice, name))
        if chunk.text or chunk.logprobs:
            made.append(chunk)
            yield chunk
        reason = choice.get("finish_reason") or reason
    if reason is None:
        raise HostedError(f"{name}: the stream broke off before its end; ask again")
    yield Chunk("", completion=_finished(name, made, reason, usage))


def _finished(name: str, made: Sequence[Chunk], reason: Any, usage: Any) -> Completion:
    if reason not in REASONS:
        log.warning("%s: an answer ended for the reason %r", name, reason)
    n_prompt, n_tokens = tokens(usage) or (UNKNOWN, 0)
    logprobs = tuple(token for chunk in made for token in chunk.logprobs)
    return Completion(
        text="".join(chunk.text for chunk in made),
        token_ids=tuple(token.token_id for token in logprobs) or (UNKNOWN,) * n_tokens,
        finish_reason=REASONS.get(reason, "stop"),
        n_prompt_tokens=n_prompt,
        logprobs=logprobs,
    )


def vector(answer: dict[str, Any], *, name: str) -> np.ndarray:
    """Read the answer to a request for one embedding, (d_model,) float32."""
    data = answer.get("data")
    values = data[0].get("embedding") if _is_list_of(data, dict) and data else None
    if not values or not _is_list_of(values, int | float):
        raise broken(name, "no embedding")
    return np.array(values, dtype=np.float32)


def score(answer: dict[str, Any], *, name: str, texts: tuple[str, str], n_top: int) -> Score:
    """Read the log-probabilities of a continuation from an echoed prompt; `texts` are its parts."""
    context, whole = texts[0], "".join(texts)
    choice = _choice(answer, name)
    table = choice.get("logprobs")
    if not isinstance(table, dict) or not table.get("token_logprobs"):
        raise NoLogprobsError(name, "the endpoint gives no log-probabilities with /completions")
    if not str(choice.get("text")).startswith(whole):
        raise NoLogprobsError(name, "the endpoint does not echo the prompt")
    echoed = _Echo.read(table, name)
    places = [i for i in echoed.reaching(len(context), whole, name) if i > 0]
    if not places:
        raise RequestError(f"score: {texts[1]!r} is a single token with nothing before it")
    logprobs = np.array([echoed.logprobs[i] for i in places], dtype=np.float64)  # None becomes NaN
    if np.isnan(logprobs).any():
        raise broken(name, "a token without a log-probability")
    tops = [sorted(echoed.tops[i].values(), reverse=True) for i in places]
    return Score(
        token_ids=(UNKNOWN,) * len(places),
        token_logprobs=logprobs,
        is_greedy=all(value >= top[0] for value, top in zip(logprobs, tops, strict=True)),
        top=tuple(tuple((UNKNOWN, value) for value in top[:n_top]) for top in tops if n_top),
    )


def broken(name: str, what: str) -> HostedError:
    """Return the error for an answer of another shape than it should have."""
    return HostedError(f"{name}: the endpoint's answer cannot be understood: {what}")


@dataclass(frozen=True)
class _Echo:
    """The four columns of the older format for log-probabilities, of one length."""

    texts: Sequence[str]
    logprobs: Sequence[float | None]
    tops: Sequence[dict[str, float]]
    offsets: Sequence[int]

    @classmethod
    def read(cls, table: dict[str, Any], name: str) -> "_Echo":
        names = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
        columns: list[Any] = [table.get(each) for each in names]
        texts, logprobs, tops, offsets = columns
        is_fine = (
            _is_list_of(texts, str)
            and _is_list_of(offsets, int)
            and _is_list_of(logprobs, int | float | None)
            and _is_list_of(tops, dict | None)
            and len(set(map(len, columns))) == 1
            and all(top and _is_list_of([*top.values()], int | float) for top in tops[1:])
        )
        if not is_fine:
            raise broken(name, "logprobs without tokens, top_logprobs or text_offset of one length")
        return cls(texts, logprobs, [top or {} for top in tops], offsets)

    def reaching(self, border: int, prompt: str, name: str) -> list[int]:
        """Return which tokens of the prompt reach over a border between its characters."""
        # vLLM counts a BOS into the offsets that is not in the text.
        has_stranger = len(self.texts) > 1 and not prompt.startswith(self.texts[0])
        shift = self.offsets[1] if has_stranger else 0
        starts = [offset - shift for offset in self.offsets]
        starts.append(starts[-1] + len(self.texts[-1]))
        # What begins behind the prompt is what was written after it.
        n_tokens = next((i for i, start in enumerate(starts) if start >= len(prompt)), 0)
        if starts[:-1] != sorted(starts[:-1]) or starts[n_tokens] != len(prompt):
            raise broken(name, "text_offset does not fit the text")
        # The parts of a character that is split begin where it begins.
        return [i for i in range(n_tokens) if starts[i] >= border or starts[i + 1] > border]


def _choice(answer: dict[str, Any], name: str) -> dict[str, Any]:
    choices = answer.get("choices")
    if not _is_list_of(choices, dict) or not choices:
        raise broken(name, "no choices")
    return choices[0]


def _text(choice: dict[str, Any], place: str) -> Any:
    """Return what a message or a part of it says; a refusal has a place of its own at OpenAI."""
    if place not in choice:
        return choice.get("text")
    message = choice[place]
    if not isinstance(message, dict):
        return None
    return message.get("content") or message.get("refusal") or ""


def _logprobs(choice: dict[str, Any], name: str) -> tuple[TokenLogprob, ...]:
    """Read the log-probabilities of what was written, in the newer or the older format."""
    table = choice.get("logprobs")
    if not isinstance(table, dict):
        return ()
    try:
        if (entries := table.get("content")) is None:
            entries = _entries(**table)
        return tuple(
            TokenLogprob(*_told(entry), top=tuple(map(_told, entry.get("top_logprobs") or ())))
            for entry in entries
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise broken(name, "logprobs of an unknown shape") from None


def _entries(tokens: Any, token_logprobs: Any, top_logprobs: Any = None, **_: Any) -> Iterator[Any]:
    """Give the columns of the older format as entries of the newer one."""
    tops = top_logprobs or [None] * len(tokens)
    for token, logprob, top in zip(tokens, token_logprobs, tops, strict=True):
        others = [{"token": other, "logprob": value} for other, value in (top or {}).items()]
        yield {"token": token, "logprob": logprob, "top_logprobs": others}


def _told(entry: dict[str, Any]) -> tuple[int, str, float]:
    logprob = float(entry["logprob"])
    if math.isnan(logprob):
        raise ValueError("not a number")
    # llama.cpp's server tells the id, too.
    return int(entry.get("id", UNKNOWN)), str(entry["token"]), logprob


def _is_list_of(value: Any, kind: Any) -> bool:
    # bool is a subclass of int.
    return isinstance(value, list) and all(
        isinstance(each, kind) and not isinstance(each, bool) for each in value
    )
