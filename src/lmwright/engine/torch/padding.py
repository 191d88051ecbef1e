"""Rows of different lengths side by side: which of them go together, and how they are filled up."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

# Tokens, padding included, that an encoder reads at once. Every token looks at all of its row, so
# that a row cannot be read in parts; the rows are bounded instead.
MAX_TOKENS = 4096


def batches(lengths: Sequence[int], max_tokens: int = MAX_TOKENS) -> Iterator[list[int]]:
    """Yield the numbers of rows that go together: of like length, at most `max_tokens` when padded.

    A row that is longer stands alone.
    """
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    batch: list[int] = []
    for i in order:  # the next one is the longest so far: all are padded to it
        if batch and (len(batch) + 1) * lengths[i] > max_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Return rows as (B, T) int64, zeros behind a row's end, and where its tokens are (B, T) bool.

    Without any padding there is no mask.
    """
    width = max(map(len, rows))
    tokens = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=device)
    return tokens, lengths_mask([len(row) for row in rows], device)


def lengths_mask(lengths: Sequence[int], device: torch.device) -> Tensor | None:
    """Return which cells (B, T) of rows of these lengths hold a token; None if all of them do."""
    if min(lengths) == max(lengths):
        return None
    slots = torch.arange(max(lengths), device=device)
    return slots < torch.tensor(lengths, device=device)[:, None]
