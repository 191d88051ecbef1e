"""Runs a recipe: each step into its own folder, in order, and only where something changed."""

import importlib
import json
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lmwright.core.artifact import (
    RESULT,
    Artifact,
    hash_json,
    locked,
    replacing,
    write_json,
)
from lmwright.core.config import Inputs
from lmwright.core.decision import GateResult
from lmwright.core.errors import LmwrightError, RequestError, suggestion
from lmwright.core.lineage import lineage
from lmwright.core.results import Scores
from lmwright.core.stage import StepContext
from lmwright.data.config import Data
from lmwright.evaluation.config import Evaluate
from lmwright.gate.decide import decide
from lmwright.recipe.estimate import Estimate, estimate
from lmwright.recipe.inputs import model_hash, source_hash, starter_hash
from lmwright.recipe.read import MAKERS, Recipe, Step, order

logger = logging.getLogger(__name__)

# Whose run(config, out, inputs=...) does the work of a stage and returns its result. Imported
# when needed: most of them bring torch.
STAGES = {
    "data": "lmwright.data.run",
    "finetune": "lmwright.finetuning.run",
    "compress": "lmwright.compression.run",
    "evaluate": "lmwright.evaluation.run",
    "report": "lmwright.reporting.run",
}

# Raise a number when that stage makes something else of the same table: old results are redone.
FORMAT_VERSIONS = {"data": 1, "finetune": 1, "compress": 1, "evaluate": 1, "report": 1}

RECIPE = "recipe.toml"
LOCK = "recipe.lock.json"
GATE = "gate.json"


@dataclass(frozen=True)
class PlannedStep:
    """A step, whether it is done already, and what doing it takes."""

    step: Step
    # The step's folder, known by the hash of its table and of all that it is made from.
    artifact: Artifact
    # What the hash is made from: a hash for each input, by the name that the table gives it.
    inputs: dict[str, str]
    is_done: bool
    will_run: bool
    estimate: Estimate


@dataclass(frozen=True)
class Plan:
    """What a run would do."""

    recipe: Recipe
    folder: Path
    steps: tuple[PlannedStep, ...]

    @property
    def estimate(self) -> Estimate:
        """The time of all that will run, and the memory of the hungriest step."""
        todo = [planned.estimate for planned in self.steps if planned.will_run]
        return Estimate(
            sum(each.seconds for each in todo),
            max((each.memory_bytes for each in todo), default=0),
            is_complete=all(each.is_complete for each in todo),
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain data: each step with its hash, state and estimate."""
        steps = [
            {
                **_identity(each),
                "is_done": each.is_done,
                "will_run": each.will_run,
                "estimate": asdict(each.estimate),
            }
            for each in self.steps
        ]
        return {
            "folder": str(self.folder),
            "steps": steps,
            "estimate": asdict(self.estimate),
        }


@dataclass(frozen=True)
class RunResult:
    """What a run did."""

    folder: Path
    ran: tuple[str, ...]
    skipped: tuple[str, ...]
    seconds: float
    # None where the recipe has no gate, or its evaluation was not part of this run.
    gate: GateResult | None

    @property
    def exit_code(self) -> int:
        """3 if the gate said no."""
        return 3 if self.gate is not None and not self.gate.passed else 0


def plan(
    recipe: Recipe, *, out: Path | None = None, only: str | None = None, start: str | None = None
) -> Plan:
    """Return what a run would do; nothing is written.

    `only` runs just one step. `start` redoes a step and all that follows from it.
    """
    folder = out or Path("runs") / recipe.name
    steps = order(recipe)
    _check_selection(steps, only=only, start=start)
    redone = _followers(steps, start) if start else set()
    hashes: dict[str, str] = {}
    planned: list[PlannedStep] = []
    for step in steps:
        inputs = _input_hashes(step, recipe, hashes)
        hashes[step.name] = _step_hash(step, inputs)
        artifact = Artifact(folder / step.name, hashes[step.name])
        is_done = artifact.result is not None
        will_run = (not is_done or step.name in redone) and only in (None, step.name)
        cost = estimate(step, {each.step.name: each.step for each in planned})
        planned.append(PlannedStep(step, artifact, inputs, is_done, will_run, cost))
    if only:
        _check_inputs_done(only, planned, folder)
    return Plan(recipe, folder, tuple(planned))


def run(
    recipe: Recipe, *, out: Path | None = None, only: str | None = None, start: str | None = None
) -> RunResult:
    """Do all that is not done yet, then ask the gate; see `plan` for `only` and `start`."""
    started = time.perf_counter()
    folder = out or Path("runs") / recipe.name
    order(recipe)
    _check_folder(folder)
    with locked(folder):
        planned = plan(recipe, out=folder, only=only, start=start)
        _write_head(planned)
        _clear(planned)
        gate = None
        for number, each in enumerate(planned.steps, start=1):
            if each.will_run:
                logger.info("[%d/%d] %s", number, len(planned.steps), _title(each))
                _guarded(each, planned, start=start)
            elif each.is_done and not only:
                logger.info("[%d/%d] %s: done before", number, len(planned.steps), each.step.name)
            if _asks_gate(each, recipe, only=only):
                gate = _gate(each, recipe, folder)
    ran = tuple(each.step.name for each in planned.steps if each.will_run)
    skipped = tuple(e.step.name for e in planned.steps if e.is_done and not e.will_run)
    return RunResult(folder, ran, skipped, time.perf_counter() - started, gate)


def evaluation_recipe(
    models: list[str],
    *,
    suite: str = "quick",
    tasks: list[str] | None = None,
    data: str | None,
    hosted: dict[str, Any] | None = None,
) -> Recipe:
    """Return a recipe that only measures; `data` is a source or the folder of a data step."""
    table: dict[str, Any] = {"models": models, "suite": suite, "tasks": tasks, "hosted": hosted}
    evaluations = {"scores": Evaluate.read(table, "evaluate")}
    if data is None:
        return Recipe(name="evaluation", evaluate=evaluations)
    finished = Path(data) / RESULT
    if finished.is_file():
        made = json.loads(finished.read_text(encoding="utf-8")).get("step", {})
        if made.get("stage") != "data":
            raise RequestError(f"--data {data}: not the folder of a data step")
        questions = Data.read(made["config"], "data")
    else:
        questions = Data(source=data)
    return Recipe(name="evaluation", data={"data": questions}, evaluate=evaluations)


def status(folder: Path) -> dict[str, Any]:
    """Return what a run has done so far: plain data, read from its files."""
    lock = json.loads((folder / LOCK).read_text(encoding="utf-8"))
    steps = {}
    for name, identity in lock["steps"].items():
        result = Artifact(folder / name, identity["hash"]).result
        state = {"stage": identity["stage"], "is_done": result is not None}
        steps[name] = {**state, **({"seconds": result["seconds"]} if result else {})}
    found = {"run": str(folder), "name": lock["name"], "steps": steps, "lineage": lock["lineage"]}
    if (folder / GATE).is_file():
        found["gate"] = json.loads((folder / GATE).read_text(encoding="utf-8"))
    return found


def _check_selection(steps: list[Step], *, only: str | None, start: str | None) -> None:
    if only and start:
        raise RequestError("--only and --from exclude each other; give one of them")
    names = [step.name for step in steps]
    for flag, name in (("--only", only), ("--from", start)):
        if name is not None and name not in names:
            raise RequestError(f"{flag} {name}: no such step{suggestion(name, names)}")


def _followers(steps: list[Step], start: str) -> set[str]:
    """Return a step and all that is made from it, directly or not."""
    found = {start}
    for step in steps:
        if found.intersection(step.references):
            found.add(step.name)
    return found


def _check_inputs_done(only: str, planned: list[PlannedStep], folder: Path) -> None:
    by_name = {each.step.name: each for each in planned}
    for name in by_name[only].step.references:
        if name in by_name and not by_name[name].is_done:
            raise RequestError(
                f"--only {only}: its input {name!r} is not finished in {folder}; "
                f"run --only {name} first, or leave out --only"
            )


def _check_folder(folder: Path) -> None:
    """Refuse a folder with other things in it: steps replace whole folders."""
    if folder.is_dir() and not (folder / LOCK).exists():
        strangers = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
        if strangers:
            raise RequestError(
                f"{folder}: holds {strangers[0]!r} but no {LOCK}, so it is no run folder; "
                "give an empty or new folder with --out"
            )


def _step_hash(step: Step, inputs: dict[str, str]) -> str:
    return hash_json(
        {
            "stage": step.stage,
            "config": step.config.model_dump(mode="json"),
            "inputs": inputs,
            "format_version": FORMAT_VERSIONS[step.stage],
        }
    )


def _input_hashes(step: Step, recipe: Recipe, hashes: dict[str, str]) -> dict[str, str]:
    """Return a hash for all that a step is made from."""
    found = {name: hashes.get(name) or model_hash(name) for name in step.references}
    if isinstance(step.config, Data):
        sources = step.config.source
        for source in [sources] if isinstance(sources, str) else sources:
            found[source] = source_hash(source)
    if step.stage == "evaluate":
        # The questions that come with the package are an input, too.
        found["starter questions"] = starter_hash()
    if step.stage == "report" and recipe.gate and recipe.gate.evaluation in step.references:
        found["gate"] = hash_json(recipe.gate.model_dump(mode="json"))
    return found


def _write_head(planned: Plan) -> None:
    """Write what is about to be done: the recipe, and everything that it leaves open."""
    recipe, folder = planned.recipe, planned.folder
    write_json(
        folder / LOCK,
        {
            "format_version": 1,
            "name": recipe.name,
            "seed": recipe.seed,
            "gate": recipe.gate.model_dump(mode="json") if recipe.gate else None,
            "steps": {each.step.name: _identity(each) for each in planned.steps},
            "lineage": lineage(recipe.seed),
        },
    )
    with replacing(folder / RECIPE) as temporary:
        temporary.write_text(recipe.to_toml(), encoding="utf-8")
    if recipe.gate is None:
        (folder / GATE).unlink(missing_ok=True)


def _identity(planned: PlannedStep) -> dict[str, Any]:
    """Return what a step is: enough to do it again."""
    return {
        "stage": planned.step.stage,
        "name": planned.step.name,
        "config": planned.step.config.model_dump(mode="json"),
        "inputs": planned.inputs,
        "hash": planned.artifact.hash,
    }


def _clear(planned: Plan) -> None:
    """Remove finished steps that are to be redone, all of them before the first one starts.

    Otherwise a run that is interrupted half-way would leave later steps that count as done but
    were made from what is gone. An unfinished step stays: it goes on where it stood.
    """
    for each in planned.steps:
        if each.will_run and each.is_done:
            shutil.rmtree(each.artifact.folder)


def _title(planned: PlannedStep) -> str:
    step, cost = planned.step, planned.estimate
    return f"{step.stage} {step.name} ({cost})"


def _guarded(each: PlannedStep, planned: Plan, *, start: str | None) -> None:
    """Run one step; say which one it was if that fails."""
    step = each.step
    try:
        _run_step(each, planned)
    except KeyboardInterrupt:
        again = "the same command without --from" if start else "the same command"
        raise LmwrightError(f"interrupted in {step.stage} {step.name}; {again} goes on") from None
    except LmwrightError:
        logger.error("%s %s failed", step.stage, step.name)
        raise


def _run_step(each: PlannedStep, planned: Plan) -> None:
    """Call the stage's function, and write its result last."""
    step, artifact = each.step, each.artifact
    steps = {other.step.name: other.step for other in planned.steps}
    artifact.begin()
    started = time.perf_counter()
    inputs = _locate(step, steps, planned.folder)
    seed = getattr(step.config, "seed", planned.recipe.seed)
    parents = {name: (s.parent,) for name, s in steps.items() if s.parent is not None}
    if step.stage in ("evaluate", "report"):
        context = StepContext(inputs, parents, planned.folder, seed)
        result = _function(step.stage)(step.config, artifact.folder, context)
    else:
        result = _function(step.stage)(step.config, artifact.folder, inputs=inputs)
    artifact.finish(
        {
            **result,
            "step": _identity(each),
            "seconds": time.perf_counter() - started,
            "lineage": lineage(seed),
        }
    )


def _locate(step: Step, steps: dict[str, Step], folder: Path) -> Inputs:
    """Return where each name of a step's table lies."""
    found: Inputs = {}
    for name in step.references:
        if name not in steps:
            found[name] = name
        elif steps[name].stage in MAKERS["model"]:
            found[name] = folder / name / "model"
        else:
            found[name] = folder / name
    return found


def _function(stage: str) -> Callable[..., dict[str, Any]]:
    return importlib.import_module(STAGES[stage]).run


def _asks_gate(each: PlannedStep, recipe: Recipe, *, only: str | None) -> bool:
    """Say whether the gate is due: its evaluation is there, and this run is about it."""
    if recipe.gate is None or each.step.name != recipe.gate.evaluation:
        return False
    is_asked = only is None or only == each.step.name or only in recipe.report
    return is_asked and each.artifact.result is not None


def _gate(each: PlannedStep, recipe: Recipe, folder: Path) -> GateResult:
    """Decide and write it down, before a report is made that shows it."""
    assert recipe.gate is not None
    evaluation = each.artifact.result
    assert evaluation is not None
    result = decide(recipe.gate, Scores.from_json(evaluation))
    write_json(folder / GATE, result.to_json())
    return result
