"""`show` is where people look after a run: what came out, where it is, and what to do next."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lmwright import cli


@pytest.fixture
def run_folder(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy that a test may change, below the current folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished_run, tmp_path / "runs" / "support")
    return Path("runs/support")


def shown(what: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(["show", str(what)]) == 0
    return capsys.readouterr().out


def change(path: Path, **values: Any) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(data | values), encoding="utf-8")


def test_a_run_is_a_page(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run_folder / "report").mkdir()
    (run_folder / "report" / "report.html").write_text("page", encoding="utf-8")
    text = shown(run_folder, capsys)
    steps = text[text.index("\nstep ") : text.index("Evaluation (quick)")]
    order = ["dialogues", "tuned", "int8", "int4", "card", "gate", "report"]
    assert [line.split()[0] for line in steps.splitlines()[3:] if line] == order
    assert "590 samples, 30 to validate, 60 questions" in steps
    assert "Answer accuracy, held-out questions" in text
    assert "gate for int8 against tuned:" in text
    assert "  tuned  trained for 180 optimiser steps; that is enough." in text
    assert "{" not in text
    assert "lmwright run runs/support/recipe.toml --out runs/support" in text
    assert cli.main(["show", str(run_folder), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["steps"]["tuned"]["state"] == "done"
    assert data["steps"]["report"]["is_done"] is False


def test_a_finished_run_says_what_to_do_with_its_model(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = json.loads((run_folder / "recipe.lock.json").read_text(encoding="utf-8"))
    step = lock["steps"]["report"]
    (run_folder / "report").mkdir()
    for name, text in (("result.json", json.dumps({"hash": step["hash"]})), ("report.html", "x")):
        (run_folder / "report" / name).write_text(text, encoding="utf-8")
    text = shown(run_folder, capsys)
    assert "report     runs/support/report/report.html" in text
    assert text.rstrip().splitlines()[-3] == "  lmwright chat runs/support/int8"


def test_a_data_step_shows_dialogues(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(run_folder / "dialogues", capsys)
    assert text.count("\nsample ") == 3
    assert "  user       What is the fee?\n  assistant  8 euros." in text
    assert "  right  8 euros" in text
    assert "source = starter:bank-support" in text


def test_an_evaluation_a_gate_and_a_report_are_shown_by_what_they_are(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "Multiple choice, general" in shown(run_folder / "card", capsys)
    gate = shown(run_folder / "gate", capsys)
    assert gate.startswith("gate for int8 against tuned:")
    assert "gate, gate, done" in gate


def test_what_no_page_knows_is_shown_as_names_and_values(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(run_folder / "recipe.lock.json", order=["gate"], steps={"gate": {
        "stage": "count", "title": "Counting", "makes": "counts", "relation": None, "parents": [],
        "config": {}, "inputs": {}, "hash": "h",
    }})  # fmt: skip
    (run_folder / "gate" / "result.json").write_text('{"hash": "h", "n": 7}', encoding="utf-8")
    assert "n                      7" in shown(run_folder / "gate", capsys)


RUN_FILES = ("recipe.lock.json", "card/result.json", "gate/result.json", "dialogues/result.json")
DAMAGES: list[tuple[str, Any]] = [
    *((file, damage) for file in RUN_FILES for damage in (b"", b"\xff", b"{", b"[]", b"{}")),
    ("recipe.lock.json", {"steps": {"tuned": []}}),
    ("recipe.lock.json", {"lineage": {"versions": []}}),
    ("gate/result.json", {"rules": [{}]}),
    ("gate/result.json", {"rules": 5, "passed": "perhaps"}),
    ("card/result.json", {"metrics": {}}),
    ("card/result.json", {"models": []}),
    ("card/result.json", {"metrics": {"starter": {"qa_accuracy": {"value": 1}}}}),
    ("card/result.json", {"facts_of_models": {"starter": {"size_bytes": "large"}}}),
    ("card/result.json", {"comparisons": [5]}),
    ("dialogues/result.json", {"n_train": "many"}),
    ("dialogues/result.json", {"seconds": []}),
]


@pytest.mark.parametrize(("file", "damage"), DAMAGES)
def test_a_damaged_file_is_one_sentence_that_names_it(
    run_folder: Path, file: str, damage: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run_folder / file
    if isinstance(damage, bytes):
        path.write_bytes(damage)
    else:
        change(path, **damage)
    for what in (run_folder, path.parent):
        assert cli.main(["show", str(what)]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert len(err.splitlines()) == 1
        assert file in err
        assert "again" in err or "--from" in err


@pytest.mark.parametrize("file", ["train.jsonl", "questions.jsonl"])
@pytest.mark.parametrize("damage", ["{", "[]", "{}", '{"id": 1, "messages": [{}]}'])
def test_a_damaged_data_file_is_named(
    run_folder: Path, file: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (run_folder / "dialogues" / file).write_text(damage, encoding="utf-8")
    assert cli.main(["show", str(run_folder / "dialogues")]) == 1
    err = capsys.readouterr().err
    assert f"{file}: is damaged" in err
    # Running the recipe again would take the step for done.
    assert "redo that step (--from dialogues)" in err
