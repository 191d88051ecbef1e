"""What a backend must do; the rest of the engine is plain Python and NumPy on top of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from lmwright.engine.info import ModelInfo
from lmwright.engine.prefix_tree import Scored
from lmwright.engine.request import Classification
from lmwright.formats.sentence_transformers import Pooling
from lmwright.tokenizer.encode import Encoding

Capability = Literal["generate", "score", "embed", "classify", "classify_tokens"]


@dataclass(frozen=True)
class NewTokens:
    """Tokens that a sequence is extended by, and where its keys and values lie."""

    token_ids: Sequence[int]
    # The position of the first of them: so many tokens are stored already.
    start: int
    # The block table: token i lies in block `blocks[i // block_size]`. It may be longer.
    blocks: Sequence[int]
    # Of an encoder-decoder: what `Session.read_sources` called the source.
    source: int | None = None


@dataclass(frozen=True)
class Pair:
    """What is to be scored.

    A decoder has no source. An encoder-decoder's answer begins with a start token.
    """

    answer: Scored
    source_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class EdgeScores:
    """What a model says of E tokens."""

    logprobs: np.ndarray  # (E,) float64
    # Whether the token is the one that would be written greedily.
    is_greedy: np.ndarray  # (E,) bool
    # The likeliest tokens, the best first.
    top_ids: np.ndarray  # (E, n_top) int64
    top_logprobs: np.ndarray  # (E, n_top) float64

    def at(self, places: np.ndarray | slice) -> "EdgeScores":
        """Return the scores at some places, in their order."""
        return EdgeScores(*(column[places] for column in vars(self).values()))

    def top(self, n: int) -> tuple[tuple[tuple[int, float], ...], ...]:
        """Return the `n` likeliest tokens at each place, as (id, log-probability)."""
        if not n:
            return ()
        ids, logprobs = self.top_ids[:, :n].tolist(), self.top_logprobs[:, :n].tolist()
        return tuple(tuple(zip(*place, strict=True)) for place in zip(ids, logprobs, strict=True))


@dataclass(frozen=True)
class LogitConstraints:
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


class Session(Protocol):
    """The keys and values of one user's sequences, in numbered blocks that the user hands out."""

    # Tokens that a block holds.
    block_size: int

    def forward(self, rows: Sequence[NewTokens]) -> np.ndarray:
        """Read new tokens; return the logits (rows, V) fp32 of what follows the last of each row.

        They may be computed together, and then rounded otherwise than alone. Rows may read what
        earlier rows of the same call write (shared blocks).
        """
        ...

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy all keys and values of blocks, given as (from, to)."""
        ...

    def read_sources(self, prompts: Sequence[Sequence[int]]) -> list[int]:
        """Let an encoder-decoder read sources, once; return what rows call them."""
        ...

    def free_source(self, source: int) -> None:
        """Forget a source that no row reads any more."""
        ...


class Backend(Protocol):
    """A model as a function of token ids, computed by whatever library.

    Its capabilities say which of the methods below it has besides.
    """

    info: ModelInfo
    capabilities: frozenset[Capability]
    # How `embed` makes one vector of a text's many, where the model's folder says so.
    pooling: Pooling | None

    def embed(self, prompts: Sequence[Sequence[int]]) -> np.ndarray:
        """Return one vector a prompt, (N, C) fp32."""
        ...

    def save(self, folder: Path) -> None:
        """Write weights and configuration as a Hugging Face folder, without the tokenizer."""
        ...


class WritingBackend(Backend, Protocol):
    """What "generate" and "score" need."""

    @property
    def constraints(self) -> LogitConstraints:
        """What every answer has to keep to."""
        ...

    def decoder_prefix(self, prompt: Sequence[int]) -> Sequence[int]:
        """Return what an answer stands behind in its row.

        A decoder's prompt; of an encoder-decoder, whose prompt is the source, the start token.
        """
        ...

    def open_session(self) -> Session:
        """Return room for keys and values, empty, that nobody else uses."""
        ...

    def score(self, pairs: Sequence[Pair], n_top: int = 0) -> list[EdgeScores]:
        """Score answers, teacher-forced, and tell the `n_top` likeliest tokens at each place."""
        ...


class ClassifyingBackend(Backend, Protocol):
    """What "classify" and "classify_tokens" need."""

    def classify(self, texts: Sequence[Encoding]) -> list[Classification]:
        """Return what the model says of each text."""
        ...

    def classify_tokens(self, texts: Sequence[Encoding]) -> list[list[Classification]]:
        """Return what the model says of each token of each text."""
        ...
