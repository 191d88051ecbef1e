"""The feed-forward half of a block."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmwright.model.config import ModelConfig
from lmwright.model.linear import Linear


class GatedMLP(nn.Module):
    """down(silu(gate(x)) * up(x)): SwiGLU (Shazeer 2020)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = Linear(config.d_model, config.d_ff, bias=False)
        self.up = Linear(config.d_model, config.d_ff, bias=False)
        self.down = Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(_SwiGLU.apply(self.gate(x), self.up(x)))


class _SwiGLU(torch.autograd.Function):
    """silu(gate) * up, with silu(gate) computed again for the gradient instead of kept.

    Of a layer's activations it would be one of the four largest.
    """

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        gate, up = ctx.saved_tensors
        d_gate = torch.ops.aten.silu_backward(grad * up, gate)
        return d_gate, F.silu(gate).mul_(grad)
