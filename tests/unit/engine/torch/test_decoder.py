"""The cache, the batch and the prefix tree are shortcuts: all must give what plain rows give."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lmwright.engine.prefix_tree import Scored, prefix_trees
from lmwright.engine.rows import Rows
from lmwright.engine.torch import outputs, session
from lmwright.engine.torch.decoder import TorchDecoder
from lmwright.model.transformer import DecoderLM

TOLERANCE = {"rtol": 0, "atol": 1e-5}
SHARED = [5, 9, 20, 31]
PROMPTS = [[*SHARED, 40, 41, 42, 43, 44], [*SHARED, 50], [*SHARED, 40, 41, 7], [*SHARED, 1, 2]]


@pytest.fixture
def backend(tiny_model) -> TorchDecoder:
    return TorchDecoder(tiny_model)


@torch.inference_mode()
def plain(backend, ids) -> np.ndarray:
    """Logits (T, V) of one sequence, without any shortcut."""
    return backend.model(torch.tensor([ids]))[0].numpy()


@pytest.mark.parametrize("prompts", [PROMPTS, [[3], [4, 5, 6]], [PROMPTS[0]], [[7], [7]]])
@pytest.mark.parametrize("chunk", [1, 3, 2048])
def test_ragged_prompts_give_the_logits_of_each_alone(backend, monkeypatch, prompts, chunk):
    monkeypatch.setattr(session, "MAX_CHUNK", chunk)
    rows = Rows(backend, prompts, max_rows=32)
    logits = rows.logits
    said = [list(prompt) for prompt in prompts]
    for step in range(3):
        for row, ids in zip(logits, said, strict=True):
            np.testing.assert_allclose(row, plain(backend, ids)[-1], **TOLERANCE)
        new = [10 * step + i for i in range(len(said))]
        logits = rows.decode(new)
        said = [[*ids, token] for ids, token in zip(said, new, strict=True)]


def test_rows_that_leave_do_not_disturb_the_others(backend):
    rows = Rows(backend, PROMPTS, max_rows=32)
    rows.decode([11, 12, 13, 14])
    rows.select([3, 1])
    logits = rows.decode([15, 16])
    expected = [[*PROMPTS[3], 14, 15], [*PROMPTS[1], 12, 16]]
    for row, ids in zip(logits, expected, strict=True):
        np.testing.assert_allclose(row, plain(backend, ids)[-1], **TOLERANCE)
    rows.select([1])
    last = rows.decode([17])[0]
    np.testing.assert_allclose(last, plain(backend, [*expected[1], 17])[-1], **TOLERANCE)


def test_a_long_answer_outgrows_the_first_cache(backend):
    rows = Rows(backend, [[3, 4], [5]], max_rows=32)
    logits = rows.logits
    ids = [3, 4]
    for _ in range(100):
        ids.append(int(logits[0].argmax()))
        logits = rows.decode([ids[-1], 6])
    np.testing.assert_allclose(logits[0], plain(backend, ids)[-1], **TOLERANCE)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("max_nodes", [1, 12, 768])
def test_a_prefix_tree_scores_like_each_sequence_alone(tiny_config, max_nodes, window):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        backend = TorchDecoder(DecoderLM(replace(tiny_config, sliding_window=window)))
    sequences = [Scored(tuple(ids), 2 + i % 3) for i, ids in enumerate([*PROMPTS, *PROMPTS[:2]])]
    n_scored = 0
    for tree in prefix_trees(sequences, max_nodes):
        scores = backend.score_tree(tree, n_top=3)
        logprobs, greedy = scores.logprobs, scores.is_greedy
        assert logprobs.dtype == np.float64
        for number, edges in tree.sequences:
            ids, n_context = sequences[number].token_ids, sequences[number].n_context
            logits = torch.from_numpy(plain(backend, ids)[n_context - 1 : -1])
            targets = torch.tensor(ids[n_context:])
            expected = logits.log_softmax(dim=1)[torch.arange(len(targets)), targets]
            np.testing.assert_allclose(logprobs[edges], expected.numpy(), **TOLERANCE)
            assert greedy[edges].tolist() == (logits.argmax(dim=1) == targets).tolist()
            top = logits.log_softmax(dim=1).topk(3, dim=1)
            assert scores.top_ids[edges].tolist() == top.indices.tolist()
            np.testing.assert_allclose(scores.top_logprobs[edges], top.values, **TOLERANCE)
            n_scored += 1
    assert n_scored == len(sequences)


def test_scores_do_not_depend_on_how_many_logits_are_held(backend, monkeypatch):
    (tree,) = prefix_trees([Scored(tuple(ids), 1) for ids in PROMPTS], 768)
    whole = backend.score_tree(tree).logprobs
    monkeypatch.setattr(outputs, "MAX_LOGIT_ROWS", 2)
    parts = backend.score_tree(tree).logprobs
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-6)


def test_embeddings_are_the_mean_of_the_last_hidden_states(backend):
    vectors = backend.embed([*PROMPTS])
    assert vectors.shape == (4, 64)
    assert vectors.dtype == np.float32
    seen = []
    backend.model.decoder.norm.register_forward_hook(
        lambda module, args, output: seen.append(output)
    )
    plain(backend, PROMPTS[0])
    np.testing.assert_allclose(vectors[0], seen[0][0].mean(dim=0).numpy(), **TOLERANCE)
    assert backend.embed([]).shape == (0, 64)
