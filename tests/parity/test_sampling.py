"""The same settings must mean the same as everywhere else: transformers is the oracle."""

import numpy as np
import pytest
from scipy import stats

from lmwright.engine.request import Sampling
from lmwright.engine.sampler import choose, filtered, log_probabilities, penalise

torch = pytest.importorskip("torch")
process = pytest.importorskip("transformers.generation.logits_process")

N_TOKENS = 50
N_DRAWS = 10_000
SETTINGS = [
    {"temperature": 0.7},
    {"temperature": 1.0, "top_k": 7},
    {"temperature": 1.5, "top_p": 0.8},
    {"temperature": 1.0, "min_p": 0.2},
    {"temperature": 0.8, "top_k": 20, "top_p": 0.9, "min_p": 0.05},
    {"temperature": 1.0, "top_k": 5, "top_p": 0.3},
    {"temperature": 1.3, "repetition_penalty": 1.2, "top_p": 0.9},
    {"temperature": 1.0, "repetition_penalty": 0.5},
]


def oracle(logits: np.ndarray, seen: list[int], sampling: Sampling) -> np.ndarray:
    """Probabilities by the processors of transformers, in the order of its `generate`."""
    processors = [process.TemperatureLogitsWarper(sampling.temperature)]
    if sampling.repetition_penalty != 1.0:
        processors.insert(0, process.RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    if sampling.top_k:
        processors.append(process.TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1.0:
        processors.append(process.TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        processors.append(process.MinPLogitsWarper(sampling.min_p))
    scores = torch.from_numpy(logits)[None]
    scores = process.LogitsProcessorList(processors)(torch.tensor([seen]), scores)
    return scores[0].double().softmax(dim=0).numpy()


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_distribution_is_that_of_transformers(settings):
    sampling = Sampling(**settings)
    random = np.random.Generator(np.random.Philox(0))
    for _ in range(50):
        logits = random.normal(0, 2, N_TOKENS).astype(np.float32)
        seen = random.integers(0, N_TOKENS, 12).tolist()
        expected = oracle(logits, seen, sampling)
        found = np.exp(filtered(penalise(logits, seen, sampling.repetition_penalty), sampling))
        np.testing.assert_allclose(found / found.sum(), expected, rtol=1e-5)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_tokens_are_drawn_as_often_as_the_distribution_says(settings):
    sampling = Sampling(**settings)
    random = np.random.Generator(np.random.Philox(1))
    logits = random.normal(0, 2, N_TOKENS).astype(np.float32)
    seen = random.integers(0, N_TOKENS, 12).tolist()
    expected = oracle(logits, seen, sampling)
    penalised = penalise(logits, seen, sampling.repetition_penalty)
    counts = np.zeros(N_TOKENS)
    for _ in range(N_DRAWS):
        counts[choose(penalised, sampling, random)] += 1
    kept = expected > 0
    assert counts[~kept].sum() == 0
    # Those that come less than five times count together.
    rare = expected * N_DRAWS < 5
    groups = [(counts[i], expected[i]) for i in np.flatnonzero(kept & ~rare)]
    groups += [(counts[rare].sum(), expected[rare].sum())] * bool(expected[rare].sum() > 0)
    drawn, shares = np.array(groups).T
    if len(shares) > 1:
        assert stats.chisquare(drawn, shares * N_DRAWS / shares.sum()).pvalue > 1e-3


def test_log_probabilities_are_those_of_torch():
    logits = np.random.Generator(np.random.Philox(1)).normal(0, 5, 1000).astype(np.float32)
    expected = torch.from_numpy(logits).double().log_softmax(dim=0).numpy()
    np.testing.assert_allclose(log_probabilities(logits), expected, rtol=1e-12)
