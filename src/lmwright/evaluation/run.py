"""Files in, files out: the step `[evaluate.NAME]` of a recipe.

Rows are stored as soon as a task is done, so a killed run goes on where it stood.
"""

import gc
import hashlib
import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lmwright import lm
from lmwright.core.artifact import write_json
from lmwright.core.progress import Bar, bar
from lmwright.core.results import read_rows, write_rows
from lmwright.core.stage import StepContext
from lmwright.data.run import QUESTIONS
from lmwright.data.samples import Question
from lmwright.evaluation.config import Evaluate
from lmwright.evaluation.runner import (
    Gap,
    GapsOf,
    RowsOf,
    check_names,
    conclude,
    elsewhere,
    figures,
    measure,
    plan,
    self_test,
    split_speed,
)
from lmwright.evaluation.selection import COUNTS, Selection
from lmwright.evaluation.speed import measure_in_turns
from lmwright.evaluation.tasks import TASKS
from lmwright.evaluation.tasks.facts import read_questions
from lmwright.hosted.address import is_hosted
from lmwright.hosted.model import HostedModel
from lmwright.hosted.usage import Usage

SPEED, QUALITY = "speed.json", "quality.json"
# What a model cannot be asked, and what was asked of a hosted one.
GAPS, USAGE = "gaps.json", "usage.json"


@dataclass(frozen=True)
class _Job:
    """One model of the evaluation: what it is called, where it lies, where its rows go."""

    model: str
    source: Path | str
    folder: Path
    # How it is asked, for a hosted one.
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def is_hosted(self) -> bool:
        return is_hosted(str(self.source))

    @property
    def gaps(self) -> dict[str, str]:
        path = self.folder / GAPS
        return _read(path) if path.is_file() else {}

    @property
    def usage(self) -> Usage | None:
        path = self.folder / USAGE
        return Usage(**_read(path)) if path.is_file() else None

    def path(self, metric: str) -> Path:
        return self.folder / f"{metric}.parquet"


def run(config: Evaluate, out: Path, context: StepContext) -> dict[str, Any]:
    """Measure the models one after another; return the result as plain data.

    Quality in fp32, where a batch changes nothing; speed in the format the device likes best.
    """
    check_names(config.models)
    selection = Selection(config.suite, _questions(config, context))
    metrics, not_measured = plan(config.tasks, has_questions=bool(selection.questions))
    quality, speed = split_speed(metrics)
    jobs = [_job(model, config, out, context) for model in config.models]
    local = [job for job in jobs if not job.is_hosted]
    facts: dict[str, dict[str, Any]] = {}
    with bar("evaluate", total=len(jobs) * len(quality) + len(local) * len(speed)) as progress:
        for job in jobs:
            facts[job.model] = _quality(job, quality, selection, progress)
        for job, found in zip(local, _speeds(local, speed, selection, progress), strict=True):
            facts[job.model] |= found
    rows: RowsOf = {}
    gaps: GapsOf = {}
    for job in jobs:
        gaps[job.model] = job.gaps | (elsewhere(speed) if job.is_hosted else {})
        told = [metric for metric in metrics if metric not in gaps[job.model]]
        rows[job.model] = {metric: read_rows(job.path(metric)) for metric in told}
    scores = conclude(
        rows,
        gaps,
        suite=config.suite,
        facts_of_models=facts,
        not_measured=not_measured,
        parents={model: names[0] for model, names in context.parents.items() if names},
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


def _job(model: str, config: Evaluate, out: Path, context: StepContext) -> _Job:
    job = _Job(model, context.inputs[model], out / "rows" / folder_name(model))
    return replace(job, options={"hosted": config.hosted}) if job.is_hosted else job


def folder_name(model: str) -> str:
    """Return a name for a model's folder: its own where it can be one, else with a hash."""
    if re.fullmatch(r"\w[\w.-]*", model):
        return model
    safe = re.sub(r"[^\w.-]+", "-", model).strip("-.")
    return f"{safe[-40:]}-{hashlib.sha256(model.encode()).hexdigest()[:8]}"


def _questions(config: Evaluate, context: StepContext) -> tuple[Question, ...]:
    if config.data is None:
        return ()
    return read_questions(Path(context.inputs[config.data]) / QUESTIONS)


def _quality(job: _Job, metrics: list[str], selection: Selection, progress: Bar) -> dict[str, Any]:
    """Measure what is not on disk yet, exactly; return the figures of the model."""
    path = job.folder / QUALITY
    if _is_done(job, metrics, path, progress):
        return _read(path) if metrics else {}
    model = lm.load(job.source, precision="fp32", name=job.model, **job.options)
    found = figures(model) | self_test(model)
    if model.info.dtype is not None:
        found["quality_dtype"] = model.info.dtype
    missing = _missing(job, metrics)
    progress.advance(len(metrics) - len(missing))
    asked_before = job.usage
    for metric, measured in measure(model, missing, selection):
        if isinstance(measured, Gap):
            write_json(job.folder / GAPS, {**job.gaps, metric: measured.reason})
        else:
            write_rows(job.path(metric), measured)
        if isinstance(model, HostedModel):
            # With what was asked before a kill; no more than one metric's requests are forgotten.
            usage = model.usage if asked_before is None else asked_before.plus(model.usage)
            write_json(job.folder / USAGE, usage.to_json())
        progress.advance(note=f"{job.model}: {metric}")
    if (usage := job.usage) is not None:
        found["usage"] = usage.to_json()
    write_json(path, found)
    # Memory goes back before the next model is loaded.
    del model
    gc.collect()
    return found


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
    return [m for m in metrics if not job.path(m).is_file() and m not in job.gaps]


def _is_done(job: _Job, metrics: list[str], figures: Path, progress: Bar) -> bool:
    missing = _missing(job, metrics)
    if missing or (metrics and not figures.is_file()):
        return False
    progress.advance(len(metrics), note=job.model)
    return True


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
