"""What a result means for the next try, in plain sentences: a low number alone helps nobody."""

from pathlib import Path
from typing import Any

from lmwright.core.artifact import RESULT, read_state
from lmwright.core.results import Scores
from lmwright.core.stage import StepContext
from lmwright.evaluation.tasks.qa_accuracy import QA_ACCURACY
from lmwright.training.config import ENOUGH_STEPS

# A model that misses more than this share of what it was taught was not taught well.
LOW_ACCURACY = 0.6


def remarks(scores: Scores, context: StepContext) -> list[str]:
    """Return a sentence for each trained model that answers few of the held-out questions."""
    notes = []
    for model in scores.models:
        metric = scores.metric(QA_ACCURACY.spec.name, model)
        training = _training(model, context)
        if metric is None or training is None or metric.value >= LOW_ACCURACY:
            continue
        notes.append(
            f"{model} answers {100 * metric.value:.0f} % of the held-out "
            f"questions; it was trained for {training['n_steps']} steps ({training['epochs']} "
            f"epochs, {training['keep']} weights). {_advice(training)}"
        )
    return notes


def _advice(training: dict[str, Any]) -> str:
    if training["n_steps"] < ENOUGH_STEPS:
        return (
            f"Facts are seldom learnt in less than {ENOUGH_STEPS} steps: leave epochs out, or "
            "raise it."
        )
    if training["keep"] == "best":
        return 'Facts are often better in the last weights: keep = "last".'
    return (
        "Write more ways to ask each fact, above all in words like those that went wrong; then "
        "try more epochs, then a larger model."
    )


def _training(model: str, context: StepContext) -> dict[str, Any] | None:
    """Return how a model of the run was trained, if it was; not one made from such a model."""
    if model not in context.parents or model not in context.inputs:
        return None
    path = Path(context.inputs[model]).parent / RESULT
    if not path.is_file():
        return None
    result = read_state(path, remedy="run its step again")
    return result if {"n_steps", "epochs", "keep"} <= result.keys() else None
