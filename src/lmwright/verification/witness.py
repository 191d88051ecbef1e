"""What can be asked whether two models are the same: a model, wherever it runs.

A witness is given token ids and tells which token it would choose and how likely the tokens are
that may come next: all of them where the model runs here, the likeliest ones elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lmwright.engine.request import Prompt
from lmwright.tokenizer.encode import Tokenizer

# How many log-probabilities a step are asked of a witness that does not tell them all.
N_TOP = 20
# In place of a token's id: the reply ended here, by a token that is not told.
END = -2


@dataclass(frozen=True)
class Next:
    """What a model says about the token that comes next."""

    ids: np.ndarray  # (K,) int64, distinct
    logprobs: np.ndarray  # (K,) float64, natural
    # Whether these are all tokens of the vocabulary, in order.
    is_complete: bool
    # No token that is not told is likelier than this; None: not known.
    floor: float | None
    # (K,) float32, where the witness tells them.
    logits: np.ndarray | None = None

    @classmethod
    def complete(cls, logits: np.ndarray) -> "Next":
        """Make it from the logits (V,) of a whole vocabulary."""
        wide = logits.astype(np.float64)
        with np.errstate(invalid="ignore"):  # an infinite logit leaves no probabilities
            wide -= wide.max()
            logprobs = wide - np.log(np.exp(wide).sum())
        ids = np.arange(len(logits))
        return cls(ids, logprobs, is_complete=True, floor=-np.inf, logits=logits)

    @classmethod
    def likeliest(cls, told: Sequence[tuple[int, float]], *, is_gapless: bool = True) -> "Next":
        """Make it from some (token id, log-probability); gapless: the likeliest of all."""
        ids, logprobs = (np.array(column) for column in zip(*told, strict=True))
        floor = float(logprobs.min()) if is_gapless else None
        return cls(ids, logprobs.astype(np.float64), is_complete=False, floor=floor)

    def logprob(self, token_id: int) -> float | None:
        """Return what is said of one token (at most this, if it is not told), or None."""
        rows = np.flatnonzero(self.ids == token_id)
        return float(self.logprobs[rows[0]]) if len(rows) else self.floor


@dataclass(frozen=True)
class Drift:
    """How far a model's logits move when it decodes with a cache, from one pass over all tokens."""

    largest: float
    # The largest logit without its sign: rounding grows with it.
    scale: float


@dataclass(frozen=True)
class Trace:
    """One prompt with a continuation, and what the witness said before each token of it."""

    # The continuation: the witness's own (its likeliest tokens), or the one that it was led along.
    token_ids: tuple[int, ...]
    # What it would have chosen in place of each of them; None where it does not say.
    choices: tuple[int | None, ...]
    nexts: tuple[Next | None, ...]
    drift: Drift | None = None


@dataclass(frozen=True)
class Encoded:
    """How a witness reads a prompt: the ids, or only how many tokens it counts."""

    n_tokens: int
    ids: tuple[int, ...] | None = None


class Witness(Protocol):
    """A model that answers, wherever it runs."""

    @property
    def name(self) -> str:
        """What the user calls it."""
        ...

    @property
    def engine(self) -> str:
        """What computes: "lmwright", "llama.cpp" or "server"."""
        ...

    @property
    def weights(self) -> str | None:
        """How its weights are stored ("fp32", "bf16", "int4", "Q8_0"); None: it does not say."""
        ...

    @property
    def context_length(self) -> int | None:
        """The tokens that a prompt and its continuation may have; None: it does not say."""
        ...

    @property
    def n_ids(self) -> int | None:
        """How many token ids there are, from 0; None: it does not say."""
        ...

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer of its files; None where there are none here."""
        ...

    def encode(self, prompt: Prompt) -> Encoded | None:
        """Read a text or a dialogue; None: it does not say. A dialogue that it refuses raises."""
        ...

    def trace(
        self,
        prompts: Sequence[Sequence[int]],
        n_tokens: int,
        *,
        along: Sequence[Sequence[int]] | None = None,
    ) -> list[Trace]:
        """Continue each prompt by its likeliest tokens, or be led along given ones."""
        ...
