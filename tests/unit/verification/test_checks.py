"""Each figure must be held against its own limit, and what was not told must be said."""

import sys
from types import SimpleNamespace

import pytest

from lmwright.verification.bounds import BY_NAME, EXACT, Bound
from lmwright.verification.checks import behaviour_checks, untold
from lmwright.verification.tally import Tally
from lmwright.verification.witness import Drift

A = SimpleNamespace(name="a", engine="lmwright", weights="int4")
B = SimpleNamespace(name="b", engine="server", weights="fp32")


def tally(**changes: object) -> Tally:
    values: dict = {
        "n_positions": 10, "n_chosen": 10, "n_same": 9, "n_prompts": 2, "n_same_prompts": 1,
        "kl": 0.2, "squares": 100.0, "squared_errors": 1.0, "scale": 30.0,
        "largest": (0.3, 0, 1, 5), "drifts": [Drift(1e-5, 30.0), None], "worst_loss": 0.1,
    }  # fmt: skip
    return Tally(**{**values, **changes})


def failed(bound: Bound, **changes: object) -> list[str]:
    checks = behaviour_checks(A, B, tally(**changes), bound)  # type: ignore[arg-type]
    return [check.name for check in checks if check.is_passed is False]


def test_each_figure_has_its_limit() -> None:
    bound = BY_NAME["8 bits"]
    assert failed(bound) == []
    assert failed(bound, squared_errors=7.0) == ["relative error of logits"]
    assert failed(bound, kl=0.6) == ["mean divergence, nats a token"]
    assert failed(bound, n_same=7) == ["the same choice"]
    assert failed(bound, drifts=[Drift(1e-2, 30.0), None]) == ["cached decoding of a"]
    assert failed(bound, n_unfaithful=1) == ["greedy tokens"]
    assert failed(EXACT) == ["largest difference of logits"]
    assert failed(EXACT, largest=(3e-4, 0, 1, 5)) == []
    assert failed(EXACT, largest=(3e-4, 0, 1, 5), scale=None) == [
        "largest difference of log-probabilities"
    ]


@pytest.mark.parametrize("field", ["kl", "squared_errors"])
def test_what_is_no_number_passes_no_limit(field: str) -> None:
    assert failed(BY_NAME["2 bits"], **{field: float("nan")})
    assert failed(Bound("x", largest=sys.float_info.max), largest=(float("inf"), 0, 1, 5))


def test_nothing_in_common_is_a_failure() -> None:
    [check] = behaviour_checks(A, B, Tally(), EXACT)  # type: ignore[arg-type]
    assert check.is_passed is False


def test_an_original_of_fewer_bits_gets_advice_when_it_fails() -> None:
    checks = behaviour_checks(A, B, tally(), EXACT)  # type: ignore[arg-type]
    assert "name the original first" in checks[-1].found
    checks = behaviour_checks(A, B, tally(), BY_NAME["8 bits"])  # type: ignore[arg-type]
    assert all(check.name != "order" for check in checks)


def test_what_was_not_told_is_said() -> None:
    told = list(untold(A, B, tally(n_untold=3, n_empty=1, scale=None)))  # type: ignore[arg-type]
    assert told == [
        "3 of 13 next tokens: one of the two does not tell about them",
        "1 prompts: a says nothing after them",
        "all but the 20 likeliest tokens: b tells no more",
    ]
    assert list(untold(A, B, tally())) == []  # type: ignore[arg-type]
