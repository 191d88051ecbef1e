"""Encoders and encoder-decoders go through the same door: what they cannot do, they must say."""

import numpy as np
import pytest
import torch

from lmwright import lm
from lmwright.compression.config import Compress
from lmwright.compression.run import compress
from lmwright.core.errors import RequestError, UnsupportedError
from lmwright.engine.request import Sampling, ScoreRequest
from lmwright.finetuning.config import Finetune
from lmwright.finetuning.run import finetune
from lmwright.formats.sentence_transformers import Pooling
from lmwright.lm import LocalModel, local_model
from lmwright.model.context import CachedRow

LABELS = ("bad", "so", "good")


@pytest.fixture
def encoder(tiny_encoder, framing_tokenizer):
    """Make an encoder with its tokenizer."""

    def make(pooling=None, **changes):
        return local_model(tiny_encoder(**changes), framing_tokenizer, name="enc", pooling=pooling)

    return make


@pytest.fixture
def seq2seq(tiny_seq2seq, framing_tokenizer) -> LocalModel:
    return local_model(tiny_seq2seq(), framing_tokenizer, name="s2s")


@torch.inference_mode()
def hidden(model: LocalModel, text: str) -> torch.Tensor:
    return lm.modules(model).hidden(torch.tensor([model.tokenizer.encode_input(text).ids]))[0]


def test_an_encoder_embeds_framed_texts(encoder):
    model = encoder()
    texts = ["The bank opens at nine", "", "a"]
    expected = np.stack([hidden(model, text).mean(dim=0).numpy() for text in texts])
    np.testing.assert_allclose(model.embed(texts), expected, rtol=0, atol=2e-6)
    assert (model.kind, model.info.architecture) == ("encoder", "bert")


@pytest.mark.parametrize("lowers_case", [False, True])
def test_a_folder_may_ask_for_a_prompt_and_for_small_letters(encoder, lowers_case):
    pooling = Pooling(("cls",), is_normalized=True, prompt="query: ", lowers_case=lowers_case)
    model = encoder(pooling)
    text = "query: the Bank".lower() if lowers_case else "query: the Bank"
    first = hidden(model, text)[0]
    (vector,) = model.embed(["the Bank"])
    np.testing.assert_allclose(vector, first / first.norm(), rtol=0, atol=2e-6)


def test_a_decoder_that_was_trained_to_embed_pools_as_its_folder_says(
    tiny_model, framing_tokenizer
):
    pooling = Pooling(("lasttoken",), is_normalized=False)
    model = local_model(tiny_model, framing_tokenizer, name="tiny", pooling=pooling)
    ids = torch.tensor([framing_tokenizer.encode_input("The bank").ids])
    context = tiny_model.cached_context(
        [CachedRow(0, ids.shape[1], range(9))], tiny_model.new_cache()
    )
    with torch.inference_mode():
        expected = tiny_model.hidden(ids, context)[0, -1]
    np.testing.assert_allclose(model.embed(["The bank"])[0], expected, rtol=0, atol=1e-5)


def test_classes_have_names_and_pairs_are_read_together(encoder):
    model = encoder(head="sequence", labels=LABELS)
    texts, pairs = ["The bank", "a card"], ["opens", "costs eight euros"]
    alone, together = model.classify(texts), model.classify(texts, pairs)
    for text, second, single, pair in zip(texts, pairs, alone, together, strict=True):
        framed = model.tokenizer.encode_input(text, second)
        with torch.inference_mode():
            types = torch.tensor([framed.segments])
            expected = lm.modules(model)(torch.tensor([framed.ids]), types=types)[0].softmax(dim=0)
        np.testing.assert_allclose(pair.values, expected, rtol=0, atol=2e-6)
        assert pair.labels == LABELS
        assert pair.problem == "single_label"
        assert pair.label == LABELS[int(expected.argmax())]
        assert single.values != pair.values
    assert model.classify([]) == []


def test_classes_of_tokens_say_where_they_stand(encoder):
    model = encoder(head="tokens", labels=LABELS)
    texts = ["The bank opens", "a card"]
    for text, found in zip(texts, model.classify_tokens(texts), strict=True):
        ids = model.tokenizer.encode(text, add_bos=False)
        assert "".join(text[each.start : each.end] for each in found) == text
        assert [model.tokenizer.decode([id_]) for id_ in ids] == [
            text[each.start : each.end] for each in found
        ]
        with torch.inference_mode():
            framed = torch.tensor([model.tokenizer.encode_input(text).ids])
            expected = lm.modules(model)(framed)[0].softmax(dim=1)[1:-1]
        told = [each.answer.values for each in found]
        np.testing.assert_allclose(told, expected, rtol=0, atol=2e-6)


def test_an_encoder_decoder_reads_the_framed_prompt_and_streams_its_answer(seq2seq):
    sampling = Sampling(max_tokens=6, ignore_eos=True)
    text = "The bank opens"
    (completion,) = seq2seq.generate([text], sampling)
    framed = seq2seq.tokenizer.encode_input(text).ids
    assert seq2seq.encode(text) == framed
    assert seq2seq.generate([framed], sampling) == [completion]
    assert completion.n_prompt_tokens == len(framed)
    chunks = list(seq2seq.stream(text, sampling))
    assert chunks[-1].completion == completion
    beams = seq2seq.generate([text, "a"], Sampling(max_tokens=6, n_beams=3))
    assert [len(c.token_ids) <= 6 for c in beams] == [True, True]


def test_an_encoder_decoder_scores_an_answer_without_its_frame(seq2seq):
    source, answer = "What does a card cost?", "eight euros"
    score, longer = seq2seq.score([ScoreRequest(source, answer), ScoreRequest("", answer + "!")])
    ids = seq2seq.tokenizer.encode(answer, add_bos=False)
    assert score.token_ids == tuple(ids)
    assert len(longer.token_ids) == len(ids) + 1
    with torch.inference_mode():
        framed = torch.tensor([seq2seq.tokenizer.encode_input(source).ids])
        logits = lm.modules(seq2seq)(framed, torch.tensor([[2, 0, *ids[:-1]]]))[0, 1:].double()
    expected = logits.log_softmax(dim=1)[torch.arange(len(ids)), torch.tensor(ids)]
    np.testing.assert_allclose(score.token_logprobs, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda m: m.generate(["a"], Sampling()), "writes no text; it can embed, classify$"),
        (lambda m: m.stream("a", Sampling()), "writes no text"),
        (lambda m: m.score([ScoreRequest("a", "b")]), "scores no text"),
        (lambda m: m.classify_tokens(["a"]), "no head that classifies tokens; it can embed, "),
        (lambda m: finetune(m, Finetune(data="starter:bank-support")), "cannot be fine-tuned"),
    ],
)
def test_an_encoder_says_what_it_is_and_what_it_can(encoder, call, expected):
    model = encoder(head="sequence", labels=LABELS)
    with pytest.raises(UnsupportedError, match=rf"^enc \(encoder, bert\) .*{expected}"):
        call(model)


def test_others_say_so_too(encoder, seq2seq, tiny_lm):
    for model, name in ((tiny_lm, "tiny"), (seq2seq, "s2s"), (encoder(head="masked"), "enc")):
        with pytest.raises(UnsupportedError, match=rf"^{name} \(.*no head that classifies whole"):
            model.classify(["a"])
    with pytest.raises(UnsupportedError, match=r"^s2s \(encoder-decoder, bart\) cannot be fine-"):
        finetune(seq2seq, Finetune(data="starter:bank-support"))
    for model in (encoder(), seq2seq):
        with pytest.raises(RequestError, match="cannot be compressed; decoders"):
            compress(model, Compress(model="m", method="int8"))


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda e, s: e.embed(["a", "z" * 70]), r"texts\[1\]: 72 tokens; enc takes 1 to 64"),
        (lambda e, s: e.classify(["z" * 63]), r"texts\[0\]: 65 tokens"),
        (lambda e, s: e.classify(["a", "b"], ["c"]), "2 texts and 1 pairs"),
        (lambda e, s: s.generate(["z" * 70], Sampling()), "the prompt: 72 tokens; s2s takes"),
        (lambda e, s: s.generate(["a"], Sampling(max_tokens=64)), "max_tokens: 65 tokens"),
        (lambda e, s: s.score([ScoreRequest("z" * 63, "a")]), "context: 65 tokens"),
        (lambda e, s: s.score([ScoreRequest("a", "z" * 63)]), "continuation: 65 tokens"),
    ],
)
def test_nothing_is_cut_off(encoder, seq2seq, call, expected):
    with pytest.raises(RequestError, match=expected):
        call(encoder(head="sequence", labels=LABELS), seq2seq)


@pytest.mark.parametrize("head", ["sequence", "none"])
def test_an_encoder_saved_and_loaded_says_the_same(encoder, tmp_path, head):
    pooling = Pooling(("mean",), is_normalized=True, max_tokens=40)
    changes = {"labels": LABELS} if head == "sequence" else {"has_pooler": True}
    model = encoder(pooling, head=head, **changes)
    model.save(tmp_path / "out")
    loaded = lm.load_local(tmp_path / "out", precision="fp32")
    assert loaded.context_length == 40
    text = ["The bank"]
    np.testing.assert_allclose(loaded.embed(text), model.embed(text), rtol=0, atol=1e-6)
    if head == "sequence":
        (ours,), (theirs,) = model.classify(text), loaded.classify(text)
        assert (ours.labels, ours.problem) == (theirs.labels, theirs.problem)
        np.testing.assert_allclose(ours.values, theirs.values, rtol=0, atol=1e-6)


def test_an_encoder_decoder_saved_and_loaded_says_the_same(
    tiny_seq2seq, framing_tokenizer, tmp_path
):
    modules = tiny_seq2seq(forced_bos_id=17, suppressed_ids=(9, 11))
    model = local_model(modules, framing_tokenizer, name="s2s")
    model.save(tmp_path / "out")
    loaded = lm.load_local(tmp_path / "out", precision="fp32")
    for settings in ({"ignore_eos": True}, {"n_beams": 3}):
        sampling = Sampling(max_tokens=6, **settings)
        assert loaded.generate(["The bank"], sampling) == model.generate(["The bank"], sampling)
    request = [ScoreRequest("The bank", "opens")]
    np.testing.assert_array_equal(
        loaded.score(request)[0].token_logprobs, model.score(request)[0].token_logprobs
    )
