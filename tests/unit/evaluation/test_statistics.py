"""Every verdict of a card rests on these numbers: each is held against another source."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from lmwright.core.results import Comparison, Metric, MetricSpec, Row, from_plain, plain
from lmwright.evaluation.resampling import ratio
from lmwright.evaluation.statistics import (
    detectable,
    detectable_effect,
    difference,
    estimate,
    estimate_groups,
    holm,
    judge,
)

BINARY = MetricSpec("accuracy", "Accuracy", "share", True, "binary", margin=0.05)
LOSS = MetricSpec("loss", "Loss", "nats", False, "continuous", margin=0.1)
SPEED = MetricSpec("speed", "Speed", "tokens/s", True, "repeats", 0.05, margin_is_relative=True)


def binary(n_right: int, n: int) -> list[Row]:
    return [Row(str(i), (float(i < n_right), 1.0)) for i in range(n)]


def continuous(values, weights=None, clusters=None) -> list[Row]:
    weights = np.ones(len(values)) if weights is None else weights
    clusters = [""] * len(values) if clusters is None else clusters
    return [
        Row(str(i), (float(v), float(w)), c)
        for i, (v, w, c) in enumerate(zip(values, weights, clusters, strict=True))
    ]


def compare(base_rows, rows, spec, **options) -> Comparison:
    """Compare a model with a baseline alone: p_holm is p."""
    found = difference(base_rows, rows, spec, model="model", baseline="base", **options)
    return judge([found])[0]


def table(both: int, lost: int, won: int, neither: int) -> tuple[list[Row], list[Row]]:
    """Rows of a baseline and a model with these counts of right/wrong."""
    cells = [(1, 1)] * both + [(1, 0)] * lost + [(0, 1)] * won + [(0, 0)] * neither
    return (
        [Row(str(i), (float(before), 1.0)) for i, (before, _) in enumerate(cells)],
        [Row(str(i), (float(after), 1.0)) for i, (_, after) in enumerate(cells)],
    )


# ---- one model


def test_share_of_crows_pairs_as_published_for_gpt2():
    metric = estimate(binary(149, 262), BINARY)
    assert round(100 * metric.value, 2) == 56.87
    assert metric.n == 262
    # About 6 points to each side.
    assert 0.055 < (metric.high - metric.low) / 2 < 0.065


@pytest.mark.parametrize(("right", "n"), [(0, 7), (7, 7), (1, 30), (149, 262), (1, 1)])
def test_interval_of_a_share_is_wilson(right, n):
    metric = estimate(binary(right, n), BINARY)
    expected = scipy.stats.binomtest(right, n).proportion_ci(method="wilson")
    assert metric.low == pytest.approx(expected.low, abs=1e-12)
    assert metric.high == pytest.approx(expected.high, abs=1e-12)


@pytest.mark.parametrize("right", [0, 20])
def test_interval_at_0_and_100_percent_has_a_width(right):
    clustered = [Row(str(i), (float(right > 0), 1.0), cluster=str(i // 2)) for i in range(20)]
    for rows in (binary(right, 20), clustered):
        metric = estimate(rows, BINARY)
        assert metric.high - metric.low > 0.1
    assert estimate(clustered, BINARY).low <= estimate(binary(right, 20), BINARY).low


def test_copies_of_an_item_do_not_make_a_share_more_certain():
    rows = binary(13, 20)
    copies = [Row(f"{row.item}/{k}", row.sums, cluster=row.item) for row in rows for k in range(4)]
    once, copied = estimate(rows, BINARY), estimate(copies, BINARY)
    assert (once.low, once.high) == pytest.approx((copied.low, copied.high), abs=1e-12)
    assert copied.n == 80


def test_copies_of_an_item_do_not_make_a_mean_more_certain():
    values = np.random.default_rng(0).normal(size=30)
    clusters = [f"c{i}" for i in range(30)]
    once = estimate(continuous(values, clusters=clusters), LOSS)
    copied = estimate(continuous(np.tile(values, 3), clusters=clusters * 3), LOSS)
    assert (once.low, once.high) == pytest.approx((copied.low, copied.high), abs=1e-12)


def test_bootstrap_agrees_with_scipy():
    rng = np.random.default_rng(1)
    bits, size = rng.gamma(3, 100, 40), rng.integers(200, 900, 40)
    metric = estimate(continuous(bits, size), LOSS)
    oracle = scipy.stats.bootstrap(
        (bits, size),
        lambda v, w, axis=-1: v.sum(axis) / w.sum(axis),
        paired=True,
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(2),
    ).confidence_interval
    width = oracle.high - oracle.low
    assert metric.value == pytest.approx(bits.sum() / size.sum(), rel=1e-12)
    # Both draw at random: their ends agree within a few percent of the width.
    assert metric.low == pytest.approx(oracle.low, abs=0.05 * width)
    assert metric.high == pytest.approx(oracle.high, abs=0.05 * width)


def test_interval_of_few_clusters_is_students_t():
    values = [1.0, 2.0, 4.0, 4.5, 7.0]
    metric = estimate(continuous(values), LOSS)
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (metric.low, metric.high) == pytest.approx((expected.low, expected.high), rel=1e-12)


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(3)
    n_covered = 0
    for _ in range(300):
        effects = np.repeat(rng.normal(size=40), 3)
        rows = continuous(
            5 + effects + rng.normal(size=120), clusters=[f"c{i // 3}" for i in range(120)]
        )
        metric = estimate(rows, LOSS)
        n_covered += metric.low <= 5 <= metric.high
    assert 0.91 < n_covered / 300 < 0.98


def test_same_seed_same_interval_and_another_seed_nearly_so():
    rows = continuous(np.random.default_rng(4).normal(size=50))
    first, again, other = (estimate(rows, LOSS, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first.low != other.low
    assert first.low == pytest.approx(other.low, abs=0.05)


def test_groups_are_metrics_of_their_own():
    rows = [Row(str(i), (float(i % 3 == 0), 1.0), group="ab"[i % 2]) for i in range(12)]
    groups = estimate_groups(rows, BINARY)
    assert {name: (metric.name, metric.n) for name, metric in groups.items()} == {
        "a": ("accuracy/a", 6),
        "b": ("accuracy/b", 6),
    }
    assert estimate_groups([row for row in rows if row.group == "a"], BINARY) == {}


@given(
    st.lists(st.floats(-100, 100), min_size=2, max_size=30),
    st.integers(1, 5),
    st.floats(0.5, 20),
)
@settings(max_examples=60, deadline=None)
def test_metric_holds_its_value_survives_json_and_scales(values, n_clusters, factor):
    clusters = [f"c{i % (n_clusters + 1)}" for i in range(len(values))]
    metric = estimate(continuous(values, clusters=clusters), LOSS)
    assert metric.low <= metric.value <= metric.high
    assert from_plain(Metric, plain(metric)) == metric
    scaled = estimate(continuous([factor * v for v in values], clusters=clusters), LOSS)
    for name in ("value", "low", "high"):
        expected = factor * getattr(metric, name)
        assert getattr(scaled, name) == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "at least one item"),
        ([Row("a", (1.0, 1.0)), Row("a", (0.0, 1.0))], "occurs twice"),
        ([Row("a", (0.5, 1.0)), Row("b", (0.0, 1.0))], "values 0 or 1"),
        ([Row("a", (1.0, 0.0))], "weight above 0"),
        ([Row("a", (1.0, 1.0)), Row("b", (1.0,))], "different numbers of sums"),
    ],
)
def test_rows_that_are_no_measurement_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        estimate(rows, BINARY)


def test_one_text_has_no_interval():
    with pytest.raises(ValueError, match="at least 2"):
        estimate(continuous([1.0]), LOSS)


# ---- two models


def test_mcnemar_and_flips_of_a_table():
    # 59 right both times, 6 lost, 16 won: Agresti's kind of table, counted by hand.
    base, rows = table(59, 6, 16, 80)
    comparison = compare(base, rows, BINARY)
    assert comparison.flips == (6, 16)
    assert comparison.delta == pytest.approx(10 / 161)
    assert comparison.p == pytest.approx(scipy.stats.binomtest(6, 22, 0.5).pvalue)
    assert comparison.p == pytest.approx(0.0525, abs=1e-4)
    assert comparison.relative == pytest.approx(10 / 65)
    # Wald's paired interval by hand: se = sqrt(22 - 100 / 161) / 161.
    half = 1.96 * (22 - 100 / 161) ** 0.5 / 161
    assert comparison.low == pytest.approx(10 / 161 - half, abs=0.004)
    assert comparison.high == pytest.approx(10 / 161 + half, abs=0.004)


def test_clustered_flips_count_for_less_than_independent_ones():
    base, rows = table(20, 0, 10, 10)
    assert compare(base, rows, BINARY).p == pytest.approx(2 / 2**10)

    def in_clusters(rows):
        return [replace(row, cluster=f"c{int(row.item) // 5}") for row in rows]

    clustered = compare(in_clusters(base), in_clusters(rows), BINARY)
    # Two clusters of five flips each: they could fall together in 2 of 4 ways.
    assert clustered.p == 0.5
    assert clustered.verdict == "cannot tell"


def test_sign_flips_agree_with_scipys_permutation_test():
    rng = np.random.default_rng(5)
    before = rng.normal(size=9)
    after = before + rng.normal(0.4, 1, size=9)
    oracle = scipy.stats.permutation_test(
        (before, after),
        lambda a, b, axis=-1: np.mean(b - a, axis=axis),
        permutation_type="samples",
        n_resamples=np.inf,
    )
    assert compare(continuous(before), continuous(after), LOSS).p == pytest.approx(oracle.pvalue)


def test_random_sign_flips_agree_with_the_t_test_for_many_items():
    rng = np.random.default_rng(6)
    before = rng.normal(size=200)
    after = before + rng.normal(0.1, 0.5, size=200)
    oracle = scipy.stats.ttest_rel(after, before).pvalue
    assert 0.01 < oracle < 0.3
    comparison = compare(continuous(before), continuous(after), LOSS)
    assert comparison.p == pytest.approx(oracle, abs=0.012)
    expected = scipy.stats.ttest_rel(after, before).confidence_interval(0.95)
    width = expected.high - expected.low
    assert comparison.low == pytest.approx(expected.low, abs=0.06 * width)
    assert comparison.high == pytest.approx(expected.high, abs=0.06 * width)


def test_pairing_needs_the_same_items_in_any_order():
    rows = continuous(np.arange(12.0))
    assert compare(rows, rows[::-1], LOSS).delta == 0
    with pytest.raises(ValueError, match="different items"):
        compare(rows, rows[:-1], LOSS)
    with pytest.raises(ValueError, match="different items"):
        compare(rows, [*rows[:-1], replace(rows[-1], item="other")], LOSS)


def test_relative_change_comes_from_the_ratio_of_the_draws():
    rng = np.random.default_rng(7)
    before = rng.gamma(4, 1, 60)
    # Exactly 5 % more on every item: the ratio is known although the difference is not.
    comparison = compare(continuous(before), continuous(1.05 * before), LOSS)
    assert (comparison.relative_low, comparison.relative_high) == pytest.approx((0.05, 0.05))
    assert comparison.high - comparison.low > 0.01


def test_change_from_zero_stays_finite():
    base, rows = table(0, 0, 18, 2)
    comparison = compare(base, rows, BINARY)
    # 0 of 20 is read as half an item.
    assert comparison.relative == pytest.approx(0.9 / 0.025)
    assert np.isfinite(comparison.relative_high)
    assert comparison.verdict == "better"
    assert from_plain(Comparison, plain(comparison)) == comparison


def test_repeats_are_compared_by_welch():
    rng = np.random.default_rng(8)
    slow, fast = rng.normal(100, 3, 5), rng.normal(110, 6, 5)
    comparison = compare(continuous(slow), continuous(fast), SPEED)
    oracle = scipy.stats.ttest_ind(fast, slow, equal_var=False)
    assert comparison.p == pytest.approx(oracle.pvalue)
    interval = oracle.confidence_interval(0.95)
    assert (comparison.low, comparison.high) == pytest.approx((interval.low, interval.high))
    assert comparison.margin == pytest.approx(0.05 * slow.mean())
    assert comparison.relative_low < comparison.relative < comparison.relative_high


# ---- any statistic of sums


def own_ratio(sums: np.ndarray) -> np.ndarray:
    """The same as the default, but unknown to it: derived numerically."""
    return sums[..., 0] / sums[..., 1]


def correlation(sums: np.ndarray) -> np.ndarray:
    """Matthews' coefficient of (true positives, false positives, false negatives, true ones)."""
    tp, fp, fn, tn = np.moveaxis(sums, -1, 0)
    size = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return np.where(size > 0, (tp * tn - fp * fn) / np.where(size > 0, size, 1.0), 0.0)


def confusion(said: np.ndarray, true: np.ndarray) -> list[Row]:
    cells = [said & true, said & ~true, ~said & true, ~said & ~true]
    return [Row(str(i), tuple(map(float, each))) for i, each in enumerate(zip(*cells, strict=True))]


@pytest.mark.parametrize("n", [7, 40])
def test_a_ratio_is_estimated_alike_by_the_general_way(n):
    rng = np.random.default_rng(20)
    before, size = rng.gamma(3, 100, n), rng.integers(200, 900, n)
    base, rows = continuous(before, size), continuous(before * rng.normal(1, 0.05, n), size)
    one, other = estimate(rows, LOSS), estimate(rows, LOSS, statistic=own_ratio)
    assert (other.low, other.high) == pytest.approx((one.low, one.high), rel=1e-8)
    one, other = (compare(base, rows, LOSS, statistic=each) for each in (ratio, own_ratio))
    assert (other.low, other.high, other.p) == pytest.approx((one.low, one.high, one.p), rel=1e-7)
    effects = [detectable_effect(rows, LOSS, statistic=each) for each in (ratio, own_ratio)]
    assert effects[1] == pytest.approx(effects[0], rel=1e-8)


def test_correlation_of_a_confusion_matrix_has_an_interval_and_a_paired_test():
    rng = np.random.default_rng(21)
    true = rng.random(300) < 0.4
    good, bad = (np.where(rng.random(300) < noise, ~true, true) for noise in (0.1, 0.3))
    spec = MetricSpec("mcc", "Correlation", "", True, "continuous", margin=0.05)
    metric = estimate(confusion(good, true), spec, statistic=correlation)
    oracle = scipy.stats.bootstrap(
        (good, true),
        lambda a, b: np.corrcoef(a, b)[0, 1],
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=4_000,
        rng=np.random.default_rng(22),
    ).confidence_interval
    assert metric.value == pytest.approx(np.corrcoef(good, true)[0, 1], rel=1e-12)
    width = oracle.high - oracle.low
    assert metric.low == pytest.approx(oracle.low, abs=0.08 * width)
    assert metric.high == pytest.approx(oracle.high, abs=0.08 * width)
    # The delta method and the bootstrap see the same spread.
    assert detectable_effect(confusion(good, true), spec, statistic=correlation) == pytest.approx(
        2.8 * 2**0.5 * width / (2 * 1.96), rel=0.1
    )
    change = compare(confusion(good, true), confusion(bad, true), spec, statistic=correlation)
    assert (change.verdict, change.p) == ("worse", 1e-4)


def test_a_statistic_that_is_no_number_for_some_draws_is_refused():
    rows = [Row(str(i), (float(i == 0), 1.0)) for i in range(20)]
    spec = MetricSpec("odd", "Odd", "", True, "continuous")
    with pytest.raises(ValueError, match="must be defined"), np.errstate(all="ignore"):
        estimate(rows, spec, statistic=lambda sums: np.log(sums[..., 0]))


# ---- verdicts


def test_the_same_answers_on_enough_items_are_equivalent_and_on_few_cannot_be_told():
    many = compare(*table(80, 0, 0, 40), BINARY)
    assert (many.verdict, many.p, many.n_needed) == ("equivalent", 1.0, None)
    assert many.low < 0 < many.high
    few = compare(*table(5, 0, 0, 2), BINARY)
    assert few.verdict == "cannot tell"
    assert few.n_needed is not None
    assert few.n_needed > 7


def test_a_significant_change_within_the_margin_is_equivalent():
    rng = np.random.default_rng(9)
    before = rng.normal(size=100)
    comparison = compare(
        continuous(before), continuous(before + 0.02 + rng.normal(0, 0.02, 100)), LOSS
    )
    assert comparison.p < 0.001
    assert comparison.verdict == "equivalent"


@pytest.mark.parametrize(("shift", "verdict"), [(0.5, "worse"), (-0.5, "better")])
def test_direction_follows_what_is_good(shift, verdict):
    rng = np.random.default_rng(10)
    before = rng.normal(size=100)
    after = before + shift + rng.normal(0, 0.2, 100)
    assert compare(continuous(before), continuous(after), LOSS).verdict == verdict
    accuracy = table(50, 2, 30, 18) if verdict == "better" else table(50, 30, 2, 18)
    assert compare(*accuracy, BINARY).verdict == verdict


def test_many_comparisons_make_one_of_them_less_certain():
    base, rows = table(59, 4, 16, 21)
    alone = difference(base, rows, BINARY, model="m", baseline="b")
    assert judge([alone])[0].verdict == "better"
    same = difference(base, base, BINARY, model="m", baseline="b")
    first, *_, last = judge([alone, *[same] * 9])
    assert first.p_holm == pytest.approx(10 * first.p)
    assert first.verdict == "cannot tell"
    assert last.p_holm == 1.0


def test_as_many_items_as_asked_for_settle_it():
    rng = np.random.default_rng(11)

    def pair(n):
        before = rng.normal(size=n)
        return continuous(before), continuous(before + rng.normal(0, 0.5, n))

    first = compare(*pair(40), LOSS)
    assert first.verdict == "cannot tell"
    needed = first.n_needed
    assert needed is not None
    assert 100 < needed < 400
    verdicts = [compare(*pair(needed), LOSS, seed=0).verdict for _ in range(40)]
    assert verdicts.count("equivalent") / 40 > 0.65


def test_detectable_effect_is_found_in_four_of_five():
    rng = np.random.default_rng(12)

    def pair(shift):
        before = rng.normal(size=60)
        return continuous(before), continuous(before + shift + rng.normal(0, 0.5, 60))

    base, rows = pair(0.0)
    smallest = detectable(difference(base, rows, LOSS, model="m", baseline="b"))
    assert smallest == pytest.approx(2.8 * 0.5 / 60**0.5, rel=0.25)
    # Pairing is what makes it small.
    assert smallest < 0.6 * detectable_effect(rows, LOSS)
    found = sum(compare(*pair(smallest), LOSS).p < 0.05 for _ in range(60))
    assert 0.65 < found / 60 < 0.95


# ---- Holm


def test_holm_of_a_table_made_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_lies_between_the_p_value_and_bonferroni(p_values):
    adjusted = holm(p_values)
    for p, p_holm in zip(p_values, adjusted, strict=True):
        assert p <= p_holm <= min(1, p * len(p_values)) + 1e-15
    by_size = sorted(zip(p_values, adjusted, strict=True))
    assert [p_holm for _, p_holm in by_size] == sorted(adjusted)
    assert holm(p_values[::-1]) == adjusted[::-1]
