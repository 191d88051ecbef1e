"""A run must survive anything: nothing half-made may count as done, nothing done be lost."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import lmwright
from lmwright import hub
from lmwright.core.artifact import RESULT
from lmwright.core.errors import (
    BusyError,
    DataError,
    InterruptError,
    LmwrightError,
    ModelError,
    RequestError,
)
from lmwright.recipe.plan import MAX_AGE_S, plan
from lmwright.recipe.read import parse
from lmwright.recipe.recipe import Recipe
from lmwright.recipe.run import LOCK, RunResult, run
from lmwright.recipe.run import RECIPE as RECIPE_FILE
from lmwright.recipe.stages import STAGES

RECIPE = """
name = "toy"

[data.words]
source = "words.jsonl"

[finetune.tuned]
model = "starter"
data = "words"

[compress.int8]
model = "tuned"
method = "int8"

[compress.int4]
model = "tuned"
method = "int4"

[evaluate.card]
models = ["starter", "tuned", "int8", "int4"]

[gate]
evaluation = "card"
model = "int8"
require = ["multiple_choice >= 80%"]

[report.page]
evaluation = "card"
"""

# Stages that do in a millisecond what the real ones do in minutes: read their inputs from files,
# write a model, measure it. Each call is logged; an order in order.txt makes one fail or hang.
TOY_STAGES = """
import json, time
from pathlib import Path
from lmwright.core.errors import LmwrightError

def log(name, out):
    with open("calls.txt", "a") as file:
        file.write(name + " " + out.name + "\\n")
    orders = Path("order.txt")
    order = orders.read_text() if orders.exists() else ""
    (out / "begun").write_text("x")
    if order == "fail " + out.name:
        raise LmwrightError("the disk is full")
    if order == "interrupt " + out.name:
        raise KeyboardInterrupt
    if order == "hang " + out.name:
        (out / "half").write_text("half of the weights")
        time.sleep(60)

def model(config, out, context):
    log("model", out)
    source = context.inputs[config.model]
    base = source if source == "starter" else (source / "weights").read_text()
    (out / "model").mkdir(exist_ok=True)
    (out / "model" / "weights").write_text(f"{base}>{out.name}")
    return {"was_half": (out / "half").exists()}

def data(config, out, context):
    log("data", out)
    (out / "train").write_text(Path(config.source).read_text())
    return {"n_train": 1}

def finetune(config, out, context):
    assert (context.inputs[config.data] / "train").exists()
    return model(config, out, context)

compress = model

def evaluate(config, out, context):
    log("evaluate", out)
    return {
        "share": float(Path("facts.txt").read_text()) if Path("facts.txt").exists() else 0.9,
        "parents": context.parents,
        "weights": {m: str(p) if p == m else (p / "weights").read_text()
                    for m, p in context.inputs.items() if m != config.data},
    }

def gate(config, out, context):
    log("gate", out)
    result = json.loads((context.inputs[config.evaluation] / "result.json").read_text())
    return {"passed": result["share"] >= 0.8, "model": config.model}

def report(config, out, context):
    log("report", out)
    assert (context.inputs[config.evaluation] / "result.json").exists()
    shown = [(context.inputs[name] / "result.json").read_text() for name in config.gates]
    (out / "report.html").write_text("".join(shown) or "no gate")
    return {}
"""

# The real records, but for what does the work.
TOYS = {
    name: replace(stage, run=f"toy_stages:{name}", files=("begun", "half", "model", "train"))
    for name, stage in STAGES.items()
}


class Shelf:
    """A folder with a recipe, its data and the toy stages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run_folder = folder / "runs" / "toy"
        (folder / "toy_stages.py").write_text(TOY_STAGES, encoding="utf-8")
        self.say("words.jsonl", '{"prompt": "a", "completion": "b"}\n')

    def say(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="utf-8")

    def calls(self) -> list[str]:
        """Return the steps that ran since the last look."""
        path = self.folder / "calls.txt"
        lines = path.read_text(encoding="utf-8").split() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines[1::2]

    def result(self, step: str) -> dict[str, Any]:
        return json.loads((self.run_folder / step / RESULT).read_text(encoding="utf-8"))


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "toy_stages", raising=False)
    return Shelf(tmp_path)


ALL = ["words", "tuned", "int8", "int4", "card", "gate", "page"]


def recipe(*overrides: str) -> Recipe:
    return parse(RECIPE, overrides=overrides, stages=TOYS)


def go(planned: Recipe, **choice: Any) -> RunResult:
    return run(plan(planned, **choice))


def test_steps_run_in_order_each_on_what_the_others_made(shelf: Shelf) -> None:
    result = go(recipe())
    assert shelf.calls() == ALL == list(result.ran)
    card = shelf.result("card")
    assert card["weights"] == {
        "starter": "starter",
        "tuned": "starter>tuned",
        "int8": "starter>tuned>int8",
        "int4": "starter>tuned>int4",
    }
    assert card["parents"] == {"tuned": ["starter"], "int8": ["tuned"], "int4": ["tuned"]}
    assert (result.exit_code, result.plan.folder) == (0, Path("runs/toy"))


def test_results_carry_their_lineage(shelf: Shelf) -> None:
    go(recipe("seed=5"))
    result = shelf.result("tuned")
    assert result["lineage"]["seed"] == 5
    assert result["lineage"]["versions"]["lmwright"] == lmwright.__version__
    assert result["step"]["config"]["rank"] == 16
    assert result["step"]["inputs"]["words"] == shelf.result("words")["hash"]
    lock = json.loads((shelf.run_folder / LOCK).read_text(encoding="utf-8"))
    assert lock["steps"]["tuned"]["hash"] == result["hash"]
    assert lock["steps"]["card"]["config"]["data"] == "words"
    assert parse((shelf.run_folder / RECIPE_FILE).read_text(encoding="utf-8")).seed == 5


def test_what_is_done_is_not_done_again(shelf: Shelf) -> None:
    go(recipe())
    shelf.calls()
    result = go(recipe())
    assert shelf.calls() == []
    assert result.ran == []
    assert list(result.skipped) == ALL


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("compress.int4.group_size=32", ["int4", "card", "gate", "page"]),
        ("finetune.tuned.rank=8", ["tuned", "int8", "int4", "card", "gate", "page"]),
        ("evaluate.card.suite=full", ["card", "gate", "page"]),
        ("gate.model=int4", ["gate", "page"]),
        ("seed=1", ALL),
    ],
)
def test_a_change_redoes_only_what_depends_on_it(
    shelf: Shelf, change: str, expected: list[str]
) -> None:
    go(recipe())
    shelf.calls()
    go(recipe(change))
    assert shelf.calls() == expected


def test_new_data_in_the_same_file_redoes_everything(shelf: Shelf) -> None:
    go(recipe())
    shelf.calls()
    shelf.say("words.jsonl", '{"prompt": "c", "completion": "d"}\n')
    go(recipe())
    assert shelf.calls() == ALL


def test_a_new_version_redoes_the_stage(shelf: Shelf) -> None:
    go(recipe())
    shelf.calls()
    newer = {**TOYS, "report": replace(TOYS["report"], version=TOYS["report"].version + 1)}
    go(parse(RECIPE, stages=newer))
    assert shelf.calls() == ["page"]


def test_data_that_is_not_there_is_an_error_before_anything_runs(shelf: Shelf) -> None:
    with pytest.raises(DataError, match=r"wrds\.jsonl"):
        plan(recipe("data.words.source=wrds.jsonl"))
    shelf.say("words.jsonl", '{"prompt": "a"}\n')
    with pytest.raises(DataError, match=r"words\.jsonl, line 1"):
        plan(recipe())
    assert not Path("runs").exists()


def test_a_failed_step_does_not_count_as_done(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    shelf.say("order.txt", "fail int8")
    with pytest.raises(LmwrightError, match="the disk is full"):
        go(recipe())
    assert "compress int8 failed" in caplog.text
    assert shelf.calls() == ["words", "tuned", "int8"]
    assert not (shelf.run_folder / "int8" / RESULT).exists()
    shelf.say("order.txt", "")
    go(recipe())
    assert shelf.calls() == ["int8", "int4", "card", "gate", "page"]


def test_ctrl_c_says_how_to_go_on(shelf: Shelf) -> None:
    shelf.say("order.txt", "interrupt tuned")
    with pytest.raises(LmwrightError, match="interrupted in finetune tuned; the same command goes"):
        go(recipe())
    with pytest.raises(LmwrightError, match="the same command without --from goes on"):
        go(recipe(), start="words")


def hanging_run(shelf: Shelf, step: str) -> "subprocess.Popen[bytes]":
    """Start a run in a process of its own that hangs half-way through a step."""
    shelf.say("order.txt", f"hang {step}")
    program = f"""
        from dataclasses import replace
        from lmwright.recipe.plan import plan
        from lmwright.recipe.read import parse
        from lmwright.recipe.run import run
        from lmwright.recipe.stages import STAGES
        files = ("begun", "half", "model", "train")
        toys = {{
            name: replace(each, run=f"toy_stages:{{name}}", files=files)
            for name, each in STAGES.items()
        }}
        run(plan(parse({RECIPE!r}, stages=toys)))
    """
    root = str(Path(lmwright.__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, str(shelf.folder)])}
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=shelf.folder, env=environment
    )
    deadline = time.monotonic() + 60
    while not (shelf.run_folder / step / "half").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


def test_two_runs_in_one_folder_are_refused_and_a_killed_one_goes_on(shelf: Shelf) -> None:
    process = hanging_run(shelf, "int8")
    try:
        with pytest.raises(BusyError, match="another lmwright works here"):
            go(recipe())
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (shelf.run_folder / "int8" / RESULT).exists()
    shelf.calls()
    shelf.say("order.txt", "")
    go(recipe())
    assert shelf.calls() == ["int8", "int4", "card", "gate", "page"]
    # The stage saw what the killed run had left, and may go on from there.
    assert shelf.result("int8")["was_half"] is True


def test_leftovers_of_another_table_are_not_gone_on_from(shelf: Shelf) -> None:
    shelf.say("order.txt", "fail int8")
    with pytest.raises(LmwrightError):
        go(recipe())
    (shelf.run_folder / "int8" / "half").write_text("of group size 64", encoding="utf-8")
    shelf.say("order.txt", "")
    go(recipe("compress.int8.group_size=32"))
    assert shelf.result("int8")["was_half"] is False


def test_only_runs_one_step_and_names_the_input_that_is_missing(shelf: Shelf) -> None:
    with pytest.raises(RequestError, match="--only int8: its input 'tuned' is not finished"):
        plan(recipe(), only="int8")
    for step in ("words", "tuned", "int8"):
        assert go(recipe(), only=step).decisions == {}
    assert shelf.calls() == ["words", "tuned", "int8"]


def test_from_redoes_a_step_and_what_follows_from_it(shelf: Shelf) -> None:
    go(recipe())
    shelf.calls()
    go(recipe(), start="int8")
    assert shelf.calls() == ["int8", "card", "gate", "page"]


def test_an_interrupted_redo_leaves_no_results_of_the_old_run(shelf: Shelf) -> None:
    go(recipe())
    shelf.calls()
    shelf.say("order.txt", "fail tuned")
    with pytest.raises(LmwrightError):
        go(recipe(), start="tuned")
    shelf.say("order.txt", "")
    go(recipe())
    assert shelf.calls() == ["tuned", "tuned", "int8", "int4", "card", "gate", "page"]


@pytest.mark.parametrize(
    ("only", "start", "message"),
    [
        ("int9", None, "--only int9: no such step; did you mean"),
        (None, "nothing", "--from nothing: no such step; known: card"),
        ("int8", "int8", "exclude each other"),
    ],
)
def test_a_wrong_selection_is_refused(
    shelf: Shelf, only: str | None, start: str | None, message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        plan(recipe(), only=only, start=start)


def test_the_gate_decides_before_the_report_and_sets_the_exit_code(shelf: Shelf) -> None:
    shelf.say("facts.txt", "0.5")
    result = go(recipe())
    assert result.exit_code == 3
    assert result.decisions["gate"]["passed"] is False
    page = json.loads((shelf.run_folder / "page" / "report.html").read_text(encoding="utf-8"))
    assert page == shelf.result("gate")
    # A verdict is not forgotten because nothing was left to do.
    assert go(recipe()).exit_code == 3
    # A run that is not about the gate does not judge; one of the gate, or of what shows it, does.
    assert go(recipe(), only="int8").exit_code == 0
    assert go(recipe(), only="gate").exit_code == 3
    assert go(recipe(), only="page").exit_code == 3


def test_several_gates_each_decide(shelf: Shelf) -> None:
    shelf.say("facts.txt", "0.5")
    named = RECIPE.replace("[gate]", "[gate.first]")
    second = named[named.index("[gate.first]") : named.index("[report")].replace("first", "second")
    result = go(parse(named + second, stages=TOYS))
    assert {name: each["passed"] for name, each in result.decisions.items()} == {
        "first": False, "second": False
    }  # fmt: skip
    assert shelf.result("page")["step"]["config"]["gates"] == ["first", "second"]


def test_a_gate_that_is_gone_leaves_no_verdict_behind(shelf: Shelf) -> None:
    go(recipe())
    without = RECIPE[: RECIPE.index("[gate]")] + RECIPE[RECIPE.index("[report") :]
    assert go(parse(without, stages=TOYS)).decisions == {}
    page = shelf.run_folder / "page" / "report.html"
    assert page.read_text(encoding="utf-8") == "no gate"
    lock = json.loads((shelf.run_folder / LOCK).read_text(encoding="utf-8"))
    assert "gate" not in lock["steps"]


def test_a_trial_that_is_stopped_leaves_what_was_finished(shelf: Shelf) -> None:
    go(recipe())
    shelf.calls()
    trial = recipe("finetune.tuned.rank=8")
    states = [step.state for step in plan(trial).steps]
    assert states == ["done", *["replaces a finished step"] * 6]
    assert [step["state"] for step in plan(trial).to_json()["steps"]] == states
    shelf.say("order.txt", "fail tuned")
    with pytest.raises(LmwrightError):
        go(trial)
    shelf.say("order.txt", "")
    # Back to the settings of before, nothing is lost; the trial goes on where it stood.
    assert go(recipe()).ran == []
    shelf.calls()
    go(trial)
    assert shelf.calls() == ALL[1:]
    assert shelf.result("card")["weights"]["int8"] == "starter>tuned>int8"
    assert sorted(path.name for path in shelf.run_folder.iterdir() if path.is_dir()) == sorted(ALL)


def test_a_trial_that_was_stopped_goes_on_where_it_stood(shelf: Shelf) -> None:
    go(recipe())
    trial = recipe("compress.int8.group_size=32")
    shelf.say("order.txt", "fail int8")
    with pytest.raises(LmwrightError):
        go(trial)
    (shelf.run_folder / ".part" / "int8" / "half").write_text("of the weights", encoding="utf-8")
    assert (shelf.run_folder / "int8" / "model" / "weights").exists()
    shelf.say("order.txt", "")
    go(trial)
    assert shelf.result("int8")["was_half"] is True


def test_a_step_that_the_last_run_did_not_finish_is_no_model(shelf: Shelf) -> None:
    go(recipe())
    model = shelf.run_folder / "int8"
    (model / "model" / "config.json").write_text("{}", encoding="utf-8")
    assert hub.resolve(str(model)) == model / "model"
    shelf.say("order.txt", "interrupt tuned")
    with pytest.raises(InterruptError):
        go(recipe("finetune.tuned.rank=8"))
    for named in (model, model / "model"):
        with pytest.raises(ModelError, match=r"int8: was made with other settings .*recipe\.lock"):
            hub.resolve(str(named))
    shelf.say("order.txt", "")
    go(recipe())
    assert hub.resolve(str(model)) == model / "model"


def test_what_a_user_put_into_a_step_stays(shelf: Shelf) -> None:
    shelf.say("order.txt", "fail int8")
    with pytest.raises(LmwrightError):
        go(recipe())
    notes = shelf.run_folder / "int8" / "notes.txt"
    notes.write_text("half a day of thought", encoding="utf-8")
    shelf.say("order.txt", "")
    for choice in ({}, {"start": "tuned"}):
        for change in ("compress.int8.group_size=32", "compress.int8.group_size=64"):
            go(recipe(change), **choice)
            assert notes.read_text(encoding="utf-8") == "half a day of thought"
    assert sorted(path.name for path in notes.parent.iterdir()) == [
        "begun", "model", "notes.txt", "result.json", "step.json"
    ]  # fmt: skip


def test_a_damaged_result_is_done_again_with_a_word(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    go(recipe())
    shelf.calls()
    (shelf.run_folder / "card" / RESULT).write_text("{", encoding="utf-8")
    go(recipe())
    assert shelf.calls() == ["card"]
    assert "card/result.json: is damaged; its step is done again" in caplog.text


def test_a_folder_with_other_things_in_it_is_left_alone(shelf: Shelf, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "words").mkdir(parents=True)
    (home / "words" / "novel.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(RequestError, match="so it is no run folder"):
        go(recipe(), out=home)
    assert (home / "words" / "novel.txt").read_text(encoding="utf-8") == "years of work"
    assert [path.name for path in home.iterdir()] == ["words"]


def test_a_plan_says_what_is_to_do_and_what_it_takes(shelf: Shelf) -> None:
    before = plan(recipe())
    assert [step.will_run for step in before.steps] == [True] * 7
    assert before.estimate.seconds == sum(step.estimate.seconds for step in before.steps)
    assert before.estimate.memory_bytes == max(s.estimate.memory_bytes for s in before.steps)
    assert not Path("runs").exists()
    go(recipe())
    after = plan(recipe())
    assert [step.is_done for step in after.steps] == [True] * 7
    assert (after.estimate.seconds, after.estimate.memory_bytes) == (0, 0)
    assert (
        json.loads(json.dumps(after.to_json()))["steps"][1]["hash"]
        == (shelf.result("tuned")["hash"])
    )


def test_the_lock_tells_the_order_of_the_work(shelf: Shelf) -> None:
    go(recipe())
    lock = json.loads((shelf.run_folder / LOCK).read_text(encoding="utf-8"))
    assert lock["order"] == ["words", "tuned", "int8", "int4", "card", "gate", "page"]


def test_a_run_reads_its_data_three_times_and_plans_once(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.say(
        "words.jsonl", '{"prompt": "a", "completion": "b"}\n{"prompt": "c", "completion": "d"}\n'
    )
    opened: list[str] = []
    plain = Path.open

    def counting(path: Path, *arguments: Any, **options: Any) -> Any:
        opened.append(path.name)
        return plain(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", counting)
    text = 'name = "toy"\n[data.words]\nsource = "words.jsonl"\n'
    planned = plan(parse(text))
    # Once for the hash, and a look at the first records for the estimate.
    assert opened.count("words.jsonl") == 2
    run(planned)
    assert opened.count("words.jsonl") == 3


def test_a_plan_that_something_overtook_is_made_again(shelf: Shelf) -> None:
    early = plan(recipe())
    go(recipe())
    shelf.calls()
    assert run(early).ran == []
    old = replace(early, made_at=early.made_at - 2 * MAX_AGE_S)
    shelf.say("words.jsonl", '{"prompt": "c", "completion": "d"}\n')
    assert list(run(old).ran) == ALL


def test_a_missing_library_is_named_before_anything_runs(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(RequestError, match=r"\[finetune.tuned\] needs torch.*lmwright\[train\]"):
        go(recipe())
    assert shelf.calls() == []
