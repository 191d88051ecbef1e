"""What a backend must do; the rest of the engine is plain Python and NumPy on top of it."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from lmwright.engine.forest import Forest


class Rows(Protocol):
    """The running sequences of a batch: what has been seen, with its keys and values."""

    def decode(self, token_ids: Sequence[int]) -> np.ndarray:
        """Append one token a row; return the next-token logits (B, V) fp32."""
        ...

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in this order."""
        ...


class Backend(Protocol):
    """A model as a function of token ids."""

    context_length: int

    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[Rows, np.ndarray]:
        """Read prompts of any lengths; return the rows and the next-token logits (B, V) fp32."""
        ...

    def score(self, forest: Forest) -> tuple[np.ndarray, np.ndarray]:
        """Return for each edge its log-probability (E,) float64 and whether it is the likeliest."""
        ...

    def embed(self, prompts: Sequence[Sequence[int]]) -> np.ndarray:
        """Return the mean of the last hidden states of each prompt, (N, d_model) fp32."""
        ...
