"""The gradient of the gate is written by hand, so it is checked against the one torch derives."""

import torch
import torch.nn.functional as F

from lmwright.model.mlp import GatedMLP


def test_value_and_gradients_are_those_of_autograd(tiny_config):
    mlp = GatedMLP(tiny_config).double()
    generator = torch.Generator().manual_seed(0)
    for weight in mlp.parameters():
        weight.data.normal_(generator=generator)
    x = torch.randn(5, tiny_config.d_model, dtype=torch.float64, generator=generator)
    x.requires_grad_()

    def plain(x):
        return mlp.down(F.silu(mlp.gate(x)) * mlp.up(x))

    found, expected = mlp(x), plain(x)
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(found)
    inputs = [x, *mlp.parameters()]
    for a, b in zip(
        torch.autograd.grad(found, inputs, upstream),
        torch.autograd.grad(expected, inputs, upstream),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
