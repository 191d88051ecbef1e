"""Removing a model must free its disk, and nothing that belongs to another."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fake_hub import COMMIT, WEIGHTS, HubServer, environment, fake_hub
from lmwright import hub

PROGRAM = """
import contextlib, io, json, sys
from lmwright.cli import main
done = []
for arguments in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    done.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(done))
"""


@pytest.fixture(scope="module")
def server() -> Iterator[HubServer]:
    with fake_hub() as server:
        yield server


class Shell:
    """Runs verbs in a process of its own, with caches of its own."""

    def __init__(self, server: HubServer, home: Path) -> None:
        self.home = home
        self._environment = environment(server.url, home / "hf")
        self._environment["LMWRIGHT_HOME"] = str(home / "lmwright")

    def __call__(self, *commands: str) -> list[tuple[int, str, str]]:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, json.dumps([each.split() for each in commands])],
            env=self._environment,
            input="",
            text=True,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return [(code, out, err) for code, out, err in json.loads(done.stdout)]

    def ok(self, *commands: str) -> list[str]:
        found = self(*commands)
        assert [code for code, _, _ in found] == [0] * len(commands), found
        return [out for _, out, _ in found]

    def files(self) -> set[str]:
        hub_cache = self.home / "hf" / "hub"
        return {p.name for p in hub_cache.rglob("snapshots/**/*") if not p.is_dir()}

    def size_bytes(self) -> int:
        files = [p for p in self.home.rglob("*") if p.is_file() and not p.is_symlink()]
        return sum(p.stat().st_size for p in files)


@pytest.fixture
def shell(server: HubServer, tmp_path: Path) -> Shell:
    return Shell(server, tmp_path)


def names(listed: str) -> list[str]:
    return [each["model"] for each in json.loads(listed)]


def test_models_are_pulled_listed_and_removed(shell: Shell, server: HubServer) -> None:
    first, *others = shell(
        "models pull hub:org/tiny@v1 --json", "models list --json", "models list"
    )
    (_, out, progress), (listed, table) = first, [out for _, out, _ in others]
    pulled = json.loads(out)
    assert pulled["model"] == "hub:org/tiny@v1"
    assert pulled["size_bytes"] > len(WEIGHTS)
    assert Path(pulled["path"], "model.safetensors").read_bytes() == WEIGHTS
    # The progress goes where it does not mix with the JSON.
    assert "%" in progress
    (model,) = json.loads(listed)
    assert (model["model"], model["revision"]) == ("hub:org/tiny@v1", COMMIT)
    assert model["size_bytes"] == pulled["size_bytes"]
    assert model["used"].startswith("20")
    heading, _, row = table.splitlines()
    assert heading.split() == ["model", "revision", "size", "used"]
    assert row.split()[:4] == ["hub:org/tiny@v1", "a" * 20, "0.01", "GB"]
    before = shell.size_bytes()
    (code, out, err), (_, after, _) = shell("models rm hub:org/tiny@v1 --yes", "models list --json")
    assert (code, out) == (0, "hub:org/tiny@v1: removed\n")
    assert "frees 0.01 GB by removing\n" in err
    assert "models--org--tiny" in err
    assert json.loads(after) == []
    assert before - shell.size_bytes() > len(WEIGHTS)


def test_one_of_several_ggufs_goes_alone(shell: Shell) -> None:
    pulls = [f"models pull hub:org/ggufs:{name}" for name in ("Q8_0", "Q4_K_M")]
    *_, listed, removed, after = shell.ok(
        *pulls, "models list --json", "models rm hub:org/ggufs:Q8_0 --yes --json",
        "models list --json",
    )  # fmt: skip
    assert names(listed) == ["hub:org/ggufs:Q4_K_M", "hub:org/ggufs:Q8_0"]
    assert json.loads(removed)["freed_bytes"] == len(WEIGHTS)
    assert names(after) == ["hub:org/ggufs:Q4_K_M"]
    assert shell.files() == {"tiny-Q4_K_M.gguf"}
    # The last one takes the rest with it.
    shell.ok("models rm hub:org/ggufs:Q4_K_M --yes")
    assert not list((shell.home / "hf" / "hub").glob("models--*"))


def test_a_folder_and_a_gguf_of_one_repository_are_two_models(shell: Shell) -> None:
    *_, listed, _ = shell.ok(
        "models pull hub:org/both", "models pull hub:org/both:Q8_0", "models list --json",
        "models rm hub:org/both --yes",
    )  # fmt: skip
    assert names(listed) == ["hub:org/both", "hub:org/both:q8_0"]
    assert shell.files() == {"both-q8_0.gguf"}


def test_a_name_that_is_not_exact_removes_nothing(shell: Shell) -> None:
    shell.ok("models pull hub:org/ggufs:Q8_0", "models pull hub:org/tiny@v1")
    before = shell.files()
    messages = {
        "tiny": "no stored model has just this name; name one: hub:org/tiny@v1",
        "org/ggufs": "name one: hub:org/ggufs:Q8_0",
        "hub:org/tiny": "name one: hub:org/tiny@v1",
        "hub:org/gguf": "name one: hub:org/ggufs:Q8_0",
        "starter": "no such model in the caches; known: hub:org/ggufs:Q8_0, hub:org/tiny@v1",
        "../..": "no such model in the caches",
        ".": "no such model",
        "/": "no stored model has just this name",
    }
    *found, (code, _, err) = shell(
        *(f"models rm {name} --yes" for name in messages), "models rm hub:org/tiny@v1"
    )
    for (name, message), (status, out, said) in zip(messages.items(), found, strict=True):
        assert (status, out) == (2, ""), name
        assert message in said, (name, said)
    assert code == 2
    assert "nothing removed; say --yes where nobody can be asked" in err
    assert shell.files() == before


def test_data_sets_and_strangers_are_neither_listed_nor_removed(shell: Shell) -> None:
    stranger = shell.home / "hf" / "hub" / "models--mine" / "notes.txt"
    stranger.parent.mkdir(parents=True)
    stranger.write_text("mine")
    data = "from lmwright import hub; hub.fetch('hub:org/tiny', 'dataset')"
    subprocess.run([sys.executable, "-c", data], env=shell._environment, check=True)
    (listed,) = shell.ok("models list --json")
    assert json.loads(listed) == []
    ((code, _, _),) = shell("models rm hub:org/tiny --yes")
    assert code == 2
    assert "train.jsonl" in shell.files()
    assert stranger.read_text() == "mine"


def test_what_cannot_be_pulled_says_why(shell: Shell) -> None:
    gated, missing, revision, local, huge = shell(
        "models pull hub:org/gated", "models pull hub:org/none", "models pull hub:org/tiny@v9",
        "models pull ./folder", "models pull hub:org/huge",
    )  # fmt: skip
    assert {code for code, _, _ in (gated, missing, revision, local, huge)} == {2}
    assert "access is restricted" in gated[2]
    assert "no such repository" in missing[2]
    assert "no revision 'v9'" in revision[2]
    assert "expected starter or hub:ORG/NAME" in local[2]
    assert "GB left" in huge[2]


def test_the_starter_is_listed_and_removed_with_its_marker_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from lmwright import cli
    from lmwright.hub import stored

    monkeypatch.setenv("LMWRIGHT_HOME", str(tmp_path))
    monkeypatch.setattr(stored, "_of_hub", lambda: iter(()))
    assert cli.main(["models", "list"]) == 0
    assert capsys.readouterr().out == (
        "no models in the caches; fetch one: lmwright models pull starter\n"
    )
    folder = tmp_path / "starter"
    folder.mkdir()
    for name in (hub.STARTER_FILE, f"{hub.STARTER_FILE}.verified.json", "mine.gguf"):
        (folder / name).write_text("x")
    assert cli.main(["models", "list", "--json"]) == 0
    (model,) = json.loads(capsys.readouterr().out)
    assert (model["model"], model["revision"]) == ("starter", hub.STARTER_WHEEL)
    assert cli.main(["models", "rm", "starter", "--yes"]) == 0
    assert {path.name for path in folder.iterdir()} - {".lock"} == {"mine.gguf"}


def test_a_terminal_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    import typer

    from lmwright import cli

    monkeypatch.setenv("LMWRIGHT_HOME", str(tmp_path))
    (tmp_path / "starter").mkdir()
    path = tmp_path / "starter" / hub.STARTER_FILE
    path.write_text("x")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    for answer in (False, True):
        monkeypatch.setattr(typer, "confirm", lambda *_, answer=answer, **__: answer)
        assert cli.main(["models", "rm", "starter"]) == (0 if answer else 2)
        assert path.exists() is not answer
    assert str(path) in capsys.readouterr().err
