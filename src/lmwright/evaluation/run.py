"""Files in, files out: the step `[evaluate.NAME]` of a recipe.

Rows are stored as soon as a task is done, so a killed run goes on where it stood.
"""

import gc
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lmwright import lm
from lmwright.core.artifact import write_json
from lmwright.core.config import Inputs
from lmwright.core.progress import Bar, bar
from lmwright.core.results import Row, read_rows, write_rows
from lmwright.data.run import QUESTIONS
from lmwright.data.samples import Question
from lmwright.evaluation.config import Evaluate
from lmwright.evaluation.runner import (
    RowsOf,
    batch_difference,
    check_names,
    conclude,
    measure,
    plan,
    split_speed,
)
from lmwright.evaluation.selection import COUNTS, Selection
from lmwright.evaluation.speed import measure_in_turns
from lmwright.evaluation.tasks import TASKS
from lmwright.evaluation.tasks.facts import read_questions

SPEED = "speed.json"


@dataclass(frozen=True)
class _Job:
    """One model of the evaluation: what it is called, where it lies, where its rows go."""

    model: str
    source: Path | str
    folder: Path

    def path(self, metric: str) -> Path:
        return self.folder / f"{metric}.parquet"


def run(config: Evaluate, out: Path, inputs: Inputs, parents: dict[str, str]) -> dict[str, Any]:
    """Measure the models one after another; return the result as plain data.

    Quality in fp32, where a batch changes nothing; speed in the format the device likes best.
    """
    check_names(config.models)
    selection = Selection(config.suite, _questions(config, inputs))
    metrics, not_measured = plan(config.tasks, has_questions=bool(selection.questions))
    quality, speed = split_speed(metrics)
    rows: RowsOf = {}
    facts: dict[str, dict[str, Any]] = {}
    jobs: list[_Job] = []
    with bar("evaluate", total=len(config.models) * len(metrics)) as progress:
        for model in config.models:
            job = _Job(model, inputs.get(model, model), out / "rows" / folder_name(model))
            jobs.append(job)
            facts[model] = _quality(job, quality, selection, progress)
        for job, figures in zip(jobs, _speeds(jobs, speed, selection, progress), strict=True):
            facts[job.model] |= figures
            rows[job.model] = {metric: read_rows(job.path(metric)) for metric in metrics}
    scores = conclude(
        rows,
        suite=config.suite,
        facts_of_models=facts,
        not_measured=not_measured,
        parents=parents,
        seed=config.seed,
    )
    return {
        **scores.to_json(),
        "counts": COUNTS[config.suite],
        # Where the rows of each model lie, and what was asked where a row holds a reply.
        "rows": {model: f"rows/{folder_name(model)}" for model in config.models},
        "prompts": {
            metric: prompts(selection) for metric in metrics if (prompts := TASKS[metric].prompts)
        },
    }


def folder_name(model: str) -> str:
    """Return a name for a model's folder: its own where it can be one, else with a hash."""
    if re.fullmatch(r"\w[\w.-]*", model):
        return model
    safe = re.sub(r"[^\w.-]+", "-", model).strip("-.")
    return f"{safe[-40:]}-{hashlib.sha256(model.encode()).hexdigest()[:8]}"


def _questions(config: Evaluate, inputs: Inputs) -> tuple[Question, ...]:
    if config.data is None:
        return ()
    return read_questions(Path(inputs.get(config.data, config.data)) / QUESTIONS)


def _quality(job: _Job, metrics: list[str], selection: Selection, progress: Bar) -> dict[str, Any]:
    """Measure what is not on disk yet, exactly; return the figures of the model."""
    path = job.folder / "quality.json"
    if _is_done(job, metrics, path, progress):
        return _read(path) if metrics else {}
    model = lm.load(job.source, precision="fp32", name=job.model)
    figures = {**asdict(model.facts), "quality_dtype": model.facts.dtype}
    figures["batch_difference"] = batch_difference(model)
    missing = _missing(job, metrics)
    progress.advance(len(metrics) - len(missing))
    _store(job, measure(model, missing, selection), progress)
    write_json(path, figures)
    # Memory goes back before the next model is loaded.
    del model
    gc.collect()
    return figures


def _speeds(
    jobs: list[_Job], metrics: list[str], selection: Selection, progress: Bar
) -> list[dict[str, Any]]:
    """Measure speed and memory where they are not on disk yet; return the figures by job."""
    missing = [job for job in jobs if not _is_done(job, metrics, job.folder / SPEED, progress)]
    sources = [(str(job.source), job.model) for job in missing]
    timings = measure_in_turns(sources, selection.suite) if missing else []
    for job, timing in zip(missing, timings, strict=True):
        for metric in metrics:
            write_rows(job.path(metric), timing.rows[metric])
        write_json(job.folder / SPEED, timing.figures)
        progress.advance(len(metrics), note=f"{job.model}: speed")
    return [_read(job.folder / SPEED) if metrics else {} for job in jobs]


def _missing(job: _Job, metrics: list[str]) -> list[str]:
    return [metric for metric in metrics if not job.path(metric).is_file()]


def _is_done(job: _Job, metrics: list[str], figures: Path, progress: Bar) -> bool:
    missing = _missing(job, metrics)
    if missing or (metrics and not figures.is_file()):
        return False
    progress.advance(len(metrics), note=job.model)
    return True


def _store(job: _Job, measured: Iterator[tuple[str, list[Row]]], progress: Bar) -> None:
    for metric, rows in measured:
        write_rows(job.path(metric), rows)
        progress.advance(note=f"{job.model}: {metric}")


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
