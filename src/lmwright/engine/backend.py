"""What a backend must do; the rest of the engine is plain Python and NumPy on top of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class EdgeScores:
    """What a model says of E tokens: the edges of a forest, or those of given answers."""

    logprobs: np.ndarray  # (E,) float64
    # Whether the token is the one that would be written greedily.
    is_greedy: np.ndarray  # (E,) bool
    # The likeliest tokens, the best first.
    top_ids: np.ndarray  # (E, n_top) int64
    top_logprobs: np.ndarray  # (E, n_top) float64


@dataclass(frozen=True)
class Rules:
    """What a model must and must not write, whatever its logits say."""

    # The token that each answer begins with (the language of a translation).
    first_id: int | None = None
    # Tokens that are never written (Marian's padding).
    suppressed_ids: tuple[int, ...] = ()

    def allow(self, scores: np.ndarray, n_written: int) -> np.ndarray:
        """Return the scores (V,) of the next token, -inf where it may not be chosen."""
        if self.first_id is not None and n_written == 0:
            only = np.full_like(scores, -np.inf)
            only[self.first_id] = 0.0
            return only
        if not self.suppressed_ids:
            return scores
        scores = scores.copy()
        scores[list(self.suppressed_ids)] = -np.inf
        return scores


class Rows(Protocol):
    """The running sequences of a batch: what has been seen, with its keys and values."""

    def decode(self, token_ids: Sequence[int]) -> np.ndarray:
        """Append one token a row; return the next-token logits (B, V) fp32."""
        ...

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in this order; a row may be kept several times."""
        ...


class Backend(Protocol):
    """A model that writes, as a function of token ids."""

    context_length: int

    @property
    def rules(self) -> Rules:
        """What every answer has to keep to."""
        ...

    def before(self, prompt: Sequence[int]) -> Sequence[int]:
        """Return what stands in front of an answer in its row: a decoder's prompt, for example."""
        ...

    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[Rows, np.ndarray]:
        """Read prompts of any lengths; return the rows and the next-token logits (B, V) fp32."""
        ...
