"""How the tokens of a batch lie in memory, and who may look at whom.

A context is made once a step and handed to every layer. Its kind (plain rows, rows behind a
cache, packed samples) is chosen then, so that the layers need not know.
"""

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from lmwright.model.cache import KVCache

# Shapes: B rows, T tokens a row, S keys (T, or all that a cache holds), H query heads, G key/value
# heads, D head width, N tokens of a packed batch, P packed samples, L the longest sample.

# Up to this length the plain product is faster than torch's flash kernel on a CPU (measured at
# 64 and 256: 4x and 1.4x, forward and backward), and the scores are small enough to keep.
MAX_PLAIN = 256


class Context(Protocol):
    """What every layer needs besides its input."""

    # Cosine and sine of the positions' angles, each (B, 1, T, D) or of a shape that spreads to it.
    cos: Tensor
    sin: Tensor

    def split(self, x: Tensor, n_heads: int) -> Tensor:
        """Lay projections out by sequence and head: (B, H, T, D)."""
        ...

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return softmax(q k^T / sqrt(D)) v over what each token may see: (B, H, T, D)."""
        ...

    def join(self, mixed: Tensor) -> Tensor:
        """Undo `split`: the layout of the layer's input."""
        ...


class RowContext:
    """Rows of equal length, with or without a cache of earlier tokens."""

    def __init__(
        self,
        cos: Tensor,
        sin: Tensor,
        *,
        positions: Tensor,
        mask: Tensor | None,
        is_causal: bool = False,
        cache: KVCache | None = None,
    ) -> None:
        """`mask` (B or 1, 1, T, S) is True where attention is allowed; None allows all."""
        self.cos, self.sin = cos, sin
        self._positions, self._mask = positions, mask
        self._is_causal, self._cache = is_causal, cache

    def split(self, x: Tensor, n_heads: int) -> Tensor:
        return x.view(*x.shape[:2], n_heads, -1).transpose(1, 2)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self._cache is not None:
            k, v = self._cache.update(layer, k, v, self._positions)  # (B, G, S, D)
        n_repeats = q.shape[1] // k.shape[1]
        if n_repeats > 1:
            k = k.repeat_interleave(n_repeats, dim=1)
            v = v.repeat_interleave(n_repeats, dim=1)
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=self._mask, is_causal=self._is_causal
        )

    def join(self, mixed: Tensor) -> Tensor:
        n_rows, _, n_tokens, _ = mixed.shape
        return mixed.transpose(1, 2).reshape(n_rows, n_tokens, -1)


class PackedContext:
    """Samples one behind the other in a single row (1, N, C); each attends to itself only.

    For attention alone, the samples are spread over a grid of P x L. The cells behind a sample's
    end hold zeros, and as they come after its tokens, causal attention never sees them.
    """

    def __init__(
        self, cos: Tensor, sin: Tensor, *, segments: Tensor, positions: Tensor, window: int | None
    ) -> None:
        """`cos` and `sin` are those of positions 0 .. L - 1."""
        self.cos, self.sin = cos, sin
        self._n_samples = int(segments[-1]) + 1
        self._length = cos.shape[2]
        self._slots = segments * self._length + positions  # (N,) cells of the grid
        self._hidden = None
        if self._length <= MAX_PLAIN or window is not None:
            distance = torch.arange(self._length, device=cos.device)
            distance = distance[:, None] - distance
            is_hidden = distance < 0
            if window is not None:
                is_hidden |= distance >= window
            hidden = torch.zeros(self._length, self._length, dtype=cos.dtype, device=cos.device)
            self._hidden = hidden.masked_fill(is_hidden, float("-inf"))  # (L, L), added to scores

    def split(self, x: Tensor, n_heads: int) -> Tensor:
        grid = _Spread.apply(x[0], self._slots, self._n_samples * self._length)
        grid = grid.view(self._n_samples, self._length, n_heads, -1)
        return grid.transpose(1, 2)  # (P, H, L, D)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # noqa: ARG002
        if self._hidden is not None:
            return plain_attention(q, k, v, self._hidden)
        n_repeats = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(n_repeats, dim=1), v.repeat_interleave(n_repeats, dim=1)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    def join(self, mixed: Tensor) -> Tensor:
        grid = mixed.transpose(1, 2).reshape(self._n_samples * self._length, -1)
        return _Gather.apply(grid, self._slots)[None]  # (1, N, C)


def plain_attention(q: Tensor, k: Tensor, v: Tensor, hidden: Tensor) -> Tensor:
    """Return attention by its definition; `hidden` (T, S) is added to the scores.

    The H / G query heads that share a key/value head are stacked into one product, so that keys
    and values are not copied for each of them.
    """
    n_rows, n_heads, n_tokens, d_head = q.shape
    n_shared = k.shape[1]
    q = q.reshape(n_rows, n_shared, -1, d_head) * d_head**-0.5  # (B, G, H/G * T, D)
    scores = q @ k.transpose(-1, -2)  # (B, G, H/G * T, S)
    scores = scores.view(n_rows, n_shared, -1, n_tokens, k.shape[2]) + hidden
    weights = torch.softmax(scores, dim=-1).view(n_rows, n_shared, -1, k.shape[2])
    return (weights @ v).view(n_rows, n_heads, n_tokens, d_head)


class _Spread(torch.autograd.Function):
    """Put rows (N, C) into their cells of a zeroed grid (cells, C)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slots: Tensor, n_cells: int) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(slots)
        return x.new_zeros(n_cells, x.shape[1]).index_copy_(0, slots, x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (slots,) = ctx.saved_tensors
        return grad.index_select(0, slots), None, None


class _Gather(torch.autograd.Function):
    """Take rows (N, C) out of their cells; cells are distinct, so the gradient is a copy."""

    @staticmethod
    def forward(ctx: Any, grid: Tensor, slots: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(slots)
        ctx.n_cells = grid.shape[0]
        return grid.index_select(0, slots)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (slots,) = ctx.saved_tensors
        return grad.new_zeros(ctx.n_cells, grad.shape[1]).index_copy_(0, slots, grad), None


def visible(positions: Tensor, n_keys: int, sliding_window: int | None) -> Tensor:
    """Let a token at `positions` (B, T) see the cache's slots up to its own: (B, 1, T, S) bool.

    Rows of different lengths need no left padding: what lies behind a row's own position is
    not seen, and is overwritten when the row gets there.
    """
    slots = torch.arange(n_keys, device=positions.device)
    distance = positions[:, :, None] - slots
    allowed = distance >= 0
    if sliding_window is not None:
        allowed &= distance < sliding_window
    return allowed[:, None]
