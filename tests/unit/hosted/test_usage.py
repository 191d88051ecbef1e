"""A bill that is guessed is wrong: it counts what was told, at prices that were given."""

from typing import Any

import pytest

from lmwright.hosted.usage import Meter, Usage, tokens


def answer(n_in: Any, n_out: Any) -> dict[str, Any]:
    return {"usage": {"prompt_tokens": n_in, "completion_tokens": n_out}}


def test_cost_is_tokens_times_the_prices_that_were_given() -> None:
    meter = Meter((2.5, 10.0))
    meter.count(answer(1_000_000, 200_000))
    meter.count(answer(0, 100_000))
    meter.count_cached()
    assert meter.usage == Usage(2, 1, 1_000_000, 300_000, 0, 5.5)
    assert "2 requests sent and 1 answered from the cache" in str(meter.usage)
    assert str(meter.usage).endswith("cost 5.5000")


def test_without_prices_or_counts_the_cost_is_unknown_not_nothing() -> None:
    meter = Meter(None)
    meter.count(answer(5, 5))
    assert meter.usage.cost is None
    assert str(meter.usage).endswith("cost unknown")
    meter = Meter((1.0, 1.0))
    meter.count(answer(5, 5))
    assert meter.usage.cost == pytest.approx(1e-5)
    meter.count({})
    assert (meter.usage.cost, meter.usage.n_uncounted) == (None, 1)
    assert "1 answers without a count" in str(meter.usage)


def test_everything_from_the_cache_costs_nothing() -> None:
    meter = Meter((1.0, 1.0))
    meter.count_cached()
    assert meter.usage == Usage(n_cached=1, cost=0.0)


@pytest.mark.parametrize("told", [None, "5", {}, {"prompt_tokens": True}, {"prompt_tokens": -1},
                                  {"prompt_tokens": 1, "completion_tokens": 1.5}])  # fmt: skip
def test_a_count_that_is_none_is_not_believed(told: Any) -> None:
    assert tokens(told) is None


def test_an_embedding_takes_tokens_in_only() -> None:
    assert tokens({"prompt_tokens": 3, "total_tokens": 3}) == (3, 0)


def test_two_counts_add_up() -> None:
    first, second = Usage(1, 2, 3, 4, 5, 0.5), Usage(10, 20, 30, 40, 50, 1.0)
    assert first.plus(second) == Usage(11, 22, 33, 44, 55, 1.5)
    assert first.plus(Usage(1)).cost is None
    assert Usage(**first.to_json()) == first
