"""The loop: a generator that makes one optimiser step and yields what it did.

The caller logs, validates and saves between two steps; there are no callbacks.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from lmwright.core.errors import LmwrightError
from lmwright.training.seeds import seeded_modules
from lmwright.training.task import B, LossFunction, M


@dataclass(frozen=True)
class TrainingStep:
    """What one optimiser step did."""

    step: int  # from 1
    loss: float  # nats per target
    lr: float
    grad_norm: float
    n_tokens: int
    n_targets: int
    seconds: float


def train(
    model: M,
    batches: Iterable[Sequence[B]],
    *,
    loss_fn: LossFunction[M, B],
    optimizer: torch.optim.Optimizer,
    rate: Callable[[int], float],
    max_grad_norm: float,
    seed: int = 0,
    n_done: int = 0,
) -> Iterator[TrainingStep]:
    """Yield after each optimiser step; an item of `batches` is the micro-batches of one step.

    `rate` gives the learning rate of a step (from 1). Gradients of micro-batches add up to exactly
    those of the whole batch, because each loss is a sum and is divided by the number of targets of
    all of them. What modules draw (dropout) is a function of (seed, step).
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    device = parameters[0].device
    for step, micro_batches in enumerate(batches, start=n_done + 1):
        started = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        n_targets = sum(batch.n_targets for batch in micro_batches)
        assert n_targets > 0, f"step {step}: a batch without targets teaches nothing"
        model.train()
        total, count = 0.0, 0
        with seeded_modules(seed, step, device):
            for batch in micro_batches:
                loss, n = loss_fn(model, batch.to(device))
                (loss / n_targets).backward()
                total += float(loss.detach())
                count += n
        assert count == n_targets, f"the loss counts {count} targets, its batches {n_targets}"
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm))
        # Before the update: a checkpoint with NaN in it would be the end of the run.
        if not (norm < float("inf") and total < float("inf")):
            raise LmwrightError(
                f"step {step}: loss {total / n_targets}, gradient norm {norm}; the weights are "
                "still those of the step before. Lower lr, or raise warmup"
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield TrainingStep(
            step=step,
            loss=total / n_targets,
            lr=rate(step),
            grad_norm=norm,
            n_tokens=sum(batch.n_tokens for batch in micro_batches),
            n_targets=n_targets,
            seconds=time.perf_counter() - started,
        )


@torch.no_grad()
def validate(model: M, batches: Iterable[B], loss_fn: LossFunction[M, B]) -> float:
    """Return the mean loss (nats per target) over batches; the model stays in evaluation mode."""
    device = next(model.parameters()).device
    model.eval()
    total, count = 0.0, 0
    for batch in batches:
        loss, n_targets = loss_fn(model, batch.to(device))
        total += float(loss)
        count += n_targets
    return total / count
