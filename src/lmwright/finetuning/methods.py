"""How a model is made trainable: thin updates around frozen weights, or all of its weights."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from lmwright.core.device import compute_dtype
from lmwright.finetuning.config import Finetune
from lmwright.finetuning.lora import add_lora
from lmwright.model.transformer import Model


@dataclass(frozen=True)
class Method:
    """A way to fine-tune; the learning rate that suits it is in `LEARNING_RATES`."""

    # Makes what is trained fp32 and want a gradient; the rest may be in the given format.
    prepare: Callable[[Model, Finetune, torch.dtype], None]


def _lora(model: Model, config: Finetune, dtype: torch.dtype) -> None:
    config.check_rank(model.config.d_model)
    model.to(dtype)
    add_lora(model, config.rank, alpha=config.lora_alpha, seed=config.seed)


def _full(model: Model, config: Finetune, dtype: torch.dtype) -> None:  # noqa: ARG001
    model.float().requires_grad_(True)


METHODS = {"lora": Method(_lora), "full": Method(_full)}


def prepare(model: Model, config: Finetune) -> None:
    """Make the model trainable as `config.method` says, and set the format that it computes in."""
    dtype = compute_dtype(config.precision, next(model.parameters()).device)
    METHODS[config.method].prepare(model, config, dtype)
    model.compute_dtype = dtype
