"""The assemblies: a decoder with a language-model head."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmwright.core.batch import Batch
from lmwright.model.block import Block
from lmwright.model.cache import KVCache
from lmwright.model.config import ModelConfig
from lmwright.model.context import Context, PackedContext, RowContext, visible
from lmwright.model.linear import Linear
from lmwright.model.norm import RMSNorm
from lmwright.model.position import inverse_frequencies, rotation

# Shapes: B batch, T tokens, C model width, V vocabulary, N tokens of a packed batch.


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
        positions = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        window = self.config.sliding_window
        is_short = window is None or tokens.shape[1] <= window
        mask = None if is_short else visible(positions[:1], tokens.shape[1], window)
        context = RowContext(
            *self._rotation(positions[:1]), positions=positions, mask=mask, is_causal=mask is None
        )
        return self.head(self.hidden(tokens, context))

    def packed_hidden(self, batch: Batch) -> Tensor:
        """Return the last hidden states (N, C) of packed samples, none of which sees another."""
        length = int(batch.positions.max()) + 1
        context = PackedContext(
            *self._rotation(torch.arange(length, device=batch.tokens.device)[None]),
            segments=batch.segments,
            positions=batch.positions,
            window=self.config.sliding_window,
        )
        return self.hidden(batch.tokens[None], context)[0]

    def masked_context(self, positions: Tensor, mask: Tensor) -> Context:
        """Describe rows at `positions` (B, T) with a mask (B, 1, T, T) made elsewhere."""
        return RowContext(*self._rotation(positions), positions=positions, mask=mask)

    def cached_context(self, positions: Tensor, cache: KVCache) -> Context:
        """Describe new tokens at `positions` (B, T) that follow what the cache holds."""
        cache.n_used = n_keys = int(positions.max()) + 1
        n_rows, n_tokens = positions.shape
        window = self.config.sliding_window
        mask, is_causal = None, False
        if n_rows > 1 or (window is not None and n_keys > window) or 1 < n_tokens < n_keys:
            mask = visible(positions, n_keys, window)
        elif n_tokens > 1:  # a single prompt from its beginning
            is_causal = True
        return RowContext(
            *self._rotation(positions),
            positions=positions,
            mask=mask,
            is_causal=is_causal,
            cache=cache,
        )

    def new_cache(self) -> KVCache:
        """Return an empty cache that fits this model."""
        return KVCache(self.config.n_layers)

    def _rotation(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        if self._frequencies is None or self._frequencies.device != positions.device:
            frequencies = inverse_frequencies(self.config.rope, self.config.d_head)
            self._frequencies = frequencies.to(positions.device)
        return rotation(self._frequencies, positions, self.compute_dtype)
