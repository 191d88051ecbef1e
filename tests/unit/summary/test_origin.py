"""A licence that is guessed, or a wrong ancestor, harms whoever ships the model."""

import json
from pathlib import Path
from typing import Any

import pytest

from lmwright.summary.origin import history, is_starter_file, origin, read_card, stated_licence


def step(run: Path, name: str, **config: Any) -> Path:
    """Write a finished step as a run does; return its model's folder."""
    folder = run / name
    (folder / "model").mkdir(parents=True)
    identity = {"name": name, "stage": "compress", "config": config, "hash": f"{name}-hash"}
    lineage = {"time": "2026-01-02T03:04:05+00:00", "versions": {"lmwright": "0.1.0"}}
    (folder / "step.json").write_text(json.dumps({"hash": f"{name}-hash"}), encoding="utf-8")
    result = {"step": identity, "lineage": lineage}
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return folder / "model"


def test_the_steps_are_followed_back_to_the_base(tmp_path: Path) -> None:
    step(tmp_path, "tuned", model="starter", method="lora")
    path = step(tmp_path, "int4", model="tuned", method="int4")
    base, steps = history(path)
    assert base == "starter"
    assert [made.name for made in steps] == ["tuned", "int4"]
    last = steps[-1]
    assert (last.hash, last.time, last.version) == (
        "int4-hash", "2026-01-02T03:04:05+00:00", "0.1.0"
    )  # fmt: skip
    found = origin(path, {})
    assert (found.licence, found.licence_source) == (
        "apache-2.0", "of the starter, which it was made from"
    )  # fmt: skip


def test_a_base_whose_folder_is_gone_ends_the_story(tmp_path: Path) -> None:
    path = step(tmp_path, "int4", model="hub:org/name")
    base, steps = history(path)
    assert (base, len(steps)) == ("hub:org/name", 1)
    assert origin(path, {}).licence is None


def test_steps_that_name_each_other_do_not_go_on_for_ever(tmp_path: Path) -> None:
    step(tmp_path, "a", model="b")
    path = step(tmp_path, "b", model="a")
    assert [made.name for made in history(path)[1]] == ["a", "b"]


def test_a_plain_folder_has_no_steps(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "result.json").write_text("[]", encoding="utf-8")
    (tmp_path / "step.json").write_text("{}", encoding="utf-8")
    assert history(tmp_path / "model") == (None, ())
    assert history(tmp_path / "other.gguf") == (None, ())


@pytest.mark.parametrize(
    ("metadata", "card", "files", "expected"),
    [
        ({}, {}, {}, (None, None)),
        ({"general.license": "mit"}, {"license": "gpl"}, {}, ("mit", "general.license")),
        ({"general.license": ""}, {"license": "gpl"}, {}, ("gpl", "README.md")),
        ({}, {"license": "other", "license_name": "qwen"}, {}, ("qwen", "README.md")),
        ({}, {"license": "other"}, {}, (None, None)),
        ({}, {}, {"LICENSE": "\n  MIT License\n\nCopyright"}, ("MIT License", "LICENSE")),
        (
            {},
            {"license": "other"},
            {"LICENSE.txt": "   Apache License\n  Version 2.0, January 2004\n"},
            ("Apache License, Version 2.0, January 2004", "LICENSE.txt"),
        ),
        ({}, {"license": ["mit"]}, {"LICENSE": ""}, (None, None)),
    ],
)
def test_only_a_licence_that_is_stated_is_told(
    metadata: dict[str, Any],
    card: dict[str, Any],
    files: dict[str, str],
    expected: tuple[str | None, str | None],
    tmp_path: Path,
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert stated_licence(tmp_path, metadata, card) == expected


def test_a_model_card_is_read(tmp_path: Path) -> None:
    text = "---\nlicense: mit\nlanguage:\n- en\n- de\ntags: [a, b]\n---\n# Model\n"
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    found = origin(tmp_path, {})
    assert (found.licence, found.licence_source) == ("mit", "README.md")
    assert (found.languages, found.tags) == (("en", "de"), ("a", "b"))


def test_a_card_that_cannot_be_read_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: [\n---\n", encoding="utf-8")
    assert read_card(tmp_path / "README.md") == {}
    assert "front matter cannot be read" in caplog.text
    assert read_card(tmp_path / "none.md") == {}


def test_a_gguf_speaks_for_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(b"")
    metadata = {"general.name": "A", "general.languages": ["en", 3], "general.tags": ["t"]}
    found = origin(path, metadata)
    assert (found.title, found.languages, found.tags) == ("A", ("en",), ("t",))
    assert found.sha256 is None


def test_a_hash_is_told_for_the_checked_starter_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMWRIGHT_HOME", str(tmp_path))
    path = tmp_path / "starter" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    path.parent.mkdir()
    path.write_bytes(b"other bytes")
    assert not is_starter_file(path)
