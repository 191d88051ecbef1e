"""Our Llama and Mistral must compute what transformers computes, from its folders and into them."""

import functools
import json

import pytest
import torch

from lmwright.core.batch import IGNORE, Batch
from lmwright.data.pack import Encoded, pack
from lmwright.engine.request import Sampling
from lmwright.formats.gguf import open_gguf
from lmwright.hub import cache_folder
from lmwright.lm import LocalModel, load
from lmwright.model import checkpoint

transformers = pytest.importorskip("transformers", reason="needs the `dev` extra")

TOLERANCE = {"rtol": 0, "atol": 1e-4}
SIZES = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    # Large weights, so that attention is sharp and a wrong position or mask moves the logits.
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    # So short that all three bands of frequencies occur among eight.
    "original_max_position_embeddings": 32,
}
LINEAR = {"rope_type": "linear", "factor": 3.0, "rope_theta": 5000.0}
# Each is the class, its own settings, and which field of our configuration shows that it came in.
VARIANTS = {
    "untied": ("Llama", {"tie_word_embeddings": False}, "ties_embeddings", False),
    "tied": ("Llama", {"tie_word_embeddings": True}, "ties_embeddings", True),
    "no-groups": ("Llama", {"num_key_value_heads": None}, "n_kv_heads", 4),
    "one-kv-head": ("Llama", {"num_key_value_heads": 1}, "n_kv_heads", 1),
    "llama3-rope": ("Llama", {"rope_parameters": LLAMA3}, "rope.scaling", "llama3"),
    "linear-rope": ("Llama", {"rope_parameters": LINEAR}, "rope.scaling", "linear"),
    "wide-heads": ("Llama", {"head_dim": 24}, "d_head", 24),
    "mistral-window": ("Mistral", {"sliding_window": 5, "head_dim": 16}, "sliding_window", 5),
    "mistral-all": ("Mistral", {"sliding_window": None}, "sliding_window", None),
}


@functools.cache
def theirs(variant):
    kind, settings, *_ = VARIANTS[variant]
    torch.manual_seed(7)
    config = getattr(transformers, f"{kind}Config")(**{**SIZES, **settings})
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:  # norms of ones would hide a norm that is left out
            parameter.data.uniform_(0.5, 1.5)
    return model


@pytest.fixture(params=VARIANTS)
def variant(request):
    return request.param


@pytest.fixture
def ours(variant, tmp_path):
    theirs(variant).save_pretrained(tmp_path / "theirs")
    return checkpoint.load_folder(tmp_path / "theirs", torch.float32)


def tokens(*shape, seed=0):
    return torch.randint(
        3, SIZES["vocab_size"], shape, generator=torch.Generator().manual_seed(seed)
    )


@torch.no_grad()
def expected(variant, ids):
    return theirs(variant)(ids).logits


def test_the_setting_under_test_reached_our_configuration(variant, ours):
    *_, field, value = VARIANTS[variant]
    assert functools.reduce(getattr, field.split("."), ours.config) == value


@torch.no_grad()
def test_logits_of_whole_rows(variant, ours):
    ids = tokens(3, 40)
    torch.testing.assert_close(ours(ids), expected(variant, ids), **TOLERANCE)


@torch.no_grad()
def test_logits_token_by_token_behind_a_cache(variant, ours):
    ids = tokens(1, 24)
    cache, logits = ours.new_cache(), []
    for begin, end in [(0, 9), *((i, i + 1) for i in range(9, 20)), (20, 24)]:
        context = ours.cached_context(torch.arange(begin, end)[None], cache)
        logits.append(ours.head(ours.hidden(ids[:, begin:end], context)))
    torch.testing.assert_close(torch.cat(logits, dim=1), expected(variant, ids), **TOLERANCE)


@torch.no_grad()
def test_logits_of_a_ragged_batch_without_left_padding(variant, ours):
    lengths, n_new = torch.tensor([3, 17, 9]), 8
    rows = tokens(3, 17 + n_new)
    prompt = torch.zeros(3, 17, dtype=torch.int64)
    for row, length in enumerate(lengths):
        prompt[row, :length] = rows[row, :length]
    cache = ours.new_cache()
    context = ours.cached_context(torch.arange(17).expand(3, -1), cache)
    hidden = ours.hidden(prompt, context)
    found = [[hidden[row, length - 1]] for row, length in enumerate(lengths)]
    for step in range(n_new):
        at = lengths + step
        context = ours.cached_context(at[:, None], cache)
        hidden = ours.hidden(rows[torch.arange(3), at][:, None], context)
        for row in range(3):
            found[row].append(hidden[row, 0])
    for row, length in enumerate(lengths):
        alone = expected(variant, rows[row : row + 1, : length + n_new])[0, length - 1 :]
        torch.testing.assert_close(ours.head(torch.stack(found[row])), alone, **TOLERANCE)


@torch.no_grad()
def test_logits_of_packed_samples_are_those_of_each_alone(variant, ours):
    rows = [tokens(n, seed=n) for n in (1, 13, 30, 7)]
    batch = pack([Encoded(str(len(r)), tuple(r.tolist()), (True,) * len(r)) for r in rows])
    packed = ours.head(ours.packed_hidden(batch)).split([len(r) for r in rows])
    for row, logits in zip(rows, packed, strict=True):
        torch.testing.assert_close(logits, expected(variant, row[None])[0], **TOLERANCE)


@torch.no_grad()
def test_transformers_opens_our_folder_with_the_same_logits(variant, ours, tmp_path):
    folder = tmp_path / "ours"
    checkpoint.save(ours, folder, torch.float32)
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, dtype=torch.float32
    )
    assert not any(info.values()), info
    assert type(model) is type(theirs(variant))
    ids = tokens(2, 40)
    torch.testing.assert_close(model(ids).logits, expected(variant, ids), **TOLERANCE)
    assert checkpoint.load_folder(folder, torch.float32).config == ours.config


@torch.no_grad()
def test_a_sharded_folder_is_the_same_model(tmp_path):
    theirs("untied").save_pretrained(tmp_path, max_shard_size="8KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    ids = tokens(1, 20)
    ours = checkpoint.load_folder(tmp_path, torch.float32)
    torch.testing.assert_close(ours(ids), expected("untied", ids), **TOLERANCE)


@torch.no_grad()
def test_the_spelling_before_transformers_5_is_read(tmp_path):
    """Folders on the Hub say rope_theta + rope_scaling, and Llama 3.1's says so too."""
    theirs("llama3-rope").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    scaling = config.pop("rope_parameters")
    config |= {"rope_theta": scaling.pop("rope_theta"), "rope_scaling": scaling}
    path.write_text(json.dumps(config))
    ids = tokens(1, 30)
    ours = checkpoint.load_folder(tmp_path, torch.float32)
    torch.testing.assert_close(ours(ids), expected("llama3-rope", ids), **TOLERANCE)


@pytest.mark.parametrize("variant", ["tied", "mistral-window"], indirect=True)
def test_greedy_generation_is_equal(variant, ours, tiny_tokenizer):
    """Different lengths in one batch: the whole way through our engine."""
    prompts = [tokens(n, seed=n).tolist() for n in (2, 11, 5)]
    lm = LocalModel(ours, tiny_tokenizer, name="ours")
    found = lm.generate(prompts, Sampling(max_tokens=12, ignore_eos=True))
    for prompt, completion in zip(prompts, found, strict=True):
        output = theirs(variant).generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            max_new_tokens=12, min_new_tokens=12, do_sample=False, eos_token_id=None,
        )  # fmt: skip
        assert output[0, len(prompt) :].tolist() == list(completion.token_ids)


@torch.no_grad()
def test_the_loss_is_that_of_transformers(tmp_path):
    from lmwright.training.losses import next_token

    ids = tokens(1, 30)
    labels = ids.clone()
    labels[0, :11] = IGNORE
    targets = torch.cat((labels[0, 1:], torch.tensor([IGNORE])))
    batch = Batch(ids[0], targets, torch.arange(30), torch.zeros(30, dtype=torch.int64))
    theirs("tied").save_pretrained(tmp_path)
    total, count = next_token(checkpoint.load_folder(tmp_path, torch.float32), batch)
    assert count == 19
    loss = theirs("tied")(ids, labels=labels).loss
    torch.testing.assert_close(total / count, loss, rtol=1e-5, atol=0)


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
        torch.testing.assert_close(lm.model(rows), logits, **TOLERANCE)
        torch.testing.assert_close(reopened(rows).logits, logits, **TOLERANCE)
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
