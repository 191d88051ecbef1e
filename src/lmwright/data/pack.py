"""Packing: samples side by side in rows of a fixed length, never cut, never mixed.

The order is a pure function of (seed, epoch), so that a resumed run sees what it would have seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lmwright.core.batch import IGNORE, Batch

# Rows that are open at once while packing: more waste less and mix samples less.
N_OPEN = 64


@dataclass(frozen=True)
class Encoded:
    """A sample as tokens; `is_target[i]` says that token i is to be learnt."""

    id: str
    token_ids: tuple[int, ...]
    is_target: tuple[bool, ...]


def pack(lengths: Sequence[int], capacity: int, order: Sequence[int]) -> list[list[int]]:
    """Return rows of sample numbers: each goes, in `order`, where it leaves the least room."""
    rows: list[list[int]] = []
    free: list[int] = []
    is_open: list[int] = []
    for i in order:
        fitting = [row for row in is_open if free[row] >= lengths[i]]
        if fitting:
            row = min(fitting, key=lambda r: free[r])
        else:
            row = len(rows)
            rows.append([])
            free.append(capacity)
            is_open = [*is_open, row][-N_OPEN:]
        rows[row].append(i)
        free[row] -= lengths[i]
    return rows


def epoch_batches(
    samples: Sequence[Encoded], *, capacity: int, batch_size: int, seed: int, epoch: int
) -> list[list[list[int]]]:
    """Return the epoch's batches, each a list of rows of sample numbers."""
    random = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    order = random.permutation(len(samples)).tolist()
    rows = pack([len(sample.token_ids) for sample in samples], capacity, order)
    rows = [rows[i] for i in random.permutation(len(rows))]
    return [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]


def collate(samples: Sequence[Encoded], rows: Sequence[Sequence[int]]) -> Batch:
    """Lay rows of samples out as tensors (B, T), T being the longest row."""
    width = max(sum(len(samples[i].token_ids) for i in row) for row in rows)
    tokens = np.zeros((len(rows), width), dtype=np.int64)
    targets = np.full_like(tokens, IGNORE)
    positions = np.zeros_like(tokens)
    segments = np.full_like(tokens, -1)
    for r, row in enumerate(rows):
        start = 0
        for number, i in enumerate(row):
            ids = np.array(samples[i].token_ids)
            end = start + len(ids)
            tokens[r, start:end] = ids
            positions[r, start:end] = np.arange(len(ids))
            segments[r, start:end] = number
            # The token at t predicts the one at t + 1; a sample's last token predicts nothing.
            is_next = np.array(samples[i].is_target)[1:]
            targets[r, start : end - 1] = np.where(is_next, ids[1:], IGNORE)
            start = end
    return Batch(*(torch.from_numpy(a) for a in (tokens, targets, positions, segments)))
