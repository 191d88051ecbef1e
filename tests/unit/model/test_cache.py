"""What a cache forgets or mixes up between sequences, a reply gets wrong without any error."""

import torch

from lmwright.model.cache import BLOCK_SIZE, PagedCache


def kv(n_tokens, start=0.0):
    """Values that say their number, (N, G, D)."""
    return (torch.arange(n_tokens).float() + start)[:, None, None].expand(-1, 2, 4).clone()


def put(cache, blocks, start, new, layer=0):
    cache.slots(blocks, start + len(new))
    cache.write(layer, new, -new, cache.new_slots([(blocks, start, len(new))]))


def read(cache, blocks, n_tokens, layer=0):
    """Return the values of a sequence, (S,), and see that all that is stored agrees."""
    keys, values = cache.read(layer, cache.slots(blocks, n_tokens))
    assert keys.shape == (1, 2, n_tokens, 4)
    assert torch.equal(keys, -values)
    assert torch.equal(keys, keys[:, :1, :, :1].expand_as(keys))
    return keys[0, 0, :, 0].tolist()


def test_a_sequence_in_adjacent_blocks_is_read_in_place_and_survives_growth():
    cache, blocks = PagedCache(1, torch.device("cpu")), range(2, 20)
    for begin in range(0, 200, 7):
        end = min(begin + 7, 200)
        put(cache, blocks, begin, kv(end - begin, start=begin))
        assert read(cache, blocks, end) == list(range(end))
    where = cache.slots(blocks, 200)
    assert isinstance(where, slice)
    keys, _ = cache.read(0, where)
    assert keys.data_ptr() == cache.keys[0][2 * BLOCK_SIZE].data_ptr()


def test_sequences_of_different_lengths_lie_between_each_other():
    cache, tables = PagedCache(1, torch.device("cpu")), ([4, 0, 7], [1, 5, 2])
    for table, start in zip(tables, (0, 100), strict=True):
        put(cache, table, 0, kv(20, start=start))
    new = torch.cat((kv(1, start=50), kv(1, start=150)))
    put(cache, tables[0], 20, kv(13, start=20))
    cache.write(0, new, -new, cache.new_slots([(tables[0], 33, 1), (tables[1], 20, 1)]))
    assert read(cache, tables[0], 34) == [*range(33), 50]
    assert read(cache, tables[1], 21) == [*range(100, 120), 150]


def test_a_copied_block_is_a_copy():
    cache = PagedCache(2, torch.device("cpu"))  # the second layer is still empty
    put(cache, [0, 1], 0, kv(20))
    cache.copy_blocks([(1, 30), (0, 3)])
    put(cache, [0, 30], 20, kv(1, start=99))
    assert read(cache, [0, 1], 20) == read(cache, [3, 1], 20) == list(range(20))
    assert read(cache, [0, 30], 21) == [*range(20), 99]
    assert cache.keys[1] is None


def test_layers_do_not_mix():
    cache = PagedCache(2, torch.device("cpu"))
    put(cache, [0], 0, kv(3))
    put(cache, [0], 0, kv(3, start=7), layer=1)
    assert read(cache, [0], 3, layer=1) == [7, 8, 9]
    assert read(cache, [0], 3) == [0, 1, 2]
