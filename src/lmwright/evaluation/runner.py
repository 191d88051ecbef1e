"""Ask every model the same, and put the answers side by side."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lmwright.core.artifact import read_state, reading, write_json
from lmwright.core.errors import LmwrightError, RequestError, StateError, UnsupportedError
from lmwright.core.progress import Bar, bar
from lmwright.core.results import EXACT, Metric, Row, Scores, read_rows, write_rows
from lmwright.data.config import Data
from lmwright.data.samples import Question
from lmwright.evaluation.measurement import Measurement, check_tasks, left_out
from lmwright.evaluation.questions import heldout
from lmwright.evaluation.selection import Suite, starter_lines
from lmwright.evaluation.speed import peak_memory
from lmwright.evaluation.statistics import (
    Difference,
    detectable,
    detectable_effect,
    difference,
    estimate,
    judge,
)
from lmwright.evaluation.tasks import MEASUREMENTS, multiple_choice
from lmwright.evaluation.watched import Watched
from lmwright.hosted.model import HostedModel
from lmwright.hosted.usage import Usage
from lmwright.lm import LanguageModel

N_INVARIANCE = 20
# Largest difference of a log-probability (nats) between batches that is still rounding in fp32.
INVARIANCE_LIMIT = 1e-3

FACTS = "facts.json"
AGAIN = "measuring that again"

logger = logging.getLogger(__name__)


@dataclass
class Measured:
    """What was found out about one model; with a folder, a killed run goes on where it stood."""

    rows: dict[str, list[Row]] = field(default_factory=dict)
    # Metric or exact figure -> why there is none.
    gaps: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    @classmethod
    def read(cls, folder: Path, choice: "Choice") -> "Measured":
        """Return what lies in a folder: nothing, a part, or all that is measured."""
        found = cls(folder=folder)
        try:
            known = read_state(folder / FACTS, remedy=AGAIN)
            with reading(folder / FACTS, remedy=AGAIN):
                found.facts, found.gaps = dict(known["facts"]), dict(known["gaps"])
        except FileNotFoundError:
            return found
        except StateError as error:
            logger.warning("%s", error)
            return cls(folder=folder)
        for metric in (each.spec.name for each in choice.measurements):
            path = folder / f"{metric}.parquet"
            try:
                with reading(path, remedy=AGAIN):
                    found.rows[metric] = read_rows(path)
            except FileNotFoundError:
                continue
            except StateError as error:
                logger.warning("%s", error)
        return found

    def missing(self, measurements: Sequence[Measurement]) -> list[Measurement]:
        """Return those that were neither made nor found to be impossible."""
        known = {*self.rows, *self.gaps}
        return [each for each in measurements if each.spec.name not in known]

    def keep(self, metric: str) -> None:
        """Store a metric's rows, where there are some, and before them all else."""
        if self.folder is not None:
            write_json(self.folder / FACTS, {"facts": self.facts, "gaps": self.gaps})
            if metric in self.rows:
                write_rows(self.folder / f"{metric}.parquet", self.rows[metric])


@dataclass(frozen=True)
class Choice:
    """What is measured, and why the rest is not."""

    suite: Suite
    questions: tuple[Question, ...]
    quality: tuple[Measurement, ...]
    # Measured in another number format, and only where the weights are.
    speed: tuple[Measurement, ...]
    not_measured: Mapping[str, str]

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """All of them, in the order in which they are shown."""
        return (*self.quality, *self.speed)


def evaluate(
    models: Sequence[LanguageModel],
    *,
    suite: Suite = "quick",
    tasks: Sequence[str] | None = None,
    data: str | Path | Data | Sequence[Question] | None = None,
    parents: Mapping[str, str | Sequence[str]] | None = None,
    seed: int = 0,
    measurements: Mapping[str, Measurement] = MEASUREMENTS,
) -> Scores:
    """Measure models side by side; each is compared with the first and with its parents.

    `parents` says by name what a model was made from. `data` has the held-out questions of the task
    "qa_accuracy": a source, a data step's folder, a `Data`, or the questions themselves. Quality is
    exact only for models loaded with precision="fp32". What a hosted model cannot be asked is left
    out, with the reason.
    """
    if not isinstance(models, Sequence):
        raise RequestError(f"models = {models!r}: expected a list of models, as in [model]")
    names = [model.name for model in models]
    check_names(names)
    choice = choose(tasks, heldout(data), suite=suite, measurements=measurements)
    measured = {model.name: Measured() for model in models}
    for model, found in zip(models, measured.values(), strict=True):
        if isinstance(model, HostedModel):
            found.gaps |= elsewhere(choice)
    n_missing = sum(len(found.missing(choice.measurements)) for found in measured.values())
    with bar("evaluate", total=n_missing) as progress:
        for model, found in zip(models, measured.values(), strict=True):
            if choice.quality:
                progress.advance(0, f"{model.name}: self-test")
                found.facts |= self_test(model)
            ask(model, choice.quality, choice, found, progress)
            if found.missing(choice.speed):
                with peak_memory() as peak:
                    ask(model, choice.speed, choice, found, progress)
                found.facts["peak_memory_bytes"] = peak.size_bytes
    given = (parents or {}).items()
    made_from = {name: (of,) if isinstance(of, str) else tuple(of) for name, of in given}
    return conclude(measured, choice, parents=made_from, seed=seed)


def choose(
    tasks: Sequence[str] | None,
    questions: Sequence[Question],
    *,
    suite: Suite = "quick",
    measurements: Mapping[str, Measurement] = MEASUREMENTS,
) -> Choice:
    """Return what to measure, and why each other metric is not measured."""
    check_tasks(tasks or (), measurements, has_questions=bool(questions))
    not_measured = left_out(tasks, measurements, has_questions=bool(questions))
    chosen = [each for metric, each in measurements.items() if metric not in not_measured]
    if not chosen:
        raise RequestError(
            "tasks = []: nothing to measure; name at least one task, or leave it out"
        )
    quality = tuple(each for each in chosen if not each.is_speed)
    speed = tuple(each for each in chosen if each.is_speed)
    return Choice(suite, tuple(questions), quality, speed, not_measured)


def check_names(names: Sequence[str]) -> None:
    """Refuse two models of one name: their rows could not be told apart."""
    if not names:
        raise RequestError("models is empty: name at least one model")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RequestError(f"models: {twice[0]!r} occurs twice; load one of them with another name")


def ask(
    model: LanguageModel,
    measurements: Sequence[Measurement],
    choice: Choice,
    found: Measured,
    progress: Bar,
) -> None:
    """Measure what is missing, and keep each metric's rows or the reason why there are none."""
    usage = Usage(**found.facts.get("usage", {"cost": 0.0}))
    # What is known of a model without asking it anything.
    facts = {name: fact for name, fact in asdict(model.info).items() if fact is not None}
    found.facts = facts | found.facts
    for each in found.missing(measurements):
        metric = each.spec.name
        progress.advance(0, f"{model.name}: {metric}")
        watched = Watched(model, progress)
        try:
            found.rows[metric] = each.rows(watched, each.selection(choice.suite, choice.questions))
        except UnsupportedError as error:
            found.gaps[metric] = error.reason
        if isinstance(model, HostedModel):
            # With what was asked before a kill; no more than one metric's requests are forgotten.
            found.facts["usage"] = usage.plus(model.usage).to_json()
        found.keep(metric)
        progress.advance()


def elsewhere(choice: Choice) -> dict[str, str]:
    """Return why a hosted model has no speed of its own, no size and no memory."""
    absent = [*(each.spec.name for each in choice.speed), *EXACT]
    return dict.fromkeys(absent, "its weights are not on this machine")


def self_test(model: LanguageModel) -> dict[str, Any]:
    """Return the batch self-test's figure; nothing for a model that cannot be tested so."""
    # An endpoint makes its batches itself: there is nothing to test from outside.
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
    measured: Mapping[str, Measured],
    choice: Choice,
    *,
    parents: Mapping[str, Sequence[str]],
    seed: int,
) -> Scores:
    """Turn rows into metrics, comparisons and verdicts; nothing is asked of a model here.

    Two models are compared on the metrics that both of them have.
    """
    rows = {model: found.rows for model, found in measured.items()}
    reasons = {m: why for found in measured.values() for m, why in found.gaps.items()}
    known = {metric for of_model in rows.values() for metric in of_model}
    told = [each for each in choice.measurements if each.spec.name in known]
    if not told:
        raise RequestError(f"nothing could be measured: {'; '.join(sorted(set(reasons.values())))}")
    names = [each.spec.name for each in choice.measurements]
    untold = {metric: reasons[metric] for metric in names if metric not in known}
    usage = {m: found.facts["usage"] for m, found in measured.items() if "usage" in found.facts}
    differences = [
        difference(
            rows[baseline][metric],
            rows[model][metric],
            each.spec,
            model=model,
            baseline=baseline,
            statistic=each.statistic,
            seed=seed,
        )
        for baseline, model in pairs(list(rows), parents)
        for each in told
        if (metric := each.spec.name) in rows[baseline] and metric in rows[model]
    ]
    return Scores(
        suite=choice.suite,
        models=tuple(rows),
        parents={model: tuple(parents[model]) for model in rows if model in parents},
        specs=tuple(each.spec for each in told),
        metrics={
            model: {
                each.spec.name: _metric(each, of_model[each.spec.name], seed)
                for each in told
                if each.spec.name in of_model
            }
            for model, of_model in rows.items()
        },
        comparisons=tuple(judge(differences)),
        detectable={each.spec.name: _detectable(each, rows, differences) for each in told},
        facts_of_models={model: found.facts for model, found in measured.items()},
        not_measured={**choice.not_measured, **untold},
        gaps={model: found.gaps for model, found in measured.items() if found.gaps},
        usage={model: str(Usage(**counts)) for model, counts in usage.items()},
        asked={
            each.spec.name: each.asked(each.selection(choice.suite, choice.questions))
            for each in told
            if each.asked
        },
        rows=rows,
    )


def pairs(models: Sequence[str], parents: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """Return (baseline, model): each but the first against the first, and against its parents."""
    of_parents = [
        (parent, model)
        for model in models
        for parent in parents.get(model, ())
        if parent in models and parent != model
    ]
    return list(dict.fromkeys([*((models[0], model) for model in models[1:]), *of_parents]))


def _metric(measurement: Measurement, rows: Sequence[Row], seed: int) -> Metric:
    spec, how = measurement.spec, {"statistic": measurement.statistic, "seed": seed}
    metric = estimate(rows, spec, **how)
    if measurement.slices is None:
        return metric
    return replace(metric, slices=measurement.slices(rows, spec, **how))


def _detectable(
    measurement: Measurement,
    rows: Mapping[str, Mapping[str, Sequence[Row]]],
    differences: Sequence[Difference],
) -> float:
    """Return the smallest change that can be found: of the comparison that varies most.

    Unpaired where there is none, or only of models that agree in every item.
    """
    spec = measurement.spec
    paired = [detectable(each) for each in differences if each.comparison.metric == spec.name]
    if any(paired):
        return max(paired)
    first = next(of_model[spec.name] for of_model in rows.values() if spec.name in of_model)
    return detectable_effect(first, spec, statistic=measurement.statistic)
