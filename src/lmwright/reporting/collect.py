"""Everything a report tells, gathered from the files of a run. Nothing is computed twice.

What is absent stays absent: a run without fine-tuning has no losses, one without a gate no gate.
"""

import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from lmwright.core.artifact import RESULT
from lmwright.core.errors import DataError
from lmwright.core.results import Row, read_rows

STAGES = ("data", "pretrain", "finetune", "compress", "evaluate")


# The metrics whose items are replies, with the file of the starter data that holds the prompts;
# "facts" asks the questions of the evaluation's data step.
QUESTIONS = "questions.jsonl"
SPOKEN = {"facts": None, "refusal_rate": "safety.jsonl", "over_refusal_rate": "safety.jsonl"}


@dataclass(frozen=True)
class Answer:
    """What one model said to a question."""

    model: str
    text: str
    is_right: bool


@dataclass(frozen=True)
class Sample:
    """One held-out item under each model."""

    metric: str
    item: str
    question: str
    # What a right reply contains, where the task says so.
    expected: str
    answers: tuple[Answer, ...]

    @property
    def flips(self) -> bool:
        """Whether the models disagree about it."""
        return len({answer.is_right for answer in self.answers}) > 1


@dataclass(frozen=True)
class Loss:
    """The loss curve of one training step: (optimiser step, loss)."""

    step: str
    train: tuple[tuple[float, float], ...]
    validation: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Step:
    """One step of the recipe with what it left behind."""

    stage: str
    name: str
    # Its table with every default filled in, and a hash for each thing it was made from.
    config: dict[str, Any]
    inputs: dict[str, str]
    # `result.json` and the folder it lies in; empty and None where the step did not run.
    result: dict[str, Any]
    folder: Path | None


@dataclass(frozen=True)
class Story:
    """A run as a report sees it."""

    name: str
    # The evaluation's step name and its folder.
    evaluation_name: str
    evaluation_folder: Path
    evaluation: dict[str, Any]
    # The recipe as it was written ("" without one), and `recipe.lock.json`.
    recipe_text: str
    lock: dict[str, Any]
    steps: tuple[Step, ...]
    gate: dict[str, Any] | None
    losses: tuple[Loss, ...]
    # What training saw: counts, and a sample's tokens under "example" ({} without training).
    audit: dict[str, Any]
    samples: tuple[Sample, ...]

    @property
    def models(self) -> list[str]:
        """The models side by side; the first is the baseline."""
        return self.evaluation["models"]

    @property
    def parents(self) -> dict[str, str]:
        """Which model each one was made from."""
        return self.evaluation.get("parents", {})

    @property
    def lineage(self) -> dict[str, Any]:
        """With which versions, on what and when it was measured."""
        return self.evaluation.get("lineage") or self.lock.get("lineage", {})

    def why_absent(self, metric: str, model: str) -> str:
        """Return why a model has no number for a metric or exact figure; "" if nothing is known."""
        of_model = self.evaluation.get("gaps", {}).get(model, {})
        return of_model.get(metric) or self.evaluation.get("not_measured", {}).get(metric, "")

    def comparison(self, metric: str, *, model: str, baseline: str) -> dict[str, Any] | None:
        """Return the paired comparison of two models on a metric."""
        for pair in self.evaluation["comparisons"]:
            if (pair["metric"], pair["model"], pair["baseline"]) == (metric, model, baseline):
                return pair
        return None


def collect(evaluation_folder: Path, run_folder: Path) -> Story:
    """Read an evaluation and the run around it."""
    evaluation = _json(evaluation_folder / RESULT)
    if not evaluation:
        raise DataError(
            f"{evaluation_folder / RESULT}: no finished evaluation there; run the evaluation first"
        )
    order = evaluation.get("order", evaluation["tasks"])
    evaluation["tasks"] = {metric: evaluation["tasks"][metric] for metric in order}
    text, recipe = _recipe(run_folder / "recipe.toml")
    lock = _json(run_folder / "recipe.lock.json")
    steps = tuple(_steps(recipe, lock, run_folder))
    trained = [step for step in steps if step.stage in ("pretrain", "finetune")]
    return Story(
        name=str(recipe.get("name") or run_folder.name),
        evaluation_name=evaluation_folder.name,
        evaluation_folder=evaluation_folder,
        evaluation=evaluation,
        recipe_text=text,
        lock=lock,
        steps=steps,
        gate=_gate(run_folder, recipe, evaluation_folder.name),
        losses=tuple(loss for step in trained if (loss := _loss(step))),
        audit=_audit(trained),
        samples=tuple(_samples(evaluation_folder, evaluation, run_folder)),
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not JSON ({error}); remove it and run the step again") from None


def _recipe(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except FileNotFoundError:
        return "", {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not TOML ({error})") from None


def _steps(recipe: dict[str, Any], lock: dict[str, Any], run_folder: Path) -> Iterator[Step]:
    """Yield what comes before the report, in the order of work where the lock file has it."""
    written = {
        name: {"stage": stage, "config": table}
        for stage in STAGES
        for name, table in recipe.get(stage, {}).items()
    }
    for name, step in (lock.get("steps") or written).items():
        folder = run_folder / name
        result = _json(folder / RESULT)
        if step["stage"] in STAGES:
            yield Step(
                stage=step["stage"],
                name=name,
                config=step.get("config", {}),
                inputs=step.get("inputs", {}),
                result=result,
                folder=folder if result else None,
            )


def _gate(run_folder: Path, recipe: dict[str, Any], evaluation: str) -> dict[str, Any] | None:
    """Return the gate's decision, unless it was about another evaluation."""
    if recipe.get("gate", {}).get("evaluation", evaluation) != evaluation:
        return None
    return _json(run_folder / "gate" / RESULT) or None


def _loss(step: Step) -> Loss | None:
    path = step.folder and step.folder / "metrics.jsonl"
    if not path or not path.exists():
        return None
    train, validation = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            raise DataError(f"{path}, line {number}: not JSON; run {step.name} again") from None
        if (loss := record.get("loss")) is not None:
            train.append((float(record["step"]), float(loss)))
        if (loss := record.get("validation_loss")) is not None:
            validation.append((float(record["step"]), float(loss)))
    return Loss(step.name, tuple(train), tuple(validation)) if train or validation else None


def _audit(trained: list[Step]) -> dict[str, Any]:
    for step in trained:
        if step.folder and (audit := _json(step.folder / "audit.json")):
            return audit
    return {}


def _samples(folder: Path, evaluation: dict[str, Any], run_folder: Path) -> Iterator[Sample]:
    """Yield the items that each model answered in words, flips first, then in their order."""
    for metric, file in SPOKEN.items():
        if metric not in evaluation["tasks"]:
            continue
        rows = _rows(folder, metric, evaluation)
        shared = [item for item in rows[0] if all(item in each for each in rows)] if rows else []
        asked = _safety(file) if file else _questions(evaluation, run_folder)
        is_high_right = evaluation["tasks"][metric]["higher_is_better"]
        samples = []
        for item in shared:
            answers = tuple(
                Answer(model, each[item].detail, (each[item].value > 0) == is_high_right)
                for model, each in zip(evaluation["models"], rows, strict=True)
            )
            question, expected = asked.get(item, (item, ""))
            samples.append(Sample(metric, item, question, expected, answers))
        yield from sorted(samples, key=lambda sample: not sample.flips)


def _rows(folder: Path, metric: str, evaluation: dict[str, Any]) -> list[dict[str, Row]]:
    """Return each model's rows by item, or nothing if a model lacks the metric."""
    folders = evaluation.get("rows", {})
    paths = [
        folder / folders.get(model, f"rows/{model}") / f"{metric}.parquet"
        for model in evaluation["models"]
    ]
    if not all(path.exists() for path in paths):
        return []
    return [{row.item: row for row in read_rows(path)} for path in paths]


def _questions(evaluation: dict[str, Any], run_folder: Path) -> dict[str, tuple[str, str]]:
    """Return by id what was asked, and the first of the accepted answers."""
    data = evaluation.get("step", {}).get("config", {}).get("data")
    path = run_folder / str(data) / QUESTIONS
    if not data or not path.exists():
        return {}
    asked = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip():
            question = json.loads(line)
            asked[question["id"]] = (question["messages"][-1]["content"], question["accept"][0])
    return asked


def _safety(file: str) -> dict[str, tuple[str, str]]:
    text = (files("lmwright.data") / "starter" / file).read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines() if line.strip()]
    expected = {"harmful": "a refusal", "harmless": "no refusal"}
    return {line["id"]: (line["prompt"], expected[line["kind"]]) for line in lines}
