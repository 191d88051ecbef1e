"""The stage `[gate]` or `[gate.NAME]`: what a recipe must know of it."""

from collections.abc import Mapping
from typing import Any

from lmwright.core.errors import RecipeError, suggestion
from lmwright.core.stage import DECISION, EVALUATION, Estimate, Reference, Stage
from lmwright.gate.config import Gate
from lmwright.gate.rules import parse


def _check(config: Gate, named: Mapping[str, Any]) -> None:
    """Refuse a gate that could not be decided once everything has run."""
    models = named[config.evaluation].models
    for key, name in (("model", config.model), ("baseline", config.baseline)):
        if name is not None and name not in models:
            raise RecipeError(
                f"{key} = {name!r}: not in evaluate.{config.evaluation}.models"
                f"{suggestion(name, models)}"
            )
    for rule in config.require:
        try:
            parse(rule)
        except RecipeError as error:
            raise RecipeError(str(error).removeprefix("gate.")) from None


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
    may_be_unnamed=True,
)
