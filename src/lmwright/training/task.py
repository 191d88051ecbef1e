"""A task as one record: what its examples are as tokens, and what a model is to learn of them."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from rich.console import Console
from rich.text import Text
from torch import Tensor, nn

from lmwright.tokenizer.encode import Tokenizer


class Batch(Protocol):
    """What a loss reads: tensors of the task's own kind that move to a device together."""

    @property
    def n_tokens(self) -> int:
        """How many tokens a model reads in it."""
        ...

    @property
    def n_targets(self) -> int:
        """How many targets its loss is a sum over, known before the model has seen it."""
        ...

    def to(self, device: torch.device) -> Self:
        """Return the batch with its tensors on `device`."""
        ...


# A model, an example as it was read, the same as tokens, and several of those as tensors.
M = TypeVar("M", bound=nn.Module)
E = TypeVar("E")
T = TypeVar("T")
B = TypeVar("B", bound=Batch)

# (model, batch) -> the loss summed over the batch's targets, and their number.
# Summed, not averaged: micro-batches hold different numbers of targets, and only sums add up to
# the loss of the whole batch.
LossFunction = Callable[[M, B], tuple[Tensor, int]]


@dataclass(frozen=True)
class Audit:
    """What training will see, and one sample to look at."""

    n_samples: int
    n_tokens: int
    n_targets: int
    # Its tokens as texts, and whether each is learnt.
    example: tuple[tuple[str, bool], ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain data for audit.json."""
        example = [{"text": text, "trained": is_on} for text, is_on in self.example]
        return {**asdict(self), "example": example}

    def text(self) -> Text:
        """Return the example in colour: what is learnt is green."""
        return Text.assemble(
            *((token, "bold green" if is_target else "dim") for token, is_target in self.example)
        )

    def show(self) -> None:
        """Print the counts and the example on stderr."""
        console = Console(stderr=True)
        console.print(
            f"{self.n_samples} samples, {self.n_tokens} tokens, of which {self.n_targets} "
            f"({self.n_targets / self.n_tokens:.0%}) are learnt (green):"
        )
        console.print(self.text())


@dataclass(frozen=True)
class Task(Generic[M, E, T, B]):
    """What is learnt from examples: a stage that trains brings one, and the loop knows none."""

    name: str
    # Returns an example as tokens, up to so many of them; errors name the example.
    encode: Callable[[E, Tokenizer, int], T]
    # Checks all encoded examples and counts what training will see.
    audit: Callable[[Sequence[T], Tokenizer], Audit]
    # How many tokens an example takes in a batch.
    size: Callable[[T], int]
    # Returns examples as tensors; what it draws (masks, noise) comes from the generator alone.
    collate: Callable[[Sequence[T], torch.Generator], B]
    loss: LossFunction[M, B]
    # Returns the model with the head that the task needs, where it has none (the examples tell of
    # the classes); a task without it trains models as they are.
    head: Callable[[nn.Module, Sequence[E]], M] | None = None
    # What `evaluate` measures on its held-out part, by name.
    metrics: tuple[str, ...] = ()


def encode_all(
    task: Task[M, E, T, B], examples: Sequence[E], tokenizer: Tokenizer, max_length: int
) -> tuple[list[T], Audit]:
    """Return examples as tokens, each of them checked, and what training will see of them."""
    encoded = [task.encode(example, tokenizer, max_length) for example in examples]
    return encoded, task.audit(encoded, tokenizer)
