"""A norm in the wrong place trains, and is another model than the checkpoint's."""

from dataclasses import replace

import pytest
import torch

from lmwright.model.block import Residual
from lmwright.model.norm import HeadNorm, LayerNorm, RMSNorm


@pytest.mark.parametrize("places", [("in",), ("out",), ("sum",), ("in", "out"), ()])
def test_each_norm_stands_where_the_configuration_says(tiny_config, places):
    residual = Residual(replace(tiny_config, norm_places=places))
    x = torch.randn(3, tiny_config.d_model)

    def rms(x, place):
        return torch.nn.functional.rms_norm(x, x.shape[-1:], eps=1e-5) if place in places else x

    expected = rms(x + rms(2 * rms(x, "in") + 1, "out"), "sum")
    torch.testing.assert_close(residual(x, lambda x: 2 * x + 1), expected)
    assert len(list(residual.parameters())) == len(places)


def test_an_offset_is_added_to_the_weight_before_it_multiplies():
    norm = RMSNorm(8, 1e-6, offset=1.0)
    assert not norm.weight.any()
    norm.weight.data.uniform_(-0.5, 0.5)
    x = torch.randn(4, 8)
    expected = torch.nn.functional.rms_norm(x, (8,), norm.weight + 1, 1e-6)
    torch.testing.assert_close(norm(x), expected)


def test_an_offset_norm_in_bf16_rounds_once():
    norm = RMSNorm(8, 1e-6, offset=1.0)
    norm.weight.data.uniform_(-0.5, 0.5)
    x = torch.randn(64, 8).bfloat16()
    expected = torch.nn.functional.rms_norm(x.float(), (8,), norm.weight + 1, 1e-6)
    assert torch.equal(norm(x), expected.bfloat16())


def test_the_gradient_of_an_offset_norm_is_autograds():
    norm = RMSNorm(8, 1e-6, offset=1.0)
    norm.weight.data.uniform_(-0.5, 0.5)
    x = torch.randn(4, 8, requires_grad=True)
    wish = torch.randn(4, 8)
    plain = torch.nn.functional.rms_norm(x, (8,), norm.weight + 1, 1e-6)
    expected = torch.autograd.grad((plain * wish).sum(), (x, norm.weight))
    found = torch.autograd.grad((norm(x) * wish).sum(), (x, norm.weight))
    torch.testing.assert_close(found, expected)


def test_a_head_norm_norms_each_head_by_itself():
    norm = HeadNorm(4, 1e-6)
    norm.weight.data.uniform_(0.5, 1.5)
    x = torch.randn(2, 3, 12)
    heads = torch.nn.functional.rms_norm(x.view(2, 3, 3, 4), (4,), norm.weight, 1e-6)
    torch.testing.assert_close(norm(x), heads.flatten(-2))


def test_a_layer_norm_with_wide_weights_computes_in_the_format_of_its_input():
    norm = LayerNorm(8, 1e-5)
    x = torch.randn(2, 8).bfloat16()
    assert norm(x).dtype == torch.bfloat16
    assert norm.weight.dtype == torch.float32
