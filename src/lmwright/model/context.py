"""How the tokens of a batch lie in memory, and who may look at whom.

A context is made once a step and handed to every layer. Its kind (plain rows, sequences behind a
cache, packed samples) is chosen then, so that the layers need not know.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from lmwright.model.cache import PagedCache

# Shapes: B rows, T tokens a row, S keys (T, or all of a sequence so far), H query heads,
# G key/value heads, D head width, N tokens in a single row, P packed samples, L the longest sample.

# Up to this length the plain product is faster than torch's flash kernel on a CPU (measured at
# 64 and 256: 4x and 1.4x, forward and backward), and the scores are small enough to keep.
MAX_PLAIN = 256

Project = Callable[[Tensor], tuple[Tensor, Tensor]]
# Cosine and sine, each (B, 1, T, D) or of a shape that spreads to it: those of the model, then
# those of its local layers where they are others. Without them where nothing is rotated.
Rotations = tuple[tuple[Tensor, ...], ...]


@dataclass(frozen=True)
class Scoring:
    """How a layer weighs what it sees: softmax(cap(scale q k^T)) v, through a window or not."""

    scale: float
    softcap: float | None
    window: int | None


@dataclass(frozen=True)
class View:
    """Who sees whom: nothing hidden, the causal order, or a mask (B or 1, H or 1, T, S).

    A mask is True where attention is allowed, or holds what is added to the scores.
    """

    mask: Tensor | None = None
    is_causal: bool = False


class Memory:
    """What a decoder reads of its encoder: hidden states (B, S, C) and which are padding."""

    def __init__(self, hidden: Tensor, mask: Tensor | None) -> None:
        """`mask` (B, S) is True at tokens."""
        self.hidden = hidden
        self.view = View(None if mask is None else mask[:, None, None])
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    def attend(self, layer: int, q: Tensor, project: Project, *, scoring: Scoring) -> Tensor:
        """Return the source's values, mixed by their scores (B, H, T, D); projected only once."""
        if layer not in self._kept:
            self._kept[layer] = project(self.hidden)
        k, v = self._kept[layer]
        return attention(q, k, v, view=self.view, scoring=scoring)

    def select(self, rows: Tensor) -> None:
        """Keep these rows (indices, repeats allowed), in this order."""
        self.hidden = self.hidden[rows]
        if self.view.mask is not None:
            self.view = View(self.view.mask[rows])
        self._kept = {layer: (k[rows], v[rows]) for layer, (k, v) in self._kept.items()}


class Context(Protocol):
    """What every layer needs besides its input; the layout is that of rows unless it is another."""

    # The format of activations; weights may be wider (fp32 masters while training).
    dtype: torch.dtype
    positions: Tensor  # (B, T) int64, of the layer's input
    token_types: Tensor | None = None  # (B, T) int64
    rotations: Rotations

    def split(self, x: Tensor, n_heads: int) -> Tensor:
        """Lay projections out by sequence and head: (B, H, T, D)."""
        return x.view(*x.shape[:2], n_heads, -1).transpose(1, 2)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, *, scoring: Scoring) -> Tensor:
        """Return the values that each token sees, mixed by its scores: (B, H, T, D)."""
        ...

    def attend_source(self, layer: int, q: Tensor, project: Project, *, scoring: Scoring) -> Tensor:
        """Return the values of the source's tokens, mixed by their scores: (B, H, T, D).

        `project` makes the layer's keys and values of the encoder's hidden states.
        """
        ...

    def join(self, mixed: Tensor) -> Tensor:
        """Undo `split`: the layout of the layer's input."""
        n_rows, _, n_tokens, _ = mixed.shape
        return mixed.transpose(1, 2).reshape(n_rows, n_tokens, -1)


@dataclass(eq=False)
class RowContext(Context):
    """Rows of equal length, each read from its beginning."""

    positions: Tensor
    dtype: torch.dtype
    rotations: Rotations
    # One for each window among the layers.
    views: Mapping[int | None, View]
    token_types: Tensor | None = None
    memory: Memory | None = None

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, *, scoring: Scoring) -> Tensor:  # noqa: ARG002
        return attention(q, k, v, view=self.views[scoring.window], scoring=scoring)

    def attend_source(self, layer: int, q: Tensor, project: Project, *, scoring: Scoring) -> Tensor:
        assert self.memory is not None
        return self.memory.attend(layer, q, project, scoring=scoring)


@dataclass(frozen=True)
class CachedRow:
    """New tokens of one sequence at positions start .. start + n_new - 1 of a cache."""

    start: int
    n_new: int
    # The numbers of the blocks that hold the sequence; there may be more than it fills yet.
    blocks: Sequence[int]
    memory: Memory | None = None

    @property
    def length(self) -> int:
        """How long the sequence is with its new tokens."""
        return self.start + self.n_new


class CachedContext(Context):
    """New tokens of several sequences, one behind the other in a single row (1, N, C).

    Attention is computed sequence by sequence, over what the cache holds of each: nothing is padded
    or copied, and what becomes of one does not depend on the others.
    """

    def __init__(
        self,
        positions: Tensor,
        dtype: torch.dtype,
        *,
        rotations: Rotations,
        views: Sequence[Mapping[int | None, View]],
        rows: Sequence[CachedRow],
        cache: PagedCache,
    ) -> None:
        """`positions` (1, N) are those of the new tokens; each row has a view for each window."""
        self.positions, self.dtype, self.rotations = positions, dtype, rotations
        self._cache = cache
        self._rows = [
            (view, cache.slots(row.blocks, row.length), row.memory)
            for view, row in zip(views, rows, strict=True)
        ]
        self._n_new = [row.n_new for row in rows]
        self._slots = cache.new_slots([(row.blocks, row.start, row.n_new) for row in rows])

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, *, scoring: Scoring) -> Tensor:
        # All are stored before any is read: a sequence may see what another one of them shares.
        self._cache.write(layer, k[0].transpose(0, 1), v[0].transpose(0, 1), self._slots)
        mixed = []
        for part, (views, slots, _) in zip(q.split(self._n_new, dim=2), self._rows, strict=True):
            keys, values = self._cache.read(layer, slots)  # (1, G, S, D)
            view = views[scoring.window]
            mixed.append(attention(part, keys, values, view=view, scoring=scoring))
        return torch.cat(mixed, dim=2)

    def attend_source(self, layer: int, q: Tensor, project: Project, *, scoring: Scoring) -> Tensor:
        mixed = []
        for part, (_, _, memory) in zip(q.split(self._n_new, dim=2), self._rows, strict=True):
            assert memory is not None
            mixed.append(memory.attend(layer, part, project, scoring=scoring))
        return torch.cat(mixed, dim=2)


class PackedContext(Context):
    """Samples one behind the other in a single row (1, N, C); each attends to itself only.

    For attention alone, the samples are spread over a grid of P x L. The cells behind a sample's
    end hold zeros, and as they come after its tokens, causal attention never sees them.
    """

    def __init__(
        self, positions: Tensor, dtype: torch.dtype, *, segments: Tensor, rotations: Rotations
    ) -> None:
        """`positions` (1, N) begin anew in each sample; `rotations` are those of 0 .. L - 1."""
        self.positions, self.dtype, self.rotations = positions, dtype, rotations
        self._n_samples = int(segments[-1]) + 1
        self._length = int(positions.max()) + 1
        self._slots = segments * self._length + positions[0]  # (N,) cells of the grid
        self._hidden: dict[int | None, Tensor] = {}  # (L, L) a window, added to scores

    def split(self, x: Tensor, n_heads: int) -> Tensor:
        grid = _Spread.apply(x[0], self._slots, self._n_samples * self._length)
        grid = grid.view(self._n_samples, self._length, n_heads, -1)
        return grid.transpose(1, 2)  # (P, H, L, D)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, *, scoring: Scoring) -> Tensor:  # noqa: ARG002
        is_windowed = scoring.window is not None and scoring.window < self._length
        if self._length <= MAX_PLAIN or is_windowed:
            hidden = self._hidden_by(scoring.window if is_windowed else None)
            return plain_attention(q, k, v, hidden=hidden, scoring=scoring)
        return attention(q, k, v, view=View(is_causal=True), scoring=scoring)

    def attend_source(self, layer: int, q: Tensor, project: Project, *, scoring: Scoring) -> Tensor:
        raise NotImplementedError("packed samples have no sources")

    def join(self, mixed: Tensor) -> Tensor:
        grid = mixed.transpose(1, 2).reshape(self._n_samples * self._length, -1)
        return _Gather.apply(grid, self._slots)[None]  # (1, N, C)

    def _hidden_by(self, window: int | None) -> Tensor:
        if window not in self._hidden:
            rows = torch.arange(self._length, device=self.positions.device)[None]
            is_seen = visible(rows, self._length, window)[0, 0]
            hidden = torch.zeros_like(is_seen, dtype=self.dtype)
            self._hidden[window] = hidden.masked_fill(~is_seen, float("-inf"))
        return self._hidden[window]


def attention(q: Tensor, k: Tensor, v: Tensor, *, view: View, scoring: Scoring) -> Tensor:
    """Return the mixed values (B, H, T, D), through torch's fused kernels where they can."""
    if scoring.softcap is not None:
        return plain_attention(q, k, v, hidden=_additive(view, q, k), scoring=scoring)
    n_repeats = q.shape[1] // k.shape[1]
    if n_repeats > 1 and q.shape[2] == 1:
        # One token: the heads that share keys and values are laid out as if they were so many.
        return _grouped(q, k, v, mask=view.mask, scale=scoring.scale)
    if n_repeats > 1:
        k = k.repeat_interleave(n_repeats, dim=1)
        v = v.repeat_interleave(n_repeats, dim=1)
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=view.mask, is_causal=view.is_causal, scale=scoring.scale
    )


def _grouped(q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None, scale: float) -> Tensor:
    n_rows, n_heads, _, d_head = q.shape
    n_shared = k.shape[1]
    if mask is not None and mask.shape[1] > 1:
        mask = mask.reshape(len(mask), n_shared, -1, mask.shape[3])  # (B, G, H/G, S)
    q = q.reshape(n_rows, n_shared, -1, d_head)  # (B, G, H/G, D)
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    return mixed.reshape(n_rows, n_heads, 1, d_head)


def plain_attention(q: Tensor, k: Tensor, v: Tensor, *, hidden: Tensor, scoring: Scoring) -> Tensor:
    """Return attention by its definition; `hidden` (T, S) or (B, 1, T, S) is added to the scores.

    The H / G query heads that share a key/value head are stacked into one product, so that keys
    and values are not copied for each of them.
    """
    n_rows, n_heads, n_tokens, d_head = q.shape
    n_shared = k.shape[1]
    q = q.reshape(n_rows, n_shared, -1, d_head) * scoring.scale  # (B, G, H/G * T, D)
    scores = q @ k.transpose(-1, -2)  # (B, G, H/G * T, S)
    if scoring.softcap is not None:
        scores = torch.tanh(scores / scoring.softcap) * scoring.softcap
    if hidden.ndim == 4:
        hidden = hidden[:, :, None]
    scores = scores.view(n_rows, n_shared, -1, n_tokens, k.shape[2]) + hidden
    weights = torch.softmax(scores, dim=-1).view(n_rows, n_shared, -1, k.shape[2])
    return (weights @ v).view(n_rows, n_heads, n_tokens, d_head)


def _additive(view: View, q: Tensor, k: Tensor) -> Tensor:
    """Return a view as what is added to the scores: (T, S) or (B, 1, T, S)."""
    mask = view.mask
    if view.is_causal:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
    if mask is None:
        return q.new_zeros(q.shape[2], k.shape[2])
    hidden = torch.zeros_like(mask, dtype=q.dtype)
    return hidden.masked_fill(~mask, float("-inf"))


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
