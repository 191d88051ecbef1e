"""Beam search: several unfinished answers side by side, of which the likeliest go on.

It is that of transformers 5 (`_beam_search` in generation/utils.py), a prompt at a time: what
becomes of one does not depend on the others of its batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from lmwright.engine.answer import check_finite
from lmwright.engine.backend import WritingBackend
from lmwright.engine.request import MAX_BEAMS, Admitted, Completion
from lmwright.engine.rows import Rows
from lmwright.engine.sampler import log_probabilities, penalise
from lmwright.tokenizer.encode import Tokenizer


def beam_search(
    backend: WritingBackend, tokenizer: Tokenizer, requests: Sequence[Admitted]
) -> Iterator[tuple[int, Completion]]:
    """Answer requests, each by its own sampling; yield (number, best answer) as they end."""
    order = sorted(range(len(requests)), key=lambda i: len(requests[i].prompt_ids))
    n_together = MAX_BEAMS // max(request.sampling.n_beams for request in requests)
    for start in range(0, len(order), n_together):
        numbers = order[start : start + n_together]
        searches = {i: _Search(backend, tokenizer, requests[i]) for i in numbers}
        prompts = [requests[i].prompt_ids for i in numbers]
        for i, best in _run_batch(Rows(backend, prompts, max_rows=MAX_BEAMS), searches):
            text, reason = tokenizer.decode(best.token_ids), "stop" if best.is_ended else "length"
            yield i, Completion(text, best.token_ids, reason, len(requests[i].prompt_ids))


def _run_batch(rows: Rows, searches: dict[int, "_Search"]) -> Iterator[tuple[int, "_Finished"]]:
    logits = rows.logits
    while searches:
        parents: list[int] = []
        start = 0
        for number, search in list(searches.items()):
            end = start + len(search.beams)
            continued = search.advance(logits[start:end])
            if search.is_over:
                yield number, search.finished[0]
                del searches[number]
            else:
                parents += [start + parent for parent in continued]
            start = end
        if searches:
            if parents != list(range(len(logits))):
                rows.select(parents)
            beams = [beam for search in searches.values() for beam in search.beams]
            logits = rows.decode([beam.token_ids[-1] for beam in beams])


@dataclass(frozen=True)
class _Beam:
    """An unfinished answer with the sum of its tokens' log-probabilities."""

    token_ids: tuple[int, ...]
    logprob: float


@dataclass(frozen=True)
class _Finished:
    """An answer that has ended, by an EOS (which is not among its tokens) or at the limit."""

    token_ids: tuple[int, ...]
    score: float
    is_ended: bool


class _Search:
    """The beams of one prompt."""

    def __init__(self, backend: WritingBackend, tokenizer: Tokenizer, request: Admitted) -> None:
        self._prefix = backend.decoder_prefix(request.prompt_ids)
        self._constraints, self._sampling = backend.constraints, request.sampling
        ends = () if request.sampling.ignore_eos else tokenizer.eos_ids
        self._eos_ids = frozenset(ends)
        self.beams = [_Beam((), 0.0)]
        self.finished: list[_Finished] = []  # the best first, at most n_beams
        self.is_over = False
        # So many that n_beams of them go on even if each beam's likeliest tokens end it.
        self._n_candidates = max(2, 1 + len(self._eos_ids)) * self._sampling.n_beams

    def advance(self, logits: np.ndarray) -> list[int]:
        """Extend the beams by logits (n, V); return which of them the new beams continue."""
        sampling = self._sampling
        n_written = len(self.beams[0].token_ids) + 1
        # The end token counts, too.
        divisor = n_written**sampling.length_penalty
        running: list[_Beam] = []
        parents: list[int] = []
        for rank, (logprob, parent, token) in enumerate(self._candidates(logits)):
            token_ids = self.beams[parent].token_ids
            is_ended = token in self._eos_ids
            if is_ended or n_written == sampling.max_tokens:
                # Behind the first n_beams an end is not among the best: it is dropped.
                if rank < sampling.n_beams:
                    token_ids = token_ids if is_ended else (*token_ids, token)
                    self.finished.append(_Finished(token_ids, logprob / divisor, is_ended))
            elif len(running) < sampling.n_beams:
                running.append(_Beam((*token_ids, token), logprob))
                parents.append(parent)
        self.finished.sort(key=lambda answer: -answer.score)  # stable: the earlier one of equals
        del self.finished[sampling.n_beams :]
        self.beams = running
        self.is_over = not running or self._is_decided(running[0].logprob / divisor)
        return parents

    def _is_decided(self, best_running: float) -> bool:
        """Tell whether the finished answers stay the best.

        A running one is judged by its present length, as if it ended now. With a length penalty
        above 0 it could still overtake; transformers does not wait for that either.
        """
        if len(self.finished) < self._sampling.n_beams:
            return False
        return self._sampling.early_stopping or best_running <= self.finished[-1].score

    def _candidates(self, logits: np.ndarray) -> list[tuple[float, int, int]]:
        """Return the best (log-probability, beam, next token), the best first."""
        sampling, found = self._sampling, []
        for parent, (beam, row) in enumerate(zip(self.beams, logits, strict=True)):
            check_finite(row)
            scores = log_probabilities(row)
            seen = chain(self._prefix, beam.token_ids)
            scores = penalise(scores, seen, sampling.repetition_penalty)
            # What is ruled out leaves its probability to nobody, unlike in sampling.
            scores = self._constraints.allow(scores, len(beam.token_ids))
            n_kept = min(self._n_candidates, len(scores))
            best = np.argpartition(-scores, n_kept - 1)[:n_kept]
            found += [
                (beam.logprob + float(scores[i]), parent, int(i))
                for i in best
                if scores[i] > -np.inf
            ]
        found.sort(key=lambda candidate: (-candidate[0], *candidate[1:]))
        return found[: self._n_candidates]
