"""A run must survive anything: nothing half-made may count as done, nothing done be lost."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

import lmwright
from lmwright.core.artifact import RESULT
from lmwright.core.errors import BusyError, DataError, LmwrightError, RequestError
from lmwright.recipe import run as pipeline
from lmwright.recipe.read import Recipe, parse

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
require = ["qa_accuracy >= 80%"]

[report.page]
evaluation = "card"
"""

# Stages that do in a millisecond what the real ones do in minutes: read their inputs from files,
# write a model, measure it. Each call is logged; an order in order.txt makes one fail or hang.
STAGES = """
import json, time
from pathlib import Path
from lmwright.core.errors import LmwrightError
from lmwright.core.results import Metric, MetricSpec, Scores

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

def model(config, out, inputs):
    log("model", out)
    source = inputs[config.model]
    base = source if source == "starter" else (source / "weights").read_text()
    (out / "model").mkdir(exist_ok=True)
    (out / "model" / "weights").write_text(f"{base}>{out.name}")
    return {"was_half": (out / "half").exists()}

class data:
    @staticmethod
    def run(config, out, inputs):
        log("data", out)
        (out / "train").write_text(Path(config.source).read_text())
        return {"n_train": 1}

class finetune:
    @staticmethod
    def run(config, out, inputs):
        assert (inputs[config.data] / "train").exists()
        return model(config, out, inputs)

class compress:
    run = staticmethod(model)

class evaluate:
    @staticmethod
    def run(config, out, context):
        log("evaluate", out)
        share = float(Path("facts.txt").read_text()) if Path("facts.txt").exists() else 0.9
        metric = Metric("qa_accuracy", share, share - 0.05, share + 0.05, 100, True, "share")
        spec = MetricSpec("qa_accuracy", "Answers", "share", True, "binary")
        metrics = {m: {"qa_accuracy": metric} for m in config.models}
        models, parents = tuple(config.models), {**context.parents}
        return {
            **Scores("quick", models, parents, (spec,), metrics).to_json(),
            "weights": {m: str(p) if p == m else (p / "weights").read_text()
                        for m, p in context.inputs.items() if m != config.data},
        }

class report:
    @staticmethod
    def run(config, out, context):
        log("report", out)
        gate = context.run_folder / "gate.json"
        (out / "report.html").write_text(gate.read_text() if gate.exists() else "no gate")
        assert (context.inputs[config.evaluation] / "result.json").exists()
        return {}
"""


class Shelf:
    """A folder with a recipe, its data and the toy stages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run_folder = folder / "runs" / "toy"
        (folder / "toy_stages.py").write_text(STAGES, encoding="utf-8")
        for stage in pipeline.STAGES:
            line = f"from toy_stages import {stage}\nrun = {stage}.run\n"
            (folder / f"toy_{stage}.py").write_text(line, encoding="utf-8")
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
    names = {stage: f"toy_{stage}" for stage in pipeline.STAGES}
    for name in [*names.values(), "toy_stages"]:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(pipeline, "STAGES", names)
    return Shelf(tmp_path)


ALL = ["words", "tuned", "int8", "int4", "card", "page"]


def recipe(*overrides: str) -> Recipe:
    return parse(RECIPE, overrides=overrides)


def test_every_stage_names_a_table_and_a_module() -> None:
    from lmwright.recipe.read import TABLES

    assert list(pipeline.STAGES) == list(pipeline.FORMAT_VERSIONS) == list(TABLES)
    root = Path(lmwright.__file__).parent.parent
    for module in pipeline.STAGES.values():
        assert (root / (module.replace(".", "/") + ".py")).is_file()


def test_steps_run_in_order_each_on_what_the_others_made(shelf: Shelf) -> None:
    result = pipeline.run(recipe())
    assert shelf.calls() == ALL == list(result.ran)
    card = shelf.result("card")
    assert card["weights"] == {
        "starter": "starter",
        "tuned": "starter>tuned",
        "int8": "starter>tuned>int8",
        "int4": "starter>tuned>int4",
    }
    assert card["parents"] == {"tuned": ["starter"], "int8": ["tuned"], "int4": ["tuned"]}
    assert (result.exit_code, result.folder) == (0, Path("runs/toy"))


def test_results_carry_their_lineage(shelf: Shelf) -> None:
    pipeline.run(recipe("seed=5"))
    result = shelf.result("tuned")
    assert result["lineage"]["seed"] == 5
    assert result["lineage"]["versions"]["lmwright"] == lmwright.__version__
    assert result["step"]["config"]["rank"] == 16
    assert result["step"]["inputs"]["words"] == shelf.result("words")["hash"]
    lock = json.loads((shelf.run_folder / pipeline.LOCK).read_text(encoding="utf-8"))
    assert lock["steps"]["tuned"]["hash"] == result["hash"]
    assert lock["steps"]["card"]["config"]["data"] == "words"
    assert parse((shelf.run_folder / pipeline.RECIPE).read_text(encoding="utf-8")).seed == 5


def test_what_is_done_is_not_done_again(shelf: Shelf) -> None:
    pipeline.run(recipe())
    shelf.calls()
    result = pipeline.run(recipe())
    assert shelf.calls() == []
    assert result.ran == ()
    assert list(result.skipped) == ALL


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("compress.int4.group_size=32", ["int4", "card", "page"]),
        ("finetune.tuned.rank=8", ["tuned", "int8", "int4", "card", "page"]),
        ("evaluate.card.suite=full", ["card", "page"]),
        ("gate.model=int4", ["page"]),
        ("seed=1", ALL),
    ],
)
def test_a_change_redoes_only_what_depends_on_it(
    shelf: Shelf, change: str, expected: list[str]
) -> None:
    pipeline.run(recipe())
    shelf.calls()
    pipeline.run(recipe(change))
    assert shelf.calls() == expected


def test_new_data_in_the_same_file_redoes_everything(shelf: Shelf) -> None:
    pipeline.run(recipe())
    shelf.calls()
    shelf.say("words.jsonl", '{"prompt": "c", "completion": "d"}\n')
    pipeline.run(recipe())
    assert shelf.calls() == ALL


def test_a_new_format_version_redoes_the_stage(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.run(recipe())
    shelf.calls()
    monkeypatch.setitem(pipeline.FORMAT_VERSIONS, "report", 2)
    pipeline.run(recipe())
    assert shelf.calls() == ["page"]


def test_data_that_is_not_there_is_an_error_before_anything_runs(shelf: Shelf) -> None:
    with pytest.raises(DataError, match=r"wrds\.jsonl"):
        pipeline.plan(recipe("data.words.source=wrds.jsonl"))
    shelf.say("words.jsonl", '{"prompt": "a"}\n')
    with pytest.raises(DataError, match=r"words\.jsonl, line 1"):
        pipeline.plan(recipe())
    assert not Path("runs").exists()


def test_a_failed_step_does_not_count_as_done(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    shelf.say("order.txt", "fail int8")
    with pytest.raises(LmwrightError, match="the disk is full"):
        pipeline.run(recipe())
    assert "compress int8 failed" in caplog.text
    assert shelf.calls() == ["words", "tuned", "int8"]
    assert not (shelf.run_folder / "int8" / RESULT).exists()
    shelf.say("order.txt", "")
    pipeline.run(recipe())
    assert shelf.calls() == ["int8", "int4", "card", "page"]


def test_ctrl_c_says_how_to_go_on(shelf: Shelf) -> None:
    shelf.say("order.txt", "interrupt tuned")
    with pytest.raises(LmwrightError, match="interrupted in finetune tuned; the same command goes"):
        pipeline.run(recipe())
    with pytest.raises(LmwrightError, match="the same command without --from goes on"):
        pipeline.run(recipe(), start="words")


def hanging_run(shelf: Shelf, step: str) -> "subprocess.Popen[bytes]":
    """Start a run in a process of its own that hangs half-way through a step."""
    shelf.say("order.txt", f"hang {step}")
    program = f"""
        from lmwright.recipe import run as pipeline
        from lmwright.recipe.read import parse
        pipeline.STAGES = {{stage: f"toy_{{stage}}" for stage in pipeline.STAGES}}
        pipeline.run(parse({RECIPE!r}))
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
            pipeline.run(recipe())
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (shelf.run_folder / "int8" / RESULT).exists()
    shelf.calls()
    shelf.say("order.txt", "")
    pipeline.run(recipe())
    assert shelf.calls() == ["int8", "int4", "card", "page"]
    # The stage saw what the killed run had left, and may go on from there.
    assert shelf.result("int8")["was_half"] is True


def test_leftovers_of_another_table_are_not_gone_on_from(shelf: Shelf) -> None:
    shelf.say("order.txt", "fail int8")
    with pytest.raises(LmwrightError):
        pipeline.run(recipe())
    (shelf.run_folder / "int8" / "half").write_text("of group size 64", encoding="utf-8")
    shelf.say("order.txt", "")
    pipeline.run(recipe("compress.int8.group_size=32"))
    assert shelf.result("int8")["was_half"] is False


def test_only_runs_one_step_and_names_the_input_that_is_missing(shelf: Shelf) -> None:
    with pytest.raises(RequestError, match="--only int8: its input 'tuned' is not finished"):
        pipeline.plan(recipe(), only="int8")
    for step in ("words", "tuned", "int8"):
        assert pipeline.run(recipe(), only=step).gate is None
    assert shelf.calls() == ["words", "tuned", "int8"]


def test_from_redoes_a_step_and_what_follows_from_it(shelf: Shelf) -> None:
    pipeline.run(recipe())
    shelf.calls()
    pipeline.run(recipe(), start="int8")
    assert shelf.calls() == ["int8", "card", "page"]


def test_an_interrupted_redo_leaves_no_results_of_the_old_run(shelf: Shelf) -> None:
    pipeline.run(recipe())
    shelf.calls()
    shelf.say("order.txt", "fail tuned")
    with pytest.raises(LmwrightError):
        pipeline.run(recipe(), start="tuned")
    shelf.say("order.txt", "")
    pipeline.run(recipe())
    assert shelf.calls() == ["tuned", "tuned", "int8", "int4", "card", "page"]


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
        pipeline.plan(recipe(), only=only, start=start)


def test_the_gate_decides_before_the_report_and_sets_the_exit_code(shelf: Shelf) -> None:
    shelf.say("facts.txt", "0.5")
    result = pipeline.run(recipe())
    assert result.exit_code == 3
    assert result.gate is not None
    assert [rule.passed for rule in result.gate.rules] == [False]
    page = json.loads((shelf.run_folder / "page" / "report.html").read_text(encoding="utf-8"))
    assert page["passed"] is False
    assert page == json.loads((shelf.run_folder / "gate.json").read_text(encoding="utf-8"))
    # A verdict is not forgotten because nothing was left to do.
    assert pipeline.run(recipe()).exit_code == 3
    # A run that is not about the evaluation does not judge it.
    assert pipeline.run(recipe(), only="int8").exit_code == 0


def test_a_gate_that_is_gone_leaves_no_verdict_behind(shelf: Shelf) -> None:
    pipeline.run(recipe())
    without = RECIPE[: RECIPE.index("[gate]")] + RECIPE[RECIPE.index("[report") :]
    assert pipeline.run(parse(without)).gate is None
    page = shelf.run_folder / "page" / "report.html"
    assert page.read_text(encoding="utf-8") == "no gate"


def test_a_folder_with_other_things_in_it_is_left_alone(shelf: Shelf, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "words").mkdir(parents=True)
    (home / "words" / "novel.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(RequestError, match="so it is no run folder"):
        pipeline.run(recipe(), out=home)
    assert (home / "words" / "novel.txt").read_text(encoding="utf-8") == "years of work"
    assert [path.name for path in home.iterdir()] == ["words"]


def test_a_plan_says_what_is_to_do_and_what_it_takes(shelf: Shelf) -> None:
    before = pipeline.plan(recipe())
    assert [step.will_run for step in before.steps] == [True] * 6
    assert before.estimate.seconds == sum(step.estimate.seconds for step in before.steps)
    assert before.estimate.memory_bytes == max(s.estimate.memory_bytes for s in before.steps)
    assert not Path("runs").exists()
    pipeline.run(recipe())
    after = pipeline.plan(recipe())
    assert [step.is_done for step in after.steps] == [True] * 6
    assert (after.estimate.seconds, after.estimate.memory_bytes) == (0, 0)
    assert (
        json.loads(json.dumps(after.to_json()))["steps"][1]["hash"]
        == (shelf.result("tuned")["hash"])
    )


def test_status_tells_what_a_run_has_done(shelf: Shelf) -> None:
    shelf.say("order.txt", "fail card")
    with pytest.raises(LmwrightError):
        pipeline.run(recipe())
    found = pipeline.status(shelf.run_folder)
    done = {name: step["is_done"] for name, step in found["steps"].items()}
    assert done == {
        "words": True, "tuned": True, "int8": True, "int4": True, "card": False, "page": False
    }  # fmt: skip
    assert "gate" not in found


def test_measuring_without_a_recipe_takes_the_data_of_a_run(shelf: Shelf) -> None:
    pipeline.run(recipe(), only="words")
    made = pipeline.evaluation_recipe(["starter"], data=str(shelf.run_folder / "words"))
    assert made.data["data"] == recipe().data["words"]
    assert pipeline.evaluation_recipe(["starter"], data="x.jsonl").data["data"].source == "x.jsonl"
    assert pipeline.evaluation_recipe(["starter"], data=None).data == {}
    pipeline.run(recipe(), only="tuned")
    with pytest.raises(RequestError, match="not the folder of a data step"):
        pipeline.evaluation_recipe(["starter"], data=str(shelf.run_folder / "tuned"))
