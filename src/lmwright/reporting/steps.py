"""A run as its files tell it: the steps of its lock file, and what each of them left behind."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from lmwright.core.artifact import RECIPE_LOCK, RESULT, STEP, read_state, reading, successor
from lmwright.core.results import from_plain

RECIPE = "recipe.toml"
AGAIN = "run its recipe again"

StepState = Literal["done", "made with other settings", "begun", "to do"]


@dataclass(frozen=True)
class Provenance:
    """With which versions, on what, when and from which seed something was made."""

    versions: Mapping[str, str] = field(default_factory=dict)
    hardware: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    time: str = ""

    @property
    def machine(self) -> str:
        """The machine in a few words: its GPUs, or its processor and cores."""
        cores = self.hardware.get("n_cores")
        processor = [self.hardware.get("cpu"), f"{cores} cores" if cores else ""]
        return ", ".join(str(part) for part in self.hardware.get("gpus") or processor if part)


@dataclass(frozen=True)
class RunStep:
    """One step of the recipe with what it left behind."""

    stage: str
    # How it is said what was done: "Fine-tuning".
    title: str
    name: str
    # What kind of thing it makes: "model", "data", "evaluation", ...
    makes: str
    # How a model relates to its parents, in Hugging Face's word.
    relation: str | None
    parents: tuple[str, ...]
    # Its table with every default filled in, and a hash for each thing it was made from.
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    # What it is known by: its table, its inputs and the version of its stage.
    hash: str
    state: StepState
    # Where it lies, and `result.json`, which is empty unless the step is done.
    folder: Path
    result: Mapping[str, Any]
    seconds: float | None = None
    # What there is to know about the result, in sentences.
    notes: tuple[str, ...] = ()
    lineage: Provenance = field(default_factory=Provenance)

    @property
    def is_done(self) -> bool:
        """Whether its result is that of the recipe as it is now."""
        return self.state == "done"

    @property
    def remedy(self) -> str:
        """What mends damage to what it made."""
        return redoing(self.name)

    @property
    def seed(self) -> int | None:
        """The seed of what it drew at random."""
        return self.config.get("seed") if self.lineage.seed is None else self.lineage.seed

    @property
    def settings(self) -> str:
        """Its table in a line, without the names of other things."""
        values = {
            key: value
            for key, value in self.config.items()
            if value is not None and key != "seed" and not self._names_inputs(value)
        }
        return ", ".join(f"{key} = {_written(value)}" for key, value in values.items())

    def _names_inputs(self, value: Any) -> bool:
        names = value if isinstance(value, list) else [value]
        return bool(names) and all(isinstance(n, str) and n in self.inputs for n in names)


@dataclass(frozen=True)
class RunRecord:
    """A run: what was planned last, and what is done of it, in the order of the recipe's flow."""

    folder: Path
    name: str
    lineage: Provenance
    # The recipe as it was written, "" without one.
    recipe_text: str
    steps: tuple[RunStep, ...]


def read_run(folder: Path) -> RunRecord:
    """Read the run in a folder; without a lock file it has no steps."""
    path = folder / RECIPE_LOCK
    try:
        lock = read_state(path, remedy=AGAIN)
    except FileNotFoundError:
        lock = {"steps": {}}
    with reading(path, remedy=AGAIN):
        planned, order = dict(lock["steps"]), lock.get("order") or list(lock["steps"])
        if sorted(order) != sorted(planned):
            raise ValueError("order and steps name different things")
        made_by = from_plain(Provenance, lock.get("lineage", {}))
        name = str(lock.get("name") or folder.name)
    recipe = folder / RECIPE
    text = ""
    if recipe.is_file():
        with reading(recipe, remedy=AGAIN):
            text = recipe.read_text(encoding="utf-8")
    steps = tuple(_step(each, planned[each], folder) for each in order)
    return RunRecord(folder, name, made_by, text, steps)


def _step(name: str, planned: Any, run_folder: Path) -> RunStep:
    folder, lock = run_folder / name, run_folder / RECIPE_LOCK
    with reading(lock, remedy=AGAIN):
        hash_ = str(planned["hash"])
        step = from_plain(
            RunStep, {**planned, "name": name, "state": "to do", "folder": folder, "result": {}}
        )
    remedy = redoing(name)
    try:
        result = read_state(folder / RESULT, remedy=remedy)
    except (FileNotFoundError, NotADirectoryError):
        return replace(step, state="begun") if (folder / STEP).is_file() else step
    with reading(folder / RESULT, remedy=remedy):
        is_current = result["hash"] == hash_
    if not is_current:
        is_begun = successor(folder) is not None
        return replace(step, state="begun" if is_begun else "made with other settings")
    known = {key: result[key] for key in ("seconds", "notes", "lineage") if key in result}
    with reading(folder / RESULT, remedy=remedy):
        return from_plain(RunStep, {**vars(step), **known, "state": "done", "result": result})


def read_step(folder: Path) -> RunStep:
    """Read a step as its run has it, or by what it says of itself where it lies alone."""
    if folder.name in ("", ".."):
        folder = folder.resolve()
    for step in read_run(folder.parent).steps:
        if step.name == folder.name:
            return step
    result = read_state(folder / RESULT, remedy=AGAIN)
    with reading(folder / RESULT, remedy=AGAIN):
        planned = dict(result["step"])
    return _step(folder.name, planned, folder.parent)


def redoing(name: str) -> str:
    """Say how to make a finished step again; running the recipe would take it as it is."""
    return f"redo that step (--from {name})"


def _written(value: Any) -> str:
    """Write a setting as a person would."""
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
