"""One layer: attention and feed-forward, each around a residual stream."""

from collections.abc import Callable

from torch import Tensor, nn

from lmwright.model.attention import Attention, CrossAttention
from lmwright.model.config import ModelConfig, NormPlace
from lmwright.model.context import Context
from lmwright.model.mlp import mlp
from lmwright.model.norm import identity, norm


class Residual(nn.Module):
    """A branch added to the stream, normed before it, behind it, or behind the sum."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()

        def norm_at(place: NormPlace) -> Callable[[Tensor], Tensor]:
            return norm(config, config.d_model) if place in config.norm_places else identity

        self.norm_in, self.norm_out, self.norm_sum = norm_at("in"), norm_at("out"), norm_at("sum")

    def forward(self, x: Tensor, branch: Callable[..., Tensor], *context: Context) -> Tensor:
        return self.norm_sum(x + self.norm_out(branch(self.norm_in(x), *context)))


class Block(nn.Module):
    """Attention, then feed-forward."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attention_residual = Residual(config)
        self.attention = Attention(config, layer)
        self.mlp_residual = Residual(config)
        self.mlp = mlp(config)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        x = self.attention_residual(x, self.attention, context)
        return self.mlp_residual(x, self.mlp)


class CrossBlock(nn.Module):
    """Attention, attention to the encoder, then feed-forward."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attention_residual = Residual(config)
        self.attention = Attention(config, layer)
        self.cross_residual = Residual(config)
        self.cross_attention = CrossAttention(config, layer)
        self.mlp_residual = Residual(config)
        self.mlp = mlp(config)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        x = self.attention_residual(x, self.attention, context)
        x = self.cross_residual(x, self.cross_attention, context)
        return self.mlp_residual(x, self.mlp)
