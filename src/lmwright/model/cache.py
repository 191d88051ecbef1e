"""The keys and values of tokens already seen, row by row."""

from torch import Tensor

# Shapes: B batch, H key/value heads, T new tokens, S slots, D head width.


class KVCache:
    """Room for keys and values of B rows that may have different lengths; grows by doubling."""

    def __init__(self, n_layers: int) -> None:
        self.keys: list[Tensor | None] = [None] * n_layers  # each (B, H, S, D)
        self.values: list[Tensor | None] = [None] * n_layers
        # How many slots the longest row fills once the tokens of the running step are stored.
        self.n_used = 0

    def update(self, layer: int, k: Tensor, v: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Store k, v (B, H, T, D) at `positions` (B, T); return all that is stored so far."""
        keys = self._room(self.keys, layer, k)
        values = self._room(self.values, layer, v)
        if k.shape[0] == 1:
            # A single row's new tokens are the last ones: a plain copy, no scatter.
            start = self.n_used - k.shape[2]
            keys[:, :, start : self.n_used] = k
            values[:, :, start : self.n_used] = v
        else:
            index = positions[:, None, :, None].expand_as(k)
            keys.scatter_(2, index, k)
            values.scatter_(2, index, v)
        return keys[:, :, : self.n_used], values[:, :, : self.n_used]

    def select(self, rows: Tensor) -> None:
        """Keep these rows (indices, repeats allowed), in this order."""
        self.keys = [None if k is None else k[rows] for k in self.keys]
        self.values = [None if v is None else v[rows] for v in self.values]

    def _room(self, store: list[Tensor | None], layer: int, new: Tensor) -> Tensor:
        old = store[layer]
        n_slots = 0 if old is None else old.shape[2]
        if old is not None and n_slots >= self.n_used:
            return old
        n_rows, n_heads, _, d_head = new.shape
        grown = new.new_zeros(n_rows, n_heads, max(64, self.n_used, 2 * n_slots), d_head)
        if old is not None:
            grown[:, :, :n_slots] = old
        store[layer] = grown
        return grown
