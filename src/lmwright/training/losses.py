"""The loss of a model that predicts the next token: (model, batch) -> (sum, count)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lmwright.model.transformer import DecoderLM
from lmwright.training.batches import IGNORE, PackedBatch

# Targets whose logits exist at the same time: 128 rows of 49,152 in fp32 are 25 MB.
CHUNK = 128


def next_token(model: DecoderLM, batch: PackedBatch) -> tuple[Tensor, int]:
    """Return the summed cross-entropy (nats) of the targets, and their number."""
    hidden = model.packed_hidden(batch.tokens, batch.positions, batch.segments)  # (N, C)
    is_target = batch.targets != IGNORE
    targets = batch.targets[is_target]
    loss = _HeadLoss.apply(hidden[is_target], model.head.weight, targets, model.head.softcap)
    return loss, len(targets)


class _HeadLoss(torch.autograd.Function):
    """Head and cross-entropy in one, a chunk of targets at a time.

    The gradient is computed along with the loss, so that no logits are kept: those of all
    targets would need more memory than the model (Cut Cross-Entropy, Wijmans et al. 2024, keeps
    them out of memory for the same reason).
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float | None = None
    ) -> Tensor:
        needs_hidden, needs_weight, *_ = ctx.needs_input_grad
        w = weight.to(hidden.dtype)  # (V, C)
        total = torch.zeros((), dtype=torch.float64, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        grad_weight = torch.zeros_like(weight) if needs_weight else None
        for start in range(0, len(targets), CHUNK):
            part = slice(start, start + CHUNK)
            logits = F.linear(hidden[part], w).float()  # (n, V)
            slopes = None
            if softcap is not None:
                logits = torch.tanh(logits / softcap)
                slopes = 1 - logits.square()
                logits *= softcap
            chosen = logits.gather(1, targets[part, None])
            norm = logits.logsumexp(dim=1, keepdim=True)
            total += (norm - chosen).sum()
            if grad_hidden is None and grad_weight is None:
                continue
            # d loss / d logits = softmax - one-hot
            logits.sub_(norm).exp_()
            logits.scatter_add_(1, targets[part, None], torch.full_like(chosen, -1.0))
            if slopes is not None:
                logits *= slopes
            error = logits.to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[part] = error @ w
            if grad_weight is not None:
                grad_weight += (error.T @ hidden[part]).to(weight.dtype)
        ctx.save_for_backward(grad_hidden, grad_weight)
        return total.float()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        grad_hidden, grad_weight = ctx.saved_tensors
        return (
            None if grad_hidden is None else grad_hidden * grad.to(grad_hidden.dtype),
            None if grad_weight is None else grad_weight * grad,
            None,
            None,
        )
