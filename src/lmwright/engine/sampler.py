"""From logits to the next token, one request at a time, in NumPy."""

import math
from collections.abc import Iterable

import numpy as np

from lmwright.engine.request import Sampling


def random_numbers(seed: int) -> np.random.Generator:
    """Return a request's own counter-based generator: it knows nothing of other requests."""
    return np.random.Generator(np.random.Philox(key=seed))


def penalise(logits: np.ndarray, seen: Iterable[int], penalty: float) -> np.ndarray:
    """Make tokens that were seen less likely (CTRL, Keskar et al. 2019); logits (V,)."""
    if penalty == 1.0:
        return logits
    ids = np.unique(np.fromiter(seen, dtype=np.int64))
    logits = logits.copy()
    logits[ids] = np.where(logits[ids] > 0, logits[ids] / penalty, logits[ids] * penalty)
    return logits


def choose(logits: np.ndarray, sampling: Sampling, random: np.random.Generator) -> int:
    """Return the next token for (penalised) logits (V,).

    The last bits of logits depend on what else is in the batch. Each token has a random number of
    its own, by its id, so that a token that moves by 1e-6 changes the choice about as rarely.
    """
    if sampling.temperature == 0.0:
        return int(logits.argmax())
    # The token of the largest log-probability - log(E), E exponential, has the distribution of the
    # probabilities (Gumbel 1954); of a cumulative sum, each boundary would move.
    waits = np.maximum(random.standard_exponential(len(logits)), np.finfo(float).tiny)
    return int((filtered(logits, sampling) - np.log(waits)).argmax())


def filtered(logits: np.ndarray, sampling: Sampling) -> np.ndarray:
    """Return log-probabilities (V,) up to a constant; -inf for what may not be chosen.

    The filters work in the order of Hugging Face: temperature, top-k, top-p, min-p.
    """
    # The largest is subtracted first: with a tiny temperature the others go to -inf, not to +inf.
    with np.errstate(over="ignore"):
        scores = (logits.astype(np.float64) - logits.max()) / sampling.temperature
    if 0 < sampling.top_k < len(scores):
        scores[scores < np.partition(scores, -sampling.top_k)[-sampling.top_k]] = -np.inf
    if sampling.top_p < 1.0:
        # The smallest set that reaches top_p: a token stays while less than that is before it.
        # Stable, so that equal tokens keep the order of their ids.
        kept = np.flatnonzero(scores > -np.inf)
        order = kept[np.argsort(-scores[kept], kind="stable")]
        probabilities = np.exp(scores[order])
        probabilities /= probabilities.sum()
        before = np.cumsum(probabilities) - probabilities
        scores[order[int((before < sampling.top_p).sum()) :]] = -np.inf
    if sampling.min_p > 0.0:
        scores[scores < math.log(sampling.min_p)] = -np.inf
    return scores


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """Return the log-softmax of logits (V,), in float64."""
    shifted = logits.astype(np.float64) - logits.max()
    return shifted - np.log(np.exp(shifted).sum())
