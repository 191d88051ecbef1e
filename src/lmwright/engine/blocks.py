"""Which blocks of keys and values are in use, and by how many sequences."""

from collections.abc import Iterable, Sequence

import numpy as np


class BlockManager:
    """Hands out numbered blocks; a block that several sequences share is counted once for each."""

    def __init__(self, n_blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self.n_blocks = n_blocks
        self._n_users = np.zeros(n_blocks, dtype=np.int64)

    @property
    def n_free(self) -> int:
        """How many blocks nobody uses."""
        return int((self._n_users == 0).sum())

    def n_needed(self, n_tokens: int) -> int:
        """Return how many blocks so many tokens fill."""
        return -(-n_tokens // self.block_size)

    def allocate(self, n: int) -> list[int]:
        """Return `n` free blocks, adjacent ones if there are (a backend reads those in place)."""
        if n == 0:
            return []
        free = np.flatnonzero(self._n_users == 0)
        assert n <= len(free), "whoever allocates has looked at n_free"
        runs = np.flatnonzero(free[n - 1 :] - free[: len(free) - n + 1] == n - 1)
        first = int(runs[0]) if len(runs) else 0
        chosen = free[first : first + n]
        self._n_users[chosen] = 1
        return chosen.tolist()

    def share(self, blocks: Sequence[int]) -> list[int]:
        """Count one more user of these blocks, and return them."""
        self._n_users[list(blocks)] += 1
        return list(blocks)

    def release(self, blocks: Iterable[int]) -> None:
        """Count one user less; what nobody uses is free."""
        for block in blocks:
            assert self._n_users[block] > 0, "a block is released once for each user"
            self._n_users[block] -= 1
