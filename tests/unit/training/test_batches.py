"""A token too few, or a target one place off, trains a slightly worse model without any error."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmwright.finetuning.chat import CHAT
from lmwright.training.batches import IGNORE, Encoded, epoch_batches, micro_batches, pack


def encoded(ids, is_target=None) -> Encoded:
    return Encoded("x", tuple(ids), tuple(is_target or [True] * len(ids)))


def unpacked(batch) -> list[tuple[list[int], list[int]]]:
    """Tokens and targets of each sample of a batch."""
    found = []
    for number in range(int(batch.segments.max()) + 1):
        chosen = batch.segments == number
        assert batch.positions[chosen].tolist() == list(range(int(chosen.sum())))
        found.append((batch.tokens[chosen].tolist(), batch.targets[chosen].tolist()))
    return found


def test_targets_are_the_next_tokens_that_are_to_be_learnt():
    first = encoded([5, 6, 7, 8], [False, False, True, True])
    second = encoded([9, 10], [True, True])
    batch = pack([first, second])
    assert batch.tokens.tolist() == [5, 6, 7, 8, 9, 10]
    # Neither the first token of a sample nor what follows its last one is a target.
    assert batch.targets.tolist() == [IGNORE, 7, 8, IGNORE, 10, IGNORE]
    assert batch.positions.tolist() == [0, 1, 2, 3, 0, 1]
    assert batch.segments.tolist() == [0, 0, 0, 0, 1, 1]


@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=20), room=st.integers(1, 30))
def test_samples_are_neither_cut_nor_lost_nor_mixed(lengths, room):
    random = np.random.Generator(np.random.Philox(0))
    samples = [
        encoded(random.integers(0, 99, n).tolist(), (random.random(n) < 0.5).tolist())
        for n in lengths
    ]
    batches = micro_batches(CHAT, samples, room, torch.Generator())
    found = [pair for batch in batches for pair in unpacked(batch)]
    assert sorted(tokens for tokens, _ in found) == sorted(list(s.token_ids) for s in samples)
    alone = [unpacked(pack([sample]))[0] for sample in samples]
    assert sorted(found) == sorted(alone)
    for batch in batches:
        assert batch.n_tokens == len(batch.tokens)
        assert batch.n_tokens <= room or int(batch.segments.max()) == 0
    # The first token of a sample is never a target.
    assert sum(b.n_targets for b in batches) == sum(sum(s.is_target[1:]) for s in samples)


@pytest.mark.parametrize(("n_samples", "batch_size"), [(10, 3), (9, 3), (2, 8), (1, 1)])
def test_an_epoch_sees_each_sample_once(n_samples, batch_size):
    batches = epoch_batches(n_samples, batch_size=batch_size, seed=0, epoch=0)
    assert sorted(i for batch in batches for i in batch) == list(range(n_samples))
    assert all(len(batch) == batch_size for batch in batches[:-1])


def test_the_order_depends_on_seed_and_epoch_alone():
    def order(seed, epoch):
        return epoch_batches(100, batch_size=7, seed=seed, epoch=epoch)

    assert order(3, 5) == order(3, 5)
    assert order(3, 5) != order(3, 6)
    assert order(3, 5) != order(4, 5)
    # As an image of a sum of seed and epoch would be.
    assert order(3, 5) != order(5, 3)
