"""A torch decoder over a paged cache: what is new of several sequences passes through at once."""

from collections.abc import Callable, Iterator, Sequence
from itertools import count

import numpy as np
import torch
from torch import Tensor

from lmwright.engine.backend import NewTokens
from lmwright.model.cache import BLOCK_SIZE
from lmwright.model.context import CachedRow, Memory
from lmwright.model.transformer import DecoderLM, EncoderDecoderLM

# Shapes: N tokens, C model width, V vocabulary.

# Tokens that pass through the model at once: bounds the memory of reading a prompt.
MAX_CHUNK = 2048
# Rows that pass through the model together. Up to 32 of one token each, a matrix product in bf16
# gives each the same bits as alone (measured with oneDNN on AMX): so are their answers.
MAX_TOGETHER = 32


class TorchSession:
    """Sequences behind one paged cache, with the sources that an encoder-decoder has read."""

    block_size = BLOCK_SIZE

    def __init__(
        self,
        model: DecoderLM | EncoderDecoderLM,
        read: Callable[[Sequence[Sequence[int]]], list[Memory]] | None = None,
    ) -> None:
        """`read` is the encoder, if there is one."""
        self._model, self._read = model, read
        self._device = model.decoder.embedding.weight.device
        self._cache = model.new_cache()
        self._numbers = count()
        self._memories: dict[int, Memory] = {}

    @torch.inference_mode()
    def forward(self, rows: Sequence[NewTokens]) -> np.ndarray:
        """Read new tokens; return the logits (rows, V) fp32 of what follows the last of each."""
        logits = []
        for group in _groups(rows):
            *_, hidden = self._parts(group)  # (N, C)
            ends = np.cumsum([len(row.token_ids) for row in group]) - 1 if len(group) > 1 else [-1]
            last = self._model.head(hidden[ends])  # (rows, V)
            logits.append(last.float().cpu().numpy())
        return np.concatenate(logits)

    @torch.inference_mode()
    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy all keys and values of blocks, given as (from, to)."""
        self._cache.copy_blocks(pairs)

    @torch.inference_mode()
    def read_sources(self, prompts: Sequence[Sequence[int]]) -> list[int]:
        """Let the encoder read sources, those of like length together."""
        assert self._read is not None, "only encoder-decoders have sources"
        sources = {next(self._numbers): memory for memory in self._read(prompts)}
        self._memories |= sources
        return list(sources)

    def free_source(self, source: int) -> None:
        """Forget a source and its keys and values."""
        del self._memories[source]

    @torch.inference_mode()
    def hidden(self, prompt: Sequence[int]) -> Tensor:
        """Return the hidden states (T, C) of all tokens of a prompt, the first that is read."""
        blocks = range(-(-len(prompt) // BLOCK_SIZE))
        return torch.cat([*self._parts([NewTokens(prompt, 0, blocks)])])

    def _parts(self, rows: Sequence[NewTokens]) -> Iterator[Tensor]:
        """Yield hidden states (N, C) of new tokens; of a long row, which stands alone, in parts."""
        if len(rows) > 1:
            yield self._hidden(rows)
            return
        [row] = rows
        for i in range(0, len(row.token_ids), MAX_CHUNK):
            ids = row.token_ids[i : i + MAX_CHUNK]
            yield self._hidden([NewTokens(ids, row.start + i, row.blocks, row.source)])

    def _hidden(self, rows: Sequence[NewTokens]) -> Tensor:
        """Pass the new tokens of rows through the model; return their hidden states (N, C)."""
        ids = [id_ for row in rows for id_ in row.token_ids]
        cached = []
        for row in rows:
            memory = None if row.source is None else self._memories[row.source]
            cached.append(CachedRow(row.start, len(row.token_ids), row.blocks, memory))
        context = self._model.cached_context(cached, self._cache)
        tokens = torch.tensor([ids], device=self._device)  # (1, N)
        return self._model.hidden(tokens, context)[0]


def _groups(rows: Sequence[NewTokens]) -> Iterator[list[NewTokens]]:
    """Yield rows that pass through together, in their order; one of more tokens stands alone."""
    group: list[NewTokens] = []
    n_tokens = 0
    for row in rows:
        n_tokens += len(row.token_ids)
        if group and (n_tokens > MAX_CHUNK or len(group) == MAX_TOGETHER):
            yield group
            group, n_tokens = [], len(row.token_ids)
        group.append(row)
    yield group
