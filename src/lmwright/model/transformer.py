"""The assemblies: a decoder with a language-model head."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmwright.core.batch import Batch
from lmwright.model.attention import Context
from lmwright.model.block import Block
from lmwright.model.cache import KVCache
from lmwright.model.config import ModelConfig
from lmwright.model.linear import Linear
from lmwright.model.mask import cached_mask, packed_mask
from lmwright.model.norm import RMSNorm
from lmwright.model.position import inverse_frequencies, rotation

# Shapes: B batch, T tokens, C model width, V vocabulary.


class DecoderLM(nn.Module):
    """A causal language model: embedding, blocks, norm, head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.blocks = nn.ModuleList(Block(config, i) for i in range(config.n_layers))
        self.norm = RMSNorm(config.d_model, config.norm_eps)
        self.head = Linear(config.d_model, config.vocab_size, bias=False)
        if config.ties_embeddings:
            self.head.weight = self.embedding.weight
        # The format of activations; weights may be wider (fp32 masters while training).
        self.compute_dtype = torch.float32
        self._frequencies: Tensor | None = None

    def hidden(self, tokens: Tensor, context: Context) -> Tensor:
        """Return the normed last hidden states (B, T, C) of tokens (B, T)."""
        x = F.embedding(tokens, self.embedding.weight).to(self.compute_dtype)
        for block in self.blocks:
            x = block(x, context)
        return self.norm(x)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (B, T, V) of plain rows: no padding, no packing, no cache."""
        return self.head(self.hidden(tokens, self.context(tokens)))

    def context(self, tokens: Tensor) -> Context:
        """Describe plain rows (B, T): positions from 0, causal attention."""
        positions = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        window = self.config.sliding_window
        if window is None or tokens.shape[1] <= window:
            return self._context(positions, None, is_causal=True)
        return self._context(positions, cached_mask(positions[:1], tokens.shape[1], window))

    def packed_context(self, batch: Batch) -> Context:
        """Describe rows that hold several samples, none of which sees another."""
        mask = packed_mask(batch.segments, batch.positions, self.config.sliding_window)
        return self._context(batch.positions, mask)

    def masked_context(self, positions: Tensor, mask: Tensor) -> Context:
        """Describe rows with a mask (B, 1, T, T) made elsewhere."""
        return self._context(positions, mask)

    def cached_context(self, positions: Tensor, cache: KVCache) -> Context:
        """Describe new tokens at `positions` (B, T) that follow what the cache holds."""
        cache.n_used = n_keys = int(positions.max()) + 1
        n_rows, n_tokens = positions.shape
        window = self.config.sliding_window
        if n_rows == 1 and (window is None or n_keys <= window):
            # The two cases without a mask: one new token, and a prompt from its beginning.
            if n_tokens == 1:
                return self._context(positions, None, cache=cache)
            if n_tokens == n_keys:
                return self._context(positions, None, is_causal=True, cache=cache)
        return self._context(positions, cached_mask(positions, n_keys, window), cache=cache)

    def new_cache(self) -> KVCache:
        """Return an empty cache that fits this model."""
        return KVCache(self.config.n_layers)

    def _context(
        self,
        positions: Tensor,
        mask: Tensor | None,
        *,
        is_causal: bool = False,
        cache: KVCache | None = None,
    ) -> Context:
        if self._frequencies is None or self._frequencies.device != positions.device:
            frequencies = inverse_frequencies(self.config.rope, self.config.d_head)
            self._frequencies = frequencies.to(positions.device)
        cos, sin = rotation(self._frequencies, positions, self.compute_dtype)
        return Context(positions, cos, sin, mask, is_causal, cache)
