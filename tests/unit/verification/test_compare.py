"""Sums over prompts are what a result is made from: a place counted wrongly hides a fault."""

from types import SimpleNamespace

import numpy as np
import pytest

from lmwright.verification.compare import Tally, count, diverge
from lmwright.verification.subject import END, Drift, NextToken, Trace

A: object = SimpleNamespace(tokenizer=SimpleNamespace(eos_ids=(9,)))


def said(*pairs: tuple[int, float]) -> NextToken:
    return NextToken.likeliest(pairs)


def traced(first: Trace, second: Trace) -> Tally:
    tally = Tally()
    count(tally, first, second, prompt=3, a=A)  # type: ignore[arg-type]
    return tally


def trace(
    choices: tuple[int | None, ...], *nexts: NextToken | None, drift: Drift | None = None
) -> Trace:
    return Trace(tuple(choice or 0 for choice in choices), choices, nexts, drift)


def test_the_largest_difference_keeps_its_place() -> None:
    first = trace((1, 1, 1), *[said((1, -0.1), (2, -3.0))] * 3)
    second = trace((1, 1, 1), said((1, -0.1), (2, -3.1)), said((1, -0.4), (2, -3.0)), None)
    tally = traced(first, second)
    assert tally.largest == (pytest.approx(0.3), 3, 1, 1)
    assert (tally.n_positions, tally.n_untold) == (2, 1)
    assert (tally.n_same, tally.n_chosen, tally.n_same_prompts) == (3, 3, 1)


def test_another_choice_costs_what_the_first_one_says() -> None:
    tally = traced(trace((1,), said((1, -0.5), (2, -0.8))), trace((2,), said((1, -0.9), (2, -0.6))))
    assert tally.worst_loss == pytest.approx(0.3)
    assert (tally.n_same, tally.n_same_prompts, tally.n_unfaithful) == (0, 0, 0)


def test_a_choice_that_is_not_the_choosers_likeliest_is_counted() -> None:
    # A server that punishes repetition, or draws, does not do what was asked.
    tally = traced(trace((1,), said((1, -0.5), (2, -0.8))), trace((2,), said((1, -0.5), (2, -0.8))))
    assert tally.n_unfaithful == 1
    assert tally.worst_unfaithful == pytest.approx(0.3)


@pytest.mark.parametrize(("choice", "n_same"), [(9, 1), (1, 0)])
def test_an_end_that_is_not_named_is_an_end(choice: int, n_same: int) -> None:
    opinion = said((choice, -0.1), (5, -4.0))
    tally = traced(trace((choice,), opinion), trace((END,), None))
    assert (tally.n_same, tally.n_chosen) == (n_same, 1)


def test_drifts_are_the_largest_of_all_prompts() -> None:
    tally = Tally()
    for drift in (Drift(0.1, 5.0), Drift(0.3, 2.0)):
        first = trace((1,), said((1, -0.1)), drift=drift)
        count(tally, first, trace((1,), said((1, -0.1))), prompt=0, a=A)  # type: ignore[arg-type]
    assert tally.drifts == [Drift(0.3, 5.0), None]


def test_nothing_compared_gives_no_numbers() -> None:
    assert Tally().numbers() == {}
    assert Tally().agreement == 0.0


def complete(*logits: float) -> NextToken:
    return NextToken.complete(np.array(logits, dtype=np.float32))


def test_of_all_tokens_logits_are_compared() -> None:
    gap = diverge(complete(1.0, 2.0, 5.0), complete(1.0, 2.5, 4.0))
    assert (gap.largest, gap.token_id, gap.scale) == (1.0, 2, 5.0)
    first, second = np.array([1.0, 2.0, 5.0]), np.array([1.0, 2.5, 4.0])
    first, second = first - first.mean(), second - second.mean()
    assert gap.squares == pytest.approx(first @ first)
    assert gap.squared_errors == pytest.approx((first - second) @ (first - second))


def test_the_divergence_is_that_of_its_definition() -> None:
    a, b = complete(1.0, 2.0, 5.0, -3.0), complete(0.0, 2.5, 4.0, 1.0)
    expected = float((np.exp(a.logprobs) * (a.logprobs - b.logprobs)).sum())
    assert diverge(a, b).kl == pytest.approx(expected, abs=1e-8)
    assert diverge(a, a).kl == pytest.approx(0.0, abs=1e-12)


def test_a_constant_added_to_all_logits_is_seen_but_costs_nothing() -> None:
    gap = diverge(complete(1.0, 2.0, 5.0), complete(2.0, 3.0, 6.0))
    assert gap.largest == 1.0
    assert gap.kl == pytest.approx(0.0, abs=1e-12)
    assert gap.squared_errors == pytest.approx(0.0)


@pytest.mark.parametrize("is_first", [True, False])
def test_where_one_tells_less_its_tokens_are_compared(is_first: bool) -> None:
    whole = complete(1.0, 2.0, 5.0, 0.0)
    some = NextToken.likeliest([(2, whole.logprobs[2] - 0.25), (1, whole.logprobs[1] + 0.5)])
    gap = diverge(some, whole) if is_first else diverge(whole, some)
    assert gap.largest == pytest.approx(0.5)
    assert (gap.token_id, gap.scale) == (1, None)
    p = np.exp((some if is_first else whole).logprobs)
    assert gap.kl >= 0
    assert p.max() <= 1


def test_tokens_that_are_not_told_count_as_one() -> None:
    a = NextToken.likeliest([(0, np.log(0.5)), (1, np.log(0.3))])
    b = NextToken.likeliest([(0, np.log(0.4)), (1, np.log(0.3))])
    expected = 0.5 * np.log(0.5 / 0.4) + 0.2 * np.log(0.2 / 0.3)
    assert diverge(a, b).kl == pytest.approx(expected)


def test_a_token_that_only_one_tells_is_as_unlikely_as_the_others_last() -> None:
    a = NextToken.likeliest([(0, -0.1), (1, -3.0)])
    b = NextToken.likeliest([(0, -0.1), (7, -1.0)])
    gap = diverge(a, b)
    assert (gap.largest, gap.token_id) == (pytest.approx(2.0), 7)
    gapped = NextToken.likeliest([(0, -0.1), (1, -3.0)], is_gapless=False)
    assert diverge(gapped, b).largest == 0.0


def test_padding_of_the_vocabulary_is_left_out() -> None:
    assert diverge(complete(1.0, 2.0), complete(1.0, 2.0, -9.0)).largest == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_differs_without_bound(bad: float) -> None:
    gap = diverge(complete(1.0, 2.0, 5.0), complete(1.0, bad, 5.0))
    assert (gap.largest, gap.token_id) == (np.inf, 1)


def test_a_token_ruled_out_by_both_is_the_same() -> None:
    a = complete(1.0, -np.inf, 5.0)
    gap = diverge(a, a)
    assert gap.largest == 0.0
    assert gap.kl == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(("lost", "n_unfaithful"), [(1.3, 0), (1.5, 1)])
def test_an_account_asked_for_again_may_move_by_the_subjects_own_noise(
    lost: float, n_unfaithful: int
) -> None:
    told = NextToken.likeliest([(1, -0.1), (2, -0.1 - lost)], is_asked_again=True)
    tally = Tally()
    first, second = trace((1,), said((1, -0.1))), trace((2,), told)
    count(tally, first, second, prompt=0, a=A, noises=(0.0, 0.7))  # type: ignore[arg-type]
    assert tally.n_unfaithful == n_unfaithful


def test_an_account_of_the_choice_itself_has_no_noise() -> None:
    told = said((1, -0.1), (2, -0.11))
    tally = Tally()
    first, second = trace((1,), said((1, -0.1))), trace((2,), told)
    count(tally, first, second, prompt=0, a=A, noises=(0.0, 0.7))  # type: ignore[arg-type]
    assert tally.n_unfaithful == 1


def test_log_probabilities_that_are_no_numbers_differ_without_bound() -> None:
    nothing = NextToken.likeliest([(0, float("nan")), (1, float("nan"))])
    found = diverge(complete(1.0, 2.0, 5.0), nothing)
    assert (found.largest, found.kl) == (np.inf, np.inf)
    tally = traced(trace((1,), complete(1.0, 2.0, 5.0)), trace((0,), nothing))
    assert tally.n_positions == 1
