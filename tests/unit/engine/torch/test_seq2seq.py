"""Batches, caches and reordered beams are shortcuts: each row must go on as it would alone."""

import numpy as np
import pytest
import torch

from lmwright.core.errors import ModelError
from lmwright.engine.backend import Pair
from lmwright.engine.prefix_tree import Scored
from lmwright.engine.request import Sampling
from lmwright.engine.rows import Rows
from lmwright.engine.scheduler import Engine
from lmwright.engine.torch import padding
from lmwright.engine.torch.seq2seq import TorchSeq2Seq
from lmwright.tokenizer.translation import Translation

TOLERANCE = {"rtol": 0, "atol": 1e-5}
SOURCES = [[5, 9, 20, 31, 7, 2], [40, 2], [5, 9, 20, 2], [80, 81, 82, 83, 84, 85, 86, 2]]
START = 2


@pytest.fixture
def backend(tiny_seq2seq, framing_tokenizer) -> TorchSeq2Seq:
    return TorchSeq2Seq(tiny_seq2seq(), framing_tokenizer)


@torch.inference_mode()
def plain(backend, source, said) -> np.ndarray:
    """Logits (T, V) of one answer, computed anew without any shortcut."""
    return backend.model(torch.tensor([source]), torch.tensor([[START, *said]]))[0].numpy()


def check(backend, logits, sources, said) -> None:
    for row, source, ids in zip(logits, sources, said, strict=True):
        np.testing.assert_allclose(row, plain(backend, source, ids)[-1], **TOLERANCE)


@pytest.mark.parametrize("bound", [1, 12, 4096])
@pytest.mark.parametrize("changes", [{}, {"positions": "relative", "position_offset": 0}], ids=str)
def test_ragged_sources_give_the_logits_of_each_alone(
    tiny_seq2seq, framing_tokenizer, monkeypatch, bound, changes
):
    whole = padding.batches
    monkeypatch.setattr(
        "lmwright.engine.torch.seq2seq.batches", lambda lengths: whole(lengths, bound)
    )
    backend = TorchSeq2Seq(tiny_seq2seq(**changes), framing_tokenizer)
    rows = Rows(backend, SOURCES, max_rows=32)
    logits = rows.logits
    said = [[] for _ in SOURCES]
    for step in range(3):
        check(backend, logits, SOURCES, said)
        new = [10 * step + i for i in range(4)]
        logits = rows.decode(new)
        said = [[*ids, token] for ids, token in zip(said, new, strict=True)]


@pytest.mark.parametrize("chosen", [[3, 1], [0, 0, 0, 2, 2], [1, 0, 3, 2], [2]])
def test_rows_that_leave_or_come_twice_take_their_source_along(backend, chosen):
    rows = Rows(backend, SOURCES, max_rows=32)
    rows.decode([11, 12, 13, 14])
    rows.select(chosen)
    said = [[[11, 12, 13, 14][i], 20 + n] for n, i in enumerate(chosen)]
    logits = rows.decode([ids[-1] for ids in said])
    check(backend, logits, [SOURCES[i] for i in chosen], said)
    rows.select([len(chosen) - 1])
    check(backend, rows.decode([9]), [SOURCES[chosen[-1]]], [[*said[-1], 9]])


def test_keys_and_values_of_a_source_are_computed_once(backend):
    calls = {"encoder": 0, "k": 0, "v": 0}

    def count(name):
        def hook(*_):
            calls[name] += 1

        return hook

    backend.model.encoder.register_forward_hook(count("encoder"))
    for block in backend.model.decoder.blocks:
        block.cross_attention.k.register_forward_hook(count("k"))
        block.cross_attention.v.register_forward_hook(count("v"))
    rows = Rows(backend, [SOURCES[0][:4], SOURCES[2]], max_rows=32)
    for chosen in ([0, 0, 1, 1], [1, 0, 3, 2], [0, 2], [1]):
        rows.select(chosen)
        rows.decode([7] * len(chosen))
    # Two sources of one length are one batch; three layers project each of them, once.
    assert calls == {"encoder": 1, "k": 2 * 3, "v": 2 * 3}


def complete(backend, tokenizer, **settings):
    sampling = Sampling(**{"max_tokens": 6, "ignore_eos": True, **settings})
    engine = Engine(backend, tokenizer)
    for source in SOURCES:
        engine.add(source, [sampling])
    found = {}
    while not engine.is_idle:
        found |= {i: chunk.completion for i, chunk in engine.step() if chunk.completion}
    assert not engine._session._memories
    return [found[i] for i in range(len(SOURCES))]


def test_greedy_answers_equal_computing_everything_anew(backend, framing_tokenizer):
    completions = complete(backend, framing_tokenizer)
    for source, completion in zip(SOURCES, completions, strict=True):
        said = []
        for _ in range(6):
            said.append(int(plain(backend, source, said)[-1].argmax()))
        assert list(completion.token_ids) == said
        assert completion.n_prompt_tokens == len(source)
        assert completion.text == framing_tokenizer.decode(said)


def test_the_repetition_penalty_sees_the_answer_and_not_the_source(backend, framing_tokenizer):
    for source, completion in zip(
        SOURCES, complete(backend, framing_tokenizer, repetition_penalty=3.0), strict=True
    ):
        said: list[int] = []
        for _ in range(6):
            logits = plain(backend, source, said)[-1].copy()
            for seen in {START, *said}:
                logits[seen] = logits[seen] / 3 if logits[seen] > 0 else logits[seen] * 3
            said.append(int(logits.argmax()))
        assert list(completion.token_ids) == said


def test_a_forced_token_comes_first_and_suppressed_ones_never(tiny_seq2seq, framing_tokenizer):
    free = complete(TorchSeq2Seq(tiny_seq2seq(), framing_tokenizer), framing_tokenizer)
    never = tuple({id_ for completion in free for id_ in completion.token_ids})
    model = tiny_seq2seq(forced_bos_id=17, suppressed_ids=never)
    backend = TorchSeq2Seq(model, framing_tokenizer)
    for completion in complete(backend, framing_tokenizer, logprobs=20):
        assert completion.token_ids[0] == 17
        assert completion.logprobs[0].logprob == 0
        # What is impossible is no alternative.
        assert [id_ for id_, _, _ in completion.logprobs[0].top] == [17]
        assert not set(completion.token_ids) & set(never)
        others = {id_ for each in completion.logprobs for id_, _, _ in each.top}
        assert not others & set(never)


def test_an_answer_is_complete_or_was_cut_and_says_which(backend, framing_tokenizer, monkeypatch):
    free = complete(backend, framing_tokenizer)
    end = free[0].token_ids[3]
    monkeypatch.setattr(framing_tokenizer, "eos_ids", (end,))
    for before, completion in zip(
        free, complete(backend, framing_tokenizer, ignore_eos=False), strict=True
    ):
        ids = before.token_ids
        n = ids.index(end) if end in ids else 6
        # At the limit nothing is put in the place of the last token.
        assert completion.token_ids == ids[:n]
        assert completion.finish_reason == ("stop" if n < 6 else "length")


@pytest.mark.parametrize(
    ("layout", "start", "first"), [("behind", 77, None), ("before", 2, 77), ("marker", 2, None)]
)
def test_the_target_language_is_where_the_model_wants_it(
    tiny_seq2seq, framing_tokenizer, layout, start, first
):
    backend = TorchSeq2Seq(tiny_seq2seq(), framing_tokenizer)
    assert (*backend.decoder_prefix(()), backend.constraints.first_id) == (2, None)
    framing_tokenizer.translation = Translation(layout, {"de_DE": 77, "fr_XX": 78})
    framing_tokenizer.set_languages(target="de_DE")
    assert (*backend.decoder_prefix(()), backend.constraints.first_id) == (start, first)


def test_a_model_that_names_no_start_is_refused(tiny_seq2seq, framing_tokenizer):
    backend = TorchSeq2Seq(tiny_seq2seq(decoder_start_id=None), framing_tokenizer)
    with pytest.raises(ModelError, match="no decoder_start_token_id"):
        Rows(backend, SOURCES, max_rows=32)


@torch.inference_mode()
def test_scores_are_those_of_each_answer_alone_and_a_source_is_read_once(backend):
    answers = [[5, 6, 7], [9], [100, 3, 8, 8, 8], [42, 40], [4]]
    sources = [SOURCES[i] for i in (0, 1, 0, 3, 0)]
    n_given = [1, 1, 3, 2, 1]
    pairs = [
        Pair(Scored((START, *ids), n), tuple(source))
        for source, ids, n in zip(sources, answers, n_given, strict=True)
    ]
    n_read = []
    backend.model.encoder.register_forward_hook(lambda module, args, output: n_read.append(output))
    found = backend.score(pairs, n_top=2)
    assert sum(len(batch) for batch in n_read) == 3
    expected, greedy, best = [], [], []
    for source, ids, n in zip(sources, answers, n_given, strict=True):
        logits = torch.from_numpy(plain(backend, source, ids[:-1]))[n - 1 :]
        targets = torch.tensor(ids[n - 1 :])
        expected += logits.log_softmax(dim=1)[torch.arange(len(targets)), targets].tolist()
        greedy += (logits.argmax(dim=1) == targets).tolist()
        best += logits.topk(2, dim=1).indices.tolist()
    logprobs = np.concatenate([each.logprobs for each in found])
    np.testing.assert_allclose(logprobs, expected, **TOLERANCE)
    assert [bool(is_greedy) for each in found for is_greedy in each.is_greedy] == greedy
    assert [ids.tolist() for each in found for ids in each.top_ids] == best


def test_greedy_means_what_would_be_written(tiny_seq2seq, framing_tokenizer):
    model = tiny_seq2seq()
    free = int(plain(TorchSeq2Seq(model, framing_tokenizer), SOURCES[0], [])[-1].argmax())
    model = tiny_seq2seq(suppressed_ids=(free,))
    backend = TorchSeq2Seq(model, framing_tokenizer)
    (written,) = [c.token_ids[0] for c in complete(backend, framing_tokenizer)[:1]]
    pairs = [Pair(Scored((START, id_), 1), tuple(SOURCES[0])) for id_ in (free, written)]
    forbidden, allowed = backend.score(pairs)
    assert (forbidden.is_greedy.tolist(), allowed.is_greedy.tolist()) == ([False], [True])
    # The probability stays the model's own.
    assert forbidden.logprobs[0] > allowed.logprobs[0]


@torch.inference_mode()
def test_vectors_are_the_means_of_what_the_encoder_says(backend):
    vectors = backend.embed(SOURCES)
    for vector, source in zip(vectors, SOURCES, strict=True):
        hidden = backend.model.encode(torch.tensor([source])).hidden[0]
        np.testing.assert_allclose(vector, hidden.mean(dim=0).numpy(), **TOLERANCE)
    assert backend.embed([]).shape == (0, 32)
