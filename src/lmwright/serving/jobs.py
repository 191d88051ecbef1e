"""What the worker's thread is asked to do, a piece at a time: write, repeat a prompt, embed."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lmwright.engine.request import Chunk, Completion, Sampling, ScoreRequest, TokenLogprob
from lmwright.lm import LanguageModel


@dataclass(frozen=True)
class Echo:
    """A prompt that is given back before its continuation."""

    text: str
    # Empty unless asked for. The first token has nothing before it: its log-probability is NaN.
    logprobs: tuple[TokenLogprob, ...] = ()
    # At which character each of those tokens begins.
    offsets: tuple[int, ...] = ()


Piece = Echo | Chunk | np.ndarray


@dataclass(frozen=True)
class Job:
    """One answer to be written."""

    prompt_ids: Sequence[int]
    # None: nothing is written behind the prompt.
    sampling: Sampling | None
    # Give the prompt back first, with log-probabilities and so many alternatives if not None.
    is_echoed: bool = False
    n_logprobs: int | None = None

    def pieces(self, model: LanguageModel) -> Iterator[Piece]:
        """Yield the prompt if it is wanted, then the answer; the last piece completes it."""
        if self.is_echoed:
            yield echo(model, self.prompt_ids, n_logprobs=self.n_logprobs)
        if self.sampling is None:
            yield Chunk("", completion=Completion("", (), "length", len(self.prompt_ids)))
        else:
            yield from model.stream(self.prompt_ids, self.sampling)


@dataclass(frozen=True)
class EmbeddingJob:
    """One text to be turned into a vector."""

    text: str

    def pieces(self, model: LanguageModel) -> Iterator[Piece]:
        """Yield the vector, (d_model,) float32."""
        yield model.embed([self.text])[0]


def echo(model: LanguageModel, ids: Sequence[int], *, n_logprobs: int | None) -> Echo:
    """Return a prompt's text, and how likely each of its tokens was if `n_logprobs` is given."""
    offsets, pieces, n_characters = [], [], 0
    decoder = model.tokenizer.stream()
    for id_ in ids:
        # The parts of a split character all begin where it begins.
        offsets.append(n_characters)
        pieces.append(decoder.push(id_))
        n_characters += len(pieces[-1])
    text = "".join([*pieces, decoder.finish()])
    if n_logprobs is None:
        return Echo(text)
    token = model.tokenizer.token
    first = TokenLogprob(ids[0], token(ids[0]), math.nan)
    if len(ids) == 1:
        return Echo(text, (first,), (0,))
    (score,) = model.score([ScoreRequest(ids[:1], ids[1:], n_top=n_logprobs)])
    tops = score.top or [()] * len(score.token_ids)
    rest = [
        TokenLogprob(id_, token(id_), float(value), tuple((i, token(i), p) for i, p in top))
        for id_, value, top in zip(score.token_ids, score.token_logprobs, tops, strict=True)
    ]
    return Echo(text, (first, *rest), tuple(offsets))
