"""Scores come back in the order of the requests, each with as many alternatives as it asked for."""

import numpy as np
import pytest

from lmwright.engine.request import ScoreRequest
from lmwright.engine.torch import padding
from lmwright.engine.torch.decoder import TorchDecoder
from lmwright.engine.torch.seq2seq import TorchSeq2Seq
from lmwright.lm import LocalModel

IDS = [(5, 6, 7, 8), (9, 4), (10, 11, 12), (5, 6, 7, 200), (3, 8, 8, 8, 8, 8)]
N_TOPS = [0, 3, 1, 0, 2]


def check(scores, alone):
    for score, (single,), n_top in zip(scores, alone, N_TOPS, strict=True):
        assert score.token_ids == single.token_ids
        np.testing.assert_allclose(score.token_logprobs, single.token_logprobs, atol=1e-5)
        assert score.is_greedy == single.is_greedy
        assert [len(place) for place in score.top] == ([n_top] * len(score.token_ids)) * (n_top > 0)
        assert [[i for i, _ in place] for place in score.top] == [
            [i for i, _ in place] for place in single.top
        ]


def check_order(backend, tokenizer, requests):
    model = LocalModel(backend, tokenizer, name="x")
    check(model.score(requests), [model.score([request]) for request in requests])
    assert model.score([]) == []


def test_sequences_of_a_decoder_keep_their_order(tiny_model, tiny_tokenizer):
    requests = [ScoreRequest(ids[:1], ids[1:], n) for ids, n in zip(IDS, N_TOPS, strict=True)]
    check_order(TorchDecoder(tiny_model), tiny_tokenizer, requests)


@pytest.mark.parametrize("bound", [20, 4096])
def test_pairs_of_an_encoder_decoder_keep_their_order(
    tiny_seq2seq, framing_tokenizer, monkeypatch, bound
):
    whole = padding.batches
    monkeypatch.setattr(
        "lmwright.engine.torch.seq2seq.batches", lambda lengths: whole(lengths, bound)
    )
    sources = [(0, *range(20, 20 + 3 * i), 2) for i in range(len(IDS))]
    requests = [ScoreRequest(*each) for each in zip(sources, IDS, N_TOPS, strict=True)]
    check_order(TorchSeq2Seq(tiny_seq2seq(), framing_tokenizer), framing_tokenizer, requests)
