"""The stage `[gate]` or `[gate.NAME]`: what a recipe must know of it."""

from collections.abc import Mapping
from typing import Any

from lmwright.core.errors import RecipeError, suggestion
from lmwright.core.results import EXACT
from lmwright.core.stage import DECISION, EVALUATION, Estimate, Named, Reference, Stage
from lmwright.gate.config import Gate
from lmwright.gate.rules import check_unit, parse


def _check(config: Gate, steps: Mapping[str, Named]) -> None:
    """Refuse a gate that could not be decided once everything has run."""
    evaluation = steps[config.evaluation].config
    models = evaluation.models
    for key, name in (("model", config.model), ("baseline", config.baseline)):
        if name is not None and name not in models:
            raise RecipeError(
                f"{key} = {name!r}: not in evaluate.{config.evaluation}.models"
                f"{suggestion(name, models)}"
            )
    baseline = config.baseline or models[0]
    parents = steps[config.model].parents if config.model in steps else ()
    specs = evaluation.specs() | EXACT
    for text in config.require:
        rule = parse(text, specs)
        check_unit(rule, specs[rule.metric].unit)
        # Exact figures of any two models can be compared.
        if rule.kind == "value" or rule.metric in EXACT:
            continue
        if baseline == config.model:
            raise RecipeError(
                f"require {text!r}: model and baseline are both {baseline!r}; name another baseline"
            )
        if baseline not in (models[0], *parents):
            compared = dict.fromkeys([models[0], *(name for name in parents if name in models)])
            raise RecipeError(
                f"baseline = {baseline!r}: the evaluation compares {config.model} with "
                f"{' and '.join(compared)} alone; name one of those"
            )
    _check_measured(config, evaluation, has_questions=evaluation.data is not None)


def _settle(
    config: Gate, steps: Mapping[str, Named], known: Mapping[str, Estimate]
) -> dict[str, Any]:
    evaluation = steps[config.evaluation].config
    if evaluation.data is not None:
        has_questions = known[evaluation.data].n_questions != 0
        _check_measured(config, evaluation, has_questions=has_questions)
    return {}


def _check_measured(config: Gate, evaluation: Any, *, has_questions: bool) -> None:
    left_out = evaluation.left_out(has_questions=has_questions)
    for text in config.require:
        metric = parse(text).metric
        if metric in left_out:
            raise RecipeError(
                f"require {text!r}: evaluate.{config.evaluation} does not measure {metric}: "
                f"{left_out[metric]}"
            )


GATE_STAGE = Stage(
    name="gate",
    title="Gate",
    config=Gate,
    makes=DECISION,
    version=1,
    run="lmwright.gate.run:run",
    files=(),
    estimate=lambda _config, _known: Estimate(1, 200_000_000),
    references={"evaluation": Reference(EVALUATION)},
    check=_check,
    settle=_settle,
    may_be_unnamed=True,
)
