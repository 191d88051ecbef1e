"""Sequences that are extended together, token by token, and may be forked: beams, and checks."""

from collections.abc import Sequence

import numpy as np

from lmwright.engine.backend import NewTokens, WritingBackend
from lmwright.engine.blocks import BlockManager


class Rows:
    """A batch that one caller runs, in which nothing joins; `Engine` is for answers to many."""

    def __init__(
        self, backend: WritingBackend, prompts: Sequence[Sequence[int]], max_rows: int
    ) -> None:
        """Read prompts of any lengths; there will be at most `max_rows` rows at a time."""
        self._session = backend.open_session()
        size = self._session.block_size
        n_blocks = max_rows * (backend.info.context_length or 0) // size + 2 * max_rows
        self._blocks = BlockManager(n_blocks, size)
        is_seq2seq = backend.info.kind == "encoder-decoder"
        self._sources = self._session.read_sources(prompts) if is_seq2seq else [None] * len(prompts)
        self._tables: list[list[int]] = [[] for _ in prompts]
        self._lengths = [0] * len(prompts)
        # The logits (B, V) of what follows each row.
        self.logits = self._extend([backend.decoder_prefix(prompt) for prompt in prompts])

    def decode(self, token_ids: Sequence[int]) -> np.ndarray:
        """Append one token a row; return the next-token logits (B, V) fp32."""
        self.logits = self._extend([[token] for token in token_ids])
        return self.logits

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in this order; a row may be kept several times."""
        tables, copies = [], []
        for i, row in enumerate(rows):
            table, n_full = self._tables[row], self._lengths[row] // self._blocks.block_size
            if row in rows[:i]:  # a fork: what is full is shared, the last block is written to
                own = self._blocks.allocate(len(table) - n_full)
                copies += zip(table[n_full:], own, strict=True)
                table = self._blocks.share(table[:n_full]) + own
            tables.append(table)
        for row in {*range(len(self._tables))} - {*rows}:
            self._blocks.release(self._tables[row])
        if copies:
            self._session.copy_blocks(copies)
        sources = [self._sources[row] for row in rows]
        for source in {*self._sources} - {*sources}:
            if source is not None:
                self._session.free_source(source)
        self._tables, self._sources = tables, sources
        self._lengths = [self._lengths[row] for row in rows]

    def _extend(self, tokens: Sequence[Sequence[int]]) -> np.ndarray:
        work = []
        for i, ids in enumerate(tokens):
            length = self._lengths[i] + len(ids)
            n_more = self._blocks.n_needed(length) - len(self._tables[i])
            self._tables[i] += self._blocks.allocate(n_more)
            work.append(NewTokens(ids, self._lengths[i], self._tables[i], self._sources[i]))
            self._lengths[i] = length
        return self._session.forward(work)
