"""A vector or a class that depends on the texts beside it cannot be compared with anything."""

import numpy as np
import pytest
import torch

from lmwright.engine.torch import padding
from lmwright.engine.torch.encoder import TorchEncoder
from lmwright.formats.sentence_transformers import Pooling
from lmwright.tokenizer.encode import Encoding

TOLERANCE = {"rtol": 0, "atol": 2e-6}
TEXTS = [[0, 5, 9, 20, 31, 7, 2], [0, 2], [0, 40, 41, 42, 2], [0, *range(50, 100), 2], [0, 3, 2]]
LABELS = {"labels": ("bad", "so", "good")}


@pytest.fixture(params=[1, 16, 4096])
def bound(request, monkeypatch):
    """However few tokens are read at once, nothing may change."""
    whole = padding.batches
    for place in ("encoder", "outputs"):
        monkeypatch.setattr(
            f"lmwright.engine.torch.{place}.batches",
            lambda lengths, *_: whole(lengths, request.param),
        )
    return request.param


def framed(ids) -> Encoding:
    return Encoding(list(ids), [0] * len(ids))


@torch.inference_mode()
def test_vectors_are_the_means_of_each_text_alone(tiny_encoder, bound):
    backend = TorchEncoder(tiny_encoder())
    vectors = backend.embed(TEXTS)
    assert vectors.dtype == np.float32
    for vector, ids in zip(vectors, TEXTS, strict=True):
        hidden = backend.model.hidden(torch.tensor([ids]))[0]
        np.testing.assert_allclose(vector, hidden.mean(dim=0).numpy(), **TOLERANCE)
    assert backend.embed([]).shape == (0, 32)


@torch.inference_mode()
def test_pooling_is_that_of_the_folder(tiny_encoder):
    pooling = Pooling(("cls", "mean"), is_normalized=True, max_tokens=60)
    backend = TorchEncoder(tiny_encoder(), pooling)
    assert backend.info.context_length == 60
    for vector, ids in zip(backend.embed(TEXTS), TEXTS, strict=True):
        hidden = backend.model.hidden(torch.tensor([ids]))[0]
        whole = torch.cat((hidden[0], hidden.mean(dim=0)))
        np.testing.assert_allclose(vector, whole / whole.norm(), **TOLERANCE)


def test_the_positions_bound_a_text_where_the_folder_allows_more(tiny_encoder):
    pooling = Pooling(("mean",), is_normalized=False, max_tokens=512)
    assert TorchEncoder(tiny_encoder(), pooling).info.context_length == 64
    assert TorchEncoder(tiny_encoder()).info.context_length == 64


@torch.inference_mode()
@pytest.mark.parametrize("problem", ["single_label", "multi_label", "regression"])
def test_classes_are_those_of_each_text_alone(tiny_encoder, bound, problem):
    backend = TorchEncoder(tiny_encoder(head="sequence", problem=problem, **LABELS))
    said = backend.classify([framed(ids) for ids in TEXTS])
    for answer, ids in zip(said, TEXTS, strict=True):
        assert (answer.labels, answer.problem) == (LABELS["labels"], problem)
        logits = backend.model(torch.tensor([ids]))[0]
        expected = {
            "single_label": logits.softmax(dim=0),
            "multi_label": 1 / (1 + (-logits).exp()),
            "regression": logits,
        }[problem]
        np.testing.assert_allclose(answer.values, expected.numpy(), **TOLERANCE)


@torch.inference_mode()
def test_tokens_have_classes_of_their_own_and_padding_has_none(tiny_encoder, bound):
    backend = TorchEncoder(tiny_encoder(head="tokens", **LABELS))
    said = backend.classify_tokens([framed(ids) for ids in TEXTS])
    for rows, ids in zip(said, TEXTS, strict=True):
        expected = backend.model(torch.tensor([ids]))[0].softmax(dim=1)
        np.testing.assert_allclose(
            [answer.values for answer in rows], expected.numpy(), **TOLERANCE
        )


@torch.inference_mode()
def test_the_second_text_of_a_pair_is_marked(tiny_encoder, bound):
    backend = TorchEncoder(tiny_encoder(head="sequence", **LABELS))
    ids, types = [0, 5, 9, 2, 7, 8, 2], [0, 0, 0, 0, 1, 1, 1]
    pair, single, _ = backend.classify([Encoding(ids, types), framed(ids), framed(TEXTS[0])])
    expected = backend.model(torch.tensor([ids]), types=torch.tensor([types]))[0].softmax(dim=0)
    np.testing.assert_allclose(pair.values, expected.numpy(), **TOLERANCE)
    assert np.abs(np.subtract(pair.values, single.values)).max() > 1e-3


def test_a_model_without_text_types_takes_pairs_too(tiny_encoder):
    backend = TorchEncoder(tiny_encoder(n_token_types=0, head="sequence", **LABELS))
    ids, types = [0, 5, 2, 7, 2], [0, 0, 0, 1, 1]
    pair, single = backend.classify([Encoding(ids, types), framed(ids)])
    assert pair == single
