"""What a cache forgets or mixes up between rows, a reply gets wrong without any error."""

import torch

from lmwright.model.cache import KVCache


def kv(n_rows, n_tokens, start=0.0):
    """Values that say their row and number: 100 * row + number."""
    values = torch.arange(n_tokens).float() + start
    values = values + 100 * torch.arange(n_rows)[:, None]
    return values[:, None, :, None].expand(n_rows, 2, n_tokens, 4).clone()


def positions(n_rows, start, end):
    return torch.arange(start, end).expand(n_rows, -1)


def put(cache, new, at):
    cache.n_used = int(at.max()) + 1
    return cache.update(0, new, -new, at)


def test_a_single_row_is_appended_and_survives_growth():
    cache, expected = KVCache(1), kv(1, 200)
    for begin in range(0, 200, 7):
        end = min(begin + 7, 200)
        keys, values = put(cache, expected[:, :, begin:end], positions(1, begin, end))
        assert torch.equal(keys, expected[:, :, :end])
        assert torch.equal(values, -expected[:, :, :end])


def test_rows_of_different_lengths_go_to_their_own_places():
    cache = KVCache(1)
    put(cache, kv(2, 5), positions(2, 0, 5))  # of row 0, only three are real
    keys, _ = put(cache, kv(2, 1, start=50), torch.tensor([[3], [5]]))
    assert keys[0, 0, :4, 0].tolist() == [0, 1, 2, 50]
    assert keys[1, 0, :, 0].tolist() == [100, 101, 102, 103, 104, 150]


def test_growth_keeps_every_row_of_a_batch():
    cache = KVCache(1)
    put(cache, kv(3, 60), positions(3, 0, 60))
    keys, values = put(cache, kv(3, 40, start=60), positions(3, 60, 100))
    assert torch.equal(keys, kv(3, 100))
    assert torch.equal(values, -kv(3, 100))


def test_select_keeps_repeats_and_reorders_rows():
    cache = KVCache(2)  # the second layer is still empty
    put(cache, kv(3, 4), positions(3, 0, 4))
    cache.select(torch.tensor([2, 0, 0]))
    assert cache.keys[0][:, 0, 0, 0].tolist() == [200, 0, 0]
    assert cache.keys[1] is None
    # The repeated rows are copies: writing to one leaves the other alone.
    keys, _ = put(cache, kv(3, 1, start=9), torch.tensor([[4], [4], [4]]))
    assert keys[:, 0, 4, 0].tolist() == [9, 109, 209]


def test_layers_do_not_mix():
    cache = KVCache(2)
    cache.n_used = 3
    cache.update(0, kv(1, 3), kv(1, 3), positions(1, 0, 3))
    keys, _ = cache.update(1, kv(1, 3, start=7), kv(1, 3), positions(1, 0, 3))
    assert keys[0, 0, :, 0].tolist() == [7, 8, 9]
    assert cache.keys[0][0, 0, :3, 0].tolist() == [0, 1, 2]
