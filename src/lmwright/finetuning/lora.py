"""LoRA (Hu et al. 2022): a frozen matrix plus a trained product of two thin ones.

y = x W^T + (alpha / r) (x A^T) B^T, A: (r, K) random, B: (N, r) zero at first. Saved in the
format of Hugging Face's PEFT, and merged into plain weights.
"""

import logging
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lmwright.core.artifact import write_json
from lmwright.model.families import family
from lmwright.model.families.family import rows_of
from lmwright.model.linear import Linear
from lmwright.model.stack import Stack
from lmwright.model.transformer import DecoderLM, Model
from lmwright.training.state import save_tensors

log = logging.getLogger(__name__)


class LoraLinear(nn.Module):
    """A frozen linear layer with a trained low-rank update, both computed in x's dtype."""

    def __init__(
        self, base: Linear, rank: int, *, alpha: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.scale = alpha / rank
        n_out, n_in = base.weight.shape
        # PEFT's initialisation: Kaiming uniform with a = sqrt(5), that is U(-b, b), b = 1/sqrt(K).
        bound = 1 / math.sqrt(n_in)
        a = torch.rand(rank, n_in, generator=generator) * 2 * bound - bound
        self.a = nn.Parameter(a.to(base.weight.device))  # (r, K) fp32
        self.b = nn.Parameter(torch.zeros(n_out, rank, device=base.weight.device))  # (N, r) fp32

    def forward(self, x: Tensor) -> Tensor:
        """Return y (..., N) for x (..., K)."""
        y = _LoraProduct.apply(x, self.base.weight.to(x.dtype), self.a, self.b, self.scale)
        return y if self.base.bias is None else y + self.base.bias.to(x.dtype)

    def delta(self) -> Tensor:
        """Return what the update adds to the weight, (N, K) fp32."""
        return self.scale * (self.b.detach().float() @ self.a.detach().float())


class _LoraProduct(torch.autograd.Function):
    """The layer with its gradient written out, so that the update is added in place.

    Left to autograd, the thin product becomes a full-size tensor twice in each direction, and x
    is stored once for each of the two products.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, weight: Tensor, a: Tensor, b: Tensor, scale: float
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])  # (M, K)
        a, b = a.to(x.dtype), b.to(x.dtype)
        thin = rows @ a.T  # (M, r)
        y = rows @ weight.T  # (M, N)
        y.addmm_(thin, b.T, alpha=scale)
        ctx.save_for_backward(rows, weight, a, b, thin)
        ctx.scale = scale
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        rows, weight, a, b, thin = ctx.saved_tensors
        dy = grad.reshape(-1, grad.shape[-1])  # (M, N)
        d_thin = (dy @ b).mul_(ctx.scale)  # (M, r)
        da = (d_thin.T @ rows).float()
        db = (dy.T @ thin).float().mul_(ctx.scale)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = (dy @ weight).addmm_(d_thin, a).view(*grad.shape[:-1], -1)
        return dx, None, da, db, None


def add_lora(model: Model, rank: int, *, alpha: float, seed: int) -> None:
    """Replace every linear layer of the blocks by a `LoraLinear`; all else is frozen."""
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    blocks = [block for m in model.modules() if isinstance(m, Stack) for block in m.blocks]
    for parent in [module for block in blocks for module in block.modules()]:
        for name, child in list(parent.named_children()):
            if type(child) is Linear:
                layer = LoraLinear(child, rank, alpha=alpha, generator=generator)
                setattr(parent, name, layer)


def merge(model: Model, exact: Model | None = None) -> None:
    """Put plain linear layers back, with the update added to their weights in fp32.

    `exact` is the base model in fp32 where `model` holds rounded weights: then the sum is rounded
    once, and an update smaller than the base's rounding error is not lost in it.
    """
    for name, layer in list(model.named_modules()):
        if isinstance(layer, LoraLinear):
            source = layer.base if exact is None else exact.get_submodule(name)
            merged = source.get_parameter("weight").float() + layer.delta()
            merged = merged.to(layer.base.weight.dtype)
            layer.base.weight = nn.Parameter(merged, requires_grad=False)
            model.set_submodule(name, layer.base)


def save_adapter(model: DecoderLM, folder: Path, *, base: str, rank: int, alpha: float) -> None:
    """Write the update as PEFT does: adapter_config.json and adapter_model.safetensors."""
    layers = {name: m for name, m in model.named_modules() if isinstance(m, LoraLinear)}
    kind = family(model.config.family)
    parameters = {f"{name}.weight" for name in layers}
    names = {
        row.ours[0].removesuffix(".weight"): row.hugging_face.removesuffix(".weight")
        for row in rows_of(kind, model.config, parameters)
        if len(row.ours) == 1 and row.layout == "plain"
    }
    if len(names) < len(layers):
        log.warning(
            "no adapter for %s: its file holds several of our matrices in one; the merged model "
            "has the update",
            kind.name,
        )
        return
    tensors = {}
    for name, layer in layers.items():
        prefix = f"base_model.model.{names[name]}"
        tensors[f"{prefix}.lora_A.weight"] = layer.a.detach()
        tensors[f"{prefix}.lora_B.weight"] = layer.b.detach()
    save_tensors(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": sorted({names[name].rsplit(".", 1)[-1] for name in layers}),
    }
    write_json(folder / "adapter_config.json", config)
