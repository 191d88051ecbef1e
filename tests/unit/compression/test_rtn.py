"""Each number must become its nearest step, and nothing else may change."""

import pytest
import torch

from lmwright.compression.rtn import quantize_groups
from lmwright.formats.packed import dequantize


def random_weight(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bits", [4, 8])
def test_every_value_is_rounded_to_its_nearest_step(bits):
    weight = random_weight(20, 64)
    ints, scales = quantize_groups(weight, bits=bits, group_size=16)
    assert (ints.dtype, ints.shape) == (torch.int8, (20, 64))
    assert (scales.dtype, scales.shape) == (torch.bfloat16, (20, 4))
    step = scales.float().repeat_interleave(16, dim=1)
    clipped = (weight / step).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    assert torch.equal(ints.float(), clipped.round())


def test_int8_keeps_the_largest_value_and_is_symmetric():
    weight = random_weight(50, 32)
    ints, scales = quantize_groups(weight, bits=8, group_size=32)
    largest = weight.abs().amax(1)
    assert torch.equal(scales[:, 0], (largest / 127).bfloat16())
    mirrored, same_scales = quantize_groups(-weight, bits=8, group_size=32)
    assert torch.equal(mirrored, -ints)
    assert torch.equal(same_scales, scales)
    assert int(ints.abs().amax()) == 127


def test_int4_clips_an_outlier_where_that_lowers_the_error():
    weight = random_weight(200, 64, seed=5)
    ints, scales = quantize_groups(weight, bits=4, group_size=64)
    error = (dequantize(ints, scales) - weight).square().sum(1)
    plain = (weight.abs().amax(1, keepdim=True) / 7).bfloat16()
    unclipped = (weight / plain.float()).round().clamp(-8, 7)
    plain_error = (unclipped * plain.float() - weight).square().sum(1)
    assert bool((error <= plain_error).all())
    assert float(error.sum()) < 0.8 * float(plain_error.sum())


def test_blocks_of_rows_do_not_change_the_result():
    # More numbers than are rounded at a time, and not a multiple of it.
    weight = random_weight(300, 1024, seed=3)
    ints, scales = quantize_groups(weight, bits=4, group_size=64)
    for rows in (slice(0, 1), slice(127, 131), slice(299, 300)):
        some_ints, some_scales = quantize_groups(weight[rows], bits=4, group_size=64)
        assert torch.equal(some_ints, ints[rows])
        assert torch.equal(some_scales, scales[rows])


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_groups_of_zeros_stay_zero_with_a_usable_scale(bits, dtype):
    weight = torch.zeros(2, 32, dtype=dtype)
    weight[0, 0] = torch.finfo(dtype).tiny / 4  # below the smallest scale
    ints, scales = quantize_groups(weight, bits=bits, group_size=16)
    assert bool((scales > 0).all())
    assert scales.dtype == (torch.float16 if dtype == torch.float16 else torch.bfloat16)
    assert not ints.any()


def test_a_value_that_a_step_hits_exactly_comes_back_exactly():
    steps = torch.arange(-7, 8).float().repeat(2, 1)
    weight = torch.nn.functional.pad(steps, (0, 1)) * torch.tensor([[0.5], [0.25]])
    ints, scales = quantize_groups(weight, bits=4, group_size=16)
    assert torch.equal(dequantize(ints, scales), weight)
