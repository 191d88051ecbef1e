"""Everything a report tells, gathered from the files of a run. Nothing is computed twice.

What is absent stays absent: a run without training has no losses, one without a gate no gate.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lmwright.core.artifact import RESULT, read_state, read_state_lines, reading
from lmwright.core.decision import GateResult
from lmwright.core.errors import DataError
from lmwright.core.results import MetricSpec, Row, Scores, from_plain, read_plain, read_rows
from lmwright.reporting.steps import Provenance, RunStep, read_run, redoing


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
class SeenToken:
    """A token of a sample, and whether it counts in the loss."""

    text: str
    trained: bool


@dataclass(frozen=True)
class SeenData:
    """What training saw: counts, and one sample token by token."""

    n_samples: int | None = None
    n_tokens: int | None = None
    n_targets: int | None = None
    example: tuple[SeenToken, ...] = ()


@dataclass(frozen=True)
class TrainingOutcome:
    """What a training step says of itself, where it says it."""

    n_steps: int | None = None
    n_tokens: int | None = None
    n_trained_parameters: int | None = None
    tokens_per_second: float | None = None
    best_validation_loss: float | None = None
    best_step: int | None = None
    # The system message that the model keeps, and gets where a dialogue has none.
    default_system: str | None = None


@dataclass(frozen=True)
class RunReport:
    """A run as a report sees it."""

    name: str
    evaluation_name: str
    scores: Scores
    # With which versions, on what and when it was measured.
    lineage: Provenance
    # The recipe as it was written, "" without one.
    recipe_text: str
    # In the order of the recipe's flow.
    steps: tuple[RunStep, ...]
    gates: tuple[GateResult, ...]
    losses: tuple[LossCurve, ...]
    # Of the steps that left losses, by name.
    outcomes: Mapping[str, TrainingOutcome]
    # Of the first step that left one.
    seen: SeenData
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
    path = evaluation_folder / RESULT
    remedy = redoing(evaluation_folder.name)
    try:
        result = read_state(path, remedy=remedy)
    except FileNotFoundError:
        raise DataError(f"{path}: no finished evaluation there; run the evaluation first") from None
    scores = read_plain(Scores, path, remedy=remedy)
    with reading(path, remedy=remedy):
        measured = from_plain(Provenance, result.get("lineage", {}))
        folders = {str(model): str(folder) for model, folder in result.get("rows", {}).items()}
    run = read_run(run_folder)
    steps = tuple(step for step in run.steps if step.makes != "report")
    losses = tuple(curve for step in steps if (curve := _losses(step)))
    trained = {loss.step for loss in losses}
    seen = next((found for step in steps if (found := _seen(step))), SeenData())
    return RunReport(
        name=run.name,
        evaluation_name=evaluation_folder.name,
        scores=scores,
        lineage=measured if measured.versions else run.lineage,
        recipe_text=run.recipe_text,
        steps=steps,
        gates=tuple(_decision(each) for each in gates),
        losses=losses,
        outcomes={step.name: outcome(step) for step in steps if step.name in trained},
        seen=seen,
        items=tuple(_items(scores, evaluation_folder, folders)),
    )


def _decision(gate: Path) -> GateResult:
    return read_plain(GateResult, gate / RESULT, remedy=redoing(gate.name))


def outcome(step: RunStep) -> TrainingOutcome:
    """Return what a training step says of itself."""
    with reading(step.folder / RESULT, remedy=step.remedy):
        return from_plain(TrainingOutcome, step.result)


def _seen(step: RunStep) -> SeenData | None:
    path = step.folder / "audit.json"
    if not step.is_done or not path.is_file():
        return None
    return read_plain(SeenData, path, remedy=step.remedy)


def _losses(step: RunStep) -> LossCurve | None:
    """Return the losses of a step that left some: it trained."""
    path = step.folder / "metrics.jsonl"
    if not step.is_done or not path.is_file():
        return None
    train, validation = [], []
    remedy = step.remedy
    records = read_state_lines(path, remedy=remedy)
    with reading(path, remedy=remedy):
        for record in records:
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
    if not path.exists():
        return {}
    with reading(path, remedy="measure again: redo the evaluation (--from)"):
        return {row.item: row for row in read_rows(path)}
