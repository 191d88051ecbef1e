"""Scores come back in the order of the requests, each with as many alternatives as it asked for."""

import numpy as np
import pytest

from lmwright.engine.backend import Pair
from lmwright.engine.prefix_tree import Scored
from lmwright.engine.scoring import score_pairs
from lmwright.engine.torch import padding
from lmwright.engine.torch.decoder import TorchDecoder
from lmwright.engine.torch.seq2seq import TorchSeq2Seq

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


def check_order(backend, pairs):
    alone = [score_pairs(backend, [p], n_tops=[n]) for p, n in zip(pairs, N_TOPS, strict=True)]
    check(score_pairs(backend, pairs, n_tops=N_TOPS), alone)
    assert score_pairs(backend, [], n_tops=[]) == []


def test_sequences_of_a_decoder_keep_their_order(tiny_model):
    check_order(TorchDecoder(tiny_model), [Pair(Scored(ids, 1)) for ids in IDS])


@pytest.mark.parametrize("bound", [20, 4096])
def test_pairs_of_an_encoder_decoder_keep_their_order(
    tiny_seq2seq, framing_tokenizer, monkeypatch, bound
):
    whole = padding.batches
    monkeypatch.setattr(
        "lmwright.engine.torch.seq2seq.batches", lambda lengths: whole(lengths, bound)
    )
    sources = [(0, *range(20, 20 + 3 * i), 2) for i in range(len(IDS))]
    pairs = [Pair(Scored((2, *ids), 1), source) for ids, source in zip(IDS, sources, strict=True)]
    check_order(TorchSeq2Seq(tiny_seq2seq(), framing_tokenizer), pairs)
