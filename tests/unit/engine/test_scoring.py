"""Scores come back in the order of the requests, each with as many alternatives as it asked for."""

import numpy as np

from lmwright.engine.forest import Scored
from lmwright.engine.scoring import Pair, score_pairs, score_sequences
from lmwright.engine.torch.decoder import TorchBackend
from lmwright.engine.torch.seq2seq import Seq2SeqBackend

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


def test_sequences_of_a_decoder_keep_their_order(tiny_model):
    backend = TorchBackend(tiny_model)
    sequences = [Scored(ids, 1) for ids in IDS]
    alone = [score_sequences(backend, [s], n_tops=[n]) for s, n in zip(sequences, N_TOPS)]  # noqa: B905
    check(score_sequences(backend, sequences, n_tops=N_TOPS), alone)
    assert score_sequences(backend, [], n_tops=[]) == []


def test_pairs_of_an_encoder_decoder_keep_their_order(tiny_seq2seq, framing_tokenizer, monkeypatch):
    backend = Seq2SeqBackend(tiny_seq2seq(), framing_tokenizer)
    pairs = [
        Pair((0, *range(20, 20 + 3 * i), 2), Scored((2, *ids), 1)) for i, ids in enumerate(IDS)
    ]
    alone = [score_pairs(backend, [p], n_tops=[n]) for p, n in zip(pairs, N_TOPS)]  # noqa: B905
    whole = score_pairs(backend, pairs, n_tops=N_TOPS)
    check(whole, alone)
    from lmwright.engine.torch import padding

    split = padding.batches
    monkeypatch.setattr("lmwright.engine.scoring.batches", lambda lengths: split(lengths, 20))
    check(score_pairs(backend, pairs, n_tops=N_TOPS), alone)
    assert score_pairs(backend, [], n_tops=[]) == []
