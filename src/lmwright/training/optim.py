"""The optimiser, its learning rate, and its state as tensors with names."""

import math

import torch
from torch import Tensor, nn


def adamw(model: nn.Module, weight_decay: float) -> torch.optim.AdamW:
    """Return AdamW (Loshchilov & Hutter 2019) over the parameters that want a gradient.

    Matrices decay; vectors (the weights of norms) do not.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.999),
        eps=1e-8,
        fused=trained[0].device.type != "mps",
    )


def warmup_cosine(step: int, n_steps: int, warmup: float) -> float:
    """Return the share of the highest rate for step 0 .. n_steps - 1.

    Linear to 1 over the first `warmup` share of the steps, then a cosine down to 0 after the last
    (Loshchilov & Hutter 2017).
    """
    n_warmup = round(n_steps * warmup)
    if step < n_warmup:
        return (step + 1) / n_warmup
    progress = (step - n_warmup) / max(1, n_steps - n_warmup)
    return 0.5 * (1 + math.cos(math.pi * progress))


def moments(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """Return the optimiser's state as tensors named `PARAMETER/exp_avg` and so on."""
    return {
        f"{name}/{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def set_moments(
    optimizer: torch.optim.Optimizer, model: nn.Module, tensors: dict[str, Tensor]
) -> None:
    """Put back what `moments` returned."""
    parameters = dict(model.named_parameters())
    for name, tensor in tensors.items():
        parameter, key = name.rsplit("/", 1)
        optimizer.state[parameters[parameter]][key] = tensor
