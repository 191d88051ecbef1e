"""How far apart two subjects are along the same tokens: at one next token, and summed up."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lmwright.verification.subject import END, Drift, NextToken, Subject, Trace
from lmwright.verification.tolerances import EXACT

# Probability that is always left for all tokens that are not told: rounding may make it negative.
LEAST_REST = 1e-9


@dataclass(frozen=True)
class Divergence:
    """Two opinions on one next token, A's and B's."""

    # The largest difference of logits (both complete) or log-probabilities, and of which token.
    largest: float
    token_id: int
    # Kullback-Leibler divergence of B from A in nats; tokens that are not told count as one.
    kl: float
    # Sums over the tokens that both tell, each opinion less its own mean.
    squares: float
    squared_errors: float
    # The largest logit of A without its sign; None where only log-probabilities are compared.
    scale: float | None


def diverge(a: NextToken, b: NextToken) -> Divergence:
    """Compare two opinions on the same token over what both of them tell."""
    ids, rows_a, rows_b = _shared(a, b)
    if a.logits is not None and b.logits is not None:
        first, second = a.logits[rows_a], b.logits[rows_b]
        scale = float(np.abs(first).max())
    else:
        first, second = a.logprobs[rows_a], b.logprobs[rows_b]
        scale = None
    differences, named = [_differences(first, second)], [ids]
    if not a.is_complete and not b.is_complete:
        for one, other in ((a, b), (b, a)):
            # What the other does not tell is at most as likely as the least that it tells.
            is_untold = ~np.isin(one.ids, ids)
            if other.floor is not None:
                above = one.logprobs[is_untold] - other.floor
                differences.append(np.maximum(above, 0.0))
                named.append(one.ids[is_untold])
    found = np.concatenate(differences)
    where = int(found.argmax())
    squares, squared_errors = _centred(first, second)
    return Divergence(
        largest=float(found[where]),
        token_id=int(np.concatenate(named)[where]),
        kl=_divergence(a.logprobs[rows_a], b.logprobs[rows_b]),
        squares=squares,
        squared_errors=squared_errors,
        scale=scale,
    )


def _shared(
    a: NextToken, b: NextToken
) -> tuple[np.ndarray, np.ndarray | slice, np.ndarray | slice]:
    """Return the tokens that both tell, and where they stand in each."""
    if a.is_complete and b.is_complete:
        # A vocabulary may be padded to a round number in one of the files.
        n = min(len(a.ids), len(b.ids))
        return a.ids[:n], slice(0, n), slice(0, n)
    return np.intersect1d(a.ids, b.ids, assume_unique=True, return_indices=True)


def _differences(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return |first - second|; what is no number on one side differs without bound."""
    with np.errstate(invalid="ignore"):
        found = np.abs(first.astype(np.float64) - second)
    found[first == second] = 0.0  # both -inf: a token that is ruled out on both sides
    return np.nan_to_num(found, nan=np.inf, posinf=np.inf)


def _centred(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    is_finite = np.isfinite(first) & np.isfinite(second)
    first, second = first[is_finite], second[is_finite]
    if not len(first):
        return 0.0, 0.0
    first = first.astype(np.float64) - first.mean(dtype=np.float64)
    second = second.astype(np.float64) - second.mean(dtype=np.float64)
    return float(first @ first), float((first - second) @ (first - second))


def _divergence(first: np.ndarray, second: np.ndarray) -> float:
    """Return KL(first || second) of natural log-probabilities; the rest counts as one token."""
    p, q = np.exp(first), np.exp(second)
    rest_p, rest_q = (max(1.0 - float(x.sum()), LEAST_REST) for x in (p, q))
    is_possible = p > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = p[is_possible] * (first[is_possible] - second[is_possible])
    total = float(terms.sum()) + rest_p * float(np.log(rest_p / rest_q))
    return np.inf if np.isnan(total) else max(total, 0.0)


@dataclass
class Tally:
    """What was found so far."""

    # NextToken tokens that were compared, those that one of the two did not tell, and prompts whose
    # answer ended at once.
    n_positions: int = 0
    n_untold: int = 0
    n_empty: int = 0
    # Choices that were told by both, and those that were the same; prompts that were the same.
    n_chosen: int = 0
    n_same: int = 0
    n_prompts: int = 0
    n_same_prompts: int = 0
    # Sums over the next tokens; see `Divergence`.
    kl: float = 0.0
    squares: float = 0.0
    squared_errors: float = 0.0
    # The largest logit, if logits were compared.
    scale: float | None = None
    # Value, prompt, position, token id.
    largest: tuple[float, int, int, int] | None = None
    # How far each of the two drifts from itself, at most.
    drifts: list[Drift | None] = field(default_factory=lambda: [None, None])
    # Choices that are not the likeliest by the chooser's own account, and by how many nats at most.
    n_unfaithful: int = 0
    worst_unfaithful: float = 0.0
    # The most that another choice of B costs by A's judgement, in nats.
    worst_loss: float = 0.0

    def add(self, found: Divergence, *, prompt: int, position: int) -> None:
        """Count one next token."""
        self.n_positions += 1
        self.kl += found.kl
        self.squares += found.squares
        self.squared_errors += found.squared_errors
        if found.scale is not None:
            self.scale = max(self.scale or 0.0, found.scale)
        if self.largest is None or found.largest > self.largest[0]:
            self.largest = (found.largest, prompt, position, found.token_id)

    @property
    def relative_error(self) -> float:
        """The root of squared errors over squares, of logits less their mean."""
        if not self.squares:
            return float(self.squared_errors > 0)
        return math.sqrt(self.squared_errors / self.squares)

    @property
    def agreement(self) -> float:
        """The share of places at which both chose the same token."""
        return self.n_same / self.n_chosen if self.n_chosen else 0.0

    def numbers(self) -> dict[str, float]:
        """Return the figures that tolerances are about; none if nothing was compared."""
        if self.largest is None:
            return {}
        return {
            "largest_difference": self.largest[0],
            "relative_error": self.relative_error,
            "mean_kl": self.kl / self.n_positions,
            "agreement": self.agreement,
            "n_same_prompts": self.n_same_prompts,
        }


def count(
    tally: Tally,
    first: Trace,
    second: Trace,
    *,
    prompt: int,
    a: Subject,
    noises: tuple[float, float] = (0.0, 0.0),
) -> None:
    """Add what A and B said along A's tokens behind one prompt.

    `noises` say how far what each of the two says moves when it is asked again.
    """
    is_same = True
    ends = () if a.tokenizer is None else a.tokenizer.eos_ids
    for position, mine in enumerate(first.choices):
        said_a, said_b = first.nexts[position], second.nexts[position]
        if said_a is None or said_b is None:
            tally.n_untold += 1
        else:
            tally.add(diverge(said_a, said_b), prompt=prompt, position=position)
        other = second.choices[position]
        for said, choice, noise in ((said_a, mine, noises[0]), (said_b, other, noises[1])):
            _count_faith(tally, said, choice, noise)
        if mine is None or other is None:
            continue
        if other == END and mine in ends:
            other = mine
        tally.n_chosen += 1
        tally.n_same += mine == other
        is_same = is_same and mine == other
        if mine != other and said_a is not None:
            tally.worst_loss = max(tally.worst_loss, _lost(said_a, other, ends))
    tally.n_prompts += 1
    tally.n_same_prompts += is_same
    for i, new in enumerate((first.drift, second.drift)):
        if new is not None:
            old = tally.drifts[i] or new
            tally.drifts[i] = Drift(max(old.largest, new.largest), max(old.scale, new.scale))


def _count_faith(tally: Tally, said: NextToken | None, choice: int | None, noise: float) -> None:
    """Count a choice that is not the likeliest token by the same subject's own account.

    If all are, then B chooses otherwise than A only between tokens that A holds to be closer than
    the two opinions are apart there, twice over. An account that was asked for again is as good as
    the subject repeats itself: each of the two tokens may have moved by its noise.
    """
    if said is None or choice is None or choice == END:
        return
    lost = _lost(said, choice, ())
    scale = 0.0 if said.logits is None else float(np.abs(said.logits).max())
    slack = EXACT.largest_allowed(scale)
    assert slack is not None
    slack += noise if said.is_asked_again else 0.0
    if not lost <= 2 * slack:
        tally.n_unfaithful += 1
        tally.worst_unfaithful = max(tally.worst_unfaithful, lost)


def _lost(said: NextToken, choice: int, ends: Sequence[int]) -> float:
    """Return how much less likely a choice is than the likeliest token, by one opinion.

    An END is the likeliest of the tokens that end a reply; what is not told costs nothing.
    """
    told = [said.logprob(i) for i in (ends if choice == END else (choice,))]
    known = [value for value in told if value is not None]
    return max(0.0, float(said.logprobs.max()) - max(known)) if known else 0.0
