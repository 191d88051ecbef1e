"""The keys and values of tokens already seen, in blocks that any sequence may be given."""

from collections.abc import Sequence

import torch
from torch import Tensor

# Shapes: N new tokens, S stored tokens, G key/value heads, D head width.

# Tokens a block: adjacent in memory, so that a sequence is read in few pieces.
BLOCK_SIZE = 16


class PagedCache:
    """Room for keys and values, a slot a token, `BLOCK_SIZE` slots a block; grows by doubling."""

    def __init__(self, n_layers: int, device: torch.device) -> None:
        self._device = device
        self.keys: list[Tensor | None] = [None] * n_layers  # each (slots, G, D)
        self.values: list[Tensor | None] = [None] * n_layers
        self._n_slots = 0  # that are needed so far

    def reserve(self, n_blocks: int) -> None:
        """Make room for blocks up to this number, as soon as something is stored in a layer."""
        self._n_slots = max(self._n_slots, n_blocks * BLOCK_SIZE)

    def slots(self, blocks: Sequence[int], n_tokens: int) -> slice | Tensor:
        """Return where a sequence's first tokens lie: (S,), or a slice if its blocks adjoin."""
        used = list(blocks[: -(-n_tokens // BLOCK_SIZE)])
        self.reserve(max(used) + 1)
        if used == list(range(used[0], used[0] + len(used))):
            return slice(used[0] * BLOCK_SIZE, used[0] * BLOCK_SIZE + n_tokens)
        within = torch.arange(BLOCK_SIZE, device=self._device)
        return (self._index(used)[:, None] * BLOCK_SIZE + within).flatten()[:n_tokens]

    def new_slots(self, spans: Sequence[tuple[Sequence[int], int, int]]) -> Tensor:
        """Return where new tokens lie (N,), of sequences given as (blocks, start, n_new)."""
        places = ((blocks, i) for blocks, start, n in spans for i in range(start, start + n))
        return self._index([b[i // BLOCK_SIZE] * BLOCK_SIZE + i % BLOCK_SIZE for b, i in places])

    def write(self, layer: int, k: Tensor, v: Tensor, slots: Tensor) -> None:
        """Store k, v (N, G, D) in `slots` (N,)."""
        for store, new in ((self.keys, k), (self.values, v)):
            self._room(store, layer, new).index_copy_(0, slots, new)

    def read(self, layer: int, where: slice | Tensor) -> tuple[Tensor, Tensor]:
        """Return what is stored in the slots, each (1, G, S, D); nothing is copied for a slice."""
        keys, values = self.keys[layer], self.values[layer]
        assert keys is not None
        assert values is not None
        return keys[where].transpose(0, 1)[None], values[where].transpose(0, 1)[None]

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy blocks, given as (from, to), in all layers."""
        self.reserve(max(to for _, to in pairs) + 1)
        for store in (self.keys, self.values):
            for layer, tensor in enumerate(store):
                if tensor is None:
                    continue
                room = self._room(store, layer, tensor).unflatten(0, (-1, BLOCK_SIZE))
                index = torch.tensor(pairs, device=tensor.device)  # (pairs, 2)
                room[index[:, 1]] = room[index[:, 0]]

    def _index(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.int64, device=self._device)

    def _room(self, store: list[Tensor | None], layer: int, like: Tensor) -> Tensor:
        """Return a layer's slots, of the format and the device of `like`."""
        old = store[layer]
        n_old = 0 if old is None else len(old)
        if old is not None and n_old >= self._n_slots:
            return old
        grown = like.new_zeros(max(self._n_slots, 2 * n_old), *like.shape[1:])
        if old is not None:
            grown[:n_old] = old
        store[layer] = grown
        return grown
