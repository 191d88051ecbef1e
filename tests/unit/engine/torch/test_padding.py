"""A text that is lost, read twice or padded beyond the bound is a wrong answer or no memory."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from lmwright.engine.torch.padding import batches, padded

CPU = torch.device("cpu")


@given(lengths=st.lists(st.integers(1, 50), max_size=20), max_tokens=st.integers(1, 120))
def test_each_row_is_in_one_batch_and_only_a_long_row_alone_breaks_the_bound(lengths, max_tokens):
    found = list(batches(lengths, max_tokens))
    assert sorted(i for batch in found for i in batch) == list(range(len(lengths)))
    for batch in found:
        size = len(batch) * max(lengths[i] for i in batch)
        assert size <= max_tokens or len(batch) == 1
    # Of like length: no batch reaches into the next one.
    order = [lengths[i] for batch in found for i in batch]
    assert order == sorted(order)


def test_rows_are_filled_up_on_the_right_and_the_mask_says_so():
    tokens, mask = padded([[5, 6, 7], [8]], CPU)
    assert tokens.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert mask is not None
    assert mask.tolist() == [[True, True, True], [True, False, False]]


def test_rows_of_one_length_need_no_mask():
    tokens, mask = padded([[5, 6], [8, 9]], CPU)
    assert tokens.tolist() == [[5, 6], [8, 9]]
    assert mask is None
