"""What a run or one of its steps is, as a page that people read in a terminal."""

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from lmwright.cli import listing
from lmwright.core import figures
from lmwright.core.artifact import RESULT, reading
from lmwright.core.decision import GateResult
from lmwright.core.results import Scores, from_plain, plain, read_plain
from lmwright.core.text_table import TextTable, glued
from lmwright.data.run import QUESTIONS, TRAIN
from lmwright.reporting.collect import outcome
from lmwright.reporting.run import CARD, PAGE
from lmwright.reporting.steps import RECIPE, Provenance, RunRecord, RunStep
from lmwright.reporting.summary import training_line

# Dialogues and held-out questions that the page of a data step shows, and characters of a turn.
N_SHOWN = 3
MAX_CHARACTERS = 400


@dataclass(frozen=True)
class DataCounts:
    """What a data step says of itself."""

    n_train: int = 0
    n_validation: int = 0
    n_questions: int = 0
    n_duplicates_dropped: int = 0

    def __str__(self) -> str:
        told = f"{self.n_train:,} samples, {self.n_validation:,} to validate"
        return f"{told}, {self.n_questions:,} questions"


def run_page(run: RunRecord) -> str:
    """Return a run: its steps, what was measured and decided, where it lies, what to do next."""
    rows = [
        [
            step.name,
            step.stage,
            step.state,
            "" if step.seconds is None else glued(figures.duration(step.seconds)),
            _made(step) if step.is_done else "",
        ]
        for step in run.steps
    ]
    steps = TextTable(["step", "stage", "state", "took", "made"], rows)
    where = [("folder", str(run.folder)), ("made", _when(run.lineage))]
    done = [step for step in run.steps if step.is_done]
    sections = [
        f"{run.name}\n{_labelled(where)}",
        listing.table(steps),
        *(listing.table(_scores(step).table()) for step in done if step.makes == "evaluation"),
        *(listing.decision(_decision(step), step.name) for step in done if step.makes == "gate"),
    ]
    if notes := [(step.name, note) for step in done for note in step.notes]:
        sections.append(f"notes\n{_labelled(notes)}")
    if files := [pair for step in done for pair in _files(step)]:
        sections.append(f"files\n{_labelled(files)}")
    sections.append("\n".join(["next", *(f"  {command}" for command in _next(run))]))
    return "\n\n".join(sections)


def run_json(run: RunRecord) -> dict[str, Any]:
    """Return the same as plain data; the results of a step are those of the step."""
    return {
        "run": str(run.folder),
        "name": run.name,
        "lineage": plain(run.lineage),
        "steps": {
            step.name: {
                "stage": step.stage,
                "state": step.state,
                "is_done": step.is_done,
                "notes": list(step.notes),
                **{key: step.result[key] for key in ("seconds", "passed") if key in step.result},
            }
            for step in run.steps
        },
        "files": dict(pair for step in run.steps if step.is_done for pair in _files(step)),
        "next": _next(run),
    }


def step_page(step: RunStep) -> str:
    """Return what a finished step made."""
    page = PAGES.get(step.makes)
    body = listing.fields(dict(step.result)) if page is None else page(step)
    return f"{body}\n\n{step_lines(step)}"


def step_lines(step: RunStep) -> str:
    """Return how a step was made: its settings, how long it took, what is to be noted."""
    took = "" if step.seconds is None else f", took {figures.duration(step.seconds)}"
    lines = [
        ("step", f"{step.name}, {step.stage}, {step.state}{took}"),
        ("from", ", ".join(step.inputs)),
        ("settings", step.settings),
        ("trained", training_line(outcome(step)) if step.makes == "model" else ""),
        *(("note", note) for note in step.notes),
        *_files(step),
    ]
    return _labelled([(label, text) for label, text in lines if text], indent="")


def _labelled(pairs: list[tuple[str, str]], indent: str = "  ") -> str:
    width = max(len(label) for label, _ in pairs) + 2
    return "\n".join(
        listing.wrapped(text, first=f"{indent}{label:<{width}}", rest=indent + " " * width)
        for label, text in pairs
    )


def _when(lineage: Provenance) -> str:
    day, _, rest = lineage.time.partition("T")
    version = lineage.versions.get("lmwright")
    parts = [f"{day} {rest[:5]} UTC".strip() if day else "", lineage.machine]
    return ", ".join(filter(None, [*parts, f"lmwright {version}" if version else ""]))


def _made(step: RunStep) -> str:
    """Return in a few words what a step made."""
    if step.makes == "data":
        return str(_counts(step))
    if step.makes == "model":
        weights = (step.folder / "model").glob("*.safetensors")
        size = sum(path.stat().st_size for path in weights)
        return figures.figure(size, "bytes") if size else ""
    if step.makes == "evaluation":
        scores = _scores(step)
        return f"{len(scores.specs)} metrics of {len(scores.models)} models"
    if step.makes == "gate":
        decision = _decision(step)
        return f"{decision.model} {'passed' if decision.passed else 'did not pass'}"
    return ""


def _files(step: RunStep) -> list[tuple[str, str]]:
    """Return what people look for in a step's folder, with its path."""
    known = {
        "report": [("report", PAGE), ("card", CARD)],
        "model": [(step.name, "model"), (f"{step.name} log", "metrics.jsonl")],
        "data": [(step.name, "")],
        "evaluation": [(f"{step.name} rows", "rows")],
    }
    found = [(label, step.folder / name) for label, name in known.get(step.makes, [])]
    return [(label, str(path)) for label, path in found if path.exists()]


def _next(run: RunRecord) -> list[str]:
    """Return the commands that come next: go on, or use what the run is about."""
    folder = shlex.quote(str(run.folder))
    if not all(step.is_done for step in run.steps):
        recipe = shlex.quote(str(run.folder / RECIPE))
        return [f"lmwright run {recipe} --out {folder}"]
    gated = [_decision(step).model for step in run.steps if step.makes == "gate"]
    made = [step.name for step in run.steps if step.makes == "model"]
    models = [name for name in (*gated, *reversed(made)) if name in made]
    if not models:
        data = [step.name for step in run.steps if step.makes == "data"]
        return [f"lmwright show {shlex.quote(str(run.folder / name))}" for name in data]
    model = shlex.quote(str(run.folder / models[0]))
    return [f"lmwright chat {model}", f"lmwright serve {model}", f"lmwright show {model}"]


def _counts(step: RunStep) -> DataCounts:
    with reading(step.folder / RESULT, remedy=step.remedy):
        return from_plain(DataCounts, step.result)


def _scores(step: RunStep) -> Scores:
    return read_plain(Scores, step.folder / RESULT, remedy=step.remedy)


def _decision(step: RunStep) -> GateResult:
    return read_plain(GateResult, step.folder / RESULT, remedy=step.remedy)


def _data_page(step: RunStep) -> str:
    counts = _counts(step)
    told = str(counts)
    if counts.n_duplicates_dropped:
        told += f"; {counts.n_duplicates_dropped:,} duplicates were dropped"
    shown = [told]
    shown += _first(step, TRAIN, "sample")
    shown += _first(step, QUESTIONS, "question")
    return "\n\n".join(shown)


def _first(step: RunStep, file: str, label: str) -> list[str]:
    """Return the first records of a file of JSON lines as dialogues."""
    path = step.folder / file
    with reading(path, remedy=step.remedy), path.open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in islice(lines, N_SHOWN)]
        return [f"{label} {record['id']}\n{_dialogue(record)}" for record in records]


def _dialogue(record: dict[str, Any]) -> str:
    pairs = [(str(turn["role"]), str(turn["content"])) for turn in record["messages"]]
    if "accept" in record:
        pairs.append(("right", " | ".join(map(str, record["accept"]))))
    return _labelled([(role, _cut(" ".join(text.split()))) for role, text in pairs])


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]} ..."


def _evaluation_page(step: RunStep) -> str:
    return listing.table(_scores(step).table())


def _gate_page(step: RunStep) -> str:
    return listing.decision(_decision(step), step.name)


def _report_page(step: RunStep) -> str:
    return f"open {step.folder / PAGE} in a browser"


# What a step makes -> its page.
PAGES: dict[str, Callable[[RunStep], str]] = {
    "data": _data_page,
    "evaluation": _evaluation_page,
    "gate": _gate_page,
    "report": _report_page,
}
