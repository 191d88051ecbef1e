"""The numbers that verdicts hang on: checked against their definitions, and against bad input."""

import numpy as np
import pytest

from lmwright.verification.distributions import compare
from lmwright.verification.witness import Next


def complete(*logits: float) -> Next:
    return Next.complete(np.array(logits, dtype=np.float32))


def test_of_all_tokens_logits_are_compared() -> None:
    gap = compare(complete(1.0, 2.0, 5.0), complete(1.0, 2.5, 4.0))
    assert (gap.largest, gap.token_id, gap.scale) == (1.0, 2, 5.0)
    first, second = np.array([1.0, 2.0, 5.0]), np.array([1.0, 2.5, 4.0])
    first, second = first - first.mean(), second - second.mean()
    assert gap.squares == pytest.approx(first @ first)
    assert gap.squared_errors == pytest.approx((first - second) @ (first - second))


def test_the_divergence_is_that_of_its_definition() -> None:
    a, b = complete(1.0, 2.0, 5.0, -3.0), complete(0.0, 2.5, 4.0, 1.0)
    expected = float((np.exp(a.logprobs) * (a.logprobs - b.logprobs)).sum())
    assert compare(a, b).kl == pytest.approx(expected, abs=1e-8)
    assert compare(a, a).kl == pytest.approx(0.0, abs=1e-12)


def test_a_constant_added_to_all_logits_is_seen_but_costs_nothing() -> None:
    gap = compare(complete(1.0, 2.0, 5.0), complete(2.0, 3.0, 6.0))
    assert gap.largest == 1.0
    assert gap.kl == pytest.approx(0.0, abs=1e-12)
    assert gap.squared_errors == pytest.approx(0.0)


@pytest.mark.parametrize("is_first", [True, False])
def test_where_one_tells_less_its_tokens_are_compared(is_first: bool) -> None:
    whole = complete(1.0, 2.0, 5.0, 0.0)
    some = Next.likeliest([(2, whole.logprobs[2] - 0.25), (1, whole.logprobs[1] + 0.5)])
    gap = compare(some, whole) if is_first else compare(whole, some)
    assert gap.largest == pytest.approx(0.5)
    assert (gap.token_id, gap.scale) == (1, None)
    p = np.exp((some if is_first else whole).logprobs)
    assert gap.kl >= 0
    assert p.max() <= 1


def test_tokens_that_are_not_told_count_as_one() -> None:
    a = Next.likeliest([(0, np.log(0.5)), (1, np.log(0.3))])
    b = Next.likeliest([(0, np.log(0.4)), (1, np.log(0.3))])
    expected = 0.5 * np.log(0.5 / 0.4) + 0.2 * np.log(0.2 / 0.3)
    assert compare(a, b).kl == pytest.approx(expected)


def test_a_token_that_only_one_tells_is_as_unlikely_as_the_others_last() -> None:
    a = Next.likeliest([(0, -0.1), (1, -3.0)])
    b = Next.likeliest([(0, -0.1), (7, -1.0)])
    gap = compare(a, b)
    assert (gap.largest, gap.token_id) == (pytest.approx(2.0), 7)
    gapped = Next.likeliest([(0, -0.1), (1, -3.0)], is_gapless=False)
    assert compare(gapped, b).largest == 0.0


def test_padding_of_the_vocabulary_is_left_out() -> None:
    assert compare(complete(1.0, 2.0), complete(1.0, 2.0, -9.0)).largest == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_differs_without_bound(bad: float) -> None:
    gap = compare(complete(1.0, 2.0, 5.0), complete(1.0, bad, 5.0))
    assert (gap.largest, gap.token_id) == (np.inf, 1)


def test_a_token_ruled_out_by_both_is_the_same() -> None:
    a = complete(1.0, -np.inf, 5.0)
    gap = compare(a, a)
    assert gap.largest == 0.0
    assert gap.kl == pytest.approx(0.0, abs=1e-12)
