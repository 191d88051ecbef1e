"""How likely given texts are: requests as token ids, and what the backends say of those."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from lmwright.engine.backend import EdgeScores
from lmwright.engine.forest import Scored, plant
from lmwright.engine.request import Score
from lmwright.engine.torch.padding import batches

if TYPE_CHECKING:
    from lmwright.engine.torch.decoder import TorchBackend
    from lmwright.engine.torch.seq2seq import Seq2SeqBackend

# Tokens scored together in one row: enough to keep the matrix products busy on a CPU.
SCORE_NODES = 768


@dataclass(frozen=True)
class Pair:
    """A source, and an answer to it that is to be scored; the answer begins with a start token."""

    source_ids: tuple[int, ...]
    answer: Scored


def score_sequences(
    backend: "TorchBackend", sequences: Sequence[Scored], *, n_tops: Sequence[int]
) -> list[Score]:
    """Score sequences with a decoder; what they share at their beginnings is computed once."""
    scores: list[Score | None] = [None] * len(sequences)
    for forest in plant(sequences, SCORE_NODES):
        found = backend.score(forest, max(n_tops))
        for number, edges in forest.sequences:
            scores[number] = _score(sequences[number], found, edges, n_tops[number])
    return cast(list[Score], scores)  # every sequence stands in exactly one forest


def score_pairs(
    backend: "Seq2SeqBackend", pairs: Sequence[Pair], *, n_tops: Sequence[int]
) -> list[Score]:
    """Score answers with an encoder-decoder, those of like length together."""
    scores: list[Score | None] = [None] * len(pairs)
    for numbers in batches([len(pair.source_ids) + len(pair.answer.token_ids) for pair in pairs]):
        found = backend.score([pairs[i] for i in numbers], max(n_tops))
        start = 0
        for number in numbers:
            answer = pairs[number].answer
            end = start + len(answer.token_ids) - answer.n_context
            scores[number] = _score(answer, found, np.arange(start, end), n_tops[number])
            start = end
    return cast(list[Score], scores)  # every pair stands in exactly one batch


def _score(sequence: Scored, found: EdgeScores, edges: np.ndarray, n_top: int) -> Score:
    return Score(
        token_ids=sequence.token_ids[sequence.n_context :],
        token_logprobs=found.logprobs[edges],
        is_greedy=bool(found.is_greedy[edges].all()),
        top=_top(found, edges, n_top),
    )


def _top(
    found: EdgeScores, edges: np.ndarray, n_top: int
) -> tuple[tuple[tuple[int, float], ...], ...]:
    if not n_top:
        return ()
    ids, logprobs = found.top_ids[edges, :n_top].tolist(), found.top_logprobs[edges, :n_top]
    return tuple(
        tuple(zip(*place, strict=True)) for place in zip(ids, logprobs.tolist(), strict=True)
    )
