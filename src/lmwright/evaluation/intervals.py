"""Intervals for a statistic of sums and for the change between two, in the cases that we have."""

from dataclasses import dataclass, replace
from math import exp, log, sqrt
from statistics import NormalDist

import numpy as np

from lmwright.evaluation.resampling import Clusters, bootstrap, standard_error

# A percentile bootstrap of fewer clusters is far too narrow; Student's t is used instead.
FEW_CLUSTERS = 10


@dataclass(frozen=True)
class Intervals:
    """Intervals of a change (absolute at 95 % and 90 %, relative at 95 %) and its error."""

    delta_95: tuple[float, float]
    delta_90: tuple[float, float]
    relative_95: tuple[float, float]
    se: float


# ---- one model


def wilson(share: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % score interval: never empty, also at 0 % and 100 %."""
    z = normal(0.95)
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def design_effect(clusters: Clusters) -> float:
    """How many clustered 0/1 items are worth one independent item (Kish), 1 at least."""
    if clusters.largest == 1:
        return 1.0
    share = clusters.value
    independent = share * (1 - share) / clusters.n_items
    if independent == 0 or clusters.n < 2:
        # Nothing varies, so the likeness within clusters is unknown: the worst is taken.
        return float(clusters.largest)
    effect = standard_error(clusters.influence) ** 2 / independent
    return float(np.clip(effect, 1.0, clusters.largest))


def around(clusters: Clusters, *, seed: int, is_repeats: bool) -> tuple[float, float]:
    """Return the 95 % interval of a metric: bootstrap over clusters, or t where they are few.

    For repeats on the log scale: a speed is never below 0.
    """
    if is_repeats and clusters.value > 0:
        spread = standard_error(clusters.influence) / clusters.value
        half = student_t(clusters.n - 1, 0.95) * spread
        return clusters.value * exp(-half), clusters.value * exp(half)
    if clusters.n < FEW_CLUSTERS:
        half = student_t(clusters.n - 1, 0.95) * standard_error(clusters.influence)
        return clusters.value - half, clusters.value + half
    return percentiles(bootstrap(clusters, seed), 0.95)


# ---- two models


def size_of(base: Clusters) -> float:
    """The value that relative changes refer to; 0 is read as half an item, to stay finite."""
    return max(abs(base.value), base.half_an_item)


def paired(base: Clusters, other: Clusters, *, seed: int) -> Intervals:
    """Return the intervals of the change on the same items: the same clusters drawn for both."""
    if base.n < 2:
        # One cluster has no spread of its own; `widen` adds that of its 0/1 items.
        return _student(base, other, 0.0, df=1)
    se = standard_error(other.influence - base.influence)
    if base.n < FEW_CLUSTERS:
        return _student(base, other, se, df=base.n - 1)
    before, after = bootstrap(base, seed), bootstrap(other, seed)
    sizes = np.maximum(np.abs(before), base.half_an_item)
    return Intervals(
        percentiles(after - before, 0.95),
        percentiles(after - before, 0.90),
        percentiles((after - before) / sizes, 0.95),
        se,
    )


def _student(base: Clusters, other: Clusters, se: float, *, df: float) -> Intervals:
    delta, size = other.value - base.value, size_of(base)
    half_95, half_90 = student_t(df, 0.95) * se, student_t(df, 0.90) * se
    return Intervals(
        (delta - half_95, delta + half_95),
        (delta - half_90, delta + half_90),
        ((delta - half_95) / size, (delta + half_95) / size),
        se,
    )


def widen(intervals: Intervals, flips: tuple[int, int], base: Clusters) -> Intervals:
    """Take the wider of these and the adjusted Wald interval of 0/1 items (Agresti, Min 2005).

    Without it, a few items without a flip would have an interval of no width: "equivalent".
    """
    lost, won, n = flips[0] + 0.5, flips[1] + 0.5, base.n_items + 2
    middle = (won - lost) / n
    variance = (won + lost - (won - lost) ** 2 / n) / n**2
    if base.largest > 1:
        # Likeness within clusters, bounded as for one model.
        plain = (sum(flips) - (flips[1] - flips[0]) ** 2 / base.n_items) / base.n_items**2
        effect = intervals.se**2 / plain if plain > 0 and intervals.se > 0 else base.largest
        variance *= float(np.clip(effect, 1.0, base.largest))
    spread, wide = sqrt(variance), []
    for (low, high), level in ((intervals.delta_95, 0.95), (intervals.delta_90, 0.90)):
        half = normal(level) * spread
        wide.append((max(-1.0, min(low, middle - half)), min(1.0, max(high, middle + half))))
    # A share cannot fall by more than all of it.
    relative = (
        max(-1.0, min(intervals.relative_95[0], wide[0][0] / size_of(base))),
        max(intervals.relative_95[1], wide[0][1] / size_of(base)),
    )
    return Intervals(wide[0], wide[1], relative, max(intervals.se, spread))


def independent(base: Clusters, other: Clusters) -> tuple[Intervals, float]:
    """Return the intervals of the change between two unpaired sets of repeats, and p (Welch)."""
    from scipy.stats import t

    delta = other.value - base.value
    variances = [standard_error(clusters.influence) ** 2 for clusters in (base, other)]
    se = sqrt(sum(variances))
    if se == 0:
        return _student(base, other, se, df=1), float(delta == 0)
    df = sum(variances) ** 2 / sum(
        variance**2 / (clusters.n - 1)
        for variance, clusters in zip(variances, (base, other), strict=True)
    )
    intervals = _student(base, other, se, df=df)
    if base.value > 0 and other.value > 0:
        # A ratio of speeds is skewed: its interval is built on the log scale.
        spread = sqrt(variances[0] / base.value**2 + variances[1] / other.value**2)
        middle, half = log(other.value / base.value), student_t(df, 0.95) * spread
        relative = (exp(middle - half) - 1, exp(middle + half) - 1)
        intervals = replace(intervals, relative_95=relative)
    return intervals, 2 * float(t.sf(abs(delta) / se, df))


# ---- quantiles


def percentiles(draws: np.ndarray, level: float) -> tuple[float, float]:
    """Return the middle `level` of the draws."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def normal(level: float) -> float:
    """Return how many standard errors to each side hold `level` of a normal distribution."""
    return NormalDist().inv_cdf((1 + level) / 2)


def student_t(df: float, level: float) -> float:
    """Return how many standard errors to each side hold `level` of Student's t."""
    from scipy.stats import t

    return float(t.ppf((1 + level) / 2, df))
