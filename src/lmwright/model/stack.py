"""From token ids to hidden states: the embedding, the blocks, the last norm."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmwright.model.block import Block, CrossBlock
from lmwright.model.cache import PagedCache
from lmwright.model.config import ModelConfig
from lmwright.model.context import (
    CachedContext,
    CachedRow,
    Context,
    Memory,
    Rotations,
    RowContext,
    View,
    visible,
)
from lmwright.model.linear import table
from lmwright.model.norm import identity, norm
from lmwright.model.position import (
    GROWING,
    Lookup,
    RelativeBias,
    Rotation,
    position_vectors,
)

# Shapes: B batch, T tokens, S keys, C model width.


class Embedding(nn.Module):
    """Tokens as vectors, with those of their positions and types where the model has such."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.weight = table(config.vocab_size, config.d_model, std=1.0)
        self.scale = config.embedding_scale
        self.positions = position_vectors(config)
        n_types = config.n_token_types
        self.types = Lookup(n_types, config.d_model) if n_types else None
        self.norm = norm(config, config.d_model) if config.has_embedding_norm else identity

    def forward(self, tokens: Tensor, context: Context) -> Tensor:
        """Return the vectors (B, T, C) of tokens (B, T)."""
        x = F.embedding(tokens, self.weight).to(context.dtype)
        if self.scale != 1:  # rounded to x's format before it multiplies, as it is in training
            x = x * torch.tensor(self.scale, dtype=x.dtype, device=x.device)
        if self.types is not None:
            types = torch.zeros_like(tokens) if context.token_types is None else context.token_types
            x = x + self.types(types).to(x.dtype)
        if self.positions is not None:
            x = x + self.positions(context.positions).to(x.dtype)
        return self.norm(x)


class Stack(nn.Module):
    """The blocks with what comes before and behind them."""

    def __init__(self, config: ModelConfig, kind: type[Block] | type[CrossBlock]) -> None:
        super().__init__()
        self.config = config
        is_cross = kind is CrossBlock
        n_layers = config.n_decoder_layers if is_cross else config.n_layers
        self.embedding = Embedding(config)
        self.blocks = nn.ModuleList(kind(config, i) for i in range(n_layers))
        self.norm = norm(config, config.d_model) if config.has_final_norm else identity
        is_relative = config.positions == "relative"
        self.relative = RelativeBias(config, is_causal=is_cross) if is_relative else None
        ropes = [rope for rope in (config.rope, config.local_rope) if rope is not None]
        ropes = ropes if config.positions == "rotary" else []
        self._rotations = [Rotation(rope, config.d_head) for rope in ropes]
        # Angles that depend on how long the whole text is.
        self._has_growing_rotations = any(rope.scaling in GROWING for rope in ropes)

    def forward(self, tokens: Tensor, context: Context) -> Tensor:
        """Return the hidden states (B, T, C) of tokens (B, T)."""
        x = self.embedding(tokens, context)
        for block in self.blocks:
            x = block(x, context)
        return self.norm(x)

    def rotations(self, positions: Tensor, dtype: torch.dtype) -> Rotations:
        """Return cosines and sines of positions (B, T)."""
        return tuple(rotation(positions, dtype) for rotation in self._rotations) or ((),)

    def bidirectional(
        self, tokens: Tensor, dtype: torch.dtype, *, mask: Tensor | None, types: Tensor | None
    ) -> Context:
        """Describe an encoder's rows like `tokens`, in which each sees all where `mask` is True."""
        positions = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        hidden = None if mask is None else mask[:, None, None]  # (B, 1, 1, T)
        bias = self._bias(positions[:1], tokens.shape[1], dtype)
        return RowContext(
            positions,
            dtype,
            rotations=self.rotations(positions[:1], dtype),
            views={None: View(_with_bias(hidden, bias))},
            token_types=types,
        )

    def causal(
        self, tokens: Tensor, dtype: torch.dtype, *, memory: Memory | None = None
    ) -> Context:
        """Describe whole rows like `tokens` (B, T), which see the tokens up to their own."""
        positions = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        views = self.views(positions, positions.shape[1], dtype)
        rotations = self.rotations(positions, dtype)
        return RowContext(positions, dtype, rotations=rotations, views=views, memory=memory)

    def cached(
        self, rows: Sequence[CachedRow], cache: PagedCache, dtype: torch.dtype
    ) -> CachedContext:
        """Describe new tokens of several sequences, in one row (1, N), behind what a cache holds.

        Each sees those of its sequence up to its own.
        """
        device = self.embedding.weight.device
        each = [torch.arange(row.start, row.length, device=device)[None] for row in rows]
        positions = torch.cat(each, dim=1)  # (1, N)
        views = [self.views(part, row.length, dtype) for part, row in zip(each, rows, strict=True)]
        # Angles may depend on how long a sequence is: on its own length, not on its neighbours'.
        apart = each if self._has_growing_rotations else [positions]
        parts = zip(*(self.rotations(part, dtype) for part in apart), strict=True)
        rotations = tuple(
            tuple(torch.cat(waves, dim=2) for waves in zip(*part, strict=True)) for part in parts
        )
        return CachedContext(
            positions, dtype, rotations=rotations, views=views, rows=rows, cache=cache
        )

    def views(self, positions: Tensor, n_keys: int, dtype: torch.dtype) -> dict[int | None, View]:
        """Let tokens at `positions` (B, T) see those up to their own, the last of `n_keys`.

        Returns a view for each window among the layers.
        """
        n_rows, n_tokens = positions.shape
        bias = self._bias(positions, n_keys, dtype)
        views = {}
        for window in self.config.windows:
            is_short = window is None or window >= n_keys
            if is_short and bias is None and n_tokens == n_keys:  # read from the beginning
                views[window] = View(is_causal=n_tokens > 1)
            elif is_short and bias is None and n_rows == n_tokens == 1:
                views[window] = View()
            else:
                views[window] = View(_with_bias(visible(positions, n_keys, window), bias))
        return views

    def masked(self, positions: Tensor, mask: Tensor, dtype: torch.dtype) -> Context:
        """Describe rows at `positions` (B, T) with a mask (B, 1, T, T) made elsewhere."""
        distance = (positions[:, :, None] - positions[:, None])[:, None]  # (B, 1, T, T)
        views = {
            window: View(mask if window is None else mask & (distance < window))
            for window in self.config.windows
        }
        return RowContext(positions, dtype, rotations=self.rotations(positions, dtype), views=views)

    def _bias(self, positions: Tensor, n_keys: int, dtype: torch.dtype) -> Tensor | None:
        return None if self.relative is None else self.relative(positions, n_keys).to(dtype)


def _with_bias(mask: Tensor | None, bias: Tensor | None) -> Tensor | None:
    """Return what hides and what is added as one mask (B, H or 1, T, S), or None."""
    if mask is None or bias is None:
        return mask if bias is None else bias
    return bias.masked_fill(~mask, float("-inf"))
