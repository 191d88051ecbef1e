"""The same tokens must give the same logits on every path: whole, in chunks, cached, in a batch."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from cached_rows import CachedRows
from lmwright.model.transformer import DecoderLM

CLOSE = {"rtol": 0, "atol": 1e-5}


@pytest.fixture(params=[None, 5], ids=["all", "window"])
def model(request, tiny_config):
    torch.manual_seed(0)
    return DecoderLM(replace(tiny_config, sliding_window=request.param)).requires_grad_(False)


def tokens(n_rows, n_tokens):
    return torch.randint(3, 300, (n_rows, n_tokens), generator=torch.Generator().manual_seed(0))


def cached(model, ids, bounds):
    rows = CachedRows(model, len(ids))
    return torch.cat([rows.logits(ids[:, a:b]) for a, b in pairwise(bounds)], dim=1)


@pytest.mark.parametrize("n_rows", [1, 3])
@pytest.mark.parametrize(
    "bounds", [(0, 20), (0, 1, 20), (0, 7, 8, 9, 20), tuple(range(21))], ids=str
)
def test_any_division_into_chunks_gives_the_logits_of_the_whole(model, n_rows, bounds):
    ids = tokens(n_rows, 20)
    torch.testing.assert_close(cached(model, ids, bounds), model(ids), **CLOSE)


def test_a_cache_longer_than_its_first_room_stays_right(model):
    ids = tokens(2, 150)
    torch.testing.assert_close(cached(model, ids, (0, 60, 61, 130, 150)), model(ids), **CLOSE)


def test_no_token_sees_a_later_one(model):
    ids = tokens(1, 12)
    changed = ids.clone()
    changed[0, 8:] += 1
    assert torch.equal(model(ids)[:, :8], model(changed)[:, :8])


def test_a_window_reaches_just_so_far_back(tiny_config):
    """One layer: a token sees itself and the four before it."""
    torch.manual_seed(0)
    model = DecoderLM(replace(tiny_config, sliding_window=5, n_layers=1)).requires_grad_(False)
    ids = tokens(1, 12)
    changed = ids.clone()
    changed[0, 3] += 1
    is_same = (model(ids) == model(changed)).all(dim=-1)[0].tolist()
    assert is_same == [True] * 3 + [False] * 5 + [True] * 4


def test_a_mask_made_elsewhere_decides(tiny_model):
    """Two continuations of one beginning in a single row, as scoring lays them out."""
    ids = tokens(1, 9)[0]
    trunk, first, second = ids[:4], ids[4:7], ids[7:]
    mask = torch.ones(9, 9, dtype=torch.bool).tril()
    mask[7:, 4:7] = False
    positions = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 4, 5]])
    context = tiny_model.masked_context(positions, mask[None, None])
    logits = tiny_model.head(tiny_model.hidden(ids[None], context))[0]
    for branch, at in ((first, slice(4, 7)), (second, slice(7, 9))):
        alone = tiny_model(torch.cat((trunk, branch))[None])[0, 4:]
        torch.testing.assert_close(logits[at], alone, **CLOSE)


def test_tied_embeddings_are_one_parameter(tiny_config):
    model = DecoderLM(replace(tiny_config, ties_embeddings=True))
    assert model.head.weight is model.decoder.embedding.weight
    assert "head.weight" not in dict(model.named_parameters())
