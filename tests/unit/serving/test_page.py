"""The page runs in a browser beside others: it must load nothing, and be framed by nobody."""

import re
from importlib.resources import files
from typing import Any

import pytest

from fakes import fake_model

STATIC = files("lmwright.serving") / "static"
PATHS = {"/": "text/html", "/chat.css": "text/css", "/chat.js": "text/javascript"}


@pytest.mark.parametrize(("path", "media_type"), PATHS.items())
def test_the_page_needs_no_key_and_allows_nothing_foreign(
    ask: Any, path: str, media_type: str
) -> None:
    answer = ask("GET", path, app={"api_key": "sk-secret"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == f"{media_type}; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "access-control-allow-origin" not in answer.headers
    assert ask("GET", path, headers={"Host": "evil.example"}).status_code == 403
    # What the page asks needs the key.
    assert ask("GET", "/v1/models", app={"api_key": "sk-secret"}).status_code == 401


def test_it_names_no_other_address_and_sets_no_html() -> None:
    page, style, script = (
        (STATIC / name).read_text(encoding="utf-8") for name in ("chat.html", "chat.css", "chat.js")
    )
    for text in (page, style, script):
        assert "//" not in re.sub(r"^\s*//.*$| // .*$", "", text, flags=re.MULTILINE)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script)
    # The policy forbids them: handlers, styles and scripts in the page itself.
    assert not re.search(r"<[^>]+\s(on\w+|style)=|<style|<script>", page)
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert sorted(loaded) == ["chat.css", "chat.js", "data:,"]


def test_a_model_says_what_the_page_can_do_with_it(ask: Any) -> None:
    can = {
        "chat": fake_model(),
        "no template": fake_model(can_chat=False),
        "encoder": fake_model(kind="encoder", can_chat=False),
    }
    found = {
        name: ask("GET", "/v1/models", served=model).json()["data"][0]["capabilities"]
        for name, model in can.items()
    }
    assert found == {
        "chat": ["chat", "embed", "generate", "score"],
        "no template": ["embed", "generate", "score"],
        "encoder": ["embed"],
    }
