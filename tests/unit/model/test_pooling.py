"""Embeddings that are pooled in another way than in training are plausible, and worthless."""

from dataclasses import replace

import pytest
import torch

from lmwright.formats.sentence_transformers import FLAGS, Pooling
from lmwright.model.pooling import METHODS, pool

# Two texts, of three tokens and of one; what stands in the padding is no number.
NAN = float("nan")
HIDDEN = torch.tensor([[[1.0, 8.0], [4.0, -2.0], [4.0, 0.0]], [[3.0, 4.0], [NAN, NAN], [NAN, 9.0]]])
MASK = torch.tensor([[True, True, True], [True, False, False]])
EXPECTED = {
    "cls": [[1.0, 8.0], [3.0, 4.0]],
    "lasttoken": [[4.0, 0.0], [3.0, 4.0]],
    "max": [[4.0, 8.0], [3.0, 4.0]],
    "mean": [[3.0, 2.0], [3.0, 4.0]],
    "mean_sqrt_len_tokens": [[9.0 / 3**0.5, 6.0 / 3**0.5], [3.0, 4.0]],
    "weightedmean": [[21.0 / 6, 4.0 / 6], [3.0, 4.0]],
}


@pytest.mark.parametrize("kind", METHODS)
def test_each_kind_is_what_it_says_and_sees_no_padding(kind):
    vectors = pool(HIDDEN, MASK, Pooling((kind,), is_normalized=False))
    torch.testing.assert_close(vectors, torch.tensor(EXPECTED[kind]))
    half = pool(HIDDEN.bfloat16(), MASK, Pooling((kind,), is_normalized=False))
    assert half.dtype == torch.float32


def test_several_kinds_stand_behind_one_another_and_are_normalised_together():
    both = Pooling(("max", "cls"), is_normalized=False)
    assert pool(HIDDEN, MASK, both).tolist() == [[4, 8, 1, 8], [3, 4, 3, 4]]
    vectors = pool(HIDDEN, MASK, replace(both, is_normalized=True))
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(vectors[1], torch.tensor([3.0, 4, 3, 4]) / 50**0.5)


def test_each_kind_that_a_folder_may_name_is_built():
    assert set(METHODS) == set(FLAGS.values())
