"""The stage `[finetune.NAME]`: what a recipe must know of it."""

from collections.abc import Mapping

from lmwright.core.lineage import n_cores
from lmwright.core.stage import ASSUMED_PARAMS, DATA, MODEL, Estimate, Reference, Stage
from lmwright.finetuning.config import Finetune
from lmwright.model.memory import training_bytes

# Operations a second and core that training reaches on 2 cores of an AMD EPYC with AVX-512 bf16
# (a bare bf16 matrix product: 3.6e11). A GPU is faster; how much is not guessed here.
TRAINING_SPEED = 1.5e11


def _estimate(config: Finetune, known: Mapping[str, Estimate]) -> Estimate:
    model, data = known[config.model], known[config.data]
    n_params = model.n_params or ASSUMED_PARAMS
    is_lora = config.method == "lora"
    # Two operations a multiply-add, forward and, through frozen weights, backward; gradients of
    # the weights only when they move.
    per_token = (4 if is_lora else 6) * n_params
    seconds = per_token * (data.n_tokens or 0) * config.epochs / (TRAINING_SPEED * n_cores())
    return Estimate(
        5 + seconds,
        training_bytes(
            n_params, trains_all=not is_lora, micro_batch_tokens=config.micro_batch_tokens
        ),
        is_complete=model.n_params is not None and data.n_tokens is not None,
        n_params=model.n_params,
    )


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
    needs=lambda _: ("torch",),
)
