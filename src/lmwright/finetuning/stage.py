"""The stage `[finetune.NAME]`: what a recipe must know of it."""

from collections.abc import Mapping
from typing import Any

from lmwright.core.lineage import n_cores
from lmwright.core.stage import (
    ASSUMED_MATRICES,
    ASSUMED_PARAMS,
    DATA,
    MODEL,
    Estimate,
    Matrices,
    Named,
    Reference,
    Stage,
    TablesByKind,
)
from lmwright.finetuning.config import Finetune
from lmwright.model.memory import training_bytes
from lmwright.training.config import EPOCHS

# Operations a second and core that training reaches on 2 cores of an AMD EPYC with AVX-512 bf16
# (a bare bf16 matrix product: 3.6e11). A GPU is faster; how much is not guessed here.
TRAINING_SPEED = 1.5e11
# A trained number in fp32, its gradient and the two moments of AdamW.
TRAINED_BYTES = 16


def _estimate(config: Finetune, known: Mapping[str, Estimate]) -> Estimate:
    model, data = known[config.model], known[config.data]
    n_params = model.n_params or ASSUMED_PARAMS
    is_lora = config.method == "lora"
    # Two operations a multiply-add, forward and, through frozen weights, backward; gradients of
    # the weights only when they move.
    per_token = (4 if is_lora else 6) * n_params
    n_tokens = (data.n_tokens or 0) * (config.epochs or EPOCHS)
    n_added = _n_added(config, model.matrices or ASSUMED_MATRICES) if is_lora else 0
    return Estimate(
        5 + per_token * n_tokens / (TRAINING_SPEED * n_cores()),
        training_bytes(
            n_params, trains_all=not is_lora, micro_batch_tokens=config.micro_batch_tokens
        )
        + TRAINED_BYTES * n_added,
        is_complete=model.n_params is not None and data.n_tokens is not None,
        n_params=model.n_params,
        matrices=model.matrices,
    )


def _n_added(config: Finetune, matrices: Matrices) -> int:
    """Return how many parameters LoRA adds: a row and a column of each matrix, `rank` times."""
    return config.rank * matrices.n_blocks * sum(n + k for n, k in matrices.shapes)


def _complete(config: Finetune, _: TablesByKind) -> dict[str, Any]:
    """Write out what suits the method, so that a lock and a hash hold it."""
    alpha = {"alpha": config.lora_alpha} if config.method == "lora" else {}
    return {"lr": config.peak_lr, **alpha}


def _settle(
    config: Finetune, _: Mapping[str, Named], known: Mapping[str, Estimate]
) -> dict[str, Any]:
    model, data = known[config.model], known[config.data]
    if model.matrices is not None:
        config.check_rank(model.matrices.d_model)
    # Of data on a hub the size is known once it is here: training settles it then.
    if data.n_samples is None:
        return {}
    return config.schedule(data.n_samples, has_facts=bool(data.n_questions))


def _remarks(config: Finetune, known: Mapping[str, Estimate]) -> list[str]:
    n_samples = known[config.data].n_samples
    if n_samples is None:
        return ["how many epochs suit the data is known once they are here"]
    steps = config.steps_per_epoch(n_samples)
    plural = "s" if config.epochs != 1 else ""
    told = f"{config.epochs} epoch{plural} of {steps} steps, the {config.keep} weights are kept"
    short = config.warning(n_samples)
    return [told, short] if short else [told]


FINETUNE_STAGE = Stage(
    name="finetune",
    title="Fine-tuning",
    config=Finetune,
    makes=MODEL,
    version=1,
    run="lmwright.finetuning.run:run",
    files=("model", "adapter", "state", "audit.json", "metrics.jsonl"),
    estimate=_estimate,
    references={"model": Reference(MODEL), "data": Reference(DATA)},
    parents=("model",),
    relation="finetune",
    complete=_complete,
    settle=_settle,
    remarks=_remarks,
    needs=lambda _: ("torch",),
)
