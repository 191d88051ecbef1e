"""The gradient of the norm is written by hand, so it is checked against the one torch derives."""

import pytest
import torch

from lmwright.model.norm import RMSNorm


def plain(x, weight, eps):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def norm_of(d, *, eps=1e-5, dtype=torch.float32):
    norm = RMSNorm(d, eps).to(dtype)
    norm.weight.data.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(0))
    return norm


@pytest.mark.parametrize("shape", [(5, 16), (2, 3, 16), (1, 1, 16)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_value_and_gradients_are_those_of_autograd(shape, scale):
    norm = norm_of(16)
    generator = torch.Generator().manual_seed(1)
    x = (torch.randn(shape, generator=generator) * scale).requires_grad_()
    upstream = torch.randn(shape, generator=generator)
    found = norm(x)
    dx, dw = torch.autograd.grad(found, (x, norm.weight), upstream)
    # The oracle in fp64, where its own rounding does not count.
    x64, w64 = (t.detach().double().requires_grad_() for t in (x, norm.weight))
    expected = plain(x64, w64, norm.eps)
    dx64, dw64 = torch.autograd.grad(expected, (x64, w64), upstream.double())
    for a, b in ((found.detach(), expected.detach()), (dx, dx64), (dw, dw64)):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-6 * float(b.abs().max()))


def test_the_gradient_that_comes_in_is_left_as_it_was():
    """Others may still need it: autograd hands the same tensor to both sides of a sum."""
    norm = norm_of(8)
    x = torch.randn(3, 8, requires_grad=True)
    upstream = torch.randn(3, 8)
    before = upstream.clone()
    norm(x).backward(upstream)
    assert torch.equal(upstream, before)


def test_gradcheck():
    norm = norm_of(6, dtype=torch.float64)
    x = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    # The norm computes in fp32 whatever it is given: differences smaller than this are rounding.
    assert torch.autograd.gradcheck(norm, x.requires_grad_(), eps=1e-2, atol=2e-3)


def test_a_frozen_weight_gets_no_gradient_and_the_input_still_does():
    norm = norm_of(8).requires_grad_(False)
    x = torch.randn(3, 8, requires_grad=True)
    norm(x).sum().backward()
    assert norm.weight.grad is None
    assert x.grad is not None


def test_bf16_activations_keep_fp32_sums_and_master_gradients():
    norm = norm_of(512)
    x = torch.randn(4, 512, generator=torch.Generator().manual_seed(0))
    x16 = x.bfloat16().requires_grad_()
    found = norm(x16)
    found.float().square().sum().backward()
    assert (found.dtype, x16.grad.dtype, norm.weight.grad.dtype) == (
        torch.bfloat16, torch.bfloat16, torch.float32,
    )  # fmt: skip
    expected = plain(x16.detach().float(), norm.weight.detach(), norm.eps)
    # Three roundings to 8 bits: of the normed value, of the weight and of their product.
    torch.testing.assert_close(found.detach().float(), expected, rtol=3 * 2**-8, atol=0)
