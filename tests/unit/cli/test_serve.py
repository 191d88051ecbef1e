"""What stands between a command and an open port must be right before the port is open."""

from pathlib import Path
from typing import Any

import pytest

from lmwright import cli
from lmwright.engine.torch.kernels import CACHES
from lmwright.serving import app


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What would be served, each time."""
    for name in CACHES:  # so that what the command sets is gone afterwards
        monkeypatch.setenv(name, "1024")
    served: list[dict[str, Any]] = []
    monkeypatch.setattr(
        app, "serve", lambda model, **options: served.append({"model": model.name, **options})
    )
    return served


def test_a_model_is_served_under_its_name_or_another(
    tiny_folder: Path, listening: list[dict[str, Any]], tmp_path: Path
) -> None:
    key_file = tmp_path / "api.key"
    key_file.write_text("  sk-secret\n")
    address = {"host": "127.0.0.2", "port": 0}
    words = ["serve", str(tiny_folder), "--host", "127.0.0.2", "--port", "0"]
    assert cli.main(words) == 0
    assert cli.main([*words, "--name", "my bot", "--key-file", str(key_file)]) == 0
    assert listening == [
        {"model": str(tiny_folder), **address, "api_key": None},
        {"model": "my bot", **address, "api_key": "sk-secret"},
    ]


@pytest.mark.parametrize("name", ["", "  ", "two\nlines", "x" * 201])
def test_a_name_that_no_client_could_ask_for_is_refused(
    name: str, listening: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["serve", "starter", "--name", name]) == 2
    assert "--name" in capsys.readouterr().err
    assert not listening


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "not text"),
        (b"x" * 10_000, "too large"),
        (b"schl\xc3\xbcssel", "not text"),
    ],
)
def test_a_file_that_holds_no_key_is_refused(
    content: bytes,
    message: str,
    tmp_path: Path,
    listening: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    key_file = tmp_path / "api.key"
    key_file.write_bytes(content)
    assert cli.main(["serve", "starter", "--key-file", str(key_file)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert str(key_file) in error
    assert not listening
