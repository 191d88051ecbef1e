"""What an endpoint answers, as our own values; nothing in it is believed before it is checked."""

import json
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from lmwright.core.errors import RequestError
from lmwright.engine.request import UNKNOWN, Chunk, Completion, FinishReason, Score, TokenLogprob
from lmwright.hosted.errors import HostedError, NoLogprobsError, cleaned
from lmwright.hosted.usage import MAX_TOKENS, tokens

log = logging.getLogger(__name__)

# Why a text ended, in our words. What else there is (a filter, a call of a tool) is logged.
REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}
# A shorter key is a placeholder ("none", "EMPTY") that an answer may hold by chance.
FEWEST_OF_SECRET = 12
# Servers that compute in half precision are off by so many nats where a token is certain.
ROUNDING = 1e-3
# Below what any server says in place of minus infinity (vLLM: -9999).
LEAST_LOGPROB = -1e9
LARGEST_FLOAT32 = float(np.finfo(np.float32).max)
# Parts of characters, as endpoints write them.
BYTES = re.compile(r"bytes:(?:\\x[0-9a-f]{2})+|<0x[0-9A-F]{2}>")
NO_LETTERS = re.compile(r"[^0-9A-Za-z]+")


def secret(key: str | None) -> str | None:
    """Return a key that nobody but the endpoint may see, None for a placeholder."""
    return key if key is not None and len(key) >= FEWEST_OF_SECRET else None


def checked(answer: object, name: str, *, url: str, key: str | None) -> dict[str, Any]:
    """Return an answer that can be kept and printed: an object of finite numbers and whole text.

    One that repeats the key is refused, because it would be written to files and logs.
    """
    if not isinstance(answer, dict):
        raise HostedError(
            f"{name}: {url} answered with something that is not a JSON object: "
            f"{cleaned(str(answer), key)!r}; is it an OpenAI-compatible endpoint?"
        )
    try:
        text = json.dumps(answer, ensure_ascii=False, allow_nan=False)
        text.encode()
    except UnicodeEncodeError:
        raise broken(name, "half a surrogate pair, which is no character") from None
    except RecursionError:
        raise broken(name, "it is nested too deeply") from None
    except ValueError:
        raise broken(name, "a number that is not finite (NaN or Infinity)") from None
    if (hidden := secret(key)) and json.dumps(hidden)[1:-1] in text:
        raise broken(name, "it repeats the key in OPENAI_API_KEY, so it is not kept")
    _check_usage(answer.get("usage"), name)
    return cast(dict[str, Any], answer)


def check_stream(content_type: str | None, name: str) -> None:
    """Refuse an answer to a request for a stream that is none."""
    if "event-stream" not in (content_type or "").lower():
        raise HostedError(
            f"{name}: the endpoint does not stream: expected text/event-stream, got "
            f"{content_type!r}; ask without one: `lmwright generate` with --json or --prompts "
            "FILE, or the method `generate`"
        )


def _check_usage(usage: object, name: str) -> None:
    """Refuse counts that no request can have; an endpoint need not count at all."""
    counts = usage if isinstance(usage, dict) else {"usage": usage}
    for key in ("usage", "prompt_tokens", "completion_tokens"):
        count = counts.get(key)
        if count is not None and (type(count) is not int or not 0 <= count <= MAX_TOKENS):
            shown = cleaned(repr(count), None)
            raise broken(name, f"{key} = {shown}: expected a count from 0 to {MAX_TOKENS:,}")


def completion(answer: dict[str, Any], *, name: str) -> Completion:
    """Read the answer to a chat or a text completion."""
    choice = _choice(answer, name)
    text = _text(choice, "message")
    if not isinstance(text, str):
        raise broken(name, "a choice without text")
    made = Chunk(text, _logprobs(choice, name))
    return _finished(name, [made], _reason(choice, name), answer.get("usage"))


def chunks(events: Iterator[dict[str, Any]], *, name: str) -> Iterator[Chunk]:
    """Read a stream's events; the last chunk carries the completion."""
    made: list[Chunk] = []
    reason = usage = None
    for event in events:
        usage = event.get("usage") or usage
        if event.get("choices") in (None, []):
            continue
        choice = _choice(event, name)
        text = _text(choice, "delta")
        if not isinstance(text, str | None):
            raise broken(name, "a choice whose text is none")
        chunk = Chunk(text or "", _logprobs(choice, name))
        if chunk.text or chunk.logprobs:
            made.append(chunk)
            yield chunk
        reason = _reason(choice, name) or reason
    if reason is None:
        raise HostedError(f"{name}: the stream broke off before its end; ask again")
    yield Chunk("", completion=_finished(name, made, reason, usage))


def _finished(name: str, made: Sequence[Chunk], reason: str | None, usage: Any) -> Completion:
    if reason not in REASONS:
        log.warning("%s: an answer ended for the reason %s", name, cleaned(repr(reason), None))
    n_prompt, n_tokens = tokens(usage) or (UNKNOWN, 0)
    logprobs = tuple(token for chunk in made for token in chunk.logprobs)
    text = "".join(chunk.text for chunk in made)
    if logprobs and not _spell([token.text for token in logprobs], text):
        raise broken(name, "the tokens of logprobs are not those of the text")
    return Completion(
        text=text,
        token_ids=tuple(token.token_id for token in logprobs) or (UNKNOWN,) * n_tokens,
        finish_reason=REASONS.get(reason or "", "stop"),
        n_prompt_tokens=n_prompt,
        logprobs=logprobs,
    )


def vector(answer: dict[str, Any], *, name: str) -> np.ndarray:
    """Read the answer to a request for one embedding, (d_model,) float32."""
    data = answer.get("data")
    values = None
    if isinstance(data, list) and len(data) == 1 and isinstance(data[0], dict):
        values = data[0].get("embedding")
    if not values or not _is_list_of(values, int | float):
        raise broken(name, "no embedding")
    if max(map(abs, values)) > LARGEST_FLOAT32:
        raise broken(name, "an embedding with a number beyond float32")
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
        told = [value for top in tops for value in (top or {}).values()]
        told += [value for value in logprobs if value is not None]
        if not all(map(_is_logprob, told)):
            raise broken(name, "a log-probability above 0 or below any")
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
        if not _spell(self.texts[:n_tokens], prompt):
            raise broken(name, "the tokens of logprobs are not those of the text")
        # The parts of a character that is split begin where it begins.
        return [i for i in range(n_tokens) if starts[i] >= border or starts[i + 1] > border]


def _choice(answer: dict[str, Any], name: str) -> dict[str, Any]:
    choices = answer.get("choices")
    if not _is_list_of(choices, dict) or not choices:
        raise broken(name, "no choices")
    if len(choices) > 1 or choices[0].get("index", 0) != 0:
        raise broken(name, "other choices than the one that was asked for")
    return choices[0]


def _reason(choice: dict[str, Any], name: str) -> str | None:
    reason = choice.get("finish_reason")
    if not isinstance(reason, str | None):
        raise broken(name, f"finish_reason is no text but {type(reason).__name__}")
    return reason


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
    if table is None:
        return ()
    try:
        # OpenAI puts the tokens of a refusal elsewhere than those of an answer.
        newer = [table[key] for key in ("content", "refusal") if table.get(key) is not None]
        entries = newer[0] if newer else _entries(**table)
        return tuple(
            TokenLogprob(*_told(entry), top=tuple(map(_told, entry.get("top_logprobs") or ())))
            for entry in entries
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise broken(name, "logprobs of an unknown shape, or no log-probabilities") from None


def _entries(tokens: Any, token_logprobs: Any, top_logprobs: Any = None, **_: Any) -> Iterator[Any]:
    """Give the columns of the older format as entries of the newer one."""
    tops = top_logprobs or [None] * len(tokens)
    for token, logprob, top in zip(tokens, token_logprobs, tops, strict=True):
        others = [{"token": other, "logprob": value} for other, value in (top or {}).items()]
        yield {"token": token, "logprob": logprob, "top_logprobs": others}


def _told(entry: dict[str, Any]) -> tuple[int, str, float]:
    # llama.cpp's server tells the id, too.
    id_, text, logprob = entry.get("id", UNKNOWN), entry["token"], entry["logprob"]
    is_id = type(id_) is int and UNKNOWN <= id_ < 2**31
    if not is_id or not isinstance(text, str) or not _is_logprob(logprob):
        raise ValueError("no token with its log-probability")
    return id_, text, float(logprob)


def _is_logprob(value: Any) -> bool:
    return type(value) in (int, float) and LEAST_LOGPROB <= value <= ROUNDING


def _spell(tokens: Sequence[str], text: str) -> bool:
    """Tell whether tokens make up a text, by the characters that all endpoints spell alike.

    There may be more of them: tokens of thinking, of the end, and others that are not shown.
    """
    told, wanted = (NO_LETTERS.sub("", BYTES.sub("", part)) for part in ("".join(tokens), text))
    rest = iter(told)
    return all(letter in rest for letter in wanted)


def _is_list_of(value: Any, kind: Any) -> bool:
    # bool is a subclass of int.
    return isinstance(value, list) and all(
        isinstance(each, kind) and not isinstance(each, bool) for each in value
    )
