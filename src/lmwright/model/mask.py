"""Who may look at whom: boolean masks, True where attention is allowed."""

import torch
from torch import Tensor

# Shapes: B batch, T tokens (queries), S tokens in the cache (keys).


def packed_mask(segments: Tensor, positions: Tensor, sliding_window: int | None) -> Tensor:
    """Let each token see its own sample's tokens up to itself: (B, 1, T, T) from (B, T) each.

    Samples packed into one row never see each other; padding (segment -1) sees itself only,
    because a row of the softmax must not be empty.
    """
    n_tokens = segments.shape[1]
    is_same = segments[:, :, None] == segments[:, None, :]
    is_past = torch.ones(n_tokens, n_tokens, dtype=torch.bool, device=segments.device).tril()
    allowed = is_same & is_past
    if sliding_window is not None:
        allowed &= positions[:, :, None] - positions[:, None, :] < sliding_window
    is_self = torch.eye(n_tokens, dtype=torch.bool, device=segments.device)
    allowed = torch.where(segments[:, :, None] < 0, is_self, allowed)
    return allowed[:, None]


def cached_mask(positions: Tensor, n_keys: int, sliding_window: int | None) -> Tensor:
    """Let a token at `positions` (B, T) see the cache's slots up to its own: (B, 1, T, S).

    Rows of different lengths need no left padding: what lies behind a row's own position is
    not seen, and is overwritten when the row gets there.
    """
    slots = torch.arange(n_keys, device=positions.device)
    distance = positions[:, :, None] - slots
    allowed = distance >= 0
    if sliding_window is not None:
        allowed &= distance < sliding_window
    return allowed[:, None]
