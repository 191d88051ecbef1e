"""How likely given texts are: what a backend says of token ids, for each request."""

from collections.abc import Sequence

from lmwright.engine.backend import EdgeScores, Pair, WritingBackend
from lmwright.engine.request import Score


def score_pairs(
    backend: WritingBackend, pairs: Sequence[Pair], *, n_tops: Sequence[int]
) -> list[Score]:
    """Score answers, each with as many of the likeliest tokens as it asks for."""
    found = backend.score(pairs, max(n_tops)) if pairs else []
    return [
        Score(pair.answer.scored_ids, each.logprobs, bool(each.is_greedy.all()), _top(each, n_top))
        for pair, each, n_top in zip(pairs, found, n_tops, strict=True)
    ]


def _top(found: EdgeScores, n_top: int) -> tuple[tuple[tuple[int, float], ...], ...]:
    if not n_top:
        return ()
    ids, logprobs = found.top_ids[:, :n_top].tolist(), found.top_logprobs[:, :n_top].tolist()
    return tuple(tuple(zip(*place, strict=True)) for place in zip(ids, logprobs, strict=True))
