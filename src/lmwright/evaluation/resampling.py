"""Sums over clusters and what random draws of clusters say about a ratio of sums.

Items of one cluster (a template, a text, a fact) resemble each other, so whole clusters are
drawn, never single items.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lmwright.core.results import Row

N_RESAMPLES = 4_000
N_FLIPS = 9_999
# So many clusters or fewer: all 2^C sign flips are counted instead of drawn.
ENUMERABLE = 12


@dataclass(frozen=True)
class Clusters:
    """Sums over the items of each cluster; C clusters in the order of their first item."""

    values: np.ndarray  # (C,) float64
    weights: np.ndarray  # (C,) float64
    n_items: int
    # Items of the largest cluster.
    largest: int

    @property
    def n(self) -> int:
        """The number of clusters."""
        return len(self.values)

    @property
    def sums(self) -> np.ndarray:
        """Values and weights side by side, (C, 2)."""
        return np.stack([self.values, self.weights], axis=1)

    @property
    def ratio(self) -> float:
        """The metric: sum(value) / sum(weight)."""
        return float(self.values.sum() / self.weights.sum())

    @property
    def influence(self) -> np.ndarray:
        """How far each cluster pulls the ratio away from itself, (C,); the sum is 0."""
        return (self.values - self.ratio * self.weights) / self.weights.sum()


def cluster_sums(rows: Sequence[Row]) -> Clusters:
    """Add up values and weights by cluster; a row without a cluster is one of its own."""
    if not rows:
        raise ValueError("no rows: a metric needs at least one item")
    if len({row.item for row in rows}) != len(rows):
        raise ValueError("an item occurs twice in the rows of one model")
    names: dict[str, int] = {}
    index = np.array([names.setdefault(row.cluster or row.item, len(names)) for row in rows])
    weights = np.bincount(index, [row.weight for row in rows])
    if not (weights > 0).all():
        raise ValueError("a cluster has no weight: every row needs a weight above 0")
    return Clusters(
        values=np.bincount(index, [row.value for row in rows]),
        weights=weights,
        n_items=len(rows),
        largest=int(np.bincount(index).max()),
    )


def standard_error(influence: np.ndarray) -> float:
    """Return the standard error of a sum of independent influences (delta method)."""
    n = len(influence)
    if n < 2:
        raise ValueError(f"{n} cluster: an interval needs at least 2")
    return float(np.sqrt(n / (n - 1) * np.square(influence).sum()))


def bootstrap_ratios(clusters: Clusters, seed: int) -> np.ndarray:
    """Return the ratio in N_RESAMPLES draws of clusters; same C and seed, same draws."""
    sums = _bootstrap_counts(clusters.n, seed) @ clusters.sums  # (R, 2)
    return sums[:, 0] / sums[:, 1]


def sign_flip_p(base: Clusters, other: Clusters, seed: int) -> float:
    """Test whether the two models could be swapped, cluster by cluster (two-sided).

    Exact for few clusters, else from N_FLIPS random swaps (then p is at least 1 / 10,000).
    """
    moved = _flips(base.n, seed) @ (other.sums - base.sums)  # (R, 2)
    before, after = base.sums.sum(axis=0) + moved, other.sums.sum(axis=0) - moved
    differences = after[:, 0] / after[:, 1] - before[:, 0] / before[:, 1]
    observed = abs(other.ratio - base.ratio)
    # Sums in another order differ in the last bits: a swap that changes nothing must count.
    is_extreme = np.abs(differences) >= observed * (1 - 1e-9) - 1e-15
    if base.n <= ENUMERABLE:
        return float(is_extreme.mean())
    return float((1 + is_extreme.sum()) / (1 + len(is_extreme)))


@lru_cache(maxsize=16)
def _bootstrap_counts(n_clusters: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, n_clusters])
    shares = np.full(n_clusters, 1 / n_clusters)
    counts = rng.multinomial(n_clusters, shares, size=N_RESAMPLES).astype(np.float64)
    counts.flags.writeable = False
    return counts


@lru_cache(maxsize=16)
def _flips(n_clusters: int, seed: int) -> np.ndarray:
    if n_clusters <= ENUMERABLE:
        patterns = np.arange(2**n_clusters)[:, None] >> np.arange(n_clusters) & 1
    else:
        rng = np.random.default_rng([seed, n_clusters])
        patterns = rng.integers(0, 2, size=(N_FLIPS, n_clusters), dtype=np.int8)
    flips = patterns.astype(np.float64)
    flips.flags.writeable = False
    return flips
