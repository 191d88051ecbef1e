"""From logits to the next token, one request at a time, in NumPy."""

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

    The filters work in the order of Hugging Face: temperature, top-k, top-p, min-p.
    """
    if sampling.temperature == 0.0:
        return int(logits.argmax())
    # Sorted from the likeliest; stable, so that equal logits keep the order of their ids.
    order = np.argsort(-logits, kind="stable")
    scaled = logits[order].astype(np.float64)
    # The largest is subtracted first: with a tiny temperature the others go to -inf, not to +inf.
    with np.errstate(over="ignore"):
        scaled = (scaled - scaled[0]) / sampling.temperature
    if sampling.top_k:
        scaled = scaled[: sampling.top_k]
    probabilities = np.exp(scaled)
    probabilities /= probabilities.sum()
    if sampling.top_p < 1.0:
        # The smallest set that reaches top_p: a token stays while less than that is before it.
        before = np.cumsum(probabilities) - probabilities
        n_kept = int((before < sampling.top_p).sum())
        probabilities = probabilities[:n_kept] / probabilities[:n_kept].sum()
    if sampling.min_p > 0.0:
        n_kept = int((probabilities >= sampling.min_p * probabilities[0]).sum())
        probabilities = probabilities[:n_kept] / probabilities[:n_kept].sum()
    rank = np.searchsorted(np.cumsum(probabilities), random.random(), side="right")
    return int(order[min(int(rank), len(probabilities) - 1)])


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """Return the log-softmax of logits (V,), in float64."""
    shifted = logits.astype(np.float64) - logits.max()
    return shifted - np.log(np.exp(shifted).sum())
