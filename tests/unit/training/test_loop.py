"""The loop decides what a step is: how a batch is cut must not matter, and NaN must stop it."""

import copy
import math
from dataclasses import replace

import pytest
import torch

from lmwright.core.errors import LmwrightError
from lmwright.finetuning.chat import CHAT
from lmwright.training import batches as module
from lmwright.training.batches import Encoded, pack
from lmwright.training.loop import train, validate
from lmwright.training.losses import next_token
from lmwright.training.optim import adamw, warmup_cosine


def rate(step):
    return 1e-2 * warmup_cosine(step - 1, 4, 0.25)


RATES = {"rate": rate, "max_grad_norm": math.inf}


def micro_batches(samples, max_tokens):
    return module.micro_batches(CHAT, samples, max_tokens, torch.Generator())


def samples(n=8):
    generator = torch.Generator().manual_seed(0)
    found = []
    for number in range(n):
        length = 5 + 3 * number
        ids = torch.randint(3, 300, (length,), generator=generator).tolist()
        # Uneven numbers of targets: averages of averages would come out differently.
        found.append(Encoded(str(number), tuple(ids), tuple(i > number for i in range(length))))
    return found


def run(model, batches, loss_fn=next_token):
    model.requires_grad_(True)
    optimizer = adamw(model, 0.1)
    return list(train(model, batches, loss_fn=loss_fn, optimizer=optimizer, **RATES))


def gradients(model, batches):
    """Return the gradients of one step, caught before the optimiser uses them."""
    model.requires_grad_(True)
    optimizer = adamw(model, 0.0)
    caught = {}

    def catch(*_):
        caught.update({name: p.grad.clone() for name, p in model.named_parameters()})

    optimizer.register_step_pre_hook(catch)
    next(train(model, [batches], loss_fn=next_token, optimizer=optimizer, **RATES))
    return caught


@pytest.mark.parametrize("max_tokens", [1, 40, 90])
def test_parts_of_a_batch_add_up_to_the_gradient_of_the_whole(tiny_model, max_tokens):
    whole = micro_batches(samples(), 10_000)
    parts = micro_batches(samples(), max_tokens)
    assert len(whole) == 1 < len(parts)
    expected = gradients(copy.deepcopy(tiny_model), whole)
    for name, gradient in gradients(tiny_model, parts).items():
        error = (gradient - expected[name]).norm() / expected[name].norm()
        assert float(error) < 1e-6, name


def test_weights_after_several_steps_do_not_depend_on_the_parts(tiny_model):
    other = copy.deepcopy(tiny_model)
    whole, parts = (micro_batches(samples(), n) for n in (10_000, 40))
    steps = [run(model, [b] * 4) for model, b in ((tiny_model, whole), (other, parts))]
    for a, b in zip(*steps, strict=True):
        assert a.loss == pytest.approx(b.loss, rel=1e-5)
        assert (a.n_tokens, a.n_targets, a.lr) == (b.n_tokens, b.n_targets, b.lr)
    for a, b in zip(tiny_model.parameters(), other.parameters(), strict=True):
        # Adam divides by the gradient's size: where it is almost nought, rounding decides.
        torch.testing.assert_close(a, b, rtol=0, atol=2e-3)
        assert float(((a - b).norm() / b.norm()).detach()) < 1e-4


def test_a_step_says_what_it_did(tiny_model):
    batch = micro_batches(samples(3), 10)
    with torch.no_grad():
        total = sum(float(next_token(tiny_model, b)[0]) for b in batch)
    first, second = run(tiny_model, [batch, batch])
    n_targets = sum(sum(s.is_target) for s in samples(3))
    assert (first.step, second.step) == (1, 2)
    assert first.loss == pytest.approx(total / n_targets, rel=1e-6)
    assert (first.n_tokens, first.n_targets) == (5 + 8 + 11, n_targets)
    assert first.lr == 1e-2 * warmup_cosine(0, 4, 0.25)
    assert second.lr == 1e-2 * warmup_cosine(1, 4, 0.25)
    assert second.loss < first.loss
    assert first.seconds > 0


def test_a_resumed_loop_counts_and_schedules_from_where_it_stood(tiny_model):
    tiny_model.requires_grad_(True)
    (step,) = train(
        tiny_model, [micro_batches(samples(2), 99)], loss_fn=next_token,
        optimizer=adamw(tiny_model, 0.0), **RATES, n_done=2,
    )  # fmt: skip
    assert (step.step, step.lr) == (3, 1e-2 * warmup_cosine(2, 4, 0.25))


def test_a_large_gradient_is_clipped_as_a_whole(tiny_model):
    batches = micro_batches(samples(), 10_000)
    caught = []

    class Spy(torch.optim.SGD):
        def step(self, closure=None):
            grads = [p.grad.flatten() for group in self.param_groups for p in group["params"]]
            caught.append(float(torch.cat(grads).norm()))

    tiny_model.requires_grad_(True)
    (step,) = train(
        tiny_model, [batches], loss_fn=next_token,
        optimizer=Spy(tiny_model.parameters(), lr=0.0), **RATES | {"max_grad_norm": 1e-3},
    )  # fmt: skip
    assert step.grad_norm > 1e-2  # what is reported is the norm before
    assert caught == [pytest.approx(1e-3, rel=1e-3)]


@pytest.mark.parametrize("fault", ["loss", "gradient", "infinite"])
def test_nan_stops_the_run_and_leaves_the_weights(tiny_model, fault):
    def broken(model, batch):
        total, count = next_token(model, batch)
        if fault == "loss":
            return total * math.nan, count
        if fault == "infinite":
            return total * math.inf, count
        # The value is fine, its gradient is not: sqrt at 0 has an infinite slope.
        return total + (model.decoder.norm.weight.sum() * 0).sqrt(), count

    batches = [micro_batches(samples(2), 99)] * 2
    before = {name: p.clone() for name, p in tiny_model.named_parameters()}
    with pytest.raises(LmwrightError, match=r"step 1: .*Lower lr"):
        run(tiny_model, batches, loss_fn=broken)
    for name, parameter in tiny_model.named_parameters():
        assert torch.equal(parameter, before[name]), name


def test_validation_is_the_mean_over_targets_and_changes_nothing(tiny_model):
    whole = [pack(samples(4))]
    parts = micro_batches(samples(4), 1)
    before = {name: p.clone() for name, p in tiny_model.named_parameters()}
    assert validate(tiny_model, whole, next_token) == pytest.approx(
        validate(tiny_model, parts, next_token), rel=1e-6
    )
    assert all(p.grad is None for p in tiny_model.parameters())
    assert all(torch.equal(p, before[name]) for name, p in tiny_model.named_parameters())


def test_targets_outside_a_batch_do_not_count(tiny_model):
    batch = pack(samples(2))
    masked = replace(batch, targets=batch.targets.clone())
    masked.targets[masked.segments == 1] = -100
    assert validate(tiny_model, [masked], next_token) == pytest.approx(
        validate(tiny_model, [pack(samples(1))], next_token), rel=1e-5
    )


@pytest.mark.parametrize("faulty", ["loss", "batch"])
def test_a_loss_that_counts_other_targets_than_its_batch_is_noticed(tiny_model, faulty):
    """It would be divided by the wrong number, step by step."""

    def miscounted(model, batch):
        total, count = next_token(model, batch)
        return total, count + 1

    batch = pack(samples(2))
    if faulty == "batch":
        batch = replace(batch, targets=torch.full_like(batch.targets, -100))
    message = r"the loss counts \d+ targets" if faulty == "loss" else "step 1: .* without targets"
    with pytest.raises(AssertionError, match=message):
        run(tiny_model, [[batch]], loss_fn=miscounted)


def test_modules_know_whether_they_are_trained_or_validated(tiny_model):
    modes = []

    def spy(model, batch):
        modes.append(model.training)
        return next_token(model, batch)

    run(tiny_model, [[pack(samples(2))]], loss_fn=spy)
    validate(tiny_model, [pack(samples(2))], spy)
    assert modes == [True, False]
