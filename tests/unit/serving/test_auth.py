"""A server on a laptop is reachable by every web page its owner opens, but for these checks."""

import logging
from typing import Any

import pytest

from lmwright.serving.auth import is_local

KEY = "sk-secret"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("192.168.1.2", False),
        ("localhost.evil.example", False),
    ],
)
def test_only_loopback_is_local(host: str, expected: bool) -> None:
    assert is_local(host) is expected


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8000", 200),
        ("127.0.0.1:1", 200),
        ("127.0.0.2", 200),
        ("127.0.0.2:8000", 200),
        ("[::1]:8000", 200),
        ("[::1]", 200),
        ("192.168.1.2", 403),
        ("0.0.0.0:8000", 403),
        ("::1", 403),
        ("[127.0.0.1]", 403),
        ("[::1", 403),
        ("evil.example", 403),
        ("evil.example:8000", 403),
        ("localhost.evil.example", 403),
        ("localhost:evil", 403),
        ("127.0.0.1.evil.example:80", 403),
        ("", 403),
    ],
)
def test_a_rebound_name_is_refused(ask: Any, host: str, status: int) -> None:
    response = ask("GET", "/v1/models", headers={"Host": host})
    assert response.status_code == status
    if status == 403:
        assert response.json()["error"]["code"] == "invalid_host"


def test_two_host_headers_are_refused(ask: Any) -> None:
    twice = [("Host", "localhost"), ("Host", "evil.example")]
    assert ask("GET", "/v1/models", headers=twice).status_code == 403


def test_a_public_server_answers_to_any_name_but_wants_the_key(ask: Any) -> None:
    app = {"api_key": KEY, "is_public": True}
    headers = {"Host": "lm.example", "Authorization": f"Bearer {KEY}"}
    assert ask("GET", "/v1/models", app=app, headers=headers).status_code == 200
    assert ask("GET", "/v1/models", app=app, headers={"Host": "lm.example"}).status_code == 401


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        KEY,
        "Bearer",
        "Bearer ",
        f"Basic {KEY}",
        f"Bearer {KEY[:-1]}",
        f"Bearer {KEY}x",
        f"Bearer {KEY.upper()}",
        "Bearer " + "x" * 10_000,
        b"Bearer \xff\xfe",
    ],
)
def test_a_wrong_key_is_401(ask: Any, authorization: str | bytes | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    # Unknown URLs too: a stranger learns nothing.
    for path in ("/v1/models", "/v1/nothing"):
        response = ask("GET", path, app={"api_key": KEY}, headers=headers)
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "invalid_api_key"
        assert response.headers["www-authenticate"] == "Bearer"


def test_two_keys_are_refused(ask: Any) -> None:
    twice = [("Authorization", f"Bearer {KEY}"), ("Authorization", "Bearer x")]
    assert ask("GET", "/v1/models", app={"api_key": KEY}, headers=twice).status_code == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_the_right_key_opens(ask: Any, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {KEY}"}
    assert ask("GET", "/v1/models", app={"api_key": KEY}, headers=headers).status_code == 200


def test_health_needs_no_key(ask: Any) -> None:
    assert ask("GET", "/health", app={"api_key": KEY}).status_code == 200


def test_the_log_tells_no_key_no_query_and_no_control_characters(
    ask: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="lmwright")
    headers = {"Authorization": f"Bearer {KEY}"}
    ask("GET", "/v1/x%0d%0aroot?key=SECRET", app={"api_key": KEY}, headers=headers)
    assert "GET /v1/x\\r\\nroot -> 404" in caplog.text
    assert KEY not in caplog.text
    assert "SECRET" not in caplog.text
