"""Supervised fine-tuning on encoded dialogues, step by step, resumable after any of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lmwright.core.device import compute_dtype
from lmwright.finetuning.config import Finetune
from lmwright.finetuning.lora import add_lora
from lmwright.model.transformer import DecoderLM
from lmwright.training import state
from lmwright.training.batches import Encoded, epoch_batches, micro_batches
from lmwright.training.loop import Rates, Step, train, validate
from lmwright.training.losses import next_token
from lmwright.training.optim import adamw
from lmwright.training.state import Progress

DEFAULT_LR = {"lora": 1e-3, "full": 1e-4}


@dataclass(frozen=True)
class Event:
    """A step that was done, with the validation loss where it was measured."""

    step: Step
    progress: Progress
    validation_loss: float | None


def prepare(model: DecoderLM, config: Finetune) -> None:
    """Make the model trainable: thin fp32 updates around frozen weights, or fp32 masters."""
    device = model.decoder.embedding.weight.device
    dtype = compute_dtype(config.precision, device)
    METHODS[config.method](model, config, dtype)
    model.compute_dtype = dtype


def _prepare_lora(model: DecoderLM, config: Finetune, dtype: torch.dtype) -> None:
    model.to(dtype)
    add_lora(model, config.rank, alpha=config.alpha or 2 * config.rank, seed=config.seed)


def _prepare_full(model: DecoderLM, config: Finetune, dtype: torch.dtype) -> None:  # noqa: ARG001
    model.float().requires_grad_(True)


METHODS = {"lora": _prepare_lora, "full": _prepare_full}


def tune(
    model: DecoderLM,
    train_set: Sequence[Encoded],
    validation_set: Sequence[Encoded],
    *,
    config: Finetune,
    folder: Path,
) -> Iterator[Event]:
    """Train a prepared model and yield after each step; `folder` keeps the state.

    Called again after a kill, it continues behind the last checkpoint and ends in the same bytes.
    At the end the model holds the weights that `config.keep` asks for.
    """
    optimizer = adamw(model, config.weight_decay)
    progress = state.restore(folder, model, optimizer)
    batches = list(_batches(train_set, config))
    per_epoch = len(batches) // config.epochs
    every = config.validate_every or max(1, per_epoch)
    rates = Rates(
        lr=config.lr or DEFAULT_LR[config.method],
        n_steps=len(batches),
        warmup=config.warmup,
        max_grad_norm=config.max_grad_norm,
    )
    steps = train(
        model,
        (
            micro_batches([train_set[i] for i in batch], config.micro_batch_tokens)
            for batch in batches[progress.n_steps_done :]
        ),
        loss_fn=next_token,
        optimizer=optimizer,
        rates=rates,
        n_done=progress.n_steps_done,
    )
    checks = micro_batches(validation_set, config.micro_batch_tokens)
    best = folder / "best.safetensors"
    for step in steps:
        is_last = step.step == len(batches)
        progress = replace(
            progress,
            n_steps_done=step.step,
            n_tokens=progress.n_tokens + step.n_tokens,
            seconds=progress.seconds + step.seconds,
        )
        loss = None
        if step.step % every == 0 or is_last:
            loss = validate(model, checks, next_token)
            if progress.best_loss is None or loss < progress.best_loss:
                progress = replace(progress, best_loss=loss, best_step=step.step)
                state.save_tensors(state.trained_weights(model), best)
        # The caller writes the step down before the state says that it is done: a kill between
        # the two repeats a step, and loses none.
        yield Event(step, progress, loss)
        if step.step % config.checkpoint_every == 0 or is_last:
            state.save(folder, model, optimizer, progress)
    if config.keep == "best":
        state.load_trained(model, best)


def n_steps(train_set: Sequence[Encoded], config: Finetune) -> int:
    """Return how many optimiser steps `tune` makes."""
    return len(list(_batches(train_set, config)))


def _batches(train_set: Sequence[Encoded], config: Finetune) -> Iterator[list[int]]:
    for epoch in range(config.epochs):
        yield from epoch_batches(
            len(train_set), batch_size=config.batch_size, seed=config.seed, epoch=epoch
        )
