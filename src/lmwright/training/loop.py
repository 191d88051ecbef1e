"""The loop: a generator that makes one optimiser step and yields what it did.

The caller logs, validates and saves between two steps; there are no callbacks.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lmwright.core.errors import LmwrightError
from lmwright.model.transformer import DecoderLM
from lmwright.training.batches import IGNORE, Batch
from lmwright.training.schedule import warmup_cosine

LossFunction = Callable[[DecoderLM, Batch], tuple[Tensor, int]]


@dataclass(frozen=True)
class Step:
    """What one optimiser step did."""

    step: int  # from 1
    loss: float  # nats per target
    lr: float
    grad_norm: float
    n_tokens: int
    n_targets: int
    seconds: float


@dataclass(frozen=True)
class Rates:
    """How large the steps are."""

    lr: float
    n_steps: int
    warmup: float
    max_grad_norm: float


def train(
    model: DecoderLM,
    batches: Iterable[Sequence[Batch]],
    *,
    loss_fn: LossFunction,
    optimizer: torch.optim.Optimizer,
    rates: Rates,
    n_done: int = 0,
) -> Iterator[Step]:
    """Yield after each optimiser step; an item of `batches` is the micro-batches of one step.

    Gradients of micro-batches add up to exactly those of the whole batch, because each loss is a
    sum and is divided by the number of targets of all of them.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    device = parameters[0].device
    for step, micro_batches in enumerate(batches, start=n_done + 1):
        started = time.perf_counter()
        lr = rates.lr * warmup_cosine(step - 1, rates.n_steps, rates.warmup)
        for group in optimizer.param_groups:
            group["lr"] = lr
        n_targets = sum(int((batch.targets != IGNORE).sum()) for batch in micro_batches)
        total = 0.0
        for batch in micro_batches:
            loss, _ = loss_fn(model, to_device(batch, device))
            (loss / n_targets).backward()
            total += float(loss.detach())
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, rates.max_grad_norm))
        # Before the update: a checkpoint with NaN in it would be the end of the run.
        if not (norm < float("inf") and total < float("inf")):
            raise LmwrightError(
                f"step {step}: loss {total / n_targets}, gradient norm {norm}; the weights are "
                "still those of the step before. Lower lr, or raise warmup"
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield Step(
            step=step,
            loss=total / n_targets,
            lr=lr,
            grad_norm=norm,
            n_tokens=sum(len(batch.tokens) for batch in micro_batches),
            n_targets=n_targets,
            seconds=time.perf_counter() - started,
        )


@torch.no_grad()
def validate(model: DecoderLM, batches: Iterable[Batch], loss_fn: LossFunction) -> float:
    """Return the mean loss (nats per target) over batches."""
    device = next(model.parameters()).device
    total, count = 0.0, 0
    for batch in batches:
        loss, n_targets = loss_fn(model, to_device(batch, device))
        total += float(loss)
        count += n_targets
    return total / count


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Return the batch with its tensors on `device`."""
    return Batch(
        batch.tokens.to(device),
        batch.targets.to(device),
        batch.positions.to(device),
        batch.segments.to(device),
    )
