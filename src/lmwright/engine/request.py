"""What is asked of a language model and what it answers; plain data, no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

import numpy as np


class Message(TypedDict):
    """One turn of a dialogue."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str


# Text is encoded as it is (BOS where the model wants one); token ids are taken as they are; a
# dialogue goes through the model's chat template, ready for the assistant's next turn.
Prompt = str | Sequence[int] | Sequence[Message]


# Beams, of one prompt or of several, that are decoded together, as so many rows.
MAX_BEAMS = 32
# What max_tokens is at most where nobody says.
DEFAULT_MAX_TOKENS = 1024
# What the fields of `Sampling` may be.
EXPECTED = {
    "max_tokens": "1 or more",
    "temperature": "0 to 100",
    "top_k": "0 or more",
    "top_p": "above 0, up to 1",
    "min_p": "0 to 1",
    "repetition_penalty": "above 0, up to 100",
    "stop": "texts that are not empty",
    "seed": "0 to 2**64 - 1",
    "logprobs": "0 to 20",
    "n_beams": f"1 to {MAX_BEAMS}",
    "length_penalty": "-10 to 10",
}
# In place of a token's id or a count of tokens that an endpoint does not tell.
UNKNOWN = -1


@dataclass(frozen=True)
class ScoreRequest:
    """How likely is `continuation`, given `context`?"""

    context: Prompt
    # Text, or token ids as they are, behind a context that is no text either.
    continuation: str | Sequence[int]
    # Report so many of the likeliest tokens at each place.
    n_top: int = 0


@dataclass(frozen=True)
class Score:
    """Natural-log probabilities of the continuation's tokens, given all before them."""

    token_ids: tuple[int, ...]
    token_logprobs: np.ndarray  # (n_tokens,) float64
    # Whether greedy decoding would have said just this.
    is_greedy: bool
    # At each place the likeliest tokens, as (id, log-probability), if they were asked for.
    top: tuple[tuple[tuple[int, float], ...], ...] = ()

    @property
    def logprob(self) -> float:
        """The sum over the tokens."""
        return float(self.token_logprobs.sum())


@dataclass(frozen=True)
class Classification:
    """What a classifier says of a text."""

    # The names of its classes, or of the single number of a regression.
    labels: tuple[str, ...]
    # Of each: its probability among all, or its own probability where several may hold at once
    # (multi_label), or the number itself (regression).
    values: tuple[float, ...]
    problem: Literal["single_label", "multi_label", "regression"]

    @property
    def label(self) -> str:
        """The likeliest class."""
        return self.labels[self.values.index(max(self.values))]


@dataclass(frozen=True)
class TokenClass:
    """What a classifier of tokens says of one of them, which stands at text[start:end]."""

    start: int
    end: int
    answer: Classification


@dataclass(frozen=True)
class Sampling:
    """How to continue a prompt. The defaults are greedy: temperature 0."""

    # None: as many as fit into the context, at most DEFAULT_MAX_TOKENS.
    max_tokens: int | None = 128
    temperature: float = 0.0
    top_k: int = 0  # 0: all
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    # The random numbers of a request depend on its seed and nothing else, not on its batch.
    seed: int = 0
    # Report the log-probabilities of this many alternatives for each token; None: none at all.
    logprobs: int | None = None
    # Go on after the end-of-turn token (for measuring speed).
    ignore_eos: bool = False
    # Keep so many unfinished answers and return the likeliest finished one (beam search).
    n_beams: int = 1
    # Beams are compared by log-probability / length ** this: above 0, longer ones gain by it.
    length_penalty: float = 1.0
    # End as soon as there are n_beams finished answers, even if others could still overtake them.
    early_stopping: bool = False

    def __post_init__(self) -> None:
        limits = {
            "max_tokens": self.max_tokens is None or self.max_tokens >= 1,
            "temperature": 0 <= self.temperature <= 100,
            "top_k": self.top_k >= 0,
            "top_p": 0 < self.top_p <= 1,
            "min_p": 0 <= self.min_p <= 1,
            "repetition_penalty": 0 < self.repetition_penalty <= 100,
            # A text alone would be taken as a stop string a character.
            "stop": not isinstance(self.stop, str) and all(self.stop),
            "seed": 0 <= self.seed < 2**64,
            "logprobs": self.logprobs is None or 0 <= self.logprobs <= 20,
            "n_beams": 1 <= self.n_beams <= MAX_BEAMS,
            "length_penalty": -10 <= self.length_penalty <= 10,
        }
        for name, is_fine in limits.items():
            if not is_fine:
                given = getattr(self, name)
                raise ValueError(f"{name} = {given!r}: expected {EXPECTED[name]}")
        self._check_beams()

    def _check_beams(self) -> None:
        """Refuse settings that would be ignored."""
        if self.n_beams == 1:
            for name, default in (("length_penalty", 1.0), ("early_stopping", False)):
                if (value := getattr(self, name)) != default:
                    raise ValueError(f"{name} = {value!r} is for beams: set n_beams above 1")
        elif self.temperature > 0:
            raise ValueError(
                f"n_beams = {self.n_beams}: beams are compared, not drawn; set temperature to 0 "
                f"(it is {self.temperature:g})"
            )
        elif self.stop or self.logprobs is not None:
            field_name = "stop" if self.stop else "logprobs"
            raise ValueError(f"n_beams = {self.n_beams} does not go together with {field_name}")


@dataclass(frozen=True)
class Admitted:
    """A request that fits the model: token ids within the vocabulary and the context."""

    prompt_ids: tuple[int, ...]
    # With `max_tokens` as a number.
    sampling: Sampling


@dataclass(frozen=True)
class TokenLogprob:
    """A generated token with its log-probability and the likeliest alternatives."""

    token_id: int
    text: str
    logprob: float
    top: tuple[tuple[int, str, float], ...] = ()


FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Completion:
    """A finished continuation."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    n_prompt_tokens: int
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class Chunk:
    """A piece of a continuation while it is made; the last one carries `completion`."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    completion: Completion | None = None
