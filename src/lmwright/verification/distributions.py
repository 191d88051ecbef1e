"""How far apart two witnesses are in what they say about the next token."""

from dataclasses import dataclass

import numpy as np

from lmwright.verification.witness import Next

# Probability that is always left for all tokens that are not told: rounding may make it negative.
LEAST_REST = 1e-9


@dataclass(frozen=True)
class Gap:
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


def compare(a: Next, b: Next) -> Gap:
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
    return Gap(
        largest=float(found[where]),
        token_id=int(np.concatenate(named)[where]),
        kl=_divergence(a.logprobs[rows_a], b.logprobs[rows_b]),
        squares=squares,
        squared_errors=squared_errors,
        scale=scale,
    )


Rows = np.ndarray | slice


def _shared(a: Next, b: Next) -> tuple[np.ndarray, Rows, Rows]:
    """Return the tokens that both tell, and where they stand in each."""
    if a.is_complete and b.is_complete:
        # A vocabulary may be padded to a round number in one of the files.
        n = min(len(a.ids), len(b.ids))
        return a.ids[:n], slice(0, n), slice(0, n)
    if a.is_complete:
        rows = np.flatnonzero(b.ids < len(a.ids))
        return b.ids[rows], b.ids[rows], rows
    if b.is_complete:
        ids, rows_b, rows_a = _shared(b, a)
        return ids, rows_a, rows_b
    return np.intersect1d(a.ids, b.ids, assume_unique=True, return_indices=True)


def _differences(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return |first - second|; what is no number on one side differs without bound."""
    with np.errstate(invalid="ignore"):
        found = np.abs(first.astype(np.float64) - second)
    found[first == second] = 0.0  # both -inf: a token that is ruled out on both sides
    return np.nan_to_num(found, nan=np.inf, posinf=np.inf)


def _centred(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    is_finite = np.isfinite(first) & np.isfinite(second)
    if not is_finite.all():
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
