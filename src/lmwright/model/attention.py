"""Multi-head attention with grouped key/value heads."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from lmwright.model.cache import KVCache
from lmwright.model.config import ModelConfig
from lmwright.model.linear import Linear
from lmwright.model.position import rotate

# Shapes: B batch, T tokens, S keys (T, or all that the cache holds), H heads, D head width.


@dataclass(frozen=True)
class Context:
    """What every layer needs besides its input, computed once for all of them."""

    positions: Tensor  # (B, T)
    cos: Tensor  # (B, 1, T, D)
    sin: Tensor  # (B, 1, T, D)
    # (B, 1, T, S), True where attention is allowed; None: every query sees every key.
    mask: Tensor | None
    is_causal: bool = False
    cache: KVCache | None = None


class Attention(nn.Module):
    """softmax(q k^T / sqrt(D)) v over the tokens that the context's mask allows."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.n_heads, self.n_kv_heads = config.n_heads, config.n_kv_heads
        self.d_head = config.d_head
        self.n_repeats = config.n_heads // config.n_kv_heads
        d_query, d_key = config.n_heads * config.d_head, config.n_kv_heads * config.d_head
        self.q = Linear(config.d_model, d_query, bias=False)
        self.k = Linear(config.d_model, d_key, bias=False)
        self.v = Linear(config.d_model, d_key, bias=False)
        self.out = Linear(d_query, config.d_model, bias=False)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        n_rows, n_tokens, _ = x.shape
        q = self.q(x).view(n_rows, n_tokens, self.n_heads, self.d_head).transpose(1, 2)
        k = self.k(x).view(n_rows, n_tokens, self.n_kv_heads, self.d_head).transpose(1, 2)
        v = self.v(x).view(n_rows, n_tokens, self.n_kv_heads, self.d_head).transpose(1, 2)
        q = rotate(q, context.cos, context.sin)  # (B, H, T, D)
        k = rotate(k, context.cos, context.sin)
        if context.cache is not None:
            k, v = context.cache.update(self.layer, k, v, context.positions)  # (B, H_kv, S, D)
        if self.n_repeats > 1:
            k = k.repeat_interleave(self.n_repeats, dim=1)
            v = v.repeat_interleave(self.n_repeats, dim=1)
        mixed = F.scaled_dot_product_attention(
            q, k, v, attn_mask=context.mask, is_causal=context.is_causal
        )
        return self.out(mixed.transpose(1, 2).reshape(n_rows, n_tokens, -1))
