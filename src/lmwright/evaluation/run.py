"""Files in, files out: the step `[evaluate.NAME]` of a recipe.

Rows are stored as soon as a metric is measured, so a killed run goes on where it stood.
"""

import gc
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
from lmwright.evaluation.measurement import Measurement
from lmwright.evaluation.runner import (
    Choice,
    Measured,
    Skipped,
    check_names,
    choose,
    conclude,
    elsewhere,
    facts,
    measure,
    self_test,
)
from lmwright.evaluation.speed import measure_in_turns
from lmwright.evaluation.tasks import MEASUREMENTS
from lmwright.evaluation.tasks.qa_accuracy import read_questions
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
        return self.read(GAPS) or {}

    @property
    def usage(self) -> Usage | None:
        counts = self.read(USAGE)
        return None if counts is None else Usage(**counts)

    def path(self, measurement: Measurement) -> Path:
        return self.folder / f"{measurement.spec.name}.parquet"

    def missing(self, measurements: Sequence[Measurement]) -> list[Measurement]:
        gaps = self.gaps
        return [m for m in measurements if not self.path(m).is_file() and m.spec.name not in gaps]

    def read(self, name: str) -> dict[str, Any] | None:
        path = self.folder / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def run(
    config: Evaluate,
    out: Path,
    context: StepContext,
    *,
    measurements: Mapping[str, Measurement] = MEASUREMENTS,
) -> dict[str, Any]:
    """Measure the models one after another; return the result as plain data.

    Quality in fp32, where a batch changes nothing; speed in the format the device likes best.
    """
    check_names(config.models)
    questions = _questions(config, context)
    choice = choose(config.tasks, questions, suite=config.suite, measurements=measurements)
    jobs = [_job(model, config, out, context) for model in config.models]
    local = [job for job in jobs if not job.is_hosted]
    total = len(jobs) * len(choice.quality) + len(local) * len(choice.speed)
    measured = {job.model: Measured() for job in jobs}
    with bar("evaluate", total=total) as progress:
        for job in jobs:
            measured[job.model].facts |= _quality(job, choice, progress)
        for job, found in zip(local, _speeds(local, choice, progress), strict=True):
            measured[job.model].facts |= found
    for job in jobs:
        found = measured[job.model]
        found.gaps = job.gaps | (elsewhere(choice) if job.is_hosted else {})
        for each in choice.measurements:
            if each.spec.name not in found.gaps:
                found.rows[each.spec.name] = read_rows(job.path(each))
    scores = conclude(measured, choice, parents=context.parents, seed=config.seed)
    return {
        **scores.to_json(),
        "counts": {name: each.n_items[config.suite] for name, each in measurements.items()},
        # Where the rows of each model lie.
        "rows": {model: f"rows/{folder_name(model)}" for model in config.models},
    }


def _job(model: str, config: Evaluate, out: Path, context: StepContext) -> _Job:
    source = context.inputs.get(model, model)
    options = {"hosted": config.hosted} if is_hosted(str(source)) else {}
    return _Job(model, source, out / "rows" / folder_name(model), options)


def folder_name(model: str) -> str:
    """Return a name for a model's folder: its own where it can be one, else with a hash."""
    if re.fullmatch(r"\w[\w.-]*", model):
        return model
    safe = re.sub(r"[^\w.-]+", "-", model).strip("-.")
    return f"{safe[-40:]}-{hashlib.sha256(model.encode()).hexdigest()[:8]}"


def _questions(config: Evaluate, context: StepContext) -> tuple[Question, ...]:
    if config.data is None:
        return ()
    return read_questions(Path(context.inputs.get(config.data, config.data)) / QUESTIONS)


def _quality(job: _Job, choice: Choice, progress: Bar) -> dict[str, Any]:
    """Measure what is not on disk yet, exactly; return the facts of the model."""
    missing = job.missing(choice.quality)
    progress.advance(len(choice.quality) - len(missing), note=job.model)
    known = job.read(QUALITY)
    if not choice.quality or (known is not None and not missing):
        return known or {}
    model = lm.load(job.source, precision="fp32", name=job.model, **job.options)
    found = facts(model) | self_test(model)
    if model.info.dtype is not None:
        found["quality_dtype"] = model.info.dtype
    asked_before = job.usage
    for metric, measured in measure(model, missing, choice):
        if isinstance(measured, Skipped):
            write_json(job.folder / GAPS, {**job.gaps, metric: measured.reason})
        else:
            write_rows(job.folder / f"{metric}.parquet", measured)
        if isinstance(model, HostedModel):
            # With what was asked before a kill; no more than one metric's requests are forgotten.
            usage = model.usage if asked_before is None else asked_before.plus(model.usage)
            write_json(job.folder / USAGE, usage.to_json())
        progress.advance(note=f"{job.model}: {metric}")
    if (usage := job.usage) is not None:
        found["usage"] = usage.to_json()
    write_json(job.folder / QUALITY, found)
    # Memory goes back before the next model is loaded.
    del model
    gc.collect()
    return found


def _speeds(jobs: list[_Job], choice: Choice, progress: Bar) -> list[dict[str, Any]]:
    """Measure speed and memory where they are not on disk yet; return the facts by job."""
    if not choice.speed:
        return [{} for _ in jobs]
    missing = [job for job in jobs if job.missing(choice.speed) or job.read(SPEED) is None]
    progress.advance((len(jobs) - len(missing)) * len(choice.speed))
    sources = [(str(job.source), job.model) for job in missing]
    timings = measure_in_turns(sources, choice.suite, choice.speed) if missing else []
    for job, timing in zip(missing, timings, strict=True):
        for each in choice.speed:
            write_rows(job.path(each), timing.rows[each.spec.name])
        write_json(job.folder / SPEED, timing.figures)
        progress.advance(len(choice.speed), note=f"{job.model}: speed")
    return [job.read(SPEED) or {} for job in jobs]
