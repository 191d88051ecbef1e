"""Head and loss are one function with a gradient of its own; torch's must be the same."""

import pytest
import torch
import torch.nn.functional as F

from lmwright.training import losses
from lmwright.training.batches import IGNORE, Encoded, pack
from lmwright.training.losses import next_token


@pytest.fixture(params=[256, 3, 1])
def chunk(request, monkeypatch):
    monkeypatch.setattr(losses, "CHUNK", request.param)


def inputs(n=8, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(n, 16, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(40, 16, generator=generator).requires_grad_()
    targets = torch.randint(0, 40, (n,), generator=generator)
    return hidden, weight, targets


def plain(hidden, weight, targets):
    return F.cross_entropy(F.linear(hidden, weight).float(), targets, reduction="sum")


@pytest.mark.usefixtures("chunk")
def test_value_and_gradients_are_those_of_autograd():
    hidden, weight, targets = inputs()
    found = losses._HeadLoss.apply(hidden, weight, targets)
    expected = plain(hidden, weight, targets)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    # An upstream gradient other than 1: the sum is divided by the number of targets.
    for a, b in zip(
        torch.autograd.grad(found / 7, (hidden, weight)),
        torch.autograd.grad(expected / 7, (hidden, weight)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("frozen", [0, 1])
def test_only_what_is_trained_gets_a_gradient(frozen):
    tensors = inputs()
    tensors[frozen].requires_grad_(False)
    losses._HeadLoss.apply(*tensors).backward()
    assert tensors[frozen].grad is None
    expected = plain(*tensors)
    (gradient,) = torch.autograd.grad(expected, tensors[1 - frozen])
    torch.testing.assert_close(tensors[1 - frozen].grad, gradient, rtol=1e-5, atol=1e-6)


def test_without_gradients_the_value_is_the_same():
    hidden, weight, targets = inputs()
    expected = losses._HeadLoss.apply(hidden, weight, targets)
    with torch.no_grad():
        assert torch.equal(losses._HeadLoss.apply(hidden, weight, targets), expected)


@pytest.mark.usefixtures("chunk")
def test_in_bf16_the_gradient_of_the_master_weight_is_fp32():
    hidden, weight, targets = inputs(dtype=torch.bfloat16)
    losses._HeadLoss.apply(hidden, weight, targets).backward()
    assert (hidden.grad.dtype, weight.grad.dtype) == (torch.bfloat16, torch.float32)
    exact = plain(hidden.detach().float(), weight, targets)
    (gradient,) = torch.autograd.grad(exact, weight)
    assert float((weight.grad - gradient).norm() / gradient.norm()) < 0.02


def sample(n, trained, id_="s"):
    ids = torch.randint(3, 300, (n,), generator=torch.Generator().manual_seed(n)).tolist()
    return Encoded(id_, tuple(ids), tuple(i in trained for i in range(n)))


def test_sum_and_count_are_over_the_targets_alone(tiny_model):
    batch = pack([sample(9, {4, 5, 6}), sample(7, {6})])
    total, count = next_token(tiny_model, batch)
    logits = tiny_model.head(
        tiny_model.packed_hidden(batch.tokens, batch.positions, batch.segments)
    )
    expected = F.cross_entropy(logits, batch.targets, ignore_index=IGNORE, reduction="sum")
    assert count == 4
    torch.testing.assert_close(total, expected, rtol=1e-6, atol=0)


def test_sums_of_parts_are_the_sum_of_the_whole(tiny_model):
    samples = [sample(9, {4, 5, 6}), sample(7, {6}), sample(12, set(range(3, 12)))]
    whole, n_whole = next_token(tiny_model, pack(samples))
    parts = [next_token(tiny_model, pack([s])) for s in samples]
    assert n_whole == sum(count for _, count in parts)
    torch.testing.assert_close(whole, sum(total for total, _ in parts), rtol=1e-6, atol=0)
