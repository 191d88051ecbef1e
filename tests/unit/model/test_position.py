"""A wrong frequency shows in no error message, only in a model that is a little stupid far out."""

import math

import pytest
import torch

from lmwright.core.errors import ModelError
from lmwright.model.config import Rope
from lmwright.model.position import (
    RelativeBias,
    Rotation,
    SinusoidalPositions,
    inverse_frequencies,
    rotate,
    rotate_part,
)


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
    rotation = Rotation(Rope(), 16)

    def score(i, j):
        turned = [
            rotate(x, *rotation(torch.tensor([[at]]), torch.float32)) for x, at in ((q, i), (k, j))
        ]
        return float((turned[0] * turned[1]).sum())

    assert score(7, 3) == pytest.approx(score(104, 100), abs=1e-4)
    assert abs(score(7, 3) - score(8, 3)) > 1e-2


def test_position_zero_turns_nothing():
    x = torch.randn(1, 2, 1, 8)
    cos, sin = Rotation(Rope(), 8)(torch.tensor([[0]]), torch.float32)
    assert torch.equal(rotate(x, cos, sin), x)


def test_far_positions_are_exact_in_bf16_models():
    """Angles are made in fp32: bf16 cannot even tell position 1000 from 1001."""
    cos, _ = Rotation(Rope(), 8)(torch.tensor([[1001]]), torch.bfloat16)
    assert cos[0, 0, 0, 0] == torch.tensor(math.cos(1001)).bfloat16()


def test_dynamic_scaling_begins_behind_the_original_context():
    rope = Rope(scaling="dynamic", factor=2.0, original_max_positions=64)
    assert torch.equal(inverse_frequencies(rope, 16, 64), inverse_frequencies(Rope(), 16))
    # bloc97's formula: base * (factor * n / original - (factor - 1)) ** (d / (d - 2))
    expected = inverse_frequencies(Rope(theta=10_000 * 3 ** (16 / 14)), 16)
    torch.testing.assert_close(inverse_frequencies(rope, 16, 128), expected)
    rotation = Rotation(rope, 16)
    short = rotation(torch.tensor([[5]]), torch.float32)
    rotation(torch.tensor([[100]]), torch.float32)
    assert torch.equal(rotation(torch.tensor([[5]]), torch.float32)[0], short[0])


def test_yarn_keeps_fast_channels_divides_slow_ones_and_sharpens():
    rope = Rope(scaling="yarn", factor=4.0, original_max_positions=4096, attention_factor=1.2)
    ratio = inverse_frequencies(Rope(), 64) / inverse_frequencies(rope, 64)
    assert float(ratio[0]) == 1
    assert float(ratio[-1]) == pytest.approx(4)
    assert bool((ratio.diff() >= 0).all())
    cos, _ = Rotation(rope, 64)(torch.tensor([[0]]), torch.float32)
    torch.testing.assert_close(cos, torch.full_like(cos, 1.2))


def test_longrope_changes_its_factors_behind_the_original_context():
    rope = Rope(scaling="longrope", original_max_positions=8, short_factors=(1.0, 2.0),
                long_factors=(3.0, 4.0))  # fmt: skip
    plain = inverse_frequencies(Rope(), 4)
    torch.testing.assert_close(inverse_frequencies(rope, 4, 8), plain / torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(inverse_frequencies(rope, 4, 9), plain / torch.tensor([3.0, 4.0]))


def test_a_partial_rotation_leaves_the_rest_as_it_is():
    x = torch.randn(1, 2, 1, 8)
    cos, sin = Rotation(Rope(fraction=0.5), 8)(torch.tensor([[3]]), torch.float32)
    turned = rotate_part(x, cos, sin)
    assert torch.equal(turned[..., 4:], x[..., 4:])
    assert torch.equal(turned[..., :4], rotate(x[..., :4], cos, sin))


def test_sinusoids_are_those_of_the_paper(tiny_config):
    found = SinusoidalPositions(tiny_config)(torch.tensor([[0, 7]]))[0]
    for i in range(tiny_config.d_model // 2):
        angle = 7 / 10_000 ** (2 * i / tiny_config.d_model)
        assert float(found[1, i]) == pytest.approx(math.sin(angle), abs=1e-6)
        half = tiny_config.d_model // 2
        assert float(found[1, half + i]) == pytest.approx(math.cos(angle), abs=1e-6)
    assert found[0].tolist() == [0.0] * half + [1.0] * half


@pytest.mark.parametrize("is_causal", [True, False])
def test_near_distances_have_a_bucket_each_and_far_ones_share(tiny_config, is_causal):
    bias = RelativeBias(tiny_config, is_causal=is_causal)
    back = bias.buckets(-torch.arange(300)).tolist()
    n_exact = 16 if is_causal else 8
    assert back[:n_exact] == list(range(n_exact))
    assert back == sorted(back)
    assert set(back[128:]) == {31 if is_causal else 15}
    ahead = bias.buckets(torch.arange(1, 300)).tolist()
    assert set(ahead) == {0} if is_causal else ahead == [16 + b for b in back[1:]]


@pytest.mark.parametrize("fault", [{"theta": 0.0}, {"theta": math.nan}, {"factor": -1.0},
                                   {"low_freq_factor": 4.0}])  # fmt: skip
def test_settings_without_meaning_are_refused(fault):
    with pytest.raises(ModelError, match=next(iter(fault))):
        Rope(**fault)
