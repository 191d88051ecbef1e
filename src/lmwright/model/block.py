"""One layer: attention and feed-forward, each around a residual stream."""

from torch import Tensor, nn

from lmwright.model.attention import Attention
from lmwright.model.config import ModelConfig
from lmwright.model.context import Context
from lmwright.model.mlp import GatedMLP
from lmwright.model.norm import RMSNorm


class Block(nn.Module):
    """Pre-norm block: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.d_model, config.norm_eps)
        self.attention = Attention(config, layer)
        self.mlp_norm = RMSNorm(config.d_model, config.norm_eps)
        self.mlp = GatedMLP(config)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        x = x + self.attention(self.attention_norm(x), context)
        return x + self.mlp(self.mlp_norm(x))
