"""What rows say: a metric with its interval, a paired comparison, a verdict.

A metric is a statistic of summed rows. Models are compared on the same items only.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, sqrt
from statistics import NormalDist

from lmwright.core.results import Comparison, Metric, MetricSpec, Row, Verdict
from lmwright.evaluation import intervals
from lmwright.evaluation.resampling import (
    Statistic,
    cluster_sums,
    ratio,
    sign_flip_p,
    standard_error,
)

ALPHA = 0.05
POWER = 0.8
_quantile = NormalDist().inv_cdf


@dataclass(frozen=True)
class Difference:
    """A comparison before the card is known: all that the verdict needs."""

    comparison: Comparison
    higher_is_better: bool
    intervals: intervals.Intervals


def estimate(
    rows: Sequence[Row], spec: MetricSpec, *, statistic: Statistic = ratio, seed: int = 0
) -> Metric:
    """Return the metric with its 95 % interval.

    Wilson for 0/1 items (of the effective number of items where clusters hold several), else a
    percentile bootstrap over clusters, or Student's t for fewer than 10 clusters or repeats.
    """
    clusters = cluster_sums(rows, statistic)
    value = clusters.value
    if spec.kind == "binary":
        _check_binary(rows)
        n_effective = clusters.n_items / intervals.design_effect(clusters)
        low, high = intervals.wilson(value, n_effective)
    else:
        is_repeats = spec.kind == "repeats"
        low, high = intervals.around(clusters, seed=seed, is_repeats=is_repeats)
    return Metric(
        name=spec.name,
        value=value,
        low=min(low, value),
        high=max(high, value),
        n=clusters.n_items,
        higher_is_better=spec.higher_is_better,
        unit=spec.unit,
    )


def estimate_groups(
    rows: Sequence[Row], spec: MetricSpec, *, statistic: Statistic = ratio, seed: int = 0
) -> dict[str, Metric]:
    """Return the metric of each group; nothing where there is only one."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    if len(groups) < 2:
        return {}
    specs = {name: replace(spec, name=f"{spec.name}/{name}") for name in sorted(groups)}
    return {
        name: estimate(groups[name], part, statistic=statistic, seed=seed)
        for name, part in specs.items()
    }


def difference(
    base_rows: Sequence[Row],
    rows: Sequence[Row],
    spec: MetricSpec,
    *,
    model: str,
    baseline: str,
    statistic: Statistic = ratio,
    seed: int = 0,
) -> Difference:
    """Measure the change with its intervals and p; `judge` gives the verdicts of a card."""
    rows = _same_items(base_rows, rows)
    base, other = (cluster_sums(each, statistic) for each in (base_rows, rows))
    flips = None
    if spec.kind == "repeats":
        spread, p = intervals.independent(base, other)
    else:
        spread = intervals.paired(base, other, seed=seed)
        p = sign_flip_p(base, other, seed)
    if spec.kind == "binary":
        flips = _flips(base_rows, rows)
        spread = intervals.widen(spread, flips, base)
        # McNemar takes items for independent: where clusters hold several, the larger p counts.
        p = max(_mcnemar(flips), p if base.largest > 1 else 0.0)
    delta, size = other.value - base.value, intervals.size_of(base)
    comparison = Comparison(
        metric=spec.name,
        model=model,
        baseline=baseline,
        delta=delta,
        low=min(spread.delta_95[0], delta),
        high=max(spread.delta_95[1], delta),
        relative=delta / size,
        relative_low=min(spread.relative_95[0], delta / size),
        relative_high=max(spread.relative_95[1], delta / size),
        n=len(rows),
        p=p,
        p_holm=p,
        margin=spec.margin * (size if spec.margin_is_relative else 1.0),
        verdict="cannot tell",
        flips=flips,
    )
    return Difference(comparison, spec.higher_is_better, spread)


def judge(differences: Sequence[Difference]) -> list[Comparison]:
    """Correct the p-values of a whole card (Holm) and give each comparison its verdict.

    equivalent: the 90 % interval lies within the margin, also where a change is significant.
    """
    adjusted = holm([measured.comparison.p for measured in differences])
    return [_judge(*pair) for pair in zip(differences, adjusted, strict=True)]


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number, step-down (Holm 1979); order is kept."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def detectable_effect(
    rows: Sequence[Row], spec: MetricSpec, *, statistic: Statistic = ratio
) -> float:
    """Return the smallest change found with 80 % power at 5 %, in the metric's unit.

    Unpaired, against another model of the same spread; `detectable` is that of a paired one.
    """
    clusters = cluster_sums(rows, statistic)
    if spec.kind != "binary":
        return _power_factor(ALPHA) * sqrt(2) * standard_error(clusters.influence)
    # Half an item of each kind, so that 0 % and 100 % have a spread, too.
    share = (float(clusters.total[0]) + 0.5) / (clusters.n_items + 1)
    n_effective = clusters.n_items / intervals.design_effect(clusters)
    return _power_factor(ALPHA) * sqrt(2 * share * (1 - share) / n_effective)


def detectable(measured: Difference) -> float:
    """Return the smallest change that a comparison like this finds with 80 % power at 5 %."""
    return _power_factor(ALPHA) * measured.intervals.se


def _judge(measured: Difference, p_holm: float) -> Comparison:
    comparison = replace(measured.comparison, p_holm=p_holm)
    # Two one-sided tests (TOST) at 5 %.
    low, high = measured.intervals.delta_90
    if -comparison.margin <= low and high <= comparison.margin:
        return replace(comparison, verdict="equivalent")
    if p_holm < ALPHA:
        is_better = (comparison.delta > 0) == measured.higher_is_better
        verdict: Verdict = "better" if is_better else "worse"
        return replace(comparison, verdict=verdict)
    return replace(comparison, verdict="cannot tell", n_needed=_items_needed(measured, comparison))


def _items_needed(measured: Difference, comparison: Comparison) -> int:
    """About how many items would settle it, if they vary as these do.

    First choice: enough to fit the 90 % interval of "no change" into the margin with 80 % power.
    Where that many were asked already, the change itself lies near the margin: then enough to
    find a change of the size observed.
    """
    n, se = comparison.n, measured.intervals.se
    # TOST may fail on either side, so each side gets half of the 20 %.
    factor = _quantile(1 - ALPHA) + _quantile(1 - (1 - POWER) / 2)
    needed = n * (factor * se / comparison.margin) ** 2 if comparison.margin > 0 else 0.0
    if needed <= n and comparison.delta != 0:
        tests = max(1.0, comparison.p_holm / comparison.p)
        needed = n * (_power_factor(ALPHA / tests) * se / comparison.delta) ** 2
    return max(n + 1, ceil(min(needed, 1e9)))


def _same_items(base_rows: Sequence[Row], rows: Sequence[Row]) -> list[Row]:
    """Return `rows` in the order of `base_rows`; both must hold the same items."""
    by_item = {row.item: row for row in rows}
    missing = [row.item for row in base_rows if row.item not in by_item]
    extra = set(by_item) - {row.item for row in base_rows}
    if missing or extra or len(by_item) != len(rows):
        raise ValueError(
            f"the models were measured on different items ({len(base_rows)} and {len(rows)}; "
            f"for example {[*missing, *sorted(extra)][:3]}): evaluate both with the same suite"
        )
    return [by_item[row.item] for row in base_rows]


def _check_binary(rows: Sequence[Row]) -> None:
    for row in rows:
        if row.sums not in ((0, 1), (1, 1)):
            raise ValueError(
                f"item {row.item!r}: the sums {row.sums}; a right/wrong metric has values 0 or 1 "
                "and weights 1"
            )


def _flips(base_rows: Sequence[Row], rows: Sequence[Row]) -> tuple[int, int]:
    """Count the items that went from 1 to 0 and from 0 to 1."""
    _check_binary([*base_rows, *rows])
    pairs = list(zip(base_rows, rows, strict=True))
    lost = sum(before.sums > after.sums for before, after in pairs)
    won = sum(before.sums < after.sums for before, after in pairs)
    return lost, won


def _mcnemar(flips: tuple[int, int]) -> float:
    """Exact McNemar: were losses and gains equally likely?"""
    from scipy.stats import binomtest

    n = sum(flips)
    return float(binomtest(flips[0], n, 0.5).pvalue) if n else 1.0


def _power_factor(alpha: float) -> float:
    """Standard errors between no effect and one found with 80 % power (2.80 at 5 %)."""
    return _quantile(1 - alpha / 2) + _quantile(POWER)
