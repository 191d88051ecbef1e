"""Training of any task from its first step to its last, resumable after each of them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lmwright.core.progress import bar
from lmwright.training import log, state
from lmwright.training.batches import epoch_batches, micro_batches
from lmwright.training.config import TrainingConfig
from lmwright.training.loop import TrainingStep, train, validate
from lmwright.training.optim import adamw, warmup_cosine
from lmwright.training.seeds import step_generator
from lmwright.training.state import Progress
from lmwright.training.task import B, E, M, T, Task

METRICS, STATE, BEST = "metrics.jsonl", "state", "best.safetensors"


def fit(
    model: M,
    task: Task[M, E, T, B],
    train_set: Sequence[T],
    validation_set: Sequence[T],
    *,
    config: TrainingConfig,
    lr: float,
    out: Path,
) -> dict[str, Any]:
    """Train the parameters that want a gradient; return a summary of the whole run.

    What a run with the same arguments that was killed left in `out` is continued and ends in the
    same bytes. The model ends with the weights that `config.keep` asks for.
    """

    def collated(examples: Sequence[T], step: int) -> list[B]:
        generator = step_generator(config.seed, step, "batches")
        return micro_batches(task, examples, config.micro_batch_tokens, generator)

    optimizer = adamw(model, config.weight_decay)
    progress = state.restore(out / STATE, model, optimizer)
    order, n_done = _order(len(train_set), config), progress.n_steps_done
    steps = train(
        model,
        (
            collated([train_set[i] for i in batch], step)
            for step, batch in enumerate(order[n_done:], start=n_done + 1)
        ),
        loss_fn=task.loss,
        optimizer=optimizer,
        rate=lambda step: lr * warmup_cosine(step - 1, len(order), config.warmup),
        max_grad_norm=config.max_grad_norm,
        seed=config.seed,
        n_done=n_done,
    )
    checks = collated(validation_set, 0)  # what it draws is drawn once
    every = config.validate_every or len(order) // config.epochs
    log.rewind(out / METRICS, n_done + 1)
    with bar("training", len(order)) as shown:
        shown.skip(n_done)
        for step in steps:
            is_last = step.step == len(order)
            progress = progress.after(step)
            loss = None
            if step.step % every == 0 or is_last:
                loss = validate(model, checks, task.loss)
                if progress.best_loss is None or loss < progress.best_loss:
                    progress = replace(progress, best_loss=loss, best_step=step.step)
                    state.save_tensors(state.trained_weights(model), out / STATE / BEST)
            # Before the state is kept: a kill between the two repeats a step, and loses none.
            log.append(out / METRICS, _line(step, progress, loss))
            shown.advance(1, _note(step, progress))
            if step.step % config.checkpoint_every == 0 or is_last:
                state.save(out / STATE, model, optimizer, progress)
    if config.keep == "best":
        state.load_trained(model, out / STATE / BEST)
    n_trained = sum(p.numel() for p in state.trained_weights(model).values())
    return {"n_steps": len(order), "n_trained_parameters": n_trained, **log.outcome(out / METRICS)}


def _order(n_examples: int, config: TrainingConfig) -> list[list[int]]:
    """Return which examples each step sees."""
    size, seed = config.batch_size, config.seed
    epochs = (
        epoch_batches(n_examples, batch_size=size, seed=seed, epoch=epoch)
        for epoch in range(config.epochs)
    )
    return [batch for epoch in epochs for batch in epoch]


def _line(step: TrainingStep, progress: Progress, loss: float | None) -> dict[str, Any]:
    line = {
        "step": step.step,
        "loss": step.loss,
        "lr": step.lr,
        "grad_norm": step.grad_norm,
        "tokens": progress.n_tokens,
        "targets": step.n_targets,
        "seconds": step.seconds,
    }
    return line if loss is None else {**line, "validation_loss": loss}


def _note(step: TrainingStep, progress: Progress) -> str:
    note = f"loss {step.loss:.3f}  {progress.n_tokens / progress.seconds:.0f} tok/s"
    best = progress.best_loss
    return note if best is None else f"{note}  best validation {best:.3f}"
