"""Normalisation layers."""

from typing import Any

import torch
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """Scale to unit root mean square, then by a learned weight (Zhang & Sennrich 2019)."""

    def __init__(self, d_model: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return _RMSNorm.apply(x, self.weight, self.eps)


class _RMSNorm(torch.autograd.Function):
    """The norm with its gradient written out: autograd would keep three fp32 copies of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:  # type: ignore[override]
        # In fp32 whatever x is: the sum of squares loses too much in bf16.
        x32 = x.float()
        scale = torch.rsqrt(x32.square().mean(-1, keepdim=True) + eps)  # (..., 1)
        normed = (x32 * scale).to(x.dtype)
        ctx.save_for_backward(normed, scale, weight)
        return normed * weight.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:  # type: ignore[override]
        normed, scale, weight = ctx.saved_tensors
        d_weight = None
        if ctx.needs_input_grad[1]:
            d_weight = (grad.float() * normed).flatten(0, -2).sum(0).to(weight.dtype)
        # With n = x s:  dx = s (dn - n mean(dn n)).
        # A copy also where grad is fp32 already: it is not ours to change.
        dn = grad.to(torch.float32, copy=True).mul_(weight)
        mean = (dn * normed).mean(-1, keepdim=True)
        dx = dn.addcmul_(normed.float(), mean, value=-1).mul_(scale)
        return dx.to(grad.dtype), d_weight, None
