"""Errors repeat what a client sent; they must not let it write into a log or grow without end."""

import pytest

from lmwright.serving.errors import ApiError, echo


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("temperature", "temperature"),
        ("\u00fcber", "\u00fcber"),
        ("a\r\nSet-Cookie: b\x1b[2J", "a\\r\\nSet-Cookie: b\\x1b[2J"),
        ("\u202e\u2028", "\\u202e\\u2028"),
        ("x" * 1_000_000, "x" * 100 + "..."),
    ],
)
def test_echo_is_short_and_printable(text: str, shown: str) -> None:
    assert echo(text) == shown


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (404, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "server_error"),
    ],
)
def test_an_error_has_openais_shape(status: int, kind: str) -> None:
    error = ApiError("no", status, param="p", code="c")
    expected = {"error": {"message": "no", "type": kind, "param": "p", "code": "c"}}
    assert error.to_json() == expected
