"""The stage `[evaluate.NAME]`: what a recipe must know of it."""

from collections.abc import Mapping
from typing import Any

from lmwright.core.artifact import hash_path
from lmwright.core.errors import RecipeError
from lmwright.core.lineage import n_cores
from lmwright.core.stage import (
    ASSUMED_PARAMS,
    DATA,
    EVALUATION,
    MODEL,
    Estimate,
    Named,
    Reference,
    Stage,
    TablesByKind,
)
from lmwright.data.sources import STARTER
from lmwright.evaluation.config import Evaluate
from lmwright.hosted.address import is_hosted
from lmwright.model.memory import inference_bytes

# Seconds and core to measure a model of the starter's size (an AMD EPYC with AVX-512 bf16).
EVALUATION_S = {"quick": 116.0, "full": 1500.0}


def _estimate(config: Evaluate, known: Mapping[str, Estimate]) -> Estimate:
    # What a hosted model takes is its endpoint's affair: nothing here, and how long is not known.
    local = [name for name in config.models if not is_hosted(name)]
    sizes = [known[name].n_params for name in local]
    relative = sum((size or ASSUMED_PARAMS) / ASSUMED_PARAMS for size in sizes)
    largest = max((size or ASSUMED_PARAMS for size in sizes), default=0)
    # Held in fp32 where the CPU has no bf16; one model at a time.
    return Estimate(
        relative * EVALUATION_S[config.suite] / n_cores(),
        inference_bytes(largest),
        is_complete=None not in sizes and len(local) == len(config.models),
    )


def _complete(config: Evaluate, made: TablesByKind) -> dict[str, Any]:
    """Take the recipe's only data where none is named."""
    names = sorted(made.get(DATA, ()))
    if config.data is not None or not names:
        return {}
    if len(names) > 1:
        raise RecipeError(f"data: missing; the recipe has several: {', '.join(names)}")
    return {"data": names[0]}


def _check(config: Evaluate, _: Mapping[str, Named]) -> None:
    config.check_tasks(has_questions=config.data is not None)


def _settle(
    config: Evaluate, _: Mapping[str, Named], known: Mapping[str, Estimate]
) -> dict[str, Any]:
    if config.data is not None:
        config.check_tasks(has_questions=known[config.data].n_questions != 0)
    return {}


def _needs(config: Evaluate) -> tuple[str, ...]:
    is_local = not all(map(is_hosted, config.models))
    return ("torch", "pyarrow", "scipy") if is_local else ("pyarrow", "scipy")


EVALUATE_STAGE = Stage(
    name="evaluate",
    title="Evaluation",
    config=Evaluate,
    makes=EVALUATION,
    version=2,
    run="lmwright.evaluation.run:run",
    files=("rows",),
    estimate=_estimate,
    references={"models": Reference(MODEL, allows_hosted=True), "data": Reference(DATA)},
    # The questions that come with the package are an input, too.
    external=lambda _: {"starter questions": hash_path(STARTER)},
    complete=_complete,
    check=_check,
    settle=_settle,
    needs=_needs,
)
