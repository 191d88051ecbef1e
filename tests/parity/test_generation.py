"""Whoever moves from transformers expects the same answers: greedy, from sources, with beams."""

import collections
import functools

import pytest
import tokenizers
import torch
from tokenizers import models

from lmwright.engine.request import Sampling, ScoreRequest
from lmwright.lm import local_model
from lmwright.model import checkpoint
from lmwright.tokenizer.encode import Tokenizer

transformers = pytest.importorskip("transformers", reason="needs the `dev` extra")

N_IDS, N_NEW = 300, 12
T5 = {
    "vocab_size": N_IDS, "d_model": 32, "d_kv": 12, "d_ff": 48, "num_layers": 2,
    "num_decoder_layers": 2, "num_heads": 4, "initializer_factor": 3.0,
    "decoder_start_token_id": 0,
}  # fmt: skip
BART = {
    "vocab_size": N_IDS, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "max_position_embeddings": 64, "init_std": 0.3,
}  # fmt: skip
GPT2 = {
    "vocab_size": N_IDS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64,
    "initializer_range": 0.3,
}  # fmt: skip
MARIAN = {"pad_token_id": 299, "decoder_start_token_id": 299, "activation_function": "swish"}
# Each is the class, its own settings, and what transformers' `generate` is told besides.
VARIANTS = {
    "gpt2": ("GPT2", "GPT2LMHeadModel", GPT2, {}),
    "t5": ("T5", "T5ForConditionalGeneration", T5, {}),
    "t5-v1.1": (
        "T5",
        "T5ForConditionalGeneration",
        {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        {},
    ),
    "bart": ("Bart", "BartForConditionalGeneration", BART, {}),
    "bart-forced-bos": (
        "Bart", "BartForConditionalGeneration", BART, {"forced_bos_token_id": 7},
    ),
    "marian": ("Marian", "MarianMTModel", {**BART, **MARIAN}, {"bad_words_ids": [[299]]}),
}  # fmt: skip
# Weights as they come, with tied embeddings, make a model repeat what it wrote last.
FACTORS = {
    ".o.weight": 3, "wo.weight": 3, "fc1.weight": 3, "fc2.weight": 3, "embed_positions.weight": 3,
    "encoder_attn.out_proj.weight": 0.3, "model.shared.weight": 0.4,
}  # fmt: skip
PROMPTS = [[5, 9, 20, 31, 7, 100, 150], [40, 41, 42], [200, 3, 77, 5], [11] * 20]
SEARCHES = [
    {},
    {"n_beams": 2},
    {"n_beams": 2, "length_penalty": 0.6, "early_stopping": True},
    {"n_beams": 4, "length_penalty": 0.6},
    {"n_beams": 4, "length_penalty": 2.0},
    {"n_beams": 4, "early_stopping": True},
    {"n_beams": 3, "length_penalty": -1.0},
    {"n_beams": 4, "repetition_penalty": 1.5},
    {"repetition_penalty": 1.5},
]


@functools.cache
def theirs(variant):
    kind, name, settings, told = VARIANTS[variant]
    torch.manual_seed(7)
    model = getattr(transformers, name)(getattr(transformers, f"{kind}Config")(**settings)).eval()
    for label, parameter in model.named_parameters():
        if label.endswith("bias"):  # large ones would always give the same token
            parameter.data.uniform_(-0.2, 0.2)
        elif parameter.ndim == 1:
            parameter.data.uniform_(0.5, 1.5)
        else:
            for ending, factor in FACTORS.items():
                if label.endswith(ending) and parameter.requires_grad:  # Marian's waves are fixed
                    parameter.data.mul_(factor)
    for label, buffer in model.named_buffers():
        if label == "final_logits_bias":
            buffer.uniform_(-0.3, 0.3)
    for key, value in told.items():
        setattr(model.generation_config, key, value)
    return model


@functools.cache
def ours(variant, folder):
    theirs(variant).save_pretrained(folder)
    return checkpoint.load_folder(folder, torch.float32)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {variant: tmp_path_factory.mktemp(variant) for variant in VARIANTS}


def words(eos_ids):
    """A tokenizer whose tokens are words, of which these end an answer."""
    backend = tokenizers.Tokenizer(models.WordLevel({f"t{i}": i for i in range(N_IDS)}, "t0"))
    return Tokenizer(backend, special_tokens={}, eos_ids=eos_ids)


@torch.no_grad()
def expected(variant, eos_ids, search):
    """What transformers writes for each prompt, up to the end token."""
    model, written = theirs(variant), []
    model.generation_config.eos_token_id = list(eos_ids) or None
    # Else the last token at the limit is replaced by an EOS.
    model.generation_config.forced_eos_token_id = None
    model.generation_config.pad_token_id = 0
    settings = dict(search)
    settings["num_beams"] = settings.pop("n_beams", 1)
    for prompt in PROMPTS:
        ids = torch.tensor([prompt])
        mask = torch.ones_like(ids)
        out = model.generate(
            ids, attention_mask=mask, max_new_tokens=N_NEW, do_sample=False, **settings
        )[0].tolist()
        out = out[1:] if model.config.is_encoder_decoder else out[len(prompt) :]
        ends = [i for i, id_ in enumerate(out) if id_ in eos_ids]
        written.append((tuple(out[: ends[0]]), "stop") if ends else (tuple(out), "length"))
    return written


@functools.cache
def likely_ends(variant):
    """Two tokens that the model writes often, but seldom first."""
    found = collections.Counter()
    for search in ({}, {"n_beams": 4}):
        for ids, _ in expected(variant, (), search):
            start = 1 + ("forced_bos_token_id" in VARIANTS[variant][3])
            found.update(set(ids[start:]))
            found.subtract(2 * [ids[start - 1]])
    return tuple(id_ for id_, _ in found.most_common(2))


@pytest.mark.parametrize("search", SEARCHES, ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_answers_are_those_of_transformers(variant, search, folders):
    model = ours(variant, folders[variant])
    ends = likely_ends(variant)
    endless = [()] if set(search) <= {"n_beams"} else []
    for eos_ids in (*endless, ends[:1], ends):
        local = local_model(model, words(eos_ids), name=variant)
        completions = local.generate(PROMPTS, Sampling(max_tokens=N_NEW, **search))
        said = [(c.token_ids, c.finish_reason) for c in completions]
        assert said == expected(variant, eos_ids, search)
        if not eos_ids:
            assert {reason for _, reason in said} == {"length"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_comparison_covers_answers_that_end_soon_and_late(variant):
    ends = likely_ends(variant)
    found = [
        answer
        for search in ({}, {"n_beams": 4})
        for eos_ids in (ends[:1], ends)
        for answer in expected(variant, eos_ids, search)
    ]
    assert "stop" in {reason for _, reason in found}
    assert len({len(ids) for ids, _ in found}) > 2
    assert len({id_ for ids, _ in found for id_ in ids}) > 1


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "gpt2"])
def test_scores_of_answers_are_those_of_transformers(variant, folders):
    local = local_model(ours(variant, folders[variant]), words(()), name=variant)
    answers = [[5, 6, 7], [9], [100, 3, 8, 8, 8], [42, 40]]
    requests = [ScoreRequest(p, a, n_top=2) for p, a in zip(PROMPTS, answers, strict=True)]
    scores = local.score([*requests, ScoreRequest(PROMPTS[0], answers[3])])
    for prompt, answer, score in zip(
        [*PROMPTS, PROMPTS[0]], [*answers, answers[3]], scores, strict=True
    ):
        start = theirs(variant).config.decoder_start_token_id
        with torch.no_grad():
            logits = theirs(variant)(
                input_ids=torch.tensor([prompt]),
                decoder_input_ids=torch.tensor([[start, *answer[:-1]]]),
            ).logits[0]
        logprobs = logits.double().log_softmax(dim=1)
        rows = torch.arange(len(answer))
        told = torch.from_numpy(score.token_logprobs)
        assert score.token_ids == tuple(answer)
        torch.testing.assert_close(told, logprobs[rows, torch.tensor(answer)], rtol=0, atol=1e-4)
        for place, best in zip(score.top, logprobs.topk(2, dim=1).indices.tolist(), strict=False):
            assert [id_ for id_, _ in place] == best
