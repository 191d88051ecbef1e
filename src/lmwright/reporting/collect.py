"""Everything a report tells, gathered from the files of a run. Nothing is computed twice.

What is absent stays absent: a run without training has no losses, one without a gate no gate.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmwright.core.artifact import RESULT
from lmwright.core.decision import GateResult
from lmwright.core.errors import DataError
from lmwright.core.results import MetricSpec, Row, Scores, from_plain, read_rows


@dataclass(frozen=True)
class Answer:
    """What one model said to a question."""

    model: str
    text: str
    # None where one row alone does not say: its metric is no share of right ones.
    is_right: bool | None


@dataclass(frozen=True)
class ComparedItem:
    """One held-out item under each model."""

    metric: str
    item: str
    question: str
    # What a right reply contains or is, where the metric says so.
    expected: str
    answers: tuple[Answer, ...]

    @property
    def flips(self) -> bool:
        """Whether the models disagree about it."""
        return len({answer.is_right for answer in self.answers}) > 1


@dataclass(frozen=True)
class LossCurve:
    """The losses of one training step: (optimiser step, loss)."""

    step: str
    train: tuple[tuple[float, float], ...]
    validation: tuple[tuple[float, float], ...]


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
    # `result.json` and the folder it lies in; empty and None where the step did not run.
    result: Mapping[str, Any]
    folder: Path | None

    @property
    def lineage(self) -> Mapping[str, Any]:
        """With which versions, on what and when it was done."""
        return self.result.get("lineage", {})

    @property
    def seed(self) -> int | None:
        """The seed of what it drew at random."""
        return self.lineage.get("seed", self.config.get("seed"))

    @property
    def hash(self) -> str:
        """What it is known by, "" where it did not run."""
        return str(self.result.get("hash", ""))

    @property
    def settings(self) -> str:
        """Its table in a line, without the names of other things."""
        values = {
            key: value
            for key, value in self.config.items()
            if value is not None and key != "seed" and not self._names_inputs(value)
        }
        return ", ".join(f"{key} = {value}" for key, value in values.items())

    def _names_inputs(self, value: Any) -> bool:
        names = value if isinstance(value, list) else [value]
        return bool(names) and all(isinstance(n, str) and n in self.inputs for n in names)


@dataclass(frozen=True)
class RunReport:
    """A run as a report sees it."""

    name: str
    evaluation_name: str
    scores: Scores
    # With which versions, on what and when it was measured.
    lineage: Mapping[str, Any]
    # The recipe as it was written, "" without one.
    recipe_text: str
    # In the order of the lock file.
    steps: tuple[RunStep, ...]
    gates: tuple[GateResult, ...]
    losses: tuple[LossCurve, ...]
    # What training saw: counts, and a sample's tokens under "example" ({} without training).
    audit: Mapping[str, Any]
    items: tuple[ComparedItem, ...]

    @property
    def models(self) -> tuple[str, ...]:
        """The models side by side; the first is the baseline."""
        return self.scores.models

    def step(self, name: str) -> RunStep | None:
        """Return the step of a name, where the run has it."""
        return next((step for step in self.steps if step.name == name), None)

    def origin(self, model: str) -> str:
        """Return what a model is held against: its measured parent, else the first model."""
        measured = [p for p in self.scores.parents.get(model, ()) if p in self.models]
        return (measured or list(self.models))[0]

    def chain(self, model: str) -> list[RunStep]:
        """Return the steps that made a model from its first parents, the last one first."""
        chain: list[RunStep] = []
        while (step := self.step(model)) and step not in chain:
            chain.append(step)
            model = step.parents[0] if step.parents else ""
        return chain


def collect(evaluation_folder: Path, run_folder: Path, gates: Sequence[Path] = ()) -> RunReport:
    """Read an evaluation, the run around it and the folders of the gates that it passed through."""
    result = _json(evaluation_folder / RESULT)
    if not result:
        raise DataError(
            f"{evaluation_folder / RESULT}: no finished evaluation there; run the evaluation first"
        )
    scores = Scores.from_json(result)
    lock = _json(run_folder / "recipe.lock.json")
    steps = tuple(_steps(lock, run_folder))
    return RunReport(
        name=str(lock.get("name") or run_folder.name),
        evaluation_name=evaluation_folder.name,
        scores=scores,
        lineage=result.get("lineage") or lock.get("lineage", {}),
        recipe_text=_text(run_folder / "recipe.toml"),
        steps=steps,
        gates=tuple(from_plain(GateResult, _json(folder / RESULT)) for folder in gates),
        losses=tuple(curve for step in steps if (curve := _losses(step))),
        audit=next((a for s in steps if s.folder and (a := _json(s.folder / "audit.json"))), {}),
        items=tuple(_items(scores, evaluation_folder, result.get("rows", {}))),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error}); remove it and run the step again") from None


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(_text(path) or "{}")
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: not JSON ({error}); remove it and run the step again") from None


def _steps(lock: Mapping[str, Any], run_folder: Path) -> Iterator[RunStep]:
    """Yield what a report tells of: all but reports."""
    for name, step in lock.get("steps", {}).items():
        if step.get("makes") != "report":
            result = _json(run_folder / name / RESULT)
            found = {"result": result, "folder": run_folder / name if result else None}
            yield from_plain(RunStep, {**step, "name": name, **found})


def _losses(step: RunStep) -> LossCurve | None:
    """Return the losses of a step that left some: it trained."""
    if step.folder is None or not (path := step.folder / "metrics.jsonl").exists():
        return None
    train, validation = [], []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            raise DataError(f"{path}, line {number}: not JSON; run {step.name} again") from None
        for points, key in ((train, "loss"), (validation, "validation_loss")):
            if record.get(key) is not None:
                points.append((float(record["step"]), float(record[key])))
    return LossCurve(step.name, tuple(train), tuple(validation)) if train or validation else None


def _items(scores: Scores, folder: Path, folders: Mapping[str, str]) -> Iterator[ComparedItem]:
    """Yield the items that each model answered in words."""
    for metric, asked in scores.asked.items():
        spec = scores.spec(metric)
        rows = [_rows(folder / folders.get(m, "") / f"{metric}.parquet") for m in scores.models]
        for item in rows[0]:
            if spec is None or not all(item in each for each in rows):
                continue
            answers = tuple(
                Answer(model, each[item].detail, _is_right(each[item], spec))
                for model, each in zip(scores.models, rows, strict=True)
            )
            question = asked.get(item)
            words = (question.question, question.expected) if question else (item, "")
            yield ComparedItem(metric, item, *words, answers)


def _is_right(row: Row, spec: MetricSpec) -> bool | None:
    return (row.sums[0] > 0) == spec.higher_is_better if spec.kind == "binary" else None


def _rows(path: Path) -> dict[str, Row]:
    """Return a model's rows by item; none where it lacks the metric."""
    return {row.item: row for row in read_rows(path)} if path.exists() else {}
