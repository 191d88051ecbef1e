"""Sums over clusters and what random draws of clusters say about a statistic of the sums.

Items of one cluster (a template, a text, a fact) resemble each other, so whole clusters are
drawn, never single items. C clusters, K sums a row, R draws.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lmwright.core.results import Row

N_RESAMPLES = 4_000
N_FLIPS = 9_999
# So many clusters or fewer: all 2^C sign flips are counted instead of drawn.
ENUMERABLE = 12

# A metric as a function of summed row vectors, (..., K) -> (...); must be finite for all draws.
Statistic = Callable[[np.ndarray], np.ndarray]


def ratio(sums: np.ndarray) -> np.ndarray:
    """Return sum(value) / sum(weight): accuracy, bits per byte, a mean, tokens a second."""
    return sums[..., 0] / sums[..., 1]


@dataclass(frozen=True)
class Clusters:
    """Sums over the items of each cluster; C clusters in the order of their first item."""

    sums: np.ndarray  # (C, K) float64
    n_items: int
    # Items of the largest cluster.
    largest: int
    statistic: Statistic

    @property
    def n(self) -> int:
        """The number of clusters."""
        return len(self.sums)

    @property
    def total(self) -> np.ndarray:
        """The sums over all rows, (K,)."""
        return self.sums.sum(axis=0)

    @property
    def value(self) -> float:
        """The metric."""
        return float(self.statistic(self.total))

    @property
    def influence(self) -> np.ndarray:
        """How far each cluster pulls the metric away from itself, (C,); the sum is 0."""
        if self.statistic is ratio:
            return (self.sums[:, 0] - self.value * self.sums[:, 1]) / self.total[1]
        # The gradient at the totals; subtracting the mean makes the sum 0 for any statistic.
        pull = self.sums @ _gradient(self.statistic, self.total)
        return pull - pull.mean()

    @property
    def half_an_item(self) -> float:
        """What a value of 0 is read as where changes are relative to it, to stay finite."""
        return 0.5 / (float(self.total[1]) if self.statistic is ratio else self.n_items)


def cluster_sums(rows: Sequence[Row], statistic: Statistic = ratio) -> Clusters:
    """Add up the rows by cluster; a row without a cluster is one of its own."""
    if not rows:
        raise ValueError("no rows: a metric needs at least one item")
    if len({row.item for row in rows}) != len(rows):
        raise ValueError("an item occurs twice in the rows of one model")
    if len({len(row.sums) for row in rows}) != 1:
        raise ValueError("the rows of a metric have different numbers of sums")
    names: dict[str, int] = {}
    index = np.array([names.setdefault(row.cluster or row.item, len(names)) for row in rows])
    columns = np.array([row.sums for row in rows], dtype=np.float64).T
    clusters = Clusters(
        sums=np.stack([np.bincount(index, column) for column in columns], axis=1),
        n_items=len(rows),
        largest=int(np.bincount(index).max()),
        statistic=statistic,
    )
    if statistic is ratio and not (clusters.sums[:, 1] > 0).all():
        raise ValueError("a cluster has no weight: every row needs a weight above 0")
    return clusters


def standard_error(influence: np.ndarray) -> float:
    """Return the standard error of a sum of independent influences (delta method)."""
    n = len(influence)
    if n < 2:
        raise ValueError(f"{n} cluster: an interval needs at least 2")
    return float(np.sqrt(n / (n - 1) * np.square(influence).sum()))


def bootstrap(clusters: Clusters, seed: int) -> np.ndarray:
    """Return the metric in N_RESAMPLES draws of clusters, (R,); same C and seed, same draws."""
    draws = clusters.statistic(_bootstrap_counts(clusters.n, seed) @ clusters.sums)
    if not np.isfinite(draws).all():
        raise ValueError(
            "the statistic is no number for some draws of the items: it must be defined for "
            "each, also where a sum is 0"
        )
    return draws


def sign_flip_p(base: Clusters, other: Clusters, seed: int) -> float:
    """Test whether the two models could be swapped, cluster by cluster (two-sided).

    Exact for few clusters, else from N_FLIPS random swaps (then p is at least 1 / 10,000).
    """
    moved = _flips(base.n, seed) @ (other.sums - base.sums)  # (R, K)
    differences = other.statistic(other.total - moved) - base.statistic(base.total + moved)
    observed = abs(other.value - base.value)
    # Sums in another order differ in the last bits: a swap that changes nothing must count.
    is_extreme = np.abs(differences) >= observed * (1 - 1e-9) - 1e-15
    if base.n <= ENUMERABLE:
        return float(is_extreme.mean())
    return float((1 + is_extreme.sum()) / (1 + len(is_extreme)))


def _gradient(statistic: Statistic, total: np.ndarray) -> np.ndarray:
    """Return the derivative by each sum, (K,), from central differences."""
    # The cube root of the machine's precision balances rounding and curvature.
    steps = np.finfo(np.float64).eps ** (1 / 3) * np.maximum(np.abs(total), 1.0)
    shifts = np.diag(steps)
    return (statistic(total + shifts) - statistic(total - shifts)) / (2 * steps)


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
