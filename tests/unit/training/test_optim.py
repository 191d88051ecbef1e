"""The optimiser's step is what a paper says, and its state must survive being put on disk."""

import torch
from torch import nn

from lmwright.training.optim import adamw, moments, set_moments


def module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))


def step(model, optimizer, lr, seed):
    for group in optimizer.param_groups:
        group["lr"] = lr
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()


def by_hand(weight, gradients, rates, decay):
    """Algorithm 2 of Loshchilov & Hutter (2019), in fp64."""
    w, m, v = weight.double(), 0.0, 0.0
    for t, (g, lr) in enumerate(zip(gradients, rates, strict=True), start=1):
        m = 0.9 * m + 0.1 * g.double()
        v = 0.999 * v + 0.001 * g.double() ** 2
        update = (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
        w = w - lr * decay * w - lr * update
    return w


def test_steps_are_those_of_the_paper_and_only_matrices_decay():
    model, rates = module(), [0.1, 0.05, 0.01]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer, gradients = adamw(model, 0.3), {name: [] for name in before}
    for seed, lr in enumerate(rates):
        step(model, optimizer, lr, seed)
        for name, parameter in model.named_parameters():
            gradients[name].append(parameter.grad.clone())
    for name, parameter in model.named_parameters():
        decay = 0.3 if parameter.ndim == 2 else 0.0
        expected = by_hand(before[name], gradients[name], rates, decay)
        torch.testing.assert_close(parameter.double(), expected, rtol=1e-5, atol=1e-6)


def test_frozen_parameters_are_left_out():
    model = module()
    model[0].requires_grad_(False)
    optimizer = adamw(model, 0.1)
    step(model, optimizer, 0.1, 0)
    assert {name.split("/")[0] for name in moments(optimizer, model)} == {"1.weight", "1.bias"}


def test_moments_put_back_continue_in_the_same_bits():
    first = module()
    one = adamw(first, 0.1)
    step(first, one, 0.1, 0)
    second = module()
    second.load_state_dict(first.state_dict())
    two = adamw(second, 0.1)
    set_moments(two, second, {name: t.clone() for name, t in moments(one, first).items()})
    step(first, one, 0.1, 1)
    step(second, two, 0.1, 1)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
