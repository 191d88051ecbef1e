"""Special cases of intervals: clusters of likeness, repeats without noise, shares at their ends."""

import numpy as np
import pytest

from lmwright.core.results import Row
from lmwright.evaluation.intervals import (
    Intervals,
    around,
    design_effect,
    independent,
    normal,
    paired,
    student_t,
    widen,
    wilson,
)
from lmwright.evaluation.resampling import cluster_sums


def test_quantiles_are_those_of_the_tables():
    assert normal(0.95) == pytest.approx(1.95996, abs=1e-5)
    assert student_t(4, 0.95) == pytest.approx(2.77645, abs=1e-5)


def test_wilson_of_half_the_items_by_hand():
    # p = 1/2, n = 4, z^2 = 3.8415: 1/2 +- z / (2 sqrt(n + z^2)).
    half = 1.95996 / (2 * (4 + 3.84146) ** 0.5)
    assert wilson(0.5, 4) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-5)


@pytest.mark.parametrize(("alike", "effect"), [(True, 4.0), (False, 1.0)])
def test_design_effect_lies_between_1_and_the_size_of_a_cluster(alike, effect):
    rows = [
        Row(f"{i}/{k}", (float((i if alike else k) % 2), 1.0), cluster=str(i))
        for i in range(10)
        for k in range(4)
    ]
    assert design_effect(cluster_sums(rows)) == effect


def test_agresti_min_interval_of_no_flips_has_the_known_width():
    base = cluster_sums([Row(str(i), (1.0, 1.0)) for i in range(50)])
    point = Intervals((0.0, 0.0), (0.0, 0.0), (0.0, 0.0), 0.0)
    wide = widen(point, (0, 0), base)
    # One half flip each way among 52 items: se = 1 / 52.
    assert wide.se == pytest.approx(1 / 52)
    assert wide.delta_95 == pytest.approx((-1.95996 / 52, 1.95996 / 52), abs=1e-6)


def test_repeats_without_any_noise_differ_or_do_not():
    two, three = (cluster_sums([Row(str(i), (v, 1.0)) for i in range(3)]) for v in (2.0, 3.0))
    assert independent(two, three)[1] == 0.0
    assert independent(two, two)[1] == 1.0


def test_pairing_takes_out_what_both_share():
    values = np.random.default_rng(0).normal(5, 3, 40)
    one = cluster_sums([Row(str(i), (v, 1.0)) for i, v in enumerate(values)])
    two = cluster_sums([Row(str(i), (v + 0.1 * (i % 2), 1.0)) for i, v in enumerate(values)])
    intervals = paired(one, two, seed=0)
    # The values spread by 3, their differences by 0.05.
    assert 0.02 < intervals.delta_95[0] < 0.05 < intervals.delta_95[1] < 0.08


def test_speed_of_noisy_repeats_stays_above_0():
    clusters = cluster_sums([Row("0", (64, 1.0)), Row("1", (64, 9.0))])
    low, high = around(clusters, seed=0, is_repeats=True)
    assert 0 < low < clusters.value < high
    # The same to both sides, as a factor.
    assert clusters.value / low == pytest.approx(high / clusters.value)
