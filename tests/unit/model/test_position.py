"""A wrong frequency shows in no error message, only in a model that is a little stupid far out."""

import math

import pytest
import torch

from lmwright.core.errors import ModelError
from lmwright.model.config import Rope
from lmwright.model.position import inverse_frequencies, rotate, rotation


def test_frequencies_fall_from_one_to_almost_one_over_theta():
    found = inverse_frequencies(Rope(theta=10_000.0), 8)
    torch.testing.assert_close(found, torch.tensor([1.0, 0.1, 0.01, 0.001]))


def test_linear_scaling_divides_all_of_them():
    plain = inverse_frequencies(Rope(), 16)
    assert torch.equal(inverse_frequencies(Rope(scaling="linear", factor=4.0), 16), plain / 4)


def test_llama3_keeps_high_frequencies_divides_low_ones_and_passes_smoothly():
    rope = Rope(theta=500_000.0, scaling="llama3", factor=8.0, original_max_positions=8192)
    plain = inverse_frequencies(Rope(theta=500_000.0), 128)
    scaled = inverse_frequencies(rope, 128)
    turns = 8192 * plain / (2 * math.pi)
    assert torch.equal(scaled[turns > 4], plain[turns > 4])
    torch.testing.assert_close(scaled[turns < 1], plain[turns < 1] / 8)
    between = (plain / scaled)[(turns > 1) & (turns < 4)]
    assert len(between) > 3
    assert bool((between.diff() > 0).all())
    assert 1 < float(between[0]) < float(between[-1]) < 8


def test_scores_depend_on_distance_alone():
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 16, generator=generator)
    frequencies = inverse_frequencies(Rope(), 16)

    def score(i, j):
        turned = [
            rotate(x, *rotation(frequencies, torch.tensor([[at]]), torch.float32))
            for x, at in ((q, i), (k, j))
        ]
        return float((turned[0] * turned[1]).sum())

    assert score(7, 3) == pytest.approx(score(104, 100), abs=1e-4)
    assert abs(score(7, 3) - score(8, 3)) > 1e-2


def test_position_zero_turns_nothing():
    x = torch.randn(1, 2, 1, 8)
    cos, sin = rotation(inverse_frequencies(Rope(), 8), torch.tensor([[0]]), torch.float32)
    assert torch.equal(rotate(x, cos, sin), x)


def test_far_positions_are_exact_in_bf16_models():
    """Angles are made in fp32: bf16 cannot even tell position 1000 from 1001."""
    frequencies = inverse_frequencies(Rope(), 8)
    cos, _ = rotation(frequencies, torch.tensor([[1001]]), torch.bfloat16)
    assert cos[0, 0, 0, 0] == torch.tensor(math.cos(1001)).bfloat16()


@pytest.mark.parametrize("fault", [{"theta": 0.0}, {"theta": math.nan}, {"factor": -1.0},
                                   {"low_freq_factor": 4.0}])  # fmt: skip
def test_settings_without_meaning_are_refused(fault):
    with pytest.raises(ModelError, match=next(iter(fault))):
        Rope(**fault)
