"""Tab after `lmwright chat` must offer what is there, at once, and never fail aloud."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import lmwright
from lmwright.cli import completion, options
from lmwright.evaluation.tasks import MEASUREMENTS

RECIPE = """name = "small"
seed = 1
[data.words]
source = "starter:bank-support"
[finetune.tuned]
model = "starter"
[gate]
evaluation = "card"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    made = ("tuned/model", "words", ".part/tuned/model")
    for place in (*(f"runs/small/{name}" for name in made), "mine"):
        Path(place).mkdir(parents=True)
    finished = ("tuned/model/config.json", "words/result.json", "recipe.lock.json")
    for name in (*(f"runs/small/{name}" for name in finished), "mine/config.json"):
        Path(name).touch()
    for name in ("runs/small/.part/tuned/model/config.json", "a.gguf", "notes.txt"):
        Path(name).touch()
    Path("small.toml").write_text(RECIPE, encoding="utf-8")
    Path("other.toml").write_text("name = ", encoding="utf-8")
    return tmp_path


def offered(line: str) -> list[str]:
    """Ask as bash does, in a process of its own; say what was imported, too."""
    program = """
import sys
from lmwright.cli import main
code = main()
heavy = {"numpy", "torch", "tokenizers", "filelock", "huggingface_hub", "prompt_toolkit"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert code == 0
"""
    words = line.split(" ")
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={
            **os.environ,
            **asked,
            "_LMWRIGHT_COMPLETE": "complete_bash",
            "PYTHONPATH": str(Path(lmwright.__file__).parent.parent),
        },
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("lmwright ch", ["chat"]),
        ("lmwright chat ", ["starter", "runs/small/tuned", "a.gguf", "mine"]),
        ("lmwright chat m", ["mine"]),
        ("lmwright show ru", ["runs/small/tuned", "runs/small", "runs/small/words"]),
        ("lmwright new mine --template o", ["own"]),
        ("lmwright evaluate starter r", ["runs/small/tuned"]),
        ("lmwright evaluate starter --tasks ref", ["refusals"]),
        ("lmwright run ", ["small.toml"]),
        ("lmwright run small.toml --only ", ["words", "tuned", "gate"]),
        ("lmwright run small.toml --from t", ["tuned"]),
    ],
)
def test_a_shell_is_offered_what_is_there(line: str, expected: list[str]) -> None:
    assert offered(line) == expected


def test_what_is_damaged_or_elsewhere_is_passed_over(folder: Path) -> None:
    assert completion.models("no/such/folder/x") == []
    assert completion.models("~nosuchuser/x") == []
    assert completion.models(f"{folder}/a") == [f"{folder}/a.gguf"]
    assert completion.recipes("o") == []


def test_the_tasks_are_those_that_can_be_measured() -> None:
    tasks = [measurement.task for measurement in MEASUREMENTS.values()]
    assert list(dict.fromkeys(tasks)) == list(options.TASKS)
