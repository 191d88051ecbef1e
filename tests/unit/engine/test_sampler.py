"""A filter that keeps one token too many lets a model say what it should not."""

import numpy as np
import pytest

from lmwright.engine.request import Sampling
from lmwright.engine.sampler import choose, log_probabilities, penalise, random_numbers

# Probabilities 0.4, 0.3, 0.2, 0.1 in an order that is not sorted.
PROBABILITIES = np.array([0.2, 0.4, 0.1, 0.3])
LOGITS = np.log(PROBABILITIES).astype(np.float32) + 5


def drawn(n: int = 4000, **settings) -> np.ndarray:
    """The share of each token among n choices."""
    sampling = Sampling(**{"temperature": 1.0, **settings})
    random = random_numbers(sampling.seed)
    counts = np.bincount([choose(LOGITS, sampling, random) for _ in range(n)], minlength=4)
    return counts / n


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.2, 0.4, 0.1, 0.3]),
        ({"temperature": 0.5}, [4 / 30, 16 / 30, 1 / 30, 9 / 30]),
        ({"top_k": 2}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_k": 1}, [0, 1, 0, 0]),
        ({"top_k": 99}, [0.2, 0.4, 0.1, 0.3]),
        ({"top_p": 0.65}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_p": 0.75}, [2 / 9, 4 / 9, 0, 3 / 9]),
        ({"top_p": 1e-9}, [0, 1, 0, 0]),
        ({"min_p": 0.45}, [2 / 9, 4 / 9, 0, 3 / 9]),
        ({"min_p": 1.0}, [0, 1, 0, 0]),
        # After top-k, 4/7 alone reaches 0.5.
        ({"top_k": 2, "top_p": 0.5}, [0, 1, 0, 0]),
        ({"temperature": 5e-324}, [0, 1, 0, 0]),
        ({"temperature": 100.0}, [0.25, 0.25, 0.25, 0.25]),
    ],
)
def test_tokens_come_as_often_as_the_filtered_distribution_says(settings, expected):
    shares = drawn(**settings)
    for share, probability in zip(shares, expected, strict=True):
        # Five standard deviations; what is filtered out never comes.
        margin = 5 * np.sqrt(probability * (1 - probability) / 4000)
        assert abs(share - probability) <= margin + 0.01 * (0 < probability < 1)


@pytest.mark.parametrize("settings", [{}, {"top_k": 40}, {"top_p": 0.9}, {"min_p": 0.01}], ids=str)
def test_a_choice_does_not_hang_on_the_last_bits_of_the_logits(settings):
    # Pairs of neighbours in probability, 1e-6 apart, which rounding puts in either order.
    sampling = Sampling(temperature=1.0, **settings)
    base = np.repeat(np.linspace(0, 4, 200), 2)
    noise = np.random.Generator(np.random.Philox(2))
    rows = [(base + noise.normal(0, 1e-6, len(base))).astype(np.float32) for _ in range(2)]
    assert (np.argsort(-rows[0]) != np.argsort(-rows[1])).sum() > 100
    for seed in range(500):
        first, second = (choose(row, sampling, random_numbers(seed)) for row in rows)
        assert first == second


def test_greedy_takes_the_first_of_equals():
    logits = np.array([1.0, 3.0, 3.0], dtype=np.float32)
    assert choose(logits, Sampling(), random_numbers(0)) == 1


def test_random_numbers_depend_on_the_seed_alone():
    assert random_numbers(7).random() == random_numbers(7).random()
    assert random_numbers(7).random() != random_numbers(8).random()
    assert random_numbers(2**64 - 1).random() != random_numbers(0).random()


def test_seen_tokens_are_penalised_once_whatever_their_sign():
    logits = np.array([2.0, -2.0, 1.0], dtype=np.float32)
    assert penalise(logits, [0, 1, 0, 0], 2.0).tolist() == [1.0, -4.0, 1.0]
    assert penalise(logits, [], 2.0).tolist() == logits.tolist()
    assert logits.tolist() == [2.0, -2.0, 1.0]


def test_log_probabilities_of_large_logits_are_finite():
    logprobs = log_probabilities(np.array([1e4, 1e4 - 1, -1e4], dtype=np.float32))
    assert np.isfinite(logprobs).all()
    np.testing.assert_allclose(np.exp(logprobs).sum(), 1, rtol=1e-12)
    np.testing.assert_allclose(logprobs[0] - logprobs[1], 1, rtol=1e-12)
