"""Multi-head attention with grouped key/value heads."""

from torch import Tensor, nn

from lmwright.model.config import ModelConfig
from lmwright.model.context import Context
from lmwright.model.linear import Linear
from lmwright.model.position import rotate


class Attention(nn.Module):
    """Mix what earlier tokens say, each head by its own similarity (Vaswani et al. 2017)."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.n_heads, self.n_kv_heads = config.n_heads, config.n_kv_heads
        d_query, d_key = config.n_heads * config.d_head, config.n_kv_heads * config.d_head
        self.q = Linear(config.d_model, d_query, bias=False)
        self.k = Linear(config.d_model, d_key, bias=False)
        self.v = Linear(config.d_model, d_key, bias=False)
        self.out = Linear(d_query, config.d_model, bias=False)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        q = context.split(self.q(x), self.n_heads)  # (B, H, T, D)
        k = context.split(self.k(x), self.n_kv_heads)  # (B, G, T, D)
        v = context.split(self.v(x), self.n_kv_heads)
        q = rotate(q, context.cos, context.sin)
        k = rotate(k, context.cos, context.sin)
        mixed = context.attend(self.layer, q, k, v)  # (B, H, T, D)
        return self.out(context.join(mixed))
