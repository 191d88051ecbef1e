"""Rows of tokens behind a paged cache, for tests that compare modules step by step."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lmwright.model.cache import BLOCK_SIZE
from lmwright.model.context import CachedRow, Memory

MAX_TOKENS = 1024


class CachedRows:
    """B rows that are extended together; their blocks lie between each other's."""

    def __init__(self, model: Any, n_rows: int, memory: Memory | None = None) -> None:
        """`memory` is what the encoder of an encoder-decoder made of B sources."""
        self.model, self.cache = model, model.new_cache()
        n_blocks = n_rows * (MAX_TOKENS // BLOCK_SIZE)
        self._blocks = [range(row, n_blocks, n_rows) for row in range(n_rows)]
        self._lengths = [0] * n_rows
        self._memories: list[Memory | None] = [None] * n_rows
        if memory is not None:
            mask = memory.view.mask
            for row in range(n_rows):
                seen = slice(None) if mask is None else mask[row, 0, 0]
                self._memories[row] = Memory(memory.hidden[row : row + 1, seen], None)

    def logits(self, tokens: Tensor) -> Tensor:
        """Append tokens (B, T); return the logits (B, T, V)."""
        return torch.stack(self.ragged_logits(list(tokens)))

    def ragged_logits(self, tokens: Sequence[Tensor]) -> list[Tensor]:
        """Append tokens (T,) to each row; return the logits (T, V) of each."""
        state = zip(self._lengths, tokens, self._blocks, self._memories, strict=True)
        rows = [CachedRow(n, len(new), blocks, memory) for n, new, blocks, memory in state]
        context = self.model.cached_context(rows, self.cache)
        found = self.model.head(self.model.hidden(torch.cat(list(tokens))[None], context))[0]
        self._lengths = [row.length for row in rows]
        return list(found.split([row.n_new for row in rows]))

    def select(self, order: Sequence[int]) -> None:
        """Keep these rows, in this order; each gets blocks of its own."""
        first = max(blocks[-1] for blocks in self._blocks) + 1
        own = [range(first + i, first + 256 * len(order), len(order)) for i in range(len(order))]
        used = [-(-self._lengths[row] // BLOCK_SIZE) for row in order]
        pairs = [
            pair
            for row, blocks, n in zip(order, own, used, strict=True)
            for pair in zip(self._blocks[row][:n], blocks, strict=False)
        ]
        self.cache.copy_blocks(pairs)
        self._blocks = own
        self._lengths = [self._lengths[row] for row in order]
        self._memories = [self._memories[row] for row in order]
