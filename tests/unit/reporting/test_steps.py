"""What a run has done must be told from its files alone, and never wrongly."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lmwright.core.errors import StateError
from lmwright.reporting.steps import read_run, read_step


@pytest.fixture
def run_folder(finished_run: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(finished_run, tmp_path / "support"))


def change(path: Path, **values: Any) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(data | values), encoding="utf-8")


def test_steps_stand_in_the_order_of_the_work_with_their_state(run_folder: Path) -> None:
    change(run_folder / "int4" / "result.json", hash="of other settings")
    (run_folder / "card" / "result.json").unlink()
    (run_folder / "card" / "step.json").write_text("{}", encoding="utf-8")
    run = read_run(run_folder)
    assert {step.name: step.state for step in run.steps} == {
        "dialogues": "done", "tuned": "done", "int8": "done", "int4": "made with other settings",
        "card": "begun", "gate": "done", "report": "to do",
    }  # fmt: skip
    assert [step.name for step in run.steps][:3] == ["dialogues", "tuned", "int8"]
    assert run.steps[3].result == {}


def test_a_step_that_is_made_anew_beside_the_old_one_is_begun(run_folder: Path) -> None:
    hash_ = read_step(run_folder / "int4").hash
    change(run_folder / "int4" / "result.json", hash="of other settings")
    part = run_folder / ".part" / "int4"
    part.mkdir(parents=True)
    for begun, state in ((hash_, "begun"), ("another", "made with other settings")):
        (part / "step.json").write_text(json.dumps({"hash": begun}), encoding="utf-8")
        assert read_step(run_folder / "int4").state == state


def test_a_lock_without_an_order_is_read_as_it_stands(run_folder: Path) -> None:
    lock = json.loads((run_folder / "recipe.lock.json").read_text(encoding="utf-8"))
    del lock["order"]
    (run_folder / "recipe.lock.json").write_text(json.dumps(lock), encoding="utf-8")
    assert [step.name for step in read_run(run_folder).steps] == list(lock["steps"])


def test_settings_leave_out_names_and_write_numbers_shortly(run_folder: Path) -> None:
    step = read_step(run_folder / "tuned")
    assert step.settings == "method = lora, rank = 16, lr = 0.001"
    assert step.notes == ("trained for 180 optimiser steps; that is enough.",)
    assert step.seconds == pytest.approx(32.7)


def test_a_step_that_lies_alone_tells_of_itself(run_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(run_folder / "gate", tmp_path / "alone" / "gate")
    step = read_step(tmp_path / "alone" / "gate")
    assert (step.makes, step.state) == ("gate", "done")


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 5}, {"steps": {"tuned": 5}}, {"steps": {"tuned": {}}}, {"order": ["tuned"]},
        {"order": 5}, {"lineage": 5}, {"lineage": {"time": 5}},
    ],
)  # fmt: skip
def test_a_damaged_lock_is_named(run_folder: Path, changes: dict[str, Any]) -> None:
    change(run_folder / "recipe.lock.json", **changes)
    with pytest.raises(StateError, match=r"recipe\.lock\.json: is damaged.*run its recipe again"):
        read_run(run_folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"hash": 5}, {"seconds": "long"}, {"notes": "one"}, {"notes": [5]}, {"lineage": []},
        {"lineage": {"versions": 5}}, {"lineage": {"hardware": 5}},
    ],
)  # fmt: skip
def test_a_damaged_result_is_named(run_folder: Path, changes: dict[str, Any]) -> None:
    change(run_folder / "tuned" / "result.json", **changes)
    if "hash" in changes:
        assert read_step(run_folder / "tuned").state == "made with other settings"
        return
    with pytest.raises(StateError, match=r"tuned/result\.json: is damaged.*--from tuned"):
        read_run(run_folder)
