"""How examples become batches: their order, what fits into memory at once, and packing.

The order is a pure function of (seed, epoch), so that a resumed run sees what it would have seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lmwright.training.task import B, E, M, T, Task

# A target that takes no part in the loss; the value that torch's cross_entropy ignores, too.
IGNORE = -100


@dataclass(frozen=True)
class PackedBatch:
    """Samples packed one behind the other, without any padding; tensors are int64 (N,)."""

    tokens: Tensor
    # targets[i] is the token that should follow tokens[i] (already shifted), or IGNORE.
    targets: Tensor
    # Positions restart at 0 with every sample.
    positions: Tensor
    # Which sample a token belongs to, from 0, ascending: it attends to earlier tokens of its own
    # sample and to nothing else.
    segments: Tensor

    @property
    def n_tokens(self) -> int:
        """How many tokens a model reads in it."""
        return len(self.tokens)

    @property
    def n_targets(self) -> int:
        """How many of its tokens are to be predicted."""
        return int((self.targets != IGNORE).sum())

    def to(self, device: torch.device) -> "PackedBatch":
        """Return the batch with its tensors on `device`."""
        tensors = (self.tokens, self.targets, self.positions, self.segments)
        return PackedBatch(*(tensor.to(device) for tensor in tensors))


@dataclass(frozen=True)
class Encoded:
    """A sample as tokens; `is_target[i]` says that token i is to be learnt."""

    id: str
    token_ids: tuple[int, ...]
    is_target: tuple[bool, ...]


def epoch_batches(n_samples: int, *, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Return the epoch's batches of sample numbers; each sample occurs once."""
    random = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    order = random.permutation(n_samples).tolist()
    return [order[i : i + batch_size] for i in range(0, n_samples, batch_size)]


def micro_batches(
    task: Task[M, E, T, B], examples: Sequence[T], max_tokens: int, generator: torch.Generator
) -> list[B]:
    """Collate examples into few batches of up to `max_tokens` each (a larger one stands alone).

    Examples of like size go together: attention works on a grid as wide as the longest.
    """
    groups: list[list[T]] = []
    n_tokens = 0
    for example in sorted(examples, key=task.size):
        n_tokens += task.size(example)
        if not groups or n_tokens > max_tokens:
            groups.append([])
            n_tokens = task.size(example)
        groups[-1].append(example)
    return [task.collate(group, generator) for group in groups]


def pack(samples: Sequence[Encoded]) -> PackedBatch:
    """Lay samples one behind the other: never cut, never padded, never mixed."""
    targets, positions, segments = [], [], []
    for number, sample in enumerate(samples):
        ids = np.array(sample.token_ids)
        # The token at i predicts the one at i + 1; a sample's last token predicts nothing.
        is_next = np.array([*sample.is_target[1:], False])
        targets.append(np.where(is_next, np.roll(ids, -1), IGNORE))
        positions.append(np.arange(len(ids)))
        segments.append(np.full(len(ids), number))
    tokens = [np.array(sample.token_ids) for sample in samples]
    arrays = (np.concatenate(part) for part in (tokens, targets, positions, segments))
    return PackedBatch(*(torch.from_numpy(array.astype(np.int64)) for array in arrays))
