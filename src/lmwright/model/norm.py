"""Normalisation layers."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmwright.model.config import ModelConfig


def norm(config: ModelConfig, width: int) -> nn.Module:
    """Return the model's kind of norm over the last `width` channels."""
    if config.norm == "layer":
        return LayerNorm(width, config.norm_eps)
    return RMSNorm(width, config.norm_eps, offset=config.norm_offset)


def identity(x: Tensor) -> Tensor:
    """Stand where a model has no norm; a module that does nothing costs 1 us a call."""
    return x


class LayerNorm(nn.LayerNorm):
    """Zero mean and unit variance, then a learned scale and shift (Ba et al. 2016).

    The weights may be wider than x: they are cast, as in `Linear`.
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__(width, eps)

    def forward(self, input: Tensor) -> Tensor:
        weight, bias = self.weight.to(input.dtype), self.bias.to(input.dtype)
        return F.layer_norm(input, self.normalized_shape, weight, bias, self.eps)


class RMSNorm(nn.Module):
    """Scale to unit root mean square, then by a learned weight (Zhang & Sennrich 2019)."""

    def __init__(self, width: int, eps: float, *, offset: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((width,), 1.0 - offset))
        self.eps = eps
        # Added to the weight, in fp32: where it is stored as w - 1, it is finer than bf16 around 1.
        self.offset = offset

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.float() + self.offset if self.offset else self.weight
        return _RMSNorm.apply(x, weight, self.eps, bool(self.offset))


class HeadNorm(RMSNorm):
    """The same over each head's channels of queries or keys (..., H * D)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.unflatten(-1, (-1, len(self.weight)))).flatten(-2)


class _RMSNorm(torch.autograd.Function):
    """The norm with its gradient written out: autograd would keep three fp32 copies of x."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, weight: Tensor, eps: float, is_wide: bool
    ) -> Tensor:
        # In fp32 whatever x is: the sum of squares loses too much in bf16.
        x32 = x.float()
        scale = torch.rsqrt(x32.square().mean(-1, keepdim=True) + eps)  # (..., 1)
        x32 = x32 * scale
        normed = x32.to(x.dtype)
        ctx.save_for_backward(normed, scale, weight)
        if is_wide:  # rounded once, behind the weight
            return (x32 * weight).to(x.dtype)
        return normed * weight.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        normed, scale, weight = ctx.saved_tensors
        d_weight = None
        if ctx.needs_input_grad[1]:
            d_weight = (grad.float() * normed).flatten(0, -2).sum(0).to(weight.dtype)
        # With n = x s:  dx = s (dn - n mean(dn n)).
        # A copy also where grad is fp32 already: it is not ours to change.
        dn = grad.to(torch.float32, copy=True).mul_(weight)
        mean = (dn * normed).mean(-1, keepdim=True)
        dx = dn.addcmul_(normed.float(), mean, value=-1).mul_(scale)
        return dx.to(grad.dtype), d_weight, None, None
