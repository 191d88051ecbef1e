"""How much a client may ask for: every bound of the server, and JSON bodies read within them."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any, NoReturn

from lmwright.serving.errors import ApiError, echo

MAX_BODY_BYTES = 4 * 1024 * 1024
# A body that is too large is read on to here, so that an ordinary client gets to see the answer
# (a connection closed in the middle of an upload looks to it like a network failure).
MAX_DISCARDED_BYTES = 4 * MAX_BODY_BYTES
# How long a body may take, and how many bytes earn one second more.
BODY_TIMEOUT_S = 10.0
MIN_BODY_RATE = 128 * 1024
MAX_JSON_DEPTH = 64
MAX_JSON_KEYS = 1024  # of one object
# Objects and arrays together. Millions would be garbage for Python to search through, for seconds.
MAX_JSON_PARTS = 65_536
# Numbers, texts and the rest: a list of millions keeps Python's lock for a quarter of a second.
MAX_JSON_VALUES = 262_144

MAX_MESSAGES = 2048
MAX_PARTS = 256  # of one message
MAX_PROMPTS = 64
MAX_N = 8
MAX_ANSWERS = 64  # n times the prompts
MAX_STOPS = 16
MAX_STOP_CHARACTERS = 256
MAX_LOGPROBS = 20
# Tokens of all prompts together whose log-probabilities one request may ask for: a prompt is read
# at once, in memory that grows with its square.
MAX_SCORED_TOKENS = 4096
MAX_TOP_K = 1_000_000
# Below this the logits would overflow; 0 itself is greedy.
MIN_TEMPERATURE = 0.001
MAX_TEMPERATURE = 2.0

# Requests that have no first token yet, from before their bodies are read.
MAX_WAITING = 32
# Of those, how many with large bodies may be read or encoded, which one after another are.
LARGE_BODY_BYTES = 64 * 1024
MAX_LARGE = 8
# After a large body the next one waits so many times as long as that took: parsing keeps Python's
# lock, which the model's thread needs for each operation.
REST_OF_LARGE = 2
# A text of more characters than the context's tokens hold at most is refused before it is encoded.
# Few tokens may stand for more than this where a tokenizer drops or merges characters.
MIN_CHARACTERS_OF_LONGEST = 32
RETRY_AFTER_S = 2

MAX_CONNECTIONS = 256
# Connections that the system holds until we accept them; beyond, it makes clients try again in 1 s.
MAX_UNACCEPTED = 1024
# Open files for everything else.
N_SPARE_FILES = 64
# For the head of a request, counted from the connection's begin or the answer before it.
HEAD_TIMEOUT_S = 10.0
# For the rest of a body that was answered before it was read, and to read a last answer.
REST_TIMEOUT_S = 5.0
LINGER_S = 2.0
# Within which a client must read some of an answer that waits to be sent.
WRITE_TIMEOUT_S = 30.0
MIN_READ_BYTES = 4096
# How long answers in progress may take to finish after SIGTERM or Ctrl-C.
DRAIN_S = 30.0

# The connection is of no use after a body that was not read to its end.
CLOSE = {"Connection": "close"}

# A string, which may hold brackets; possessive and without a way to fail, so linear in time
# whatever the bytes are.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.?[^"\\]*+)*+"?', re.DOTALL)
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def is_large(content_length: str | None) -> bool:
    """Return whether a body is so large, or may be, that others must not wait for it."""
    # One that does not say how long it is may be of any size.
    digits = (content_length or "").strip()
    return not digits.isdecimal() or int(digits[:20]) > LARGE_BODY_BYTES


def retry_later() -> dict[str, str]:
    """Return the header that says when to try again."""
    return {"Retry-After": str(RETRY_AFTER_S)}


async def read_body(chunks: AsyncIterator[bytes], max_bytes: int = MAX_BODY_BYTES) -> bytes:
    """Return a request's body; 413 when it is too large, 408 when it does not come."""
    kept: list[bytes] = []
    size_bytes, allowed_s = 0, BODY_TIMEOUT_S
    try:
        started_s = asyncio.get_running_loop().time()
        async with asyncio.timeout(BODY_TIMEOUT_S) as deadline:
            async for chunk in chunks:
                size_bytes += len(chunk)
                allowed_s = BODY_TIMEOUT_S + size_bytes / MIN_BODY_RATE
                deadline.reschedule(started_s + allowed_s)
                if size_bytes <= max_bytes:
                    kept.append(chunk)
                    continue
                kept.clear()
                if size_bytes > MAX_DISCARDED_BYTES:
                    break
    except TimeoutError:
        reason = f"the request's body came too slowly: {size_bytes:,} bytes in {allowed_s:.0f} s"
        raise ApiError(reason, 408, code="request_timeout", headers=CLOSE) from None
    if size_bytes > max_bytes:
        reason = f"the request's body is larger than {max_bytes:,} bytes"
        raise ApiError(reason, 413, code="request_too_large", headers=CLOSE)
    return b"".join(kept)


def parse_json(body: bytes) -> dict[str, Any]:
    """Return the object that a body holds; refuse what other parsers would read differently."""
    n_brackets = body.count(b"[") + body.count(b"{")
    if n_brackets > MAX_JSON_DEPTH or body.count(b",") > MAX_JSON_VALUES:
        _check_shape(body)
    try:
        text = body.decode("utf-8")
        value = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_table)
        # Only an escape can smuggle half a surrogate pair into a string.
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        raise _not_json(f"{error.msg} at line {error.lineno} column {error.colno}") from None
    except UnicodeDecodeError as error:
        raise _not_json(f"byte {error.start} is not UTF-8") from None
    except UnicodeEncodeError:
        raise _not_json(r"a string holds half a surrogate pair (\ud800 to \udfff)") from None
    except ValueError:
        # int() refuses more than 4,300 digits: the time would grow with their square.
        raise _not_json("an integer has too many digits") from None
    if not isinstance(value, dict):
        raise _not_json("expected an object at the top")
    return value


def _check_shape(body: bytes) -> None:
    shape = _STRING.sub(b"", body)
    if shape.count(b",") > MAX_JSON_VALUES:
        raise _not_json(f"more than {MAX_JSON_VALUES:,} values")
    brackets = shape.translate(_ONE_KIND, _NO_BRACKETS)
    n_parts = brackets.count(b"[")
    # Each round removes the innermost level everywhere.
    for _ in range(MAX_JSON_DEPTH):
        brackets = brackets.replace(b"[]", b"")
    if brackets:
        raise _not_json(f"nested deeper than {MAX_JSON_DEPTH}, or a bracket lacks its partner")
    if n_parts > MAX_JSON_PARTS:
        raise _not_json(f"more than {MAX_JSON_PARTS:,} objects and arrays")


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_JSON_KEYS:
        raise _not_json(f"an object has more than {MAX_JSON_KEYS:,} keys")
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            raise _not_json(f"key {echo(key)!r} twice in one object")
        table[key] = value
    return table


def _refuse_constant(name: str) -> NoReturn:
    raise _not_json(f"{name} is not a JSON number")


def _not_json(reason: str) -> ApiError:
    return ApiError(f"the request's body is not valid JSON: {reason}", code="invalid_json")
