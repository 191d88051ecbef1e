"""Decoders must compute what transformers computes, from its folders, into them and in GGUF."""

import copy
import functools
import json
from dataclasses import replace

import pytest
import torch

from families import DECODERS, LIMIT
from lmwright.core.errors import ModelError
from lmwright.engine.request import Sampling
from lmwright.formats.gguf import open_gguf
from lmwright.hub import cache_folder
from lmwright.lm import load, local_model, modules
from lmwright.model import checkpoint
from lmwright.model.families import FAMILIES, family
from lmwright.model.families.family import rows_of
from lmwright.tokenizer.gguf.writer import gguf_metadata
from lmwright.training.batches import IGNORE, PackedBatch
from lmwright.training.losses import next_token
from lmwright.verification.llama_cpp import LlamaCpp

differences = pytest.importorskip("differences", reason="needs the `dev` extra")
pair, tokens, largest = differences.pair, differences.tokens, differences.largest
IN_GGUF = [name for name, variant in DECODERS.items() if variant.no_gguf is None]
OLD_SPELLINGS = ("llama-linear", "llama-llama3", "llama-yarn", "phi3-longrope", "phi3-partial")


@pytest.fixture(params=DECODERS)
def name(request):
    return request.param


def config_of(folder):
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


def test_the_setting_under_test_reached_our_configuration(name):
    config = pair(name).ours.config
    for field, value in DECODERS[name].shows.items():
        assert functools.reduce(getattr, field.split("."), config) == value, field


@pytest.mark.parametrize("name", [n for n, v in DECODERS.items() if v.undone])
@torch.no_grad()
def test_without_the_setting_under_test_the_logits_are_others(name):
    """What follows proves something only where a mistake would be seen."""
    ours = pair(name).ours
    other = family(ours.config.family).assembly(replace(ours.config, **DECODERS[name].undone))
    other.load_state_dict(ours.state_dict())
    ids = tokens(2, differences.N_TOKENS)
    assert largest(other(ids), ours(ids)) > 1000 * LIMIT


def test_logits_of_whole_rows(name):
    assert differences.full_forward(pair(name)) <= LIMIT


def test_logits_of_a_ragged_batch_and_its_next_tokens(name):
    assert differences.padded_batch(pair(name)) <= LIMIT


def test_logits_step_by_step_behind_a_cache(name):
    assert differences.cached_decoding(pair(name)) <= LIMIT


def test_logits_of_packed_samples_are_those_of_each_alone(name):
    assert differences.packed_samples(pair(name)) <= LIMIT


def test_transformers_opens_our_folder_with_the_same_logits(name):
    assert differences.saved(pair(name)) <= LIMIT


@pytest.mark.parametrize("name", ["gpt2", "llama-tied", "qwen3", "gemma2", "gemma3", "olmo2"])
def test_loss_and_gradients_are_those_of_transformers(name):
    theirs, ours = (copy.deepcopy(model) for model in (pair(name).theirs, pair(name).ours))
    theirs.requires_grad_(True)
    ours.requires_grad_(True)
    rows = [tokens(n, seed=n) for n in (17, 5)]
    total, count = next_token(ours, differences.packed(rows))
    total.backward()
    # Theirs is a mean over each row's targets, ours a sum over all.
    losses = [theirs(row[None], labels=row[None]).loss * (len(row) - 1) for row in rows]
    assert count == 16 + 4
    torch.testing.assert_close(total, sum(losses), rtol=1e-5, atol=0)
    sum(losses).backward()
    expected = {key: parameter.grad for key, parameter in theirs.named_parameters()}
    found = dict(ours.named_parameters())
    for row in rows_of(family(ours.config.family), ours.config, set(found)):
        grad = torch.cat([found.pop(part).grad for part in row.ours])
        grad = grad.T if row.layout == "transposed" else grad
        scale = expected[row.hugging_face].abs().max()
        assert scale > 0, row
        assert (grad - expected.pop(row.hugging_face)).abs().max() <= 1e-4 * scale, row
    assert not found
    assert not expected


def test_what_loss_counts_is_what_transformers_counts():
    ids = tokens(1, 30)
    labels = ids.clone()
    labels[0, :11] = IGNORE
    targets = torch.cat((labels[0, 1:], torch.tensor([IGNORE])))
    batch = PackedBatch(ids[0], targets, torch.arange(30), torch.zeros(30, dtype=torch.int64))
    with torch.no_grad():
        total, count = next_token(pair("llama-tied").ours, batch)
        loss = pair("llama-tied").theirs(ids, labels=labels).loss
    assert count == 19
    torch.testing.assert_close(total / count, loss, rtol=1e-5, atol=0)


def write_gguf(name, path):
    return checkpoint.save_gguf(
        pair(name).ours, path, type_name="F32", tokenizer_metadata={}, name=name
    )


@pytest.mark.parametrize("name", IN_GGUF)
@torch.no_grad()
def test_gguf_brings_back_configuration_and_logits(name, tmp_path):
    path = tmp_path / "model.gguf"
    write_gguf(name, path)
    with open_gguf(path) as file:
        again = checkpoint.load_gguf(file, torch.float32)
    ours, ids = pair(name).ours, tokens(2, differences.N_TOKENS)
    # The tokenizer's entries hold the tokens with a role; llama.cpp has no name for Mistral.
    told_elsewhere = {"bos_id": None, "eos_ids": (), "pad_id": None, "generation": {}}
    expected = replace(ours.config, **told_elsewhere, family=again.config.family)
    assert family(again.config.family).gguf == family(ours.config.family).gguf or "mistral" in name
    assert differing(again.config, expected) <= {"local_layers"}
    assert [again.config.is_local(i) for i in range(expected.n_layers)] == [
        expected.is_local(i) for i in range(expected.n_layers)
    ]
    differences.reset(pair(name).theirs)
    assert largest(again(ids), pair(name).theirs(ids).logits) <= LIMIT
    for key, tensor in again.state_dict().items():
        # llama.cpp stores Gemma's norms with one added, which rounds.
        rounding = 1e-6 if "norm" in key else 0
        assert largest(tensor, ours.state_dict()[key]) <= rounding, key


def flat(config):
    """Return all numbers and choices, those of the ropes among them."""
    fields = dict(vars(config))
    for key in ("rope", "local_rope"):
        rope = fields.pop(key)
        fields |= {} if rope is None else {f"{key}.{k}": v for k, v in vars(rope).items()}
    return fields


def differing(config, expected):
    """Return the fields that are others; numbers of a GGUF have 32 bits."""
    found, expected = flat(config), flat(expected)
    assert found.keys() == expected.keys()
    return {
        key
        for key, value in expected.items()
        if found[key] != (pytest.approx(value, rel=1e-6) if isinstance(value, float) else value)
    }


@pytest.mark.parametrize("name", [n for n, v in DECODERS.items() if v.no_gguf is not None])
def test_what_gguf_cannot_say_is_refused_before_a_file_is_there(name, tmp_path):
    with pytest.raises(ModelError, match=DECODERS[name].no_gguf):
        write_gguf(name, tmp_path / "model.gguf")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", IN_GGUF)
@torch.no_grad()
def test_llama_cpp_computes_the_same_from_our_gguf(name, tmp_path, tiny_tokenizer):
    """The names of tensors and keys, the order of rows: only llama.cpp knows if they are right."""
    pytest.importorskip("xllamacpp", reason="needs the `dev` extra")
    ours, ids, path = pair(name).ours, tokens(differences.N_TOKENS), tmp_path / "model.gguf"
    metadata = gguf_metadata(tiny_tokenizer, vocab_size=ours.config.vocab_size)
    # A "phi3" in the name makes llama.cpp look for tokens of its own.
    checkpoint.save_gguf(ours, path, type_name="F32", tokenizer_metadata=metadata, name="tiny")
    expected = ours(ids[None])[0, -1].log_softmax(-1)
    with LlamaCpp(path, n_threads=1) as model:
        [top] = model.greedy(ids.tolist(), 1).top
    # Its GELU is a table of 16-bit numbers.
    limit = 0.01 if "gelu" in ours.config.activation else 10 * LIMIT
    assert max(abs(float(expected[id_]) - logarithm) for id_, logarithm in top) < limit
    assert len(top) == 20


def test_each_decoder_has_a_variant_that_gguf_can_say():
    said = {variant.family for variant in DECODERS.values() if variant.no_gguf is None}
    assert said == {name for name, kind in FAMILIES.items() if kind.gguf is not None}


@torch.no_grad()
def test_a_sharded_folder_is_the_same_model(tmp_path):
    theirs, ids = pair("llama").theirs, tokens(1, 20)
    theirs.save_pretrained(tmp_path, max_shard_size="8KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    ours = checkpoint.load_folder(tmp_path, torch.float32)
    assert largest(ours(ids), theirs(ids).logits) <= LIMIT


def rewritten(name, folder, change):
    """Open a folder of transformers whose config.json `change` has put into an older spelling."""
    pair(name).theirs.save_pretrained(folder)
    config = config_of(folder)
    change(config)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return checkpoint.load_folder(folder, torch.float32)


@pytest.mark.parametrize("name", OLD_SPELLINGS)
@pytest.mark.parametrize("key", ["type", "rope_type"])
def test_the_spelling_before_transformers_5_is_read(name, key, tmp_path):
    """Folders on the Hub say rope_theta + rope_scaling, and the older ones call rope_type type."""

    def change(config):
        scaling = config.pop("rope_parameters")
        config["rope_theta"] = scaling.pop("rope_theta")
        config["partial_rotary_factor"] = scaling.pop("partial_rotary_factor", 1.0)
        config["rope_scaling"] = {**scaling, key: scaling.pop("rope_type")}

    assert rewritten(name, tmp_path, change).config == pair(name).ours.config


@pytest.mark.parametrize("name", ["gemma3", "gemma3-linear"])
def test_gemma_3_is_read_as_its_first_release_spelt_it(name, tmp_path):
    def change(config):
        tables = config.pop("rope_parameters")
        del config["layer_types"], config["_sliding_window_pattern"]
        config["rope_theta"] = tables["full_attention"].pop("rope_theta")
        config["rope_local_base_freq"] = tables["sliding_attention"]["rope_theta"]
        config["sliding_window_pattern"] = 6
        config["rope_scaling"] = tables["full_attention"] if name == "gemma3-linear" else None

    assert rewritten(name, tmp_path, change).config == pair(name).ours.config


@torch.no_grad()
def test_gpt_2_without_its_prefix_and_with_its_masks_is_read(tmp_path):
    """The file on the Hub has no "transformer." and carries a causal mask a layer."""
    from safetensors.torch import load_file, save_file

    pair("gpt2").theirs.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = {k.removeprefix("transformer."): v for k, v in load_file(path).items()}
    save_file({**tensors, "h.0.attn.bias": torch.ones(1, 1, 128, 128).tril()}, path)
    ours, ids = checkpoint.load_folder(tmp_path, torch.float32), tokens(1, 20)
    assert largest(ours(ids), pair("gpt2").theirs(ids).logits) <= LIMIT


@pytest.mark.parametrize("name", ["llama-tied", "mistral-window", "gpt2", "gemma3"])
def test_greedy_generation_is_equal(name, tiny_tokenizer):
    """Different lengths in one batch: the whole way through our engine."""
    prompts = [tokens(n, seed=n).tolist() for n in (2, 11, 5)]
    lm = local_model(pair(name).ours, tiny_tokenizer, name="ours")
    found = lm.generate(prompts, Sampling(max_tokens=12, ignore_eos=True))
    for prompt, completion in zip(prompts, found, strict=True):
        output = pair(name).theirs.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            max_new_tokens=12, min_new_tokens=12, do_sample=False, eos_token_id=None,
            pad_token_id=0,
        )  # fmt: skip
        assert output[0, len(prompt) :].tolist() == list(completion.token_ids)


def starter_file():
    found = sorted((cache_folder() / "starter").glob("*.gguf"))
    if not found:
        pytest.skip("the starter is not in the cache; `lmwright chat` once fetches it")
    return found[0]


PROMPTS = [
    "The capital of France is",
    "def fibonacci(n):\n    ",
    "Dear Sir or Madam,\n\nI am writing to you because",
]


@pytest.mark.slow
@pytest.mark.weights
@torch.no_grad()
def test_the_starter_as_transformers_reads_the_same_file(tmp_path):
    import transformers

    file = starter_file()
    oracle = transformers.AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    ).eval()
    lm = load(file, precision="fp32")
    lm.save(tmp_path)
    reopened, info = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, output_loading_info=True, dtype=torch.float32
    )
    assert not any(info.values()), info
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for prompt in PROMPTS:
        ids = lm.tokenizer.encode(prompt)
        assert their_tokenizer(prompt)["input_ids"] == ids
        rows = torch.tensor([ids])
        logits = oracle(rows).logits
        assert largest(modules(lm)(rows), logits) <= LIMIT
        assert largest(reopened(rows).logits, logits) <= LIMIT
        output = oracle.generate(
            rows, attention_mask=torch.ones_like(rows), max_new_tokens=12, do_sample=False
        )
        (mine,) = lm.generate([ids], Sampling(max_tokens=12))
        assert list(mine.token_ids) == output[0, len(ids) :].tolist()


@pytest.mark.weights
def test_the_starter_loads_in_less_than_three_seconds():
    """Transformers needs 16 s; a command line that waits so long is not used."""
    import time

    started = time.perf_counter()
    with open_gguf(starter_file()) as file:
        checkpoint.load_gguf(file, torch.bfloat16)
    assert time.perf_counter() - started < 3
