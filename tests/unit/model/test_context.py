"""A sample that sees its neighbour in a batch learns from text it will never have when used."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lmwright.model import context as module
from lmwright.model.context import Memory, Scoring, View, attention, plain_attention, visible
from lmwright.model.transformer import DecoderLM
from lmwright.training.batches import IGNORE, Encoded, PackedBatch, pack
from lmwright.training.losses import next_token

# The three ways in which packed attention is computed, and the two that a window adds.
PATHS = {
    "plain": (module.MAX_PLAIN, None),
    "flash": (4, None),
    "window": (module.MAX_PLAIN, 3),
    "long-window": (4, 3),
}


@pytest.fixture(params=PATHS)
def model(request, tiny_config, monkeypatch):
    max_plain, window = PATHS[request.param]
    monkeypatch.setattr(module, "MAX_PLAIN", max_plain)
    torch.manual_seed(0)
    model = DecoderLM(replace(tiny_config, sliding_window=window))
    for parameter in model.parameters():
        if parameter.ndim == 2:  # so large that attention is sharp
            parameter.data.normal_(0, 0.3)
    return model


def rows(*lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, 300, (n,), generator=generator) for n in lengths]


def packed(samples) -> PackedBatch:
    return pack([Encoded("x", tuple(s.tolist()), (True,) * len(s)) for s in samples])


def layout(batch: PackedBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `packed_hidden` takes."""
    return batch.tokens, batch.positions, batch.segments


def only_sample(batch, number) -> PackedBatch:
    return replace(batch, targets=batch.targets.where(batch.segments == number, IGNORE))


def loss_and_gradients(model, batch):
    model.zero_grad()
    total, _ = next_token(model, batch)
    total.backward()
    return total.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("position", [0, 1, 2])
def test_another_samples_tokens_change_no_bit_of_loss_or_gradient(model, position):
    samples = rows(9, 14, 6)
    value, gradients = loss_and_gradients(model, only_sample(packed(samples), position))
    others = rows(9, 14, 6, seed=1)
    others[position] = samples[position]
    new_value, new_gradients = loss_and_gradients(model, only_sample(packed(others), position))
    assert torch.equal(value, new_value)
    for name, gradient in gradients.items():
        assert torch.equal(gradient, new_gradients[name]), name
    # The tokens of the others get none at all.
    strangers = set(torch.cat(others).tolist()) - set(samples[position].tolist())
    assert not gradients["decoder.embedding.weight"][sorted(strangers)].any()


def test_a_samples_own_tokens_do_change_its_loss(model):
    """Otherwise the test above would prove nothing."""
    samples = rows(9, 14, 6)
    value, _ = loss_and_gradients(model, only_sample(packed(samples), 1))
    samples[1][12] += 1  # near enough to the end for a window of 3 to see it
    changed, _ = loss_and_gradients(model, only_sample(packed(samples), 1))
    assert not torch.equal(value, changed)


def test_gradients_are_the_sum_of_the_samples_alone(model, monkeypatch):
    """In fp64, so that nothing but a wrong formula can make a difference."""
    monkeypatch.setattr(
        "lmwright.model.norm.RMSNorm.forward",
        lambda norm, x: torch.nn.functional.rms_norm(x, x.shape[-1:], norm.weight, norm.eps),
    )
    model.double().compute_dtype = torch.float64
    samples = rows(9, 14, 1, 6)
    parameters = list(model.parameters())
    packed_logits = model.head(model.packed_hidden(*layout(packed(samples)))).split([9, 14, 1, 6])
    # Another code path: plain rows.
    alone_logits = [model(sample[None])[0] for sample in samples]
    found, expected = (
        torch.autograd.grad(
            sum(loss(*pair) for pair in zip(logits, samples, strict=True)), parameters
        )
        for logits in (packed_logits, alone_logits)
    )
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def loss(logits, sample):
    return torch.nn.functional.cross_entropy(logits[:-1], sample[1:], reduction="sum")


def test_the_order_of_samples_changes_no_hidden_state(model):
    samples = rows(9, 14, 6)
    forward = model.packed_hidden(*layout(packed(samples))).split([9, 14, 6])
    backward = model.packed_hidden(*layout(packed(samples[::-1]))).split([6, 14, 9])[::-1]
    for a, b in zip(forward, backward, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_spread_and_gather_are_differentiated_right():
    slots = torch.tensor([0, 1, 4, 5, 6])
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    grid = torch.randn(8, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: module._Spread.apply(x, slots, 8), x)
    assert torch.autograd.gradcheck(lambda g: module._Gather.apply(g, slots), grid)
    spread = module._Spread.apply(x, slots, 8)
    assert torch.equal(module._Gather.apply(spread, slots), x)
    assert not spread[[2, 3, 7]].any()


def test_plain_attention_is_torchs_attention():
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 6, 5, 8, generator=generator)
    k, v = torch.randn(2, 2, 2, 7, 8, generator=generator)
    hidden = torch.zeros(5, 7).masked_fill(torch.ones(5, 7, dtype=torch.bool).triu(3), -torch.inf)
    expected = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=hidden, enable_gqa=True
    )
    scoring = Scoring(scale=8**-0.5, softcap=None, window=None)
    found = plain_attention(q, k, v, hidden=hidden, scoring=scoring)
    torch.testing.assert_close(found, expected)


def test_a_soft_cap_bends_the_scores_and_keeps_hidden_ones_hidden():
    generator = torch.Generator().manual_seed(0)
    q, k, v = 4 * torch.randn(3, 1, 2, 5, 8, generator=generator)
    scoring = Scoring(scale=0.5, softcap=3.0, window=None)
    found = attention(q, k, v, view=View(is_causal=True), scoring=scoring)
    scores = 3 * torch.tanh(q @ k.transpose(-1, -2) * 0.5 / 3)
    scores = scores.masked_fill(torch.ones(5, 5, dtype=torch.bool).triu(1), -torch.inf)
    torch.testing.assert_close(found, scores.softmax(-1) @ v)
    padded = torch.ones(1, 1, 1, 5, dtype=torch.bool)
    padded[..., 3:] = False
    found = attention(q, k, v, view=View(padded), scoring=scoring)
    scores = 3 * torch.tanh(q @ k[:, :, :3].transpose(-1, -2) * 0.5 / 3)
    torch.testing.assert_close(found, scores.softmax(-1) @ v[:, :, :3])


def test_a_memory_projects_once_and_keeps_the_rows_it_is_told():
    memory = Memory(
        torch.randn(3, 4, 8), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]).bool()
    )
    calls = []

    def project(hidden):
        calls.append(hidden)
        return hidden[:, None], hidden[:, None] * 2

    scoring, q = Scoring(0.5, None, None), torch.randn(3, 1, 2, 8)
    whole = memory.attend(0, q, project, scoring=scoring)
    memory.select(torch.tensor([2, 2, 0]))
    kept = memory.attend(0, q[[2, 2, 0]], project, scoring=scoring)
    assert len(calls) == 1
    assert torch.equal(kept, whole[[2, 2, 0]])
    assert memory.view.mask[:, 0, 0].tolist() == [[1, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]]


def test_visible_lets_a_token_see_itself_and_what_is_before_it():
    seen = visible(torch.tensor([[2, 3], [0, 1]]), 4, None)
    assert seen.int().tolist() == [
        [[[1, 1, 1, 0], [1, 1, 1, 1]]],
        [[[1, 0, 0, 0], [1, 1, 0, 0]]],
    ]


def test_a_window_counts_the_token_itself():
    assert visible(torch.tensor([[3]]), 5, 2).int().tolist() == [[[[0, 0, 1, 1, 0]]]]
