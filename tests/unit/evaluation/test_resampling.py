"""Draws of clusters must be fair and repeatable, or every interval is wrong."""

import numpy as np
import pytest

from lmwright.core.results import Row
from lmwright.evaluation.resampling import (
    N_RESAMPLES,
    bootstrap,
    cluster_sums,
    sign_flip_p,
    standard_error,
)


def test_clusters_are_summed_in_their_order():
    rows = [Row("a", (1, 2), "x"), Row("b", (3, 4)), Row("c", (5, 6), "x")]
    clusters = cluster_sums(rows)
    assert clusters.sums.tolist() == [[6, 8], [3, 4]]
    assert (clusters.n, clusters.n_items, clusters.largest) == (2, 3, 2)
    assert clusters.value == 9 / 12


def test_draws_repeat_and_are_shared_by_models_of_the_same_items():
    rng = np.random.default_rng(0)
    first = cluster_sums([Row(str(i), (v, 1.0)) for i, v in enumerate(rng.normal(size=20))])
    shifted = cluster_sums([Row(str(i), (v + 1, 1.0)) for i, v in enumerate(first.sums[:, 0])])
    draws = bootstrap(first, 0)
    assert draws.shape == (N_RESAMPLES,)
    # The same clusters are drawn for both, so the shift is the same in every draw.
    assert bootstrap(shifted, 0) - draws == pytest.approx(1)
    assert draws.std() == pytest.approx(first.sums[:, 0].std() / 20**0.5, rel=0.05)


def test_standard_error_of_a_mean_is_the_textbooks():
    values = np.array([1.0, 4.0, 4.0, 9.0])
    clusters = cluster_sums([Row(str(i), (v, 1.0)) for i, v in enumerate(values)])
    assert standard_error(clusters.influence) == pytest.approx(values.std(ddof=1) / 2)
    with pytest.raises(ValueError, match="at least 2"):
        standard_error(np.zeros(1))


def test_swapping_labels_is_symmetric_and_all_alike_gives_1():
    rng = np.random.default_rng(1)
    for n in (8, 40):
        one = cluster_sums([Row(str(i), (v, 1.0)) for i, v in enumerate(rng.normal(size=n))])
        two = cluster_sums([Row(str(i), (v, 1.0)) for i, v in enumerate(rng.normal(size=n))])
        assert sign_flip_p(one, one, 0) == 1.0
        assert sign_flip_p(one, two, 0) == pytest.approx(sign_flip_p(two, one, 0), abs=0.03)


def test_exact_p_of_five_items_that_all_fell_is_2_of_32():
    one = cluster_sums([Row(str(i), (1.0 + i, 1.0)) for i in range(5)])
    two = cluster_sums([Row(str(i), (0.5, 1.0)) for i in range(5)])
    assert sign_flip_p(one, two, 0) == 2 / 32
