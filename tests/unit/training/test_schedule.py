"""The rate at a step is promised by the recipe, and a resumed run must find the same one."""

import math

import pytest

from lmwright.training.optim import warmup_cosine


def test_it_rises_linearly_and_falls_as_a_cosine():
    found = [warmup_cosine(step, 10, 0.2) for step in range(10)]
    assert found[:3] == [0.5, 1.0, 1.0]
    assert found[6] == pytest.approx(0.5)  # half way down
    assert found[9] == pytest.approx(0.5 * (1 + math.cos(math.pi * 7 / 8)))
    assert found[2:] == sorted(found[2:], reverse=True)


def test_without_warmup_it_starts_at_the_top():
    assert warmup_cosine(0, 4, 0.0) == 1.0


@pytest.mark.parametrize("n_steps", [1, 2, 3, 50])
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.5, 0.99])
def test_every_step_has_a_rate_above_nought(n_steps, warmup):
    rates = [warmup_cosine(step, n_steps, warmup) for step in range(n_steps)]
    assert all(0 < rate <= 1 for rate in rates)
