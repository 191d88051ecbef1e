"""Padding that is seen, or a bias in the wrong place, makes a batch change a text's meaning."""

from dataclasses import replace

import pytest
import torch

from cached_rows import CachedRows
from lmwright.model.transformer import EncoderDecoderLM, EncoderLM

CLOSE = {"rtol": 0, "atol": 1e-5}
CHOICES = {
    "learned": {"positions": "learned", "norm": "layer", "norm_places": ("sum",)},
    "sinusoidal": {"positions": "sinusoidal", "has_embedding_norm": True},
    "relative": {"positions": "relative", "attention_scale": 1.0},
    "rotary": {},
}


@pytest.fixture(params=CHOICES)
def config(request, tiny_config):
    return replace(tiny_config, head="none", n_decoder_layers=2, **CHOICES[request.param])


def sharp(model):
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.normal_(0, 0.1)
    return model.requires_grad_(False)


def tokens(*shape):
    return torch.randint(3, 300, shape, generator=torch.Generator().manual_seed(0))


def test_padding_changes_no_token_of_a_text(config):
    model = sharp(EncoderLM(config))
    ids = tokens(2, 12)
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[1, 7:] = False
    found = model(ids, mask=mask)
    torch.testing.assert_close(found[0], model(ids[:1])[0], **CLOSE)
    torch.testing.assert_close(found[1, :7], model(ids[1:, :7])[0], **CLOSE)


def test_an_encoder_sees_what_comes_later(config):
    model = sharp(EncoderLM(config))
    ids = tokens(1, 12)
    changed = ids.clone()
    changed[0, 11] += 1
    assert not torch.equal(model(ids)[0, 0], model(changed)[0, 0])


def test_positions_matter(config):
    model = sharp(EncoderLM(config))
    ids = tokens(1, 12)
    turned = model(ids.flip(1)).flip(1)
    assert float((model(ids) - turned).abs().max()) > 1e-2


def test_types_are_added_where_there_are_some(tiny_config):
    model = sharp(EncoderLM(replace(tiny_config, head="none", n_token_types=2)))
    ids, types = tokens(1, 6), torch.tensor([[0, 0, 0, 1, 1, 1]])
    assert torch.equal(model(ids), model(ids, types=torch.zeros_like(types)))
    assert not torch.equal(model(ids), model(ids, types=types))


def test_a_cached_decoder_says_what_the_whole_says(config):
    model = sharp(EncoderDecoderLM(config))
    source, target = tokens(2, 9), tokens(2, 8).flip(1)
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[0, 5:] = False
    whole = model(source, target, mask=mask)
    rows = CachedRows(model, 2, model.encode(source, mask=mask))
    logits = [rows.logits(target[:, a:b]) for a, b in ((0, 1), (1, 4), (4, 5), (5, 8))]
    torch.testing.assert_close(torch.cat(logits, dim=1), whole, **CLOSE)


def test_cached_rows_can_be_repeated_and_dropped(config):
    model = sharp(EncoderDecoderLM(config))
    source, target = tokens(2, 9), tokens(2, 3)
    rows, order = CachedRows(model, 2, model.encode(source)), [1, 1, 0]
    logits = rows.logits(target)
    rows.select(order)
    more = tokens(3, 1)
    found = rows.logits(more)
    expected = model(source[order], torch.cat((target[order], more), dim=1))
    torch.testing.assert_close(found[:, 0], expected[:, 3], **CLOSE)
    torch.testing.assert_close(logits, model(source, target), **CLOSE)


def test_both_towers_share_one_embedding(config):
    model = EncoderDecoderLM(replace(config, ties_embeddings=True))
    assert model.decoder.embedding.weight is model.encoder.embedding.weight
    assert model.head.weight is model.encoder.embedding.weight
