"""Ask every model the same, and put the answers side by side."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from lmwright.core.errors import LmwrightError, RequestError, suggestion
from lmwright.core.results import Metric, Row
from lmwright.data.samples import Question
from lmwright.evaluation.scores import Scores
from lmwright.evaluation.selection import Selection, Suite, starter_lines
from lmwright.evaluation.speed import peak_memory
from lmwright.evaluation.statistics import (
    Difference,
    detectable,
    detectable_effect,
    difference,
    estimate,
    judge,
)
from lmwright.evaluation.tasks import TASKS, multiple_choice
from lmwright.lm import LanguageModel

N_INVARIANCE = 20
# Largest difference of a log-probability (nats) between batches that is still rounding in fp32.
INVARIANCE_LIMIT = 1e-3

# model -> metric -> rows
RowsOf = dict[str, dict[str, list[Row]]]


def evaluate(
    models: Sequence[LanguageModel],
    *,
    suite: Suite = "quick",
    tasks: Sequence[str] | None = None,
    questions: Sequence[Question] = (),
    parents: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Scores:
    """Measure models side by side; each is compared with the first and with its parent.

    `parents` says by name what a model was made from; `questions` (of the data step) are
    needed for the task "facts". Quality is exact only for models loaded with precision="fp32".
    """
    names = [model.name for model in models]
    check_names(names)
    selection = Selection(suite, tuple(questions))
    chosen, not_measured = plan(tasks, has_questions=bool(questions))
    rows: RowsOf = {}
    facts: dict[str, dict[str, Any]] = {}
    quality, speed = split_speed(chosen)
    for model in models:
        facts[model.name] = asdict(model.facts)
        if quality:
            facts[model.name]["batch_difference"] = batch_difference(model)
        rows[model.name] = dict(measure(model, quality, selection))
        if speed:
            with peak_memory() as peak:
                rows[model.name] |= measure(model, speed, selection)
            facts[model.name]["peak_memory_bytes"] = peak.size_bytes
    return conclude(
        rows,
        suite=suite,
        facts_of_models=facts,
        not_measured=not_measured,
        parents=parents or {},
        seed=seed,
    )


def plan(tasks: Sequence[str] | None, *, has_questions: bool) -> tuple[list[str], dict[str, str]]:
    """Return the metrics to measure, and why each other one is not measured."""
    known = {task.task for task in TASKS.values()}
    for name in tasks or ():
        if name not in known:
            raise RequestError(f"tasks: no task {name!r}{suggestion(name, known)}")
    if tasks is not None and "facts" in tasks and not has_questions:
        raise RequestError(
            "tasks: 'facts' needs held-out questions; name a data step that has some (data = ...)"
        )
    chosen, not_measured = [], {}
    for metric, task in TASKS.items():
        if tasks is not None and task.task not in tasks:
            not_measured[metric] = f"the task {task.task!r} was not asked for"
        elif task.task == "facts" and not has_questions:
            not_measured[metric] = "the evaluation has no held-out questions (data = ...)"
        else:
            chosen.append(metric)
    if not chosen:
        raise RequestError(
            "tasks = []: nothing to measure; name at least one task, or leave it out"
        )
    return chosen, not_measured


def check_names(names: Sequence[str]) -> None:
    """Refuse two models of one name: their rows could not be told apart."""
    if not names:
        raise RequestError("models is empty: name at least one model")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RequestError(f"models: {twice[0]!r} occurs twice; load one of them with another name")


def measure(
    model: LanguageModel, metrics: Sequence[str], selection: Selection
) -> Iterator[tuple[str, list[Row]]]:
    """Yield the rows of each metric as soon as they are measured."""
    for metric in metrics:
        yield metric, TASKS[metric].rows(model, selection)


def split_speed(metrics: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the metrics of quality and those of speed: they are measured in different formats."""
    speed = [metric for metric in metrics if TASKS[metric].task == "speed"]
    return [metric for metric in metrics if metric not in speed], speed


def batch_difference(model: LanguageModel) -> float:
    """Score 20 answers alone and together, and return the largest difference in nats.

    A batch must not change a result: above 1e-3 in fp32 it is an error.
    """
    items = starter_lines("multiple-choice.jsonl")[:N_INVARIANCE]
    requests = [multiple_choice.requests(item)[i % 4] for i, item in enumerate(items)]
    alone = [model.score([request])[0].logprob for request in requests]
    together = [score.logprob for score in model.score(requests)]
    largest = float(np.abs(np.array(alone) - np.array(together)).max())
    if model.facts.dtype.endswith("32") and not largest <= INVARIANCE_LIMIT:
        raise LmwrightError(
            f"{model.name}: a log-probability differs by {largest:.2g} nats between a request "
            f"alone and in a batch (limit {INVARIANCE_LIMIT:g}); its results cannot be trusted"
        )
    return largest


def conclude(
    rows: RowsOf,
    *,
    suite: Suite,
    facts_of_models: Mapping[str, Mapping[str, Any]],
    not_measured: Mapping[str, str],
    parents: Mapping[str, str],
    seed: int,
) -> Scores:
    """Turn rows into metrics, comparisons and verdicts; nothing is asked of a model here."""
    differences = [
        difference(
            rows[baseline][metric],
            rows[model][metric],
            TASKS[metric].measure,
            model=model,
            baseline=baseline,
            seed=seed,
        )
        for baseline, model in pairs(list(rows), parents)
        for metric in rows[model]
    ]
    return Scores(
        suite=suite,
        models=tuple(rows),
        parents={model: parents[model] for model in rows if model in parents},
        measures={metric: TASKS[metric].measure for metric in next(iter(rows.values()))},
        metrics={
            model: {metric: _metric(metric, found, seed) for metric, found in of_model.items()}
            for model, of_model in rows.items()
        },
        comparisons=tuple(judge(differences)),
        detectable=_detectable(rows, differences),
        facts_of_models={model: dict(facts) for model, facts in facts_of_models.items()},
        not_measured=dict(not_measured),
        rows=rows,
    )


def pairs(models: Sequence[str], parents: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return (baseline, model): each but the first against the first, and against its parent."""
    found = [(models[0], model) for model in models[1:]]
    for model in models:
        pair = (parents.get(model, ""), model)
        if pair[0] in models and pair[0] != model and pair not in found:
            found.append(pair)
    return found


def _metric(metric: str, rows: Sequence[Row], seed: int) -> Metric:
    task = TASKS[metric]
    value = estimate(rows, task.measure, seed=seed)
    if task.slices is None:
        return value
    return replace(value, slices=task.slices(rows, task.measure, seed=seed))


def _detectable(rows: RowsOf, differences: Sequence[Difference]) -> dict[str, float]:
    """Return the smallest change that can be found: of the comparison that varies most.

    Unpaired where there is none, or only of models that agree in every item.
    """
    found: dict[str, float] = {}
    for measured in differences:
        metric = measured.comparison.metric
        found[metric] = max(found.get(metric, 0.0), detectable(measured))
    first = next(iter(rows.values()))
    for metric in first:
        if not found.get(metric):
            found[metric] = detectable_effect(first[metric], TASKS[metric].measure)
    return found
