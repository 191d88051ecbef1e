"""Files in, files out: the step `[evaluate.NAME]` of a recipe."""

import gc
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmwright import lm
from lmwright.core.progress import Bar, bar
from lmwright.core.stage import StepContext
from lmwright.data.run import QUESTIONS
from lmwright.data.samples import Question
from lmwright.evaluation.config import Evaluate
from lmwright.evaluation.measurement import Measurement
from lmwright.evaluation.runner import (
    Choice,
    Measured,
    ask,
    check_names,
    choose,
    conclude,
    elsewhere,
    self_test,
)
from lmwright.evaluation.speed import measure_in_turns
from lmwright.evaluation.tasks import MEASUREMENTS
from lmwright.evaluation.tasks.qa_accuracy import read_questions
from lmwright.hosted.address import is_hosted


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
    sources = {model: str(context.inputs.get(model, model)) for model in config.models}
    # Where the rows of each model lie.
    folders = {model: f"rows/{folder_name(model)}" for model in config.models}
    measured = {model: Measured.read(out / folders[model], choice) for model in config.models}
    for model, source in sources.items():
        if is_hosted(source):
            measured[model].gaps |= elsewhere(choice)
    n_missing = sum(len(found.missing(choice.measurements)) for found in measured.values())
    total = len(measured) * len(choice.measurements)
    with bar("evaluate", total=total) as progress:
        progress.skip(total - n_missing)
        for model, found in measured.items():
            if found.missing(choice.quality):
                _quality(model, sources[model], config, choice, found, progress)
                # Memory goes back before the next model is loaded.
                gc.collect()
        slow = [model for model, found in measured.items() if found.missing(choice.speed)]
        order = [(sources[model], model) for model in slow]
        timings = measure_in_turns(order, choice.suite, choice.speed, progress)
        for model, timing in zip(slow, timings, strict=True):
            found = measured[model]
            found.facts |= timing.figures
            found.rows |= timing.rows
            for metric in timing.rows:
                found.keep(metric)
    scores = conclude(measured, choice, parents=context.parents, seed=config.seed)
    counts = {name: each.n_items[config.suite] for name, each in measurements.items()}
    return {**scores.to_json(), "counts": counts, "rows": folders}


def _quality(
    model: str, source: str, config: Evaluate, choice: Choice, found: Measured, progress: Bar
) -> None:
    """Load a model and measure what is missing; `progress` moves by a unit a metric."""
    options = {"hosted": config.hosted} if is_hosted(source) else {}
    progress.advance(0, f"{model}: loading")
    loaded = lm.load(source, precision="fp32", name=model, **options)
    progress.advance(0, f"{model}: self-test")
    found.facts |= self_test(loaded)
    if loaded.info.dtype is not None:
        found.facts["quality_dtype"] = loaded.info.dtype
    ask(loaded, choice.quality, choice, found, progress)


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
