"""Sums over prompts are what a verdict is made from: a place counted wrongly hides a fault."""

from types import SimpleNamespace

import pytest

from lmwright.verification.tally import Tally, count
from lmwright.verification.witness import END, Drift, Next, Trace

A: object = SimpleNamespace(tokenizer=SimpleNamespace(eos_ids=(9,)))


def said(*pairs: tuple[int, float]) -> Next:
    return Next.likeliest(pairs)


def traced(first: Trace, second: Trace) -> Tally:
    tally = Tally()
    count(tally, first, second, prompt=3, a=A)  # type: ignore[arg-type]
    return tally


def trace(
    choices: tuple[int | None, ...], *nexts: Next | None, drift: Drift | None = None
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
