"""The feed-forward half of a block."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmwright.model.config import ModelConfig
from lmwright.model.linear import Linear

ACTIVATIONS = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "tanh": torch.tanh,
}


def mlp(config: ModelConfig) -> nn.Module:
    """Return the model's kind of feed-forward layer."""
    return GatedMLP(config) if config.is_gated else PlainMLP(config)


class PlainMLP(nn.Module):
    """down(activation(up(x))) (Vaswani et al. 2017)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up = Linear(config.d_model, config.d_ff, bias=config.mlp_bias)
        self.down = Linear(config.d_ff, config.d_model, bias=config.mlp_bias)
        self._activation = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self._activation(self.up(x)))


class GatedMLP(nn.Module):
    """down(activation(gate(x)) * up(x)): SwiGLU and its kin (Shazeer 2020)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = Linear(config.d_model, config.d_ff, bias=config.mlp_bias)
        self.up = Linear(config.d_model, config.d_ff, bias=config.mlp_bias)
        self.down = Linear(config.d_ff, config.d_model, bias=config.mlp_bias)
        activation = ACTIVATIONS[config.activation]
        self._product = _SwiGLU.apply if activation is F.silu else partial(_product, activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self._product(self.gate(x), self.up(x)))


def _product(activation: Any, gate: Tensor, up: Tensor) -> Tensor:
    return activation(gate) * up


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
