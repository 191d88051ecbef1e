"""Multi-head attention with grouped key/value heads."""

import math
from collections.abc import Callable

from torch import Tensor, nn

from lmwright.model.config import ModelConfig
from lmwright.model.context import Context, Scoring
from lmwright.model.linear import Linear
from lmwright.model.norm import HeadNorm, identity, norm
from lmwright.model.position import rotate, rotate_part

# Shapes: B batch, T tokens, S keys, H query heads, G key/value heads, D head width.


class Attention(nn.Module):
    """Mix what other tokens say, each head by its own similarity (Vaswani et al. 2017)."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.n_heads, self.n_kv_heads = config.n_heads, config.n_kv_heads
        d_query, d_key = config.n_heads * config.d_head, config.n_kv_heads * config.d_head
        self.q = Linear(config.d_model, d_query, bias=config.qkv_bias)
        self.k = Linear(config.d_model, d_key, bias=config.qkv_bias)
        self.v = Linear(config.d_model, d_key, bias=config.qkv_bias)
        self.out = Linear(d_query, config.d_model, bias=config.out_bias)
        self.q_norm, self.k_norm = _norm(config, d_query), _norm(config, d_key)
        is_local = config.is_local(layer)
        self.scoring = Scoring(
            scale=config.attention_scale or 1 / math.sqrt(config.d_head),
            softcap=config.attention_softcap,
            window=config.sliding_window if is_local else None,
        )
        self._rotate = rotate if config.rope.fraction == 1 else rotate_part
        if config.positions != "rotary":
            self._rotate = identity
        self._which = 1 if is_local and config.local_rope is not None else 0

    def forward(self, x: Tensor, context: Context) -> Tensor:
        q = context.split(self.q_norm(self.q(x)), self.n_heads)  # (B, H, T, D)
        k = context.split(self.k_norm(self.k(x)), self.n_kv_heads)  # (B, G, T, D)
        v = context.split(self.v(x), self.n_kv_heads)
        rotation = context.rotations[self._which]
        q, k = self._rotate(q, *rotation), self._rotate(k, *rotation)
        mixed = context.attend(self.layer, q, k, v, scoring=self.scoring)  # (B, H, T, D)
        return self.out(context.join(mixed))


class CrossAttention(Attention):
    """Mix what the encoder's tokens say; positions play no part."""

    def forward(self, x: Tensor, context: Context) -> Tensor:
        q = context.split(self.q(x), self.n_heads)  # (B, H, T, D)

        def project(hidden: Tensor) -> tuple[Tensor, Tensor]:
            k = context.split(self.k(hidden), self.n_kv_heads)  # (B, G, S, D)
            return k, context.split(self.v(hidden), self.n_kv_heads)

        mixed = context.attend_source(self.layer, q, project, scoring=self.scoring)
        return self.out(context.join(mixed))


def _norm(config: ModelConfig, width: int) -> Callable[[Tensor], Tensor]:
    """Return the norm of queries or keys, `width` of all heads together."""
    if config.qk_norm == "head":
        return HeadNorm(config.d_head, config.norm_eps, offset=config.norm_offset)
    return norm(config, width) if config.qk_norm == "width" else identity
