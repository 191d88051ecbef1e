"""Ask every model the same, and put the answers side by side."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from lmwright.core.errors import LmwrightError, RequestError, UnsupportedError, suggestion
from lmwright.core.results import Metric, Row
from lmwright.data.samples import Question
from lmwright.evaluation.scores import EXACT, Scores
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
from lmwright.hosted.model import HostedModel
from lmwright.lm import LanguageModel

N_INVARIANCE = 20
# Largest difference of a log-probability (nats) between batches that is still rounding in fp32.
INVARIANCE_LIMIT = 1e-3

# model -> metric -> rows
RowsOf = dict[str, dict[str, list[Row]]]
# model -> metric or exact figure -> why this model has no number
GapsOf = dict[str, dict[str, str]]

ELSEWHERE = "its weights are not on this machine"


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
    What a hosted model cannot be asked is left out, with the reason.
    """
    names = [model.name for model in models]
    check_names(names)
    selection = Selection(suite, tuple(questions))
    chosen, not_measured = plan(tasks, has_questions=bool(questions))
    rows: RowsOf = {}
    gaps: GapsOf = {}
    facts: dict[str, dict[str, Any]] = {}
    quality, speed = split_speed(chosen)
    for model in models:
        name = model.name
        facts[name] = figures(model) | (self_test(model) if quality else {})
        rows[name], gaps[name] = _split(measure(model, quality, selection))
        if isinstance(model, HostedModel):
            gaps[name] |= elsewhere(speed)
            facts[name]["usage"] = model.usage.to_json()
        elif speed:
            with peak_memory() as peak:
                timed, untimed = _split(measure(model, speed, selection))
            rows[name] |= timed
            gaps[name] |= untimed
            facts[name]["peak_memory_bytes"] = peak.size_bytes
    return conclude(
        rows,
        gaps,
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


@dataclass(frozen=True)
class Gap:
    """In place of rows: why the model cannot be measured so."""

    reason: str


def measure(
    model: LanguageModel, metrics: Sequence[str], selection: Selection
) -> Iterator[tuple[str, list[Row] | Gap]]:
    """Yield the rows of each metric as soon as they are measured, or why they cannot be."""
    for metric in metrics:
        try:
            found = TASKS[metric].rows(model, selection)
        except UnsupportedError as error:
            found = Gap(error.reason)
        yield metric, found


def _split(
    measured: Iterator[tuple[str, list[Row] | Gap]],
) -> tuple[dict[str, list[Row]], dict[str, str]]:
    rows: dict[str, list[Row]] = {}
    gaps: dict[str, str] = {}
    for metric, found in measured:
        if isinstance(found, Gap):
            gaps[metric] = found.reason
        else:
            rows[metric] = found
    return rows, gaps


def figures(model: LanguageModel) -> dict[str, Any]:
    """Return the facts of a model that are known."""
    return {name: fact for name, fact in asdict(model.info).items() if fact is not None}


def elsewhere(speed: Sequence[str]) -> dict[str, str]:
    """Return why a hosted model has no speed of its own, no size and no memory."""
    return dict.fromkeys([*speed, *EXACT], ELSEWHERE)


def split_speed(metrics: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the metrics of quality and those of speed: they are measured in different formats."""
    speed = [metric for metric in metrics if TASKS[metric].task == "speed"]
    return [metric for metric in metrics if metric not in speed], speed


def self_test(model: LanguageModel) -> dict[str, Any]:
    """Return the batch self-test's figure; nothing for a model that cannot be tested so.

    An endpoint makes its batches itself: there is nothing to test from outside.
    """
    if isinstance(model, HostedModel):
        return {}
    try:
        return {"batch_difference": batch_difference(model)}
    except UnsupportedError:
        return {}


def batch_difference(model: LanguageModel) -> float:
    """Score 20 answers alone and together, and return the largest difference in nats.

    A batch must not change a result: above 1e-3 in fp32 it is an error.
    """
    items = starter_lines("multiple-choice.jsonl")[:N_INVARIANCE]
    requests = [multiple_choice.requests(item)[i % 4] for i, item in enumerate(items)]
    alone = [model.score([request])[0].logprob for request in requests]
    together = [score.logprob for score in model.score(requests)]
    largest = float(np.abs(np.array(alone) - np.array(together)).max())
    is_exact = (model.info.dtype or "").endswith("32")
    if is_exact and not largest <= INVARIANCE_LIMIT:
        raise LmwrightError(
            f"{model.name}: a log-probability differs by {largest:.2g} nats between a request "
            f"alone and in a batch (limit {INVARIANCE_LIMIT:g}); its results cannot be trusted"
        )
    return largest


def conclude(
    rows: RowsOf,
    gaps: GapsOf,
    *,
    suite: Suite,
    facts_of_models: Mapping[str, Mapping[str, Any]],
    not_measured: Mapping[str, str],
    parents: Mapping[str, str],
    seed: int,
) -> Scores:
    """Turn rows into metrics, comparisons and verdicts; nothing is asked of a model here.

    Two models are compared on the metrics that both of them have.
    """
    measured = [metric for metric in TASKS if any(metric in of_model for of_model in rows.values())]
    reasons = {metric: why for of_model in gaps.values() for metric, why in of_model.items()}
    if not measured:
        raise RequestError(f"nothing could be measured: {'; '.join(sorted(set(reasons.values())))}")
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
        for metric in measured
        if metric in rows[baseline] and metric in rows[model]
    ]
    return Scores(
        suite=suite,
        models=tuple(rows),
        parents={model: parents[model] for model in rows if model in parents},
        measures={metric: TASKS[metric].measure for metric in measured},
        metrics={
            model: {metric: _metric(metric, found, seed) for metric, found in of_model.items()}
            for model, of_model in rows.items()
        },
        comparisons=tuple(judge(differences)),
        detectable=_detectable(rows, measured, differences),
        facts_of_models={model: dict(facts) for model, facts in facts_of_models.items()},
        not_measured={
            **not_measured,
            **{m: reasons[m] for m in TASKS if m in reasons and m not in measured},
        },
        gaps={model: dict(of_model) for model, of_model in gaps.items() if of_model},
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


def _detectable(
    rows: RowsOf, metrics: Sequence[str], differences: Sequence[Difference]
) -> dict[str, float]:
    """Return the smallest change that can be found: of the comparison that varies most.

    Unpaired where there is none, or only of models that agree in every item.
    """
    found: dict[str, float] = {}
    for measured in differences:
        metric = measured.comparison.metric
        found[metric] = max(found.get(metric, 0.0), detectable(measured))
    for metric in metrics:
        if not found.get(metric):
            first = next(of_model[metric] for of_model in rows.values() if metric in of_model)
            found[metric] = detectable_effect(first, TASKS[metric].measure)
    return found
