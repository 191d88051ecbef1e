"""What a model says at a terminal is text: it must not move the cursor or set the title."""

import pytest

from lmwright.cli.models import visible


def test_a_terminal_gets_no_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "a\x1b]0;title\x07\x9b2J\r\n\tb caf\u00e9"
    assert visible(said) == said
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert visible(said) == "a\ufffd]0;title\ufffd\ufffd2J\ufffd\n\tb caf\u00e9"
