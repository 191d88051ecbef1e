"""All that measures or serves a model goes through here: a wrong border token is a wrong result."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tokenizers
import torch
from tokenizers import models, processors

from conftest import build_model
from lmwright import lm
from lmwright.core.errors import RequestError
from lmwright.engine.request import Sampling, ScoreRequest
from lmwright.lm import LocalModel, local_model
from lmwright.tokenizer.encode import Tokenizer

USER = {"role": "user", "content": "What does a card cost?"}


@torch.inference_mode()
def logprobs(model: LocalModel, ids: list[int]) -> np.ndarray:
    """Log-probability of each token after the first, by a plain forward pass."""
    logits = lm.modules(model)(torch.tensor([ids]))[0, :-1].double()
    return logits.log_softmax(dim=1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].numpy()


def with_bos(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer, but with a BOS in front of every text."""
    tokenizer._backend.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    return Tokenizer(tokenizer._backend, special_tokens={"bos_token": "<|endoftext|>"})


def test_scores_are_those_of_a_plain_forward_pass_in_the_order_of_the_requests(tiny_lm):
    context = "What does a card cost?"
    requests = [ScoreRequest(context, text) for text in (" eight euros", " nine", " eight euros")]
    requests.insert(1, ScoreRequest("The bank", " opens at nine in the morning"))
    for request, score in zip(requests, tiny_lm.score(requests), strict=True):
        ids = tiny_lm.tokenizer.encode(request.context + request.continuation)
        n = len(score.token_ids)
        assert score.token_ids == tuple(ids[-n:])
        assert tiny_lm.tokenizer.decode(score.token_ids) == request.continuation
        np.testing.assert_allclose(score.token_logprobs, logprobs(tiny_lm, ids)[-n:], atol=1e-5)
        assert score.logprob == score.token_logprobs.sum()
    assert tiny_lm.score([]) == []


def test_greedy_is_what_the_model_itself_would_say(tiny_lm):
    tokenizer, n_compared = tiny_lm.tokenizer, 0
    completions = tiny_lm.generate([[i] for i in range(40)], Sampling(max_tokens=1))
    for i, completion in enumerate(completions):
        # Half a character is no text that could be scored.
        if tokenizer.encode(completion.text) == list(completion.token_ids) != []:
            other = "z" if completion.text != "z" else "y"
            said, unsaid = tiny_lm.score(
                [ScoreRequest([i], text) for text in (completion.text, other)]
            )
            assert said.is_greedy
            assert not unsaid.is_greedy
            assert said.logprob > unsaid.logprob
            n_compared += 1
    assert n_compared >= 10


def test_a_token_over_the_border_counts_as_continuation(tiny_lm):
    encode = tiny_lm.tokenizer.encode
    # "The card cos" + "ts" meet in one token of the merged word.
    whole = encode("a card costs")
    context, continuation = "a card co", "sts"
    apart = [*encode(context), *encode(continuation)]
    assert apart != whole
    (score,) = tiny_lm.score([ScoreRequest(context, continuation)])
    n_common = len(whole) - len(score.token_ids)
    assert whole[:n_common] == encode(context)[:n_common]
    assert whole[n_common] != encode(context)[n_common]
    assert score.token_ids == tuple(whole[n_common:])


def test_token_ids_and_dialogues_are_contexts_that_stay_as_they_are(tiny_lm):
    tokenizer = tiny_lm.tokenizer
    for context, ids in (([5, 9, 300 - 1], [5, 9, 299]), ([USER], tokenizer.chat([USER]))):
        (score,) = tiny_lm.score([ScoreRequest(context, "sts")])
        assert score.token_ids == tuple(tokenizer.encode("sts"))
        expected = logprobs(tiny_lm, [*ids, *score.token_ids])[-len(score.token_ids) :]
        np.testing.assert_allclose(score.token_logprobs, expected, atol=1e-5)


def test_each_row_of_the_model_can_be_read_also_one_without_a_token(tiny_config):
    vocabulary = {"a": 0, "b": 1, "<unk>": 2, "c": 9}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer = Tokenizer(backend, special_tokens={})
    assert (tokenizer.vocab_size, tokenizer.n_ids) == (4, 10)
    padded = local_model(build_model(replace(tiny_config, vocab_size=12)), tokenizer, name="tiny")
    (score,) = padded.score([ScoreRequest([9, 11], [5, 9])])
    np.testing.assert_allclose(
        score.token_logprobs, logprobs(padded, [9, 11, 5, 9])[-2:], atol=1e-5
    )
    assert padded.encode([9, 11]) == [9, 11]
    with pytest.raises(RequestError, match="= 12: token ids go to 11"):
        padded.generate([[9, 12]], Sampling(max_tokens=1))


def test_an_empty_context_scores_all_that_something_stands_before(tiny_lm):
    ids = tiny_lm.tokenizer.encode("The bank opens")
    (score,) = tiny_lm.score([ScoreRequest("", "The bank opens")])
    assert score.token_ids == tuple(ids[1:])
    with pytest.raises(RequestError, match="'T' is a single token with nothing before it"):
        tiny_lm.score([ScoreRequest("", "T")])


def test_with_a_bos_an_empty_context_scores_everything(tiny_model, tiny_tokenizer):
    model = local_model(tiny_model, with_bos(tiny_tokenizer), name="tiny")
    ids = model.tokenizer.encode("The bank")
    assert ids[0] == 0
    (score,) = model.score([ScoreRequest("", "The bank")])
    assert score.token_ids == tuple(ids[1:])
    np.testing.assert_allclose(score.token_logprobs, logprobs(model, ids), atol=1e-5)
    # Token ids are taken as they are: no second BOS, and none between context and continuation.
    (score,) = model.score([ScoreRequest([0, 5], "The bank")])
    assert score.token_ids == tuple(ids[1:])


def test_generation_keeps_the_order_and_takes_all_forms_of_a_prompt(tiny_lm):
    prompts = ["The bank opens at nine", [5], [USER]]
    sampling = Sampling(max_tokens=4, ignore_eos=True)
    together = tiny_lm.generate(prompts, sampling)
    assert together == [tiny_lm.generate([prompt], sampling)[0] for prompt in prompts]
    assert together[1].n_prompt_tokens == 1
    assert together[2].n_prompt_tokens == len(tiny_lm.tokenizer.chat([USER]))
    chunks = list(tiny_lm.stream(prompts[0], sampling))
    assert chunks[-1].completion == together[0]
    assert tiny_lm.generate([], sampling) == []


def test_embeddings_do_not_depend_on_the_other_texts(tiny_lm):
    texts = ["The bank", "What does a new card cost?"]
    together = tiny_lm.embed(texts)
    assert together.shape == (2, 64)
    np.testing.assert_array_equal(together, np.concatenate([tiny_lm.embed([t]) for t in texts]))
    assert tiny_lm.embed([]).shape == (0, 64)


LONG = [5] * 250


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda m: m.generate([LONG], Sampling(max_tokens=7)), "257 tokens; tiny takes 1 to 256"),
        (lambda m: m.stream(LONG, Sampling(max_tokens=7)), "250 prompt tokens"),
        (lambda m: m.stream([5], Sampling(n_beams=2)), "n_beams = 2: .* nothing can be streamed"),
        (lambda m: m.generate([LONG, "a" * 999], Sampling(max_tokens=1)), "takes 1 to 256"),
        (lambda m: m.score([ScoreRequest(LONG, "z" * 20)]), "270 tokens; tiny takes"),
        (lambda m: m.embed(["a", "z" * 300]), r"texts\[1\]: 300 tokens"),
        (lambda m: m.embed([""]), r"texts\[0\]: 0 tokens"),
        (lambda m: m.score([ScoreRequest("a", "")]), "the continuation is empty"),
        (lambda m: m.generate([[]], Sampling()), "the prompt is empty"),
        (lambda m: m.generate([[5, 300]], Sampling()), r"prompt\[1\] = 300: token ids go to 299"),
        (lambda m: m.generate([[-1]], Sampling()), r"prompt\[0\] = -1"),
        (lambda m: m.generate([[5, True]], Sampling()), r"prompt\[1\] = True: expected a token"),
        (lambda m: m.generate([[5, "a"]], Sampling()), r"prompt\[1\] = 'a': expected a token"),
        (lambda m: m.generate([[{"role": "user"}]], Sampling()), r"messages\[0\].content"),
    ],
)
def test_what_cannot_be_answered_is_refused_before_any_work(tiny_lm, monkeypatch, call, expected):
    for work in ("open_session", "score", "embed"):
        monkeypatch.setattr(tiny_lm.backend, work, None)
    with pytest.raises(RequestError, match=expected):
        call(tiny_lm)


def test_a_prompt_may_fill_the_context_to_the_last_token(tiny_lm):
    (completion,) = tiny_lm.generate([LONG], Sampling(max_tokens=6, ignore_eos=True))
    assert len(completion.token_ids) == 6


def test_saved_and_loaded_it_says_the_same(tiny_lm, tiny_folder, tmp_path):
    tiny_lm.save(tmp_path / "out")
    loaded = lm.load(tmp_path / "out", precision="fp32", name="again")
    assert loaded.name == "again"
    request = [ScoreRequest([USER], "eight euros")]
    np.testing.assert_array_equal(
        loaded.score(request)[0].token_logprobs, tiny_lm.score(request)[0].token_logprobs
    )
    sampling = Sampling(max_tokens=8, ignore_eos=True)
    assert loaded.generate([[USER]], sampling) == tiny_lm.generate([[USER]], sampling)


def test_facts_are_counted_on_the_files(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "m")
    facts = lm.load(folder, precision="fp32").info
    # Embedding, head, two blocks of attention (64 + 32 + 32 + 64 rows), MLP and norms.
    n_params = 2 * 300 * 64 + 2 * (64 * (64 + 32 + 32 + 64) + 3 * 64 * 128 + 2 * 64) + 64
    size_bytes = (folder / "model.safetensors").stat().st_size
    assert (facts.n_params, facts.size_bytes) == (n_params, size_bytes)
    assert facts.bits_per_weight == 8 * size_bytes / n_params
    assert 32 < facts.bits_per_weight < 32.5
    assert (facts.architecture, facts.context_length, facts.dtype) == ("llama", 256, "float32")


def test_a_tokenizer_that_merges_everything_cannot_hide_the_continuation(tiny_model):
    backend = tokenizers.Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    model = local_model(tiny_model, Tokenizer(backend, special_tokens={}), name="tiny")
    with pytest.raises(RequestError, match="single token"):
        model.score([ScoreRequest("a", "b")])
    (score,) = model.score([ScoreRequest("ba", "b")])
    assert score.token_ids == (2,)


def test_the_ends_of_the_configuration_end_answers_and_are_saved(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    (folder / "generation_config.json").unlink()
    settings = json.loads((folder / "config.json").read_text())
    probe = lm.load(folder).generate(["The bank"], Sampling(max_tokens=6, ignore_eos=True))[0]
    end = probe.token_ids[3]
    (folder / "config.json").write_text(json.dumps({**settings, "eos_token_id": [2, end]}))
    model = lm.load(folder)
    answer = model.generate(["The bank"], Sampling(max_tokens=6))[0]
    assert answer.finish_reason == "stop"
    assert end not in answer.token_ids
    lm.local_model(lm.modules(model), model.tokenizer, name="x").save(tmp_path / "again")
    for name in ("config.json", "generation_config.json"):
        assert json.loads((tmp_path / "again" / name).read_text())["eos_token_id"] == [2, end]


def test_sampling_defaults_survive_loading_and_saving(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    given = {"temperature": 0.7, "top_p": 0.8, "do_sample": True, "suppress_tokens": [3]}
    written = {**given, "eos_token_id": [2, 0], "transformers_version": "5.0"}
    (folder / "generation_config.json").write_text(json.dumps(written))
    model = lm.load(folder)
    lm.local_model(lm.modules(model), model.tokenizer, name="x").save(tmp_path / "again")
    found = json.loads((tmp_path / "again" / "generation_config.json").read_text())
    assert found == {**given, "eos_token_id": [2, 0]}
