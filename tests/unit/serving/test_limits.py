"""Bodies are the first thing a stranger can choose freely: each must be read or refused quickly."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmwright.serving import limits
from lmwright.serving.errors import ApiError

MIB = 1024 * 1024


def read(chunks: Iterable[bytes]) -> bytes:
    async def arrive() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    return asyncio.run(limits.read_body(arrive()))


def test_a_body_of_just_the_limit_is_read() -> None:
    assert read([b"x" * MIB] * 4) == b"x" * limits.MAX_BODY_BYTES


def test_one_byte_more_is_413() -> None:
    with pytest.raises(ApiError) as caught:
        read([b"x" * limits.MAX_BODY_BYTES, b"x"])
    assert caught.value.status == 413


def test_an_endless_body_is_not_read_to_its_end() -> None:
    n_sent = 0

    def endless() -> Iterable[bytes]:
        nonlocal n_sent
        while True:
            n_sent += 1
            yield b"x" * MIB

    with pytest.raises(ApiError) as caught:
        read(endless())
    assert caught.value.status == 413
    assert n_sent == limits.MAX_DISCARDED_BYTES // MIB + 1


def test_a_body_that_does_not_come_is_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_TIMEOUT_S", 0.01)

    async def stuck() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(60)

    with pytest.raises(ApiError) as caught:
        asyncio.run(limits.read_body(stuck()))
    assert caught.value.status == 408


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "Expecting value at line 1 column 1"),
        (b'{"a": 1', "Expecting ',' delimiter"),
        (b'{"a": 1} {}', "Extra data"),
        (b"[1]", "expected an object at the top"),
        (b'"text"', "expected an object at the top"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b'{"a": "\xff"}', "byte 7 is not UTF-8"),
        (b'{"a": "\xed\xa0\x80"}', "byte 7 is not UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "byte 0 is not UTF-8"),
        (rb'{"a": ["\ud800"]}', "half a surrogate pair"),
        (rb'{"\udfff": 1}', "half a surrogate pair"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": [-Infinity]}', "-Infinity is not a JSON number"),
        (b'{"a": 1, "b": 2, "a": 3}', "key 'a' twice"),
        (b'{"a": ' + b"1" * 5000 + b"}", "too many digits"),
        (b'{"a": ' + b"[" * 3_000, "nested deeper than 64"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested deeper than 64"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested deeper than 64"),
        (b'{"a": [' + b"[]," * 65_536 + b"0]}", "more than 65,536 objects and arrays"),
        (b'{"a": [' + b"1," * 262_145 + b"1]}", "more than 262,144 values"),
        (b"{" + b",".join(b'"%d":0' % i for i in range(200_000)) + b"}", "more than 1,024 keys"),
    ],
)
def test_what_is_no_plain_json_object_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(ApiError, match="not valid JSON") as caught:
        limits.parse_json(body)
    assert message in str(caught.value)
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")


def test_depth_is_counted_outside_strings_and_not_summed_over_siblings() -> None:
    body = b'{"a": [' + b"[]," * 1000 + b'"' + rb"[\"[{\\" * 1000 + b'"]}'
    assert limits.parse_json(body) == json.loads(body)


def test_just_the_deepest_nesting_is_read() -> None:
    nested = b'{"a": ' + b"[" * 63 + b"]" * 63 + b"}"
    assert limits.parse_json(nested) == json.loads(nested)
    with pytest.raises(ApiError):
        limits.parse_json(nested.replace(b"[]", b"[[]]"))


def test_brackets_and_commas_in_strings_are_no_values() -> None:
    body = b'{"a": "' + b"[{,,,," * 100_000 + b'"}'
    assert limits.parse_json(body) == json.loads(body)


@pytest.mark.parametrize(
    ("content_length", "expected"),
    [("0", False), ("65536", False), (" 7 ", False), ("65537", True), ("9" * 5000, True),
     (None, True), ("", True), ("-1", True), ("1e3", True)],
)  # fmt: skip
def test_a_body_is_large_unless_it_says_that_it_is_small(
    content_length: str | None, expected: bool
) -> None:
    assert limits.is_large(content_length) is expected


def test_a_body_that_trickles_is_408_and_one_that_flows_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "BODY_TIMEOUT_S", 0.1)
    monkeypatch.setattr(limits, "MIN_BODY_RATE", 1000)

    async def arrive(size: int) -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * size
            await asyncio.sleep(0.02)

    assert len(asyncio.run(limits.read_body(arrive(100)))) == 2000
    with pytest.raises(ApiError) as caught:
        asyncio.run(limits.read_body(arrive(1)))
    assert caught.value.status == 408


def test_whole_surrogate_pairs_are_text() -> None:
    assert limits.parse_json(rb'{"a": "\ud83d\ude00"}') == {"a": "\U0001f600"}


@pytest.mark.parametrize(
    "body",
    [
        b'"' + b'\\"' * (2 * MIB - 1) + b"[" * 65,  # an unterminated string
        b'{"a": [' + b"[]," * MIB + b"0]}",
        b'{"a": "' + b"\\\\" * MIB + b'", "b": [' + b"[]," * 65 + b"0]}",
    ],
)
def test_reading_takes_linear_time(body: bytes) -> None:
    started_s = time.thread_time()
    with contextlib.suppress(ApiError):
        limits.parse_json(body)
    # 4 MB; a scan in quadratic time would take hours.
    assert time.thread_time() - started_s < 5


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # Surrogates (Cs) are no text.
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text('ab[]{}"\\', max_size=5), inner),
    max_leaves=10,
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text('ab[]{}"\\', max_size=5), json_values), st.booleans())
def test_every_ordinary_object_is_read_as_it_is(value: dict[str, object], is_ascii: bool) -> None:
    assert limits.parse_json(json.dumps(value, ensure_ascii=is_ascii).encode()) == value


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_give_an_object_or_the_one_error(body: bytes) -> None:
    # Anything but an ApiError would be a 500.
    with contextlib.suppress(ApiError):
        assert isinstance(limits.parse_json(body), dict)
