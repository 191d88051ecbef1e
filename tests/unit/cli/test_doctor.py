"""Somebody who is stuck reads these lines first: a fault must show, and with a remedy."""

import sys
from pathlib import Path

import pytest

from lmwright.cli import doctor
from lmwright.cli.doctor import MachineCheck, examine


def checks(recipe: Path | None = None) -> dict[str, MachineCheck]:
    return {check.name: check for check in examine(recipe)}


def test_everything_is_looked_at_and_what_is_not_ok_has_a_remedy() -> None:
    found = checks()
    assert list(found) == [
        "python", "cpu", "memory", "disk", "cache", "starter", "torch", "device"
    ]  # fmt: skip
    assert all(check.status == "ok" or check.remedy for check in found.values())


def test_a_cache_that_cannot_be_written_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("LMWRIGHT_HOME", str(tmp_path / "file" / "cache"))
    found = checks()
    assert found["cache"].status == "fail"
    assert "LMWRIGHT_HOME" in found["cache"].remedy
    assert found["starter"].status == "warn"


def test_threads_that_are_held_back_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "n_cores", lambda: 4)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert checks()["cpu"].status == "warn"


def test_too_little_memory_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "MEMORY_BYTES", 10**18)
    assert checks()["memory"].status == "warn"


def test_a_recipe_is_checked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "r.toml"
    recipe.write_text('name = "r"\n[data.d]\nsource = "starter:bank-support"\n', encoding="utf-8")
    assert "1 steps to do" in checks(recipe)["recipe"].found
    recipe.write_text('name = "r"\n[data.d]\nsource = "nothing.jsonl"\n', encoding="utf-8")
    assert checks(recipe)["recipe"].status == "fail"
    assert list(tmp_path.iterdir()) == [recipe]


def test_libraries_that_a_recipe_needs_are_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "r.toml"
    recipe.write_text('name = "r"\n[evaluate.card]\nmodels = ["starter"]\n', encoding="utf-8")
    assert "scipy" not in checks(recipe)
    monkeypatch.setitem(sys.modules, "scipy", None)
    missing = checks(recipe)["scipy"]
    assert (missing.status, missing.remedy) == ("fail", "pip install 'lmwright[evaluate]'")
    assert "[evaluate.card]" in missing.found
